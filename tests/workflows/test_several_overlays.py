"""An anatomy with two or three overlays: each brought onto it on its own, all in one result."""

import json
import shutil

import numpy as np
import pydicom
import pytest
import torch
from drawing.viewed import held
from refusals import refused
from torch import nn

from fusion_nets.clinical import Reason, read_image
from fusion_nets.workflows import find_bundle, fuse_pair, write_page

SHIFTS = {"ct": 1.0, "pet": -2.0}
"""In mm, of registrations that were made before."""


class Maximum(nn.Module):
    """Stands for a network of any number of sources."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image, *args, **kwargs):
        return image.amax(1, keepdim=True) * self.weight


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Options that put it in the place of the bundle's network."""
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(Maximum().state_dict(), weights)
    return {"network_def": Maximum(), "weights": str(weights)}


def shift(name):
    matrix = np.eye(4)
    matrix[0, 3] = SHIFTS[name]
    return matrix.tolist()


@pytest.fixture(scope="module")
def fuse(dicom_study, stand_in):
    def fused(folder, *names, **options):
        overlays = [dicom_study[name] for name in names]
        transform = [shift(name) for name in names]
        given = {"name": "case", "transform": transform, "register": "none", **stand_in, **options}
        return fuse_pair(dicom_study["mri"], overlays, folder, **given)

    return fused


@pytest.fixture(scope="module")
def three(fuse, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    written = fuse(folder, "ct", "pet", output_format=["dicom", "nifti", "png", "html"], save="overlay")
    return folder, written


def record(folder):
    return json.loads((folder / "case_fused.json").read_text())


def test_all_forms_are_there(three):
    folder, written = three
    assert {path.name for path in written} == {path.name for path in folder.iterdir()}
    assert {path.name for path in written} == {
        *("case_fused.nii.gz", "case_fused.json", "case_fused_slices", "case_dicom", "case_montage.png"),
        "case_fused.html",
        *("case_registration.tfm", "case_registration2.tfm", "case_checkerboard.png", "case_checkerboard2.png"),
        *("case_overlay_on_grid.nii.gz", "case_overlay2_on_grid.nii.gz"),
        *("case_overlay_on_grid_dicom", "case_overlay2_on_grid_dicom"),
    }


def test_each_overlay_lies_as_it_does_alone(three, fuse, tmp_path):
    folder, _ = three
    for key, name in (("overlay", "ct"), ("overlay2", "pet")):
        alone = tmp_path / name
        fuse(alone, name, save="overlay")
        on_grid = [read_image(folder / f"case_{key}_on_grid.nii.gz"), read_image(alone / "case_overlay_on_grid.nii.gz")]
        assert torch.equal(*on_grid)
        told, told_alone = record(folder), record(alone)
        known = told_alone["record"]["overlay"]
        assert {part: told["record"][key][part] for part in ("display", "series", "sha256", "units")} == {
            part: known[part] for part in ("display", "series", "sha256", "units")
        }
        assert told["record"][key]["registration"] == told_alone["record"]["registration"]
        number = key.removeprefix("overlay")
        tables = [folder / f"case_registration{number}.tfm", alone / "case_registration.tfm"]
        assert tables[0].read_text() == tables[1].read_text()


def test_the_network_sees_all_sources(dicom_study, fuse, tmp_path):
    """One channel each, the anatomy first; whichever overlay comes first makes no difference to a maximum."""
    seen = []

    class Noting(Maximum):
        def forward(self, image, *args, **kwargs):
            seen.append(image)
            return super().forward(image)

    network = Noting()
    fuse(tmp_path / "a", "ct", "pet", network_def=network, slices_at_once=100)
    fuse(tmp_path / "b", "pet", "ct", network_def=network, slices_at_once=100)
    first, second = seen
    assert first.shape[1] == 3
    assert torch.equal(first, second[:, [0, 2, 1]])
    fused = [read_image(tmp_path / folder / "case_fused.nii.gz") for folder in "ab"]
    assert fused[0].shape == (3, *read_image(dicom_study["mri"]).shape[1:])  # the PET is coloured
    assert torch.equal(*fused)


def test_the_record_lists_the_overlays_and_repeats_the_result(three, fuse, tmp_path):
    folder, _ = three
    told = record(folder)
    assert told["overlay_palette"] == ["none", "ember"]
    assert told["overlay_window"][0] == [0, 80]
    assert told["transform"] == [shift("ct"), shift("pet")]
    assert told["record"]["overlay"]["colour"] == "grey"
    assert (told["record"]["overlay2"]["colour"], told["record"]["overlay2"]["modality"]) == ("ember", "PT")
    assert told["record"]["engine"]["name"] == "torch"
    fuse(tmp_path, "ct", "pet", transform=None, register=None, settings=folder / "case_fused.json")
    again = record(tmp_path)
    assert {name: value for name, value in again.items() if name != "record"} == {
        name: value for name, value in told.items() if name != "record"
    }
    assert torch.equal(*(read_image(one / "case_fused.nii.gz") for one in (folder, tmp_path)))


def test_settings_of_another_overlay_are_not_taken(three, dicom_study, stand_in, tmp_path, caplog):
    """Of the one that is another, that is; the other keeps its own."""
    folder, _ = three
    overlays = [dicom_study["ct"], dicom_study["ct"]]
    settings = folder / "case_fused.json"
    fuse_pair(dicom_study["mri"], overlays, tmp_path, name="case", settings=settings, register=["none"] * 2, **stand_in)
    told = record(tmp_path)
    assert told["overlay_window"] == [[0, 80], [0, 80]]
    assert "the overlay2 in HU" in caplog.text


def test_dicom_points_at_all_sources(three, dicom_study):
    folder, _ = three
    sources = [pydicom.dcmread(next(dicom_study[name].iterdir())) for name in ("mri", "ct", "pet")]
    objects = [pydicom.dcmread(path) for path in sorted((folder / "case_dicom").iterdir())]
    images = [one for one in objects if one.Modality not in ("REG", "PR")]
    middle = images[len(images) // 2]
    assert {item.SeriesInstanceUID for item in middle.ReferencedSeriesSequence} == {
        source.SeriesInstanceUID for source in sources
    }
    assert "MR fused with CT and PT" in middle.DerivationDescription
    (registration,) = [one for one in objects if one.Modality == "REG"]
    moves = [
        float(item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix[3])
        for item in registration.RegistrationSequence
    ]
    np.testing.assert_allclose(moves, [0, *SHIFTS.values()])  # in LPS, and from the overlay to the anatomy
    (state,) = [one for one in objects if one.Modality == "PR"]
    assert state.BlendingDisplaySequence[0].BlendingMode == "EQUAL"
    assert [item.BlendingInputNumber for item in state.BlendingDisplaySequence[0].BlendingDisplayInputSequence] == [
        1,
        2,
        3,
    ]
    assert {item.ReferencedImageSequence[0].ReferencedSOPInstanceUID for item in state.AdvancedBlendingSequence} <= {
        instance.ReferencedSOPInstanceUID for item in registration.ReferencedSeriesSequence
        for instance in item.ReferencedInstanceSequence
    }  # fmt: skip
    on_grid = [pydicom.dcmread(next(path.iterdir())) for path in folder.glob("*_on_grid_dicom")]
    assert len({one.SeriesNumber for one in on_grid}) == 2
    referred = {one.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID for one in on_grid}
    assert referred == {registration.SOPInstanceUID}


def test_one_page_shows_all(three):
    folder, _ = three
    told, volumes = held((folder / "case_fused.html").read_text(encoding="utf-8"))
    assert [told["images"][key]["choice"] for key in ("overlay", "overlay2")] == ["1 CT", "2 PET"]
    assert told["mixed"] == "1 CT grey, 2 PET ember"
    assert told["projection"] == ["overlay2"]
    assert volumes["overlay"].min() < -900  # the sources' own values, not those scaled for display
    on_grid = read_image(folder / "case_overlay2_on_grid.nii.gz")
    np.testing.assert_allclose(volumes["overlay2"].max(), on_grid.max(), rtol=1e-3)


def test_the_page_is_made_again_of_what_was_fused(three, dicom_study, tmp_path):
    for name in ("case_fused.nii.gz", "case_fused.json"):
        shutil.copy(three[0] / name, tmp_path)
    overlays = [dicom_study["ct"], dicom_study["pet"]]
    page = write_page(tmp_path, dicom_study["mri"], overlays)
    assert page.name == "case_fused.html"
    (told, volumes), (again, others) = (
        held((folder / page.name).read_text(encoding="utf-8")) for folder in (three[0], tmp_path)
    )
    assert again == told
    for key, volume in volumes.items():
        np.testing.assert_allclose(others[key], volume, atol=1 if key == "fused" else 0)
    with pytest.raises(ValueError, match=r"pet: holds no series .* of modality CT"):
        write_page(tmp_path, dicom_study["mri"], overlays[::-1])
    with pytest.raises(ValueError, match=r"'case' was fused of 2 overlays"):
        write_page(tmp_path, dicom_study["mri"], overlays[0])


def test_the_page_names_the_overlay_that_is_warned_of(fuse, tmp_path):
    fuse(tmp_path, "ct", "pet", transform=[shift("ct"), None], output_format=["nifti", "html"])
    told, _ = held((tmp_path / "case_fused.html").read_text(encoding="utf-8"))
    assert told["warnings"] == record(tmp_path)["record"]["warnings"]


def test_a_warning_names_the_overlay(fuse, tmp_path, caplog):
    fuse(tmp_path, "ct", "pet", transform=[shift("ct"), None])
    (warning,) = record(tmp_path)["record"]["warnings"]
    assert warning.startswith("overlay2: FrameOfReferenceUID of anatomy and overlay differ")
    assert "case: overlay2: FrameOfReferenceUID" in caplog.text


def test_regions_are_told_of_each_overlay(dicom_study, fuse, tmp_path):
    import nibabel as nib

    anatomy = read_image(dicom_study["mri"])
    labels = torch.zeros(anatomy.shape[1:], dtype=torch.int16)
    labels[25:30, 30:35, 10:12] = 1
    nib.save(nib.Nifti1Image(labels.numpy(), anatomy.affine.numpy()), tmp_path / "regions.nii.gz")
    fuse(tmp_path / "out", "ct", "pet", regions=tmp_path / "regions.nii.gz")
    (row,) = record(tmp_path / "out")["record"]["regions"]["regions"]
    assert {row[key]["units"] for key in ("anatomy", "overlay", "overlay2")} == {"stored", "HU", "SUV"}
    assert "overlay2_recovery" in (tmp_path / "out" / "case_regions.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"register": ["none", "rigid", "rigid"]}, "register has 3 values for 2 overlays; one for all or one for each"),
        ({"overlay_window": ["brain", "header", [0, 7]]}, "overlay_window has 3 values for 2"),
        ({"overlay_window": ["brain", [0]]}, "overlay_window is .*two finite numbers"),
        ({"overlay_palette": ["hot", 3]}, "overlay_palette is 3"),
        ({"overlay_palette": ["hot", "warm"]}, "palette is 'warm'"),
        ({"overlay_modality": ["CT", "PT", "PT"]}, "'overlay_modality' has 3 values for 2"),
        ({"transform": [shift("ct"), [[1]]]}, "transform is "),
        ({"engine": "openvino"}, "engine is 'openvino'; for several overlays"),
        ({"save": ["overlay2"]}, "save is 'overlay2'; 'overlay' is accepted"),
        ({"overlays": ["a"]}, "overlays is no option"),
    ],
)
def test_what_does_not_go_with_two_overlays(fuse, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        fuse(tmp_path, "ct", "pet", **options)
    assert not list(tmp_path.glob("*fused*"))


@pytest.mark.parametrize(("count", "words"), [(0, "give a datalist"), (4, "1 to 3 images")])
def test_as_many_overlays_as_are_accepted(fuse, tmp_path, count, words):
    with pytest.raises(ValueError, match=words):
        fuse(tmp_path, *["pet"] * count)


def test_settings_of_another_number_of_overlays(three, fuse, tmp_path):
    with pytest.raises(ValueError, match="is of 2 overlays, and 1 are given"):
        fuse(tmp_path, "ct", settings=three[0] / "case_fused.json")


def test_one_value_for_each_where_there_is_one(dicom_study, stand_in, tmp_path):
    with pytest.raises(ValueError, match=r"register is .*a text is accepted"):
        fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, register=["none", "rigid"], **stand_in)


def test_an_overlay_that_cannot_be_used_is_named(dicom_study, stand_in, tmp_path):
    (tmp_path / "none").mkdir()
    with refused(Reason.MISSING, str(tmp_path / "none")):
        fuse_pair(dicom_study["mri"], [dicom_study["ct"], tmp_path / "none"], tmp_path / "out", **stand_in)


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_a_datalist_with_any_number_of_overlays(method, stand_in, tmp_path):
    """By the configuration of the bundle itself."""
    from monai.bundle import ConfigWorkflow

    from fusion_nets.clinical import write_image
    from fusion_nets.workflows.user_values import set_values

    for seed, name in enumerate("abcd"):
        write_image(tmp_path / f"{name}.png", torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(seed)))
    entries = [
        {"anatomy": "a.png", "overlay": ["b.png", "c.png", "d.png"], "name": "four"},
        {"anatomy": "a.png", "overlay": "b.png", "name": "two"},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(entries))
    config = find_bundle(method) / "configs" / "inference.json"
    workflow = ConfigWorkflow(str(config), workflow_type="inference", logging_file=False)
    values = {"datalist": str(tmp_path / "pairs.json"), "output_dir": str(tmp_path / "out"), **stand_in}
    set_values(workflow.parser, values)
    workflow.initialize()
    workflow.run()
    sources = [read_image(tmp_path / f"{name}.png") for name in "abcd"]
    for name, count in (("four", 4), ("two", 2)):
        fused = read_image(tmp_path / "out" / f"{name}_fused.png")
        assert torch.equal(fused.as_tensor(), torch.stack(sources[:count]).amax(0).as_tensor())
