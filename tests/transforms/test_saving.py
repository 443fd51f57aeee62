import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, read_image, write_image
from fusion_nets.transforms import SaveFused, SaveFusedd, saving

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))


def fused(*shape, source="a.nii.gz"):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": source})


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("source", "shape", "ending"),
    [
        ("x/a.png", (1, 9, 7), ".png"),
        ("x/A.JPG", (3, 9, 7), ".png"),
        ("x/a.nii.gz", (1, 9, 7, 5), ".nii.gz"),
        ("x/a.nii", (3, 9, 7, 5), ".nii.gz"),
        ("x/a.nii", (1, 9, 7), ".nii.gz"),
    ],
)
def test_form_is_that_of_the_source(tmp_path, source, shape, ending):
    image = fused(*shape, source=source)
    SaveFusedd(output_dir=tmp_path / "out")({"fused": image, "name": "case.1"})
    assert written(tmp_path) == [f"out/case.1_fused{ending}"]
    expected = write_image(tmp_path / f"expected{ending}", image)
    assert (tmp_path / "out" / f"case.1_fused{ending}").read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("ending", [".tif", ".png", ".PNG", ".nii", ".nii.gz"])
@pytest.mark.parametrize("source", ["a.png", "a.nii"])
def test_form_that_is_asked_for(tmp_path, source, ending):
    SaveFusedd(output_dir=str(tmp_path), output_format=ending)({"fused": fused(1, 9, 7, source=source), "name": "case"})
    assert written(tmp_path) == [f"case_fused{ending}"]
    assert read_image(tmp_path / f"case_fused{ending}").numel() == 63


@pytest.mark.parametrize("ending", [".jpg", "jpeg", "nii.gz", ".mhd", "_x.png"])
def test_unknown_form_is_told_before_anything_is_fused(ending):
    with pytest.raises(ValueError, match="output_format is '"):
        SaveFusedd(output_format=ending)


def test_volume_as_picture(tmp_path):
    with pytest.raises(ValueError, match=r"case_fused\.tif"):
        SaveFusedd(output_dir=tmp_path, output_format=".tif")({"fused": fused(1, 9, 7, 5), "name": "case"})
    assert written(tmp_path) == []


def test_several_forms_and_the_record(tmp_path):
    image = fused(1, 40, 36, 5)
    sources = {"anatomy": image, "overlay": image}
    record = {"anatomy_window": [0, 1], "record": {"anatomy": {"modality": "MR"}, "overlay": {"modality": "CT"}}}
    data = {"fused": image, "name": "case", **sources, "record": json.dumps(record)}
    SaveFusedd(output_dir=tmp_path, output_format=["nifti", "mha", "png"])(data)
    slices = [f"case_fused_slices/{number:04d}.png" for number in range(1, 6)]
    assert written(tmp_path) == [
        "case_fused.json",
        "case_fused.mha",
        "case_fused.nii.gz",
        *slices,
        "case_montage.png",
    ]
    assert json.loads((tmp_path / "case_fused.json").read_text()) == record


def test_what_a_killed_run_left_is_removed(tmp_path):
    import subprocess
    import sys

    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from fusion_nets.files import whole_file\n"
            "with whole_file(sys.argv[1]) as p: p.touch(); os._exit(1)",
            str(tmp_path / "a.nii"),
        ]
    )
    assert dead.returncode == 1
    assert len(written(tmp_path)) == 1
    save = SaveFusedd(output_dir=tmp_path)
    assert len(written(tmp_path)) == 1, "constructing a transform does nothing to a disk"
    save({"fused": fused(1, 9, 7), "name": "case"})
    assert written(tmp_path) == ["case_fused.nii.gz"]


def test_constructing_makes_no_folder(tmp_path):
    SaveFusedd(output_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_image_and_its_name(tmp_path):
    image = fused(1, 40, 36, 5)
    record = {"anatomy_window": [0, 1], "record": {"anatomy": {"modality": "MR"}, "overlay": {"modality": "CT"}}}
    save = SaveFused(tmp_path, ["nifti", "png"])
    names = save(image, "case", {"anatomy": image, "overlay": image}, json.dumps(record), key="pred")
    assert names == ["case_pred.nii.gz", "case_pred_slices", "case_montage.png", "case_pred.json"]
    assert all((tmp_path / name).exists() for name in names)
    with pytest.raises(ValueError, match="case: the anatomy is no DICOM series"):
        SaveFused(tmp_path, "dicom")(image, "case", {"anatomy": image, "overlay": image})


def test_colour_and_affine(tmp_path):
    image = fused(3, 9, 7, 5)
    SaveFusedd(output_dir=tmp_path)({"fused": image, "name": "case"})
    again = read_image(tmp_path / "case_fused.nii.gz")
    np.testing.assert_array_equal(again.numpy(), np.rint(image.numpy() * 255))
    np.testing.assert_array_equal(again.affine, AFFINE.astype(np.float32))


def test_tensor_without_metadata(tmp_path):
    SaveFusedd(output_dir=tmp_path, output_format=".png")({"fused": torch.rand(1, 9, 7), "name": "case"})
    assert Image.open(tmp_path / "case_fused.png").size == (7, 9)


def test_several_keys_and_another_name(tmp_path):
    data = {"pred": fused(1, 9, 7), "fused": fused(3, 9, 7), "id": "7"}
    saved = SaveFusedd(["pred", "fused"], output_dir=tmp_path, output_format=".png", name_key="id")(data)
    assert written(tmp_path) == ["7_fused.png", "7_pred.png"]
    assert saved == {**data, "saved": ["7_pred.png", "7_fused.png"]}


def test_missing_keys(tmp_path):
    with pytest.raises(KeyError):
        SaveFusedd(output_dir=tmp_path)({"name": "a"})
    assert SaveFusedd(output_dir=tmp_path, allow_missing_keys=True)({"name": "a"}) == {"name": "a"}
    assert written(tmp_path) == []


def test_projections_beside_a_pet_of_a_body(tmp_path):
    image = fused(1, 40, 36, 5)
    record = {"record": {"overlay": {"display": {"window": "body_uptake", "range": [0, 7], "units": "SUV"}}}}
    for region, files in (("body: told", ["a_mip.png", "a_montage.png"]), ("head: told", ["a_montage.png"])):
        overlay = MetaTensor(image.as_tensor(), meta={**image.meta, "units": "SUV", "body_region": region})
        folder = tmp_path / region[:4]
        save = SaveFused(folder, "png")
        save(image, "a", {"anatomy": image, "overlay": overlay}, json.dumps(record))
        assert [name for name in written(folder) if name.startswith("a_m")] == files


def test_single_slice_has_a_montage_and_a_picture_has_none(tmp_path):
    image = fused(1, 40, 36)
    measured = MetaTensor(image.as_tensor(), meta={**image.meta, "units": "HU"})
    assert SaveFused(tmp_path / "a", "png")(image, "a", {"anatomy": measured, "overlay": measured}) == [
        "a_fused.png",
        "a_montage.png",
    ]
    picture = MetaTensor(image.as_tensor(), meta={**image.meta, "units": "grey"})
    assert SaveFused(tmp_path / "b", "png")(image, "b", {"anatomy": picture, "overlay": picture}) == ["b_fused.png"]
    one, other = (Image.open(tmp_path / name) for name in ("a/a_fused.png", "b/b_fused.png"))
    assert np.array_equal(np.asarray(one), np.asarray(other))  # marks are for the picture that is looked at


def test_page_of_what_bends_reads_its_transform(tmp_path, monkeypatch):
    """Which the record does not hold: the file beside the result does, and without it there is no page."""
    from fusion_nets.registration import Registration, Warp, write_transform

    got = {}

    def write_viewer(path, *_, transform, **__):
        got["transform"] = transform
        return path

    monkeypatch.setattr(saving, "write_viewer", write_viewer)
    monkeypatch.setattr(saving, "read_image", lambda *_: fused(1, 40, 36, 5))
    image, record = fused(1, 40, 36, 5), {"record": {"registration": {"mode": "deformable", "bending": {}}}}
    save = SaveFused(tmp_path, "html")
    told = image, "case", {"anatomy": image, "overlay": image}, json.dumps(record)
    with refused(Reason.OUTPUT, "case_registration.tfm", "no such file"):
        save(*told)
    warp = Warp(np.eye(4), np.ones((3, 8, 8, 8)), np.diag([20.0, 20, 20, 1]))
    made = Registration(warp.matrix, "deformable", "deformable", 1.0, 1.1, "", warp=warp)
    write_transform(tmp_path / "case_registration.tfm", made)
    save(*told)
    (read,) = got["transform"]
    np.testing.assert_allclose(read.coefficients, 1)

    # of several overlays, each has its own
    bends, lies = {"registration": record["record"]["registration"]}, {"registration": {"mode": "none"}}
    sources = {"anatomy": image, "overlay": image, "overlay2": image}
    told = image, "case", sources, json.dumps({"record": {"overlay": lies, "overlay2": bends}})
    with refused(Reason.OUTPUT, "case_registration2.tfm", "no such file"):
        save(*told)
    write_transform(tmp_path / "case_registration2.tfm", made)
    save(*told)
    first, second = got["transform"]
    assert first is None
    np.testing.assert_allclose(second.coefficients, 1)
