"""Volumes in files, read by the libraries of those forms."""

import nibabel as nib
import numpy as np
import pytest
from judges import affine_of, image_of

from fusion_nets.clinical import write_image
from fusion_nets.clinical.volume_files import note, noted, save_volume

itk = pytest.importorskip("itk", reason="pip install itk-io")

AFFINE = affine_of((1.5, 2.0, 3.25), (10, -20, 30))
RNG = np.random.default_rng(0)
LPS = np.diag([-1.0, -1, 1])


def read(path):
    """(X, Y, Z[, 3]) and the place of every voxel in RAS."""
    if path.suffix in (".nii", ".gz"):
        image = nib.load(path)
        array = np.asanyarray(image.dataobj)
        array = np.stack([array[name] for name in "RGB"], axis=-1) if array.dtype.fields else array
        return array, nib.affines.apply_affine(image.affine, np.argwhere(np.ones(image.shape[:3])))
    colour = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    colour.SetFileName(str(path))
    colour.ReadImageInformation()
    image = (
        itk.imread(str(path), itk.RGBPixel[itk.UC]) if colour.GetNumberOfComponents() == 3 else itk.imread(str(path))
    )
    array = itk.array_from_image(image)
    array = array.transpose(2, 1, 0, 3) if array.ndim == 4 else array.T
    places = [
        LPS @ image.TransformIndexToPhysicalPoint([int(n) for n in index]) for index in np.ndindex(array.shape[:3])
    ]
    return array, np.array(places)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, "colour"])
def test_values_and_places_are_kept(tmp_path, ending, kind):
    shape = (3 if kind == "colour" else 1, 4, 3, 2)
    array = (RNG.random(shape) * 250).astype(np.uint8 if kind == "colour" else kind)
    path = tmp_path / f"a{ending}"
    save_volume(path, array, AFFINE, {})
    got, places = read(path)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got if kind == "colour" else got[..., None], np.moveaxis(array, 0, -1))
    wanted = nib.affines.apply_affine(AFFINE, np.argwhere(np.ones(shape[1:])))
    np.testing.assert_allclose(places, wanted, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_same_volume_has_the_same_bytes_and_is_compressed(tmp_path, ending):
    array = np.zeros((1, 40, 40, 40), dtype=np.float32)
    array[0, 10:20] = 1
    for name in ("a", "b"):
        save_volume(tmp_path / f"{name}{ending}", array, AFFINE, {"units": "HU"})
    content = (tmp_path / f"a{ending}").read_bytes()
    assert content == (tmp_path / f"b{ending}").read_bytes()
    assert len(content) < array.nbytes / 10


def test_says_modality_and_units_and_nothing_else(tmp_path):
    meta = {"modality": "CT", "units": "HU", "filename_or_obj": "patient", "frame_of_reference": "1234"}
    array = np.ones((1, 2, 2, 2), dtype=np.int16)
    for ending in (".nii", ".nrrd", ".mha"):
        save_volume(tmp_path / f"a{ending}", array, AFFINE, meta)
        assert b"patient" not in (tmp_path / f"a{ending}").read_bytes()
    line = nib.load(tmp_path / "a.nii").header["descrip"].item().decode()
    assert noted(line) == {"modality": "CT", "units": "HU"}
    for ending in (".nrrd", ".mha"):
        image = itk.imread(str(tmp_path / f"a{ending}"))
        dictionary = image.GetMetaDataDictionary()
        assert (dictionary["modality"], dictionary["units"]) == ("CT", "HU")


def test_notes_of_others_say_nothing():
    assert noted("TE=3.7;Time=120000.000;phase=1") == {}
    assert noted("FSL5.0 units=HU") == {"units": "HU"}
    assert noted(note({})) == {}


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fused_image(tmp_path, ending, channels):
    levels = RNG.integers(0, 256, (channels, 5, 4, 3))
    got, _ = read(write_image(tmp_path / f"a{ending}", image_of(levels.astype(np.float32) / 255, AFFINE)))
    wanted = np.moveaxis(levels, 0, -1)
    assert got.dtype == (np.float32 if channels == 1 else np.uint8)
    np.testing.assert_allclose(got[..., None] * 255 if channels == 1 else got, wanted, atol=1e-4)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_single_slice_keeps_its_place(tmp_path, ending):
    image = image_of(RNG.random((1, 5, 4), dtype=np.float32), AFFINE)
    got, places = read(write_image(tmp_path / f"a{ending}", image))
    np.testing.assert_array_equal(got[..., 0], image[0])
    np.testing.assert_allclose(places, nib.affines.apply_affine(AFFINE, np.argwhere(np.ones((5, 4, 1)))), atol=1e-6)
