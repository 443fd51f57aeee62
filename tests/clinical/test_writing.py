import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from fusion_nets.clinical import read_image, write_image, write_slices

OBLIQUE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12.25, -7, 33))
RNG = np.random.default_rng(0)


def meta_tensor(values, affine=OBLIQUE):
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values)), affine=torch.from_numpy(affine))


def stored(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


# pictures


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.tif", "a.tiff", "a.bmp"])
@pytest.mark.parametrize("offset", [-0.49, 0, 0.49])
def test_rounds_to_the_nearest_of_256_levels(tmp_path, name, offset):
    levels = torch.arange(256.0).reshape(1, 8, 32)
    path = write_image(tmp_path / name, (levels + offset) / 255)
    assert path == tmp_path / name
    with Image.open(path) as picture:
        assert picture.mode == "L"
    np.testing.assert_array_equal(stored(path), levels[0].numpy())


def test_values_beyond_black_and_white_become_those(tmp_path):
    image = torch.tensor([[[-3.0, -0.01, 0.2], [0.6, 1.01, 40.0]]])
    np.testing.assert_array_equal(stored(write_image(tmp_path / "a.png", image)), [[0, 0, 51], [153, 255, 255]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(tmp_path, dtype):
    image = torch.tensor([[[0, 0.25], [0.5, 1]]], dtype=dtype)
    np.testing.assert_array_equal(stored(write_image(tmp_path / "a.png", image)), [[0, 64], [128, 255]])


def test_tensor_without_affine_keeps_rows_and_columns(tmp_path):
    image = torch.from_numpy(RNG.integers(0, 256, (3, 5, 7)))
    np.testing.assert_array_equal(stored(write_image(tmp_path / "a.png", image / 255)), image.movedim(0, -1))


@pytest.mark.parametrize("between", [None, "b.nii.gz"])
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 3)])
def test_picture_comes_back(tmp_path, shape, between):
    values = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png") / 255
    if between:
        image = read_image(write_image(tmp_path / between, image))
        assert image.shape == (1 if values.ndim == 2 else 3, 9, 14)
        image = image / image.meta.get("white", 1)
    np.testing.assert_array_equal(stored(write_image(tmp_path / "c.png", image)), values)


AXIAL, CORONAL, SAGITTAL = (6, 8, 1), (6, 1, 8), (1, 6, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tilt", [0, 20])
@pytest.mark.parametrize(
    ("codes", "shape"),
    [(codes, AXIAL) for codes in ("RAS", "LPS", "LAI", "ARS", "PLI", "RPI")]
    + [(codes, CORONAL) for codes in ("RSA", "LIP", "SRP", "ILA", "RIA")]
    + [(codes, SAGITTAL) for codes in ("ASR", "PIL", "SAL", "IPR", "PSR")],
)
def test_slice_is_shown_as_a_radiologist_looks_at_it(tmp_path, codes, shape, tilt, channels):
    """Whatever the order of its voxels: the patient's right (or front) on the left, front (or head) on top."""
    patient = RNG.integers(0, 256, (*shape, channels), dtype=np.uint8)  # from left, back and feet to right, front, head
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes)))
    angle = np.deg2rad(tilt)
    tilted = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0.2 * tilt / 20, 1]])
    affine = nib.affines.from_matvec(tilted @ np.diag([0.8, 1.1, 5]), (3, -50, 20)) @ inv_ornt_aff(turn, shape)
    voxels = apply_orientation(patient, turn)
    assert voxels.shape[2] == 1
    assert "".join(nib.aff2axcodes(affine)) == codes

    image = meta_tensor(np.moveaxis(voxels[:, :, 0].astype(np.float32) / 255, -1, 0), affine)
    in_plane = patient.squeeze(shape.index(1))
    expected = in_plane[::-1, ::-1].swapaxes(0, 1)
    expected = expected[..., 0] if channels == 1 else expected
    np.testing.assert_array_equal(stored(write_image(tmp_path / "a.png", image)), expected)
    from_file = read_image(write_image(tmp_path / "a.nii", image))
    from_file = from_file / from_file.meta.get("white", 1)
    np.testing.assert_array_equal(stored(write_image(tmp_path / "b.png", from_file)), expected)


# NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(6, 7, 5), (6, 7)])
def test_grey_nifti(tmp_path, name, shape):
    values = RNG.random((1, *shape), dtype=np.float32)
    image = nib.load(write_image(tmp_path / name, meta_tensor(values)))
    assert image.get_data_dtype() == np.float32
    assert image.header.get_slope_inter() in ((1, 0), (None, None))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), values[0])
    np.testing.assert_array_equal(image.affine, OBLIQUE.astype(np.float32))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.header["cal_min"], image.header["cal_max"]) == (0, 1)  # viewers show 0 black and 1 white


@pytest.mark.parametrize("shape", [(6, 7, 5), (6, 7)])
def test_coloured_nifti(tmp_path, shape):
    levels = RNG.integers(0, 256, (3, *shape), dtype=np.uint8)
    path = write_image(tmp_path / "a.nii.gz", meta_tensor(levels.astype(np.float32) / 255))
    image = nib.load(path)
    assert image.header["datatype"] == 128  # RGB24
    fields = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(np.stack([fields[name] for name in "RGB"]), levels)
    np.testing.assert_array_equal(image.affine, OBLIQUE.astype(np.float32))
    again = read_image(path)
    np.testing.assert_array_equal(again.numpy(), levels)
    np.testing.assert_array_equal(again.affine, image.affine)
    assert again.meta["white"] == 255


def test_affine_of_the_source_is_kept_to_the_bit(tmp_path):
    nib.save(nib.Nifti1Image(RNG.random((6, 7, 5), dtype=np.float32), OBLIQUE), tmp_path / "source.nii.gz")
    source = read_image(tmp_path / "source.nii.gz")
    again = read_image(write_image(tmp_path / "a.nii.gz", source))
    np.testing.assert_array_equal(again.numpy(), source.numpy())
    np.testing.assert_array_equal(again.affine, source.affine)


def test_volume_without_affine(tmp_path):
    image = nib.load(write_image(tmp_path / "a.nii", torch.rand(1, 4, 5, 6)))
    np.testing.assert_array_equal(image.affine, np.eye(4))


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii", ".nii.gz"])
def test_same_image_gives_the_same_bytes(tmp_path, ending):
    """Compressed files, too, without the time or the name of writing."""
    image = meta_tensor(RNG.random((1, 6, 7), dtype=np.float32))
    first, second = (write_image(tmp_path / f"{name}{ending}", image).read_bytes() for name in ("a", "another"))
    assert first == second
    if ending == ".nii.gz":
        assert first[4:8] == bytes(4)


# refused


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("a.png", (1, 4, 5, 6), [".nii, .nii.gz"]),
        ("a.tif", (3, 4, 5, 6), [".nii, .nii.gz"]),
        ("a.jpg", (1, 4, 5), [".png", ".nii.gz"]),
        ("a.jpg2", (1, 4, 5, 6), [".png", ".nii.gz"]),
        ("a", (1, 4, 5), [".png"]),
        ("a.png", (2, 4, 5), ["(2, 4, 5)", "(1 | 3, H, W[, D])"]),
        ("a.nii", (4, 4, 5, 6), ["(4, 4, 5, 6)", "(1 | 3, H, W[, D])"]),
        ("a.nii", (1, 4), ["(1, 4)", "(1 | 3, H, W[, D])"]),
        ("a.nii", (1, 4, 5, 6, 7), ["(1, 4, 5, 6, 7)", "(1 | 3, H, W[, D])"]),
        ("a.nii", (), ["()", "(1 | 3, H, W[, D])"]),
    ],
)
def test_refused(tmp_path, name, shape, words):
    with pytest.raises(ValueError, match=re.escape(name)) as refused:
        write_image(tmp_path / "new" / name, torch.rand(shape))
    assert str(refused.value).startswith(f"{tmp_path / 'new' / name}: ")
    assert all(word in str(refused.value) for word in words), refused.value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.nii"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path, name, value):
    image = torch.rand(1, 4, 5)
    image[0, 1, 2] = value
    with pytest.raises(ValueError, match=rf"{name}: .*NaN"):
        write_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_writer_that_fails(tmp_path, monkeypatch, name, old):
    def half(path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("no space left on device")

    path = tmp_path / name
    if old:
        path.write_bytes(old)
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: half(path))
    monkeypatch.setattr(Image.Image, "save", lambda image, path, **options: half(path))
    with pytest.raises(OSError, match="no space left"):
        write_image(path, torch.rand(1, 4, 5))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({name: old} if old else {})


# every slice


@pytest.mark.parametrize("channels", [1, 3])
def test_slices_are_numbered_pictures(tmp_path, channels):
    levels = RNG.integers(0, 256, (channels, 6, 5, 4), dtype=np.uint8)  # from left, back and feet
    written = write_slices(tmp_path / "slices", meta_tensor(levels / 255, np.diag([1.0, 1, 2, 1])))
    assert [path.name for path in written] == ["0001.png", "0002.png", "0003.png", "0004.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slices"]
    for k, path in enumerate(written):
        front_on_top = np.moveaxis(levels[..., k], 0, -1)[::-1, ::-1].transpose(1, 0, 2)
        np.testing.assert_array_equal(np.atleast_3d(stored(path)), front_on_top)


def test_slices_replace_slices_and_nothing_else(tmp_path):
    image = torch.rand(1, 4, 5, 6)
    write_slices(tmp_path / "slices", image)
    assert len(write_slices(tmp_path / "slices", image[..., :2])) == 2
    assert sorted(path.name for path in (tmp_path / "slices").iterdir()) == ["0001.png", "0002.png"]
    Image.new("L", (3, 3)).save(tmp_path / "slices" / "0003.png")
    with pytest.raises(ValueError, match="slices"):
        write_slices(tmp_path / "slices", image)
    assert len(list((tmp_path / "slices").iterdir())) == 3
    assert len(list(tmp_path.iterdir())) == 1
