"""Sources on the common grid, in their own units, in every form that keeps values."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from fusion_nets import slabs
from fusion_nets.clinical import ImageError, read_image
from fusion_nets.transforms import CommonGrid, RecordChoicesd, SaveFusedd, SaveOnGrid, SaveOnGridd

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.4, 0.1) @ np.diag([2.0, -1.5, 3.0]), (-30.0, 35.0, -20.0)
)


def source(units="HU", modality="CT", shape=(1, 24, 22, 10), affine=OBLIQUE, whole=False, **meta):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 900 - (300 if units == "HU" else 0)
    values = values.round() if whole else values
    return MetaTensor(
        values,
        affine=torch.from_numpy(affine),
        meta={"units": units, "modality": modality, "filename_or_obj": "a.nii", **meta},
    )


def reference():
    turn = nib.eulerangles.euler2mat(-0.1, 0.3, 0.2) @ np.diag([-1.7, 1.9, -3.3])
    return source("stored", "MR", (1, 26, 20, 8), nib.affines.from_matvec(turn, (18.0, -4.0, 12.0)))


@pytest.mark.parametrize("form", [".nii", "nifti", "nrrd", "mha"])
@pytest.mark.parametrize(("units", "modality"), [("HU", "CT"), ("SUV", "PT"), ("Bq/ml", "PT"), ("stored", "NM")])
def test_values_units_and_place_are_kept(tmp_path, form, units, modality):
    anatomy = reference()
    moved = CommonGrid("none", least_overlap=0)(source(units, modality), anatomy)
    told = SaveOnGrid(tmp_path, form)(moved, "case", anatomy)
    (file,) = told["files"]
    assert file.startswith("case_overlay_on_grid.")
    assert told["outside"] == (-1000 if units == "HU" else 0)
    image = read_image(tmp_path / file)
    assert (image.meta["units"], image.meta["modality"]) == (units, modality)
    assert image.dtype == torch.float32
    assert torch.equal(image.as_tensor(), moved.as_tensor())  # not what is shown of it, and not rounded
    np.testing.assert_allclose(image.affine, anatomy.affine, atol=1e-5)


def test_whole_numbers_of_one_grid_are_stored_as_such(tmp_path):
    image = source(whole=True)
    told = SaveOnGrid(tmp_path)(CommonGrid("none")(image, image), "case", image)
    assert told == {"files": ["case_overlay_on_grid.nii.gz"]}  # nothing lies outside
    stored = nib.load(tmp_path / told["files"][0])
    assert stored.get_data_dtype() == np.int16
    np.testing.assert_array_equal(stored.get_fdata(), image[0])


@pytest.mark.parametrize("whole", [True, False])
def test_slab_by_slab_the_same_bytes(tmp_path, whole, monkeypatch):
    image = source(whole=whole)
    first = tmp_path / SaveOnGrid(tmp_path)(image, "whole")["files"][0]
    monkeypatch.setattr(slabs, "LARGE", 2**10)
    monkeypatch.setattr(slabs, "SLAB", 2**10)
    second = tmp_path / SaveOnGrid(tmp_path)(image, "slabs")["files"][0]
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("formats", [None, "png", ["html", ".tif"], ["png", "nifti"]])
def test_forms_that_keep_no_values_are_left_to_the_fused_image(tmp_path, formats):
    assert SaveOnGrid(tmp_path, formats)(source(), "case")["files"] == ["case_overlay_on_grid.nii.gz"]


def test_colours_stay_colours(tmp_path):
    image = source("colour", "OT", (3, 24, 22, 10), white=900)
    told = SaveOnGrid(tmp_path, "nrrd")(image, "case")
    again = read_image(tmp_path / told["files"][0])
    assert again.meta["units"] == "colour"
    np.testing.assert_array_equal(again, np.rint(image / 900 * 255))


def test_dicom_needs_a_study_to_join(tmp_path):
    image = source()
    with pytest.raises(ImageError, match="case: the overlay is not written: the anatomy is no DICOM series"):
        SaveOnGrid(tmp_path, "dicom")(image, "case", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keys", ["fused", "overley", ("overlay", "mask")])
def test_what_is_no_source_is_told_before_anything_is_read(keys):
    with pytest.raises(ValueError, match=r"save is '.*accepted are anatomy and overlay"):
        SaveOnGridd(keys)
    if keys == "overley":
        with pytest.raises(ValueError, match="perhaps 'overlay'"):
            SaveOnGridd(keys)


def test_the_record_and_what_was_saved_tell_of_it(tmp_path):
    anatomy, overlay = reference(), source("SUV", "PT")
    data = {"anatomy": anatomy, "overlay": CommonGrid("none", least_overlap=0)(overlay, anatomy), "name": "case"}
    data = RecordChoicesd()(SaveOnGridd(["overlay", "anatomy", "overlay"], tmp_path, "nifti")(data))
    assert "on_grid" not in data["overlay"].meta  # which MONAI's collation cannot take
    record = json.loads(data["record"])
    assert record["record"]["overlay"]["on_grid"] == {"files": ["case_overlay_on_grid.nii.gz"], "outside": 0.0}
    assert record["record"]["anatomy"]["on_grid"] == {"files": ["case_anatomy_on_grid.nii.gz"]}
    data["fused"] = MetaTensor(torch.rand(1, 26, 20, 8), meta=anatomy.meta)
    saved = SaveFusedd(output_dir=tmp_path)(data)["saved"]
    assert sorted(saved) == sorted(path.name for path in tmp_path.iterdir())
    assert json.loads((tmp_path / "case_fused.json").read_text()) == record


def test_a_picture_keeps_its_levels(tmp_path):
    Image.fromarray(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    told = SaveOnGrid(tmp_path, "png")(CommonGrid("none")(image, image), "case", image)
    again = read_image(tmp_path / told["files"][0])
    np.testing.assert_array_equal(again, image)
    assert again.meta["white"] == image.meta["white"]
