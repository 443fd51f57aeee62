"""Two series in, all forms out, through the bundles with tiny networks."""

import json
import re
from pathlib import Path
from pickle import UnpicklingError

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.clinical.dicom import pick_series
from fusion_nets.workflows import find_bundle, fuse_pair, kept_network

FORMATS = ["dicom", "nifti", "nrrd", "mha", "png"]


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tiny(request, tmp_path_factory):
    """Options that put a tiny network in the place of the bundle's own."""
    import torch

    from fusion_nets.networks import DMFNet

    shape = {"width": 8, "norm_groups": 4, "head_width": 4, "residual": True}
    torch.manual_seed(0)
    network = DMFNet(**shape)
    network.fusion.head[2].weight.data.mul_(0.01)
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network.state_dict(), weights)
    return {
        "network_def": network,
        "weights": str(weights),
        "slices_at_once": 8,
    }


@pytest.fixture(scope="module")
def fused(dicom_study, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fused")
    written = fuse_pair(dicom_study["mri"], dicom_study["pet"], folder, output_format=FORMATS, name="case", **tiny)
    return folder, written


def test_everything_that_was_asked_for_is_there(fused):
    folder, written = fused
    assert {path.name for path in written} == {
        "case_checkerboard.png",
        "case_dicom",
        "case_fused.json",
        "case_fused.mha",
        "case_fused.nii.gz",
        "case_fused.nrrd",
        "case_fused_slices",
        "case_montage.png",
        "case_registration.tfm",
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    kinds = {pydicom.dcmread(path).Modality for path in (folder / "case_dicom").iterdir()}
    assert kinds == {"MR", "PR", "REG"}


def test_all_forms_hold_one_image_on_the_anatomys_grid(fused, dicom_study):
    folder, _ = fused
    anatomy = read_image(dicom_study["mri"])
    images = [read_image(folder / f"case_fused.{ending}") for ending in ("nii.gz", "nrrd", "mha")]
    images.append(read_image(folder / "case_dicom"))
    for image in images:
        assert image.shape == (3, *anatomy.shape[1:])  # in colour, because the overlay is a PET
        np.testing.assert_allclose(image.affine, anatomy.affine, atol=1e-3)
        np.testing.assert_array_equal(image, images[0])
    pictures = sorted((folder / "case_fused_slices").iterdir())
    assert len(pictures) == anatomy.shape[-1]
    assert Image.open(pictures[0]).mode == "RGB"


def test_the_fused_series_joins_the_anatomys_study(fused, dicom_study):
    folder, _ = fused
    anatomy, result = pick_series(dicom_study["mri"]), pick_series(folder / "case_dicom")
    assert result.study_uid == anatomy.study_uid
    assert result.frame_of_reference_uid == anatomy.frame_of_reference_uid
    assert result.uid != anatomy.uid
    assert "DM-FNet" in result.datasets[0].DerivationDescription


def test_record_repeats_the_result(fused, dicom_study, tiny, tmp_path):
    folder, _ = fused
    record = json.loads((folder / "case_fused.json").read_text())
    assert record["record"]["registration"]["mode"] == "rigid"
    assert record["record"]["registration"]["after"] > record["record"]["registration"]["before"]
    assert record["record"]["overlay"]["units"] == "SUV"
    assert record["record"]["method"] == "DM-FNet"
    fuse_pair(
        dicom_study["mri"],
        dicom_study["pet"],
        tmp_path,
        output_format=["dicom", "nifti"],
        name="case",
        settings=folder / "case_fused.json",
        **tiny,
    )
    first, again = content(folder), content(tmp_path)
    wanted = [name for name in first if name.startswith("case_dicom") or name.endswith(".nii.gz")]
    # what was found by the images' content is imported from a file now, and is referred to
    others = [
        name for name in wanted if name.endswith(".dcm") and pydicom.dcmread(folder / name).Modality in ("REG", "PR")
    ]
    assert len(others) == 2
    wanted = [name for name in wanted if name not in others]
    assert len(wanted) > 10
    assert [name for name in wanted if again[name] != first[name]] == []


def test_a_replayed_record_advises_nothing(fused, dicom_study, tiny, tmp_path, caplog):
    """Its sources are registered, by the transform that it has."""
    folder, _ = fused
    settings = json.loads((folder / "case_fused.json").read_text())
    assert {len(settings["record"][key]["sha256"]) for key in ("anatomy", "overlay")} == {64}
    fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, settings=folder / "case_fused.json", **tiny)
    assert "advised" not in caplog.text
    assert "not taken" not in caplog.text


def test_registration_finds_the_head(fused):
    from fusion_nets.simulation.sample_scans import HEAD_IN_PET_CT

    folder, _ = fused
    found = np.array(json.loads((folder / "case_fused.json").read_text())["transform"])
    points = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-90, 60) for z in (-30, 70)])
    apart = np.linalg.norm((points @ (found - HEAD_IN_PET_CT).T)[:, :3], axis=1)
    assert apart.max() < 4  # voxels of 4 x 4 x 8 mm and 8 mm; what is reached at usual sizes, the benchmark tells


def test_nifti_in_nifti_out_needs_no_name(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("mri", "pet"):
        nib.save(nib.Nifti1Image(rng.random((40, 36, 3), dtype=np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    written = fuse_pair(tmp_path / "mri.nii.gz", tmp_path / "pet.nii.gz", tmp_path / "out", register="none", **tiny)
    assert [path.name for path in written] == ["mri_fused.json", "mri_fused.nii.gz"]


@pytest.fixture
def lesions(tmp_path):
    """An MRI, a PET with a hot spot that only it shows, and a label image of that."""
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 36, 3), dtype=np.uint8)
    labels[18:23, 15:20] = 4
    files = {"mri": rng.random(labels.shape), "pet": 2 + 0.3 * rng.standard_normal(labels.shape) + 4 * labels / 4}
    for name, values in {**files, "mask": labels}.items():
        nib.save(nib.Nifti1Image(values.astype(labels.dtype if name == "mask" else np.float32), np.eye(4)),
                 tmp_path / f"{name}.nii.gz")  # fmt: skip
    return {name: tmp_path / f"{name}.nii.gz" for name in ("mri", "pet", "mask")}


@pytest.mark.parametrize("window", [[0, 8], [0, 800]])
def test_regions_are_told_of(lesions, tiny, tmp_path, caplog, window):
    """Those of the PET, in a window that shows them, and in one in which they are as good as black."""
    options = {"register": "none", "overlay_modality": "PT", "overlay_window": window, "regions": lesions["mask"]}
    written = fuse_pair(lesions["mri"], lesions["pet"], tmp_path / "out", **options, **tiny)
    assert [path.name for path in written] == ["mri_fused.json", "mri_fused.nii.gz", "mri_regions.csv"]
    (region,) = json.loads(written[0].read_text())["record"]["regions"]["regions"]
    assert (region["region"], region["voxels"]) == (4, 75)
    assert region["overlay"]["contrast"] == pytest.approx(4, abs=0.2)
    assert region["overlay"]["cnr"] > 10 > 1 > region["anatomy"]["cnr"]
    assert region["overlay"]["shown"] == pytest.approx(1, abs=0.1)
    recovery = region["overlay"]["recovery"]
    assert bool(region["warnings"]) == (recovery is None or recovery < 0.25) == (window[1] == 800)
    assert ("mri: region 4: the overlay shows it" in caplog.text) == bool(region["warnings"])
    fused, labels = read_image(written[1]), nib.load(lesions["mask"]).get_fdata() > 0
    luminance = (np.array([0.299, 0.587, 0.114])[:, None, None, None] * fused.numpy()).sum(0) / 255
    assert region["fused"]["mean"] == pytest.approx(luminance[labels].mean(), abs=0.01)


@pytest.mark.parametrize("evaluate", [False, True])
def test_regions_that_are_none_are_refused_by_their_name(lesions, tiny, tmp_path, evaluate):
    with refused(Reason.VALUES, "mri.nii.gz", "whole numbers"):
        fuse_pair(
            lesions["mri"], lesions["pet"], tmp_path / "out", regions=lesions["mri"], evaluate=evaluate,
            register="none", **tiny
        )  # fmt: skip
    assert not list((tmp_path / "out").glob("mri*"))


def test_dicom_needs_a_study_to_join(tiny, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "mri.nii.gz"
    nib.save(nib.Nifti1Image(rng.random((40, 36, 3), dtype=np.float32), np.eye(4)), path)
    for evaluate in (False, True):
        with refused(Reason.OUTPUT, "mri.nii.gz"):
            fuse_pair(path, path, tmp_path / "out", output_format=["dicom"], evaluate=evaluate, **tiny)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"output_format": ["jpeg2000"]}, "output_format is 'jpeg2000'"),
        ({"register": "elastic"}, "register is 'elastic'"),
        ({"anatomy_window": "lung"}, "lung"),
        ({"bundle_root": "nowhere"}, "nowhere"),
        ({"regsiter": "rigid"}, "unknown option 'regsiter', perhaps 'register'"),
        ({"overlay_modalty": "PT"}, "unknown option 'overlay_modalty', perhaps 'overlay_modality'"),
        ({"evaluat": True}, "perhaps 'evaluate'"),
        ({"overlay_palette": {"_target_": "os.system", "command": "true"}}, "overlay_palette: .* is code"),
    ],
)
def test_options_that_cannot_be_used(dicom_study, tiny, tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path / "out", **options, **tiny)
    assert not (tmp_path / "out").exists()


def test_bundles_lie_beside_the_library_or_where_monai_downloads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_bundle("smfusion") == Path(__file__).parents[2] / "bundles" / "smfusion"
    (tmp_path / "hub" / "bundle" / "other" / "configs").mkdir(parents=True)
    assert find_bundle("other") == tmp_path / "hub" / "bundle" / "other"
    with pytest.raises(ValueError, match="another"):
        find_bundle("another")


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_a_kept_network_gives_the_same_and_is_not_loaded_again(method, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("mri", "pet"):
        nib.save(nib.Nifti1Image(rng.random((40, 36, 2), dtype=np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")

    def fuse(folder, **options):
        fuse_pair(tmp_path / "mri.nii.gz", tmp_path / "pet.nii.gz", tmp_path / folder, method=method, **options)
        return (tmp_path / folder / "mri_fused.nii.gz").read_bytes()

    loaded = fuse("loaded")
    kept = kept_network(method)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("weights were loaded again"))
    assert fuse("kept", **kept) == fuse("again", **kept) == loaded


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_the_instant_network_fuses_in_the_others_place(method, tmp_path):
    import torch

    rng = np.random.default_rng(0)
    for name in ("mri", "pet"):
        nib.save(nib.Nifti1Image(rng.random((40, 36, 1), dtype=np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")

    def fuse(folder, **options):
        options = {"method": method, "precision": "float32", "name": "x", **options}
        fuse_pair(tmp_path / "mri.nii.gz", tmp_path / "pet.nii.gz", tmp_path / folder, **options)
        told = json.loads((tmp_path / folder / "x_fused.json").read_text())["record"]
        return (tmp_path / folder / "x_fused.nii.gz").read_bytes(), told

    usual, _ = fuse("usual")
    instant, told = fuse("instant", instant=True)
    assert instant != usual
    assert told["method"].endswith(", instant")
    kept = kept_network(method, instant=True, precision="float32")
    assert fuse("kept", **kept, instant=True)[0] == instant
    network = kept["network_def"]
    fusing = getattr(network, "fusion", network)
    of_a_pair = [value for key, value in fusing.named_parameters() if not key.startswith("attention")]
    assert 1e5 <= sum(value.numel() for value in of_a_pair) <= 3e5
    with torch.no_grad():  # what it says is of its own weights
        for value in fusing.head.parameters():
            value.zero_()
    assert fuse("changed", **kept, instant=True)[0] != instant


def test_a_network_of_no_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bundle_root"):
        kept_network(bundle_root=tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.json").write_text("{}")
    with pytest.raises(ValueError, match=r"instant\.json: no such file; bundle_root"):
        kept_network(bundle_root=tmp_path, instant=True)


def test_texts_may_be_given_with_the_pair(tmp_path):
    """By a network that is sure of nothing, and so finds a little of what is named everywhere."""
    import torch

    from fusion_nets.networks import TextGuidedUNet

    torch.manual_seed(0)
    network = TextGuidedUNet(width=8, levels=2, grounding={"widths": [8, 16], "threshold": 0.0})
    torch.save(network.state_dict(), tmp_path / "model.pt")
    how = {"method": "smfusion", "network_def": network, "weights": str(tmp_path / "model.pt")}
    rng = np.random.default_rng(0)
    for name in ("mri", "pet"):
        nib.save(nib.Nifti1Image(rng.random((40, 36, 2), dtype=np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    results = []
    nothing, something = ("No mass.", "PET."), ("A dark mass.", "A hot lesion.")
    said = [dict(zip(("anatomy_text", "overlay_text"), both, strict=True)) for both in (nothing, something)]
    for number, texts in enumerate(({}, *said)):
        fuse_pair(tmp_path / "mri.nii.gz", tmp_path / "pet.nii.gz", tmp_path / f"{number}", **how, **texts)
        results.append((tmp_path / f"{number}" / "mri_fused.nii.gz").read_bytes())
    assert results[0] == results[1] != results[2]


# strings are data


@pytest.fixture(scope="module")
def described():
    """Options that put a network of SMFusion, loaded once, in the place of the bundle's own."""
    return {"method": "smfusion", **kept_network("smfusion")}


def pictures(folder, size=24):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("mri", "ct")):
        values = np.random.default_rng(number).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{name}.png")
    return folder / "mri.png", folder / "ct.png"


HOSTILE = ("$__import__('pathlib').Path('mark').touch()", "@network_def", "%output_dir", "a#b::c", "{x} %s ${HOME}")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_every_string_is_data(described, tmp_path, monkeypatch, hostile):
    """Names, folders of sources and results, texts: what comes out is what comes of harmless ones."""
    monkeypatch.chdir(tmp_path)
    texts = {"anatomy_text": "A dark mass.", "overlay_text": "A bright one."}
    plain = fuse_pair(*pictures(tmp_path / "in"), tmp_path / "out", **texts, **described)
    folder = Path(hostile.replace("/", ""))
    sources = pictures(folder)
    written = fuse_pair(*sources, folder / "out", name=folder.name, **texts, **described)
    assert [path.name for path in written] == [f"{folder.name}_fused.png"]
    assert written[0].read_bytes() == plain[0].read_bytes()
    texts = {"anatomy_text": hostile, "overlay_text": hostile}
    fuse_pair(*sources, folder / "out", name="text", **texts, **described)
    with refused(Reason.KIND, "mri.png: is no DICOM, of which alone a series_uid is accepted"):
        fuse_pair(*sources, folder / "out", name="series", anatomy_series_uid=hostile, **texts, **described)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", "out", folder.name])


@pytest.mark.parametrize("option", ["overlay_palette", "register", "transform", "anatomy_window", "regions"])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_options_that_mean_nothing_are_refused_as_they_are(described, tmp_path, monkeypatch, option, hostile):
    monkeypatch.chdir(tmp_path)
    sources = pictures(tmp_path / "in")
    with pytest.raises(ValueError, match=re.escape(hostile)):
        fuse_pair(*sources, tmp_path / "out", **{option: hostile}, **described)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_file_of_settings_is_data(described, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = pictures(tmp_path / "in")
    for name in ("anatomy_window", "overlay_window", "overlay_palette", "register"):
        (tmp_path / "a.json").write_text(json.dumps({name: HOSTILE[0], "record": {}}))
        with pytest.raises(ValueError, match="Path") as refusal:
            fuse_pair(*sources, tmp_path / "out", settings=tmp_path / "a.json", **described)
        assert HOSTILE[0] in str(refusal.value)
    (tmp_path / "a.json").write_text(json.dumps({"transform": HOSTILE[0], "record": {}}))
    fuse_pair(*sources, tmp_path / "in", settings=tmp_path / "a.json", **described)  # it is of no known sources
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "in"]


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", 300 * "n"])
def test_a_name_that_no_file_can_have_is_refused(described, tmp_path, name):
    with refused(Reason.OUTPUT, "the name "):
        fuse_pair(*pictures(tmp_path / "in"), tmp_path / "out", name=name, **described)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_results_are_those_of_this_pair_alone(described, tmp_path):
    sources, out = pictures(tmp_path / "in", 64), tmp_path / "out"
    for name in ("case1_b", "case1_fused", "case1"):
        written = fuse_pair(*sources, out, name=name, evaluate=True, **described)
        assert [path.name for path in written] == [f"{name}_description.json", f"{name}_fused.png"]


@pytest.mark.parametrize("source", ["mri", "ct"])
@pytest.mark.parametrize("way", ["itself", "link", "linked folder"])
def test_a_source_is_not_written_over(described, tmp_path, source, way):
    paths = dict(zip(("mri", "ct"), pictures(tmp_path / "in"), strict=True))
    out = tmp_path / "out"
    out.mkdir()
    paths[source] = paths[source].rename(out / "x_fused.png")
    before = paths[source].read_bytes()
    if way == "link":
        (tmp_path / "link.png").symlink_to(paths[source])
        paths[source] = tmp_path / "link.png"
    elif way == "linked folder":
        (tmp_path / "same").symlink_to(out)
        out = tmp_path / "same"
    with refused(Reason.OUTPUT, "'x'", str(paths[source])):
        fuse_pair(paths["mri"], paths["ct"], out, name="x", **described)
    assert (tmp_path / "out" / "x_fused.png").read_bytes() == before
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert fuse_pair(paths["mri"], paths["ct"], out, name="y", **described)  # under another name


def test_a_transform_is_not_written_over(fused, dicom_study, tiny, tmp_path):
    """Somebody's own, in the place of the one that would be written."""
    own = tmp_path / "case_registration.tfm"
    text = (fused[0] / "case_registration.tfm").read_text()
    own.write_text(text.replace("#Insight Transform File V1.0", "#Insight Transform File V1.0\n# by hand"))
    fuse_pair(dicom_study["mri"], dicom_study["pet"], tmp_path, name="case", transform=own, **tiny)
    assert "# by hand" in own.read_text()
    assert (tmp_path / "case_checkerboard.png").exists()


class Marking:
    """Code in a file of weights."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_weights_are_tensors_alone(tmp_path, method):
    import torch

    weights, mark = tmp_path / "model.pt", tmp_path / "mark"
    torch.save({"a": Marking(mark)}, weights)
    sources = pictures(tmp_path / "in", 40)
    with pytest.raises(ValueError, match=r"model\.pt: its weights hold more than tensors"):
        fuse_pair(*sources, tmp_path / "out", method, weights=str(weights))
    with pytest.raises(UnpicklingError):
        load_checkpoint(weights)
    assert not mark.exists()
    assert not list((tmp_path / "out").glob("*.png"))


def load_checkpoint(path):
    """As training does."""
    import torch
    from ignite.engine import Engine
    from monai.handlers import CheckpointLoader

    CheckpointLoader(str(path), {"network": torch.nn.Identity()})(Engine(lambda *_: None))
