import gzip
import struct
import warnings
import zlib
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from packaging.version import Version
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from refusals import refused

from fusion_nets.clinical import Reason, read_image, write_image

GREY = (np.arange(120, dtype=np.uint8) * 2).reshape(12, 10)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
NOISE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
VOLUME = np.random.default_rng(0).normal(40, 100, (6, 7, 5)).astype(np.float32)
COLOURS = np.random.default_rng(1).integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
OBLIQUE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))
RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RGBA32 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])


def picture(path, values, mode=None, **how):
    """Write a picture; ``mode`` is what it is converted to first."""
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path, **how)
    return path


def nifti(path, values, affine=OBLIQUE, kind=nib.Nifti1Image):
    nib.save(kind(values, affine), path)
    return path


def structured(values, kind=RGB24):
    """Colours on the last axis as the fields of NIfTI's RGB24 or RGBA32."""
    fields = np.zeros(values.shape[:-1], dtype=kind)
    for channel, name in enumerate(kind.names):
        fields[name] = values[..., channel]
    return fields


def assert_read(path, expected, white=None):
    image = read_image(path)
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    assert image.shape == expected.shape
    np.testing.assert_array_equal(image.numpy(), expected)
    assert image.meta.get("white") == white
    assert image.meta["filename_or_obj"] == str(path)
    return image


def assert_refused(path, reason, *names):
    with refused(reason, *names) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# pictures


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.bmp", "A.PNG"])
def test_grey_picture(tmp_path, name):
    image = assert_read(picture(tmp_path / name, GREY), GREY[None], white=255)
    assert nib.aff2axcodes(image.affine) == ("P", "L", "S")  # a radiologist's view of an axial slice


@pytest.mark.parametrize(("name", "order"), [("a.png", "<"), ("a.tif", "<"), ("a.tif", ">")])
def test_grey_picture_of_16_bit(tmp_path, name, order):
    deep = GREY.astype(f"{order}u2") * 257 + 1
    assert_read(picture(tmp_path / name, deep), deep[None], white=65535)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_coloured_picture(tmp_path, name):
    assert_read(picture(tmp_path / name, COLOUR), np.moveaxis(COLOUR, -1, 0), white=255)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_three_equal_channels_are_grey(tmp_path, name):
    assert_read(picture(tmp_path / name, GREY, mode="RGB"), GREY[None], white=255)


@pytest.mark.parametrize(("values", "expected"), [(GREY, GREY[None]), (COLOUR, np.moveaxis(COLOUR, -1, 0))])
def test_jpeg(tmp_path, values, expected):
    smooth = np.asarray(Image.fromarray(values).resize((80, 96), Image.Resampling.BICUBIC))
    image = read_image(picture(tmp_path / "a.jpg", smooth, quality=95, subsampling=0))
    assert image.shape == (expected.shape[0], 96, 80)
    assert image.meta["white"] == 255
    np.testing.assert_allclose(image.numpy(), np.atleast_3d(smooth).transpose(2, 0, 1), atol=12)


def test_palette_is_looked_up(tmp_path):
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    indices = Image.fromarray(GREY)
    indices.putpalette(palette.tobytes())
    assert indices.mode == "P"
    indices.save(tmp_path / "a.png")
    assert_read(tmp_path / "a.png", np.moveaxis(palette[GREY], -1, 0), white=255)


def test_grey_palette_is_grey(tmp_path):
    indices = Image.fromarray(GREY)
    indices.putpalette(np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3).tobytes())
    indices.save(tmp_path / "a.png")
    assert_read(tmp_path / "a.png", 255 - GREY[None], white=255)


@pytest.mark.parametrize(("mode", "expected"), [("LA", GREY[None]), ("RGBA", np.moveaxis(COLOUR, -1, 0))])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_transparent_is_black(tmp_path, name, mode, expected):
    """Under full transparency lies what an editor left there, often white, and no viewer shows it."""
    image = Image.fromarray(GREY if mode == "LA" else COLOUR).convert(mode)
    opacity = np.full(GREY.shape, 255, dtype=np.uint8)
    opacity[:2], opacity[2:4] = 0, 51
    image.putalpha(Image.fromarray(opacity))
    assert image.mode == mode
    image.save(tmp_path / name)
    shown = read_image(tmp_path / name).numpy()
    assert shown.shape == expected.shape
    assert (shown[:, :2] == 0).all()
    np.testing.assert_allclose(shown[:, 2:4], expected[:, 2:4] * 0.2, atol=1)
    np.testing.assert_array_equal(shown[:, 4:], expected[:, 4:])


def test_transparent_colours_of_a_palette_are_black(tmp_path):
    indices = Image.fromarray(GREY).convert("P")
    indices.save(tmp_path / "a.png", transparency=bytes([255] * 100 + [0] * 156))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_read(tmp_path / "a.png", np.where(GREY < 100, GREY, 0)[None], white=255)


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE)
    image.save(tmp_path / "a.png")
    assert_read(tmp_path / "a.png", np.where(GREY > 127, 255, 0)[None], white=255)


# NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_volume(tmp_path, name, kind):
    path = nifti(tmp_path / name, VOLUME, kind=kind)
    image = assert_read(path, VOLUME[None])
    np.testing.assert_array_equal(image.affine, nib.load(path).affine)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize(
    "values", [VOLUME[..., 0], VOLUME[..., :1], VOLUME[..., :1, None]], ids=["2-D", "one slice", "one time"]
)
def test_slice(tmp_path, values):
    image = assert_read(nifti(tmp_path / "a.nii", values), VOLUME[None, ..., 0])
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_trailing_axes_of_one_are_dropped(tmp_path):
    assert_read(nifti(tmp_path / "a.nii", VOLUME[..., None, None]), VOLUME[None])


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f8"])
def test_stored_numbers(tmp_path, dtype):
    values = (VOLUME.clip(0) if dtype == "u1" else VOLUME).astype(dtype)
    assert_read(nifti(tmp_path / "a.nii.gz", values), values[None].astype(np.float32))


def test_slope_and_intercept_are_applied(tmp_path):
    stored = np.arange(-60, 60, dtype=np.int16).reshape(6, 5, 4)
    image = nib.Nifti1Image(stored, OBLIQUE)
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").dataobj.get_unscaled(), stored)
    assert_read(tmp_path / "a.nii", stored[None] * 0.5 - 10)


@pytest.mark.parametrize("one_slice", [False, True])
@pytest.mark.parametrize("last", [(), (1,), (1, 1)], ids=["3-D", "4-D", "5-D"])
@pytest.mark.parametrize("kind", [RGB24, RGBA32])
def test_rgb_volume(tmp_path, kind, last, one_slice):
    colours = COLOURS[:, :, :1] if one_slice else COLOURS
    fields = structured(np.concatenate([colours, colours[..., :1]], axis=-1), kind)
    expected = np.moveaxis(colours[:, :, 0] if one_slice else colours, -1, 0)
    image = assert_read(nifti(tmp_path / "a.nii.gz", fields.reshape(*fields.shape, *last)), expected, white=255)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_rgb_slice(tmp_path):
    path = nifti(tmp_path / "a.nii", structured(COLOURS[:, :, 0]))
    assert_read(path, np.moveaxis(COLOURS[:, :, 0], -1, 0), white=255)


def as_vectors(path, colours, shape=(6, 7, 5, 1, 3)):
    """Colours on the axis of vectors, with an intent that says so of others than unsigned whole numbers."""
    image = nib.Nifti1Image(colours.reshape(shape), OBLIQUE)
    if colours.dtype.kind != "u" or len(shape) < 5:
        image.header.set_intent(2003)  # nibabel has no name for an RGB vector
    nib.save(image, path)
    return path


@pytest.mark.parametrize("shape", [(6, 7, 5, 3), (6, 7, 5, 1, 3)])
def test_colours_on_a_trailing_axis(tmp_path, shape):
    path = as_vectors(tmp_path / "a.nii", COLOURS, shape)
    assert_read(path, np.moveaxis(COLOURS, -1, 0), white=255)


@pytest.mark.parametrize("shape", [(6, 7, 1, 3), (6, 7, 1, 1, 3)])
def test_colours_of_a_slice_on_a_trailing_axis(tmp_path, shape):
    path = as_vectors(tmp_path / "a.nii", COLOURS[:, :, 0], shape)
    assert_read(path, np.moveaxis(COLOURS[:, :, 0], -1, 0), white=255)


@pytest.mark.parametrize(
    ("colours", "white"),
    [
        (COLOURS.astype(np.float32), 255),
        (COLOURS.astype(np.float32) / 255, 1),
        (COLOURS.astype(np.uint16) * 257, 65535),
        (COLOURS // 128, 255),
        (COLOURS.astype(np.int16) * 100, 65535),
    ],
)
def test_white_of_colours_on_a_trailing_axis(tmp_path, colours, white):
    assert_read(as_vectors(tmp_path / "a.nii", colours), np.moveaxis(colours, -1, 0), white=white)


def test_white_of_scaled_colours(tmp_path):
    image = nib.Nifti1Image(COLOURS.reshape(6, 7, 5, 1, 3), OBLIQUE)
    image.header.set_slope_inter(1 / 255, 0)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").dataobj.get_unscaled()[:, :, :, 0], COLOURS)
    image = read_image(tmp_path / "a.nii")
    assert image.meta["white"] == 1
    np.testing.assert_allclose(image.numpy(), np.moveaxis(COLOURS / 255, -1, 0), atol=1e-6)


def test_three_equal_colours_of_a_volume_are_grey(tmp_path):
    grey = np.repeat(COLOURS[..., :1], 3, axis=-1)
    assert_read(nifti(tmp_path / "a.nii", structured(grey)), COLOURS[None, ..., 0], white=255)


# refused


def test_missing_file(tmp_path):
    assert_refused(tmp_path / "absent.png", Reason.MISSING)
    assert_refused(tmp_path / "absent.nii.gz", Reason.MISSING)


def test_name_that_no_file_can_have(tmp_path):
    assert_refused(tmp_path / f"{'a' * 5000}.png", Reason.MISSING)


def test_folder(tmp_path):
    (tmp_path / "a.png").mkdir()
    assert_refused(tmp_path / "a.png", Reason.MISSING)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.gz", "png"])
def test_unknown_ending(tmp_path, name):
    (tmp_path / name).write_bytes(b"GIF89a")
    assert_refused(tmp_path / name, Reason.KIND, ".png", ".nii.gz", ".nrrd", "DICOM")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"PATIENT: DOE^JANE\n" * 50], ids=["empty", "text"])
def test_file_of_another_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = assert_refused(tmp_path / name, Reason.DAMAGED, "NIfTI" if ".nii" in name else "PNG")
    assert "DOE" not in message


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_truncated_picture(tmp_path, name, share):
    path = picture(tmp_path / name, NOISE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_refused(path, Reason.DAMAGED)


def test_truncated_picture_does_not_give_away_its_text(tmp_path):
    text = PngInfo()
    text.add_text("PatientName", "DOE^JANE")
    path = picture(tmp_path / "a.png", NOISE, pnginfo=text)
    path.write_bytes(path.read_bytes()[:-100])
    assert b"DOE^JANE" in path.read_bytes()
    assert "DOE" not in assert_refused(path, Reason.DAMAGED)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_truncated_volume(tmp_path, name, share):
    image = nib.Nifti1Image(np.random.default_rng(4).random((16, 16, 16)), OBLIQUE)
    image.header["descrip"] = b"DOE^JANE"
    nib.save(image, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    assert "DOE" not in assert_refused(tmp_path / name, Reason.DAMAGED)


def test_volume_whose_compression_is_whole_but_not_its_content(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", VOLUME)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    assert_refused(path, Reason.DAMAGED)


def test_other_nibabel_format_of_that_ending(tmp_path):
    brain = nib.cifti2.BrainModelAxis.from_mask(np.ones((3, 3, 3)), affine=np.eye(4))
    scalars = nib.cifti2.ScalarAxis(["one", "two"])
    path = tmp_path / "a.dscalar.nii"
    nib.save(nib.Cifti2Image(np.random.default_rng(5).random((2, 27), dtype=np.float32), (scalars, brain)), path)
    assert_refused(path, Reason.DAMAGED, "Cifti2Image")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    values = VOLUME.copy()
    values[2, 3, 1] = value
    assert_refused(nifti(tmp_path / "a.nii.gz", values), Reason.NOT_FINITE)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image(tmp_path, value):
    assert_refused(picture(tmp_path / "a.png", np.full((12, 10), value, np.uint8)), Reason.EMPTY, str(value))
    assert_refused(nifti(tmp_path / "a.nii", np.full((6, 7, 5), value, np.int16)), Reason.EMPTY, str(value))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr", "I", "F"])
def test_other_colour_models(tmp_path, mode):
    source = Image.fromarray(GREY if mode in "IF" else COLOUR)
    if mode == "LAB":
        source = Image.frombytes("LAB", source.size, source.tobytes())
    source.convert(mode).save(tmp_path / "a.tif")
    # of YCbCr in TIFF, Pillow before 13 says no more than that it cannot read it
    unreadable = mode == "YCbCr" and Version(version("pillow")) < Version("13")
    assert_refused(tmp_path / "a.tif", *([Reason.DAMAGED] if unreadable else [Reason.KIND, mode]))


def test_cmyk_jpeg(tmp_path):
    assert_refused(picture(tmp_path / "a.jpg", COLOUR, mode="CMYK"), Reason.KIND, "CMYK")


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_several_pictures_in_one_file(tmp_path, name):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    assert_refused(tmp_path / name, Reason.AMBIGUOUS, "2")
    np.testing.assert_array_equal(read_image(tmp_path / name, volume=2)[0], 255 - GREY)


@pytest.mark.parametrize("last", [(2,), (4,), (1, 3, 2), (2, 1, 3), (1, 4)])
def test_time_series(tmp_path, last):
    path = nifti(tmp_path / "a.nii.gz", np.random.default_rng(6).random((6, 7, 5, *last), dtype=np.float32))
    assert_refused(path, Reason.AMBIGUOUS, f"{np.prod(last)} volumes")


@pytest.mark.parametrize("units", ["unknown", "sec", "hz"])
@pytest.mark.parametrize("kind", ["u1", "i2", "f4"])
def test_time_series_of_three(tmp_path, units, kind):
    """It has the shape of a coloured volume, and need not say in its header that it is none."""
    image = nib.Nifti1Image(COLOURS.astype(kind), OBLIQUE)
    image.header.set_xyzt_units("mm", units)
    nib.save(image, tmp_path / "a.nii")
    assert_refused(tmp_path / "a.nii", Reason.AMBIGUOUS, "3 volumes")


def test_rgb_time_series(tmp_path):
    fields = np.stack([structured(COLOURS)] * 4, axis=-1)
    assert_refused(nifti(tmp_path / "a.nii", fields), Reason.AMBIGUOUS, "4 volumes")


def test_vectors_are_no_colours(tmp_path):
    vectors = np.random.default_rng(7).normal(0, 1, (6, 7, 5, 3)).clip(-2.5, 2.5)
    assert_refused(as_vectors(tmp_path / "a.nii", vectors), Reason.VALUES, "-2.5 to 2.5")
    for values in (vectors, np.abs(vectors)):
        for last in ((3,), (1, 3)):
            path = nifti(tmp_path / "b.nii", values.astype(np.float32).reshape(6, 7, 5, *last))
            assert_refused(path, Reason.AMBIGUOUS, "3 volumes")


def test_complex_values(tmp_path):
    assert_refused(nifti(tmp_path / "a.nii", VOLUME.astype(np.complex64)), Reason.KIND)


@pytest.mark.parametrize("shape", [(7,), (6, 1), (1, 7, 5), (6, 1, 5), (0, 7, 5), (6, 7, 0), (6, 7, 5, 0)])
def test_no_area(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    reason = Reason.TOO_SMALL if len(shape) in (2, 3) else Reason.SHAPE
    assert_refused(nifti(tmp_path / "a.nii", values), reason)


@pytest.mark.parametrize("entry", [0, np.nan])
def test_affine_that_does_not_say_where_voxels_lie(tmp_path, entry):
    image = nib.Nifti1Image(VOLUME, np.diag([2.0, 2, 2, 1]))
    image.header.set_sform(np.diag([2.0, entry, 2, 1]), code=1)
    with open(tmp_path / "a.nii", "wb") as file:  # nibabel itself would write a better header
        header = image.header
        header["vox_offset"] = 352
        file.write(header.binaryblock + bytes(4) + VOLUME.tobytes(order="F"))
    assert_refused(tmp_path / "a.nii", Reason.GEOMETRY, "affine")


def png_of_size(path, width, height):
    """A PNG that claims a size and holds a single row of zeros."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("size", [(0, 0), (0, 10), (10, 0)])
def test_picture_of_no_size(tmp_path, size):
    assert_refused(png_of_size(tmp_path / "a.png", *size), Reason.DAMAGED)


def test_decompression_bomb(tmp_path):
    assert_refused(png_of_size(tmp_path / "a.png", 40000, 40000), Reason.DAMAGED, "DecompressionBomb")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volume_that_claims_to_be_gigantic(tmp_path, name):
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header["vox_offset"] = 352
    content = header.binaryblock + bytes(1000)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert_refused(tmp_path / name, Reason.TOO_LARGE, "(2000, 2000, 2000)")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.nii.gz", "a.nrrd", "a.mha"])
def test_a_series_of_what_has_none_is_refused(tmp_path, name):
    write_image(tmp_path / name, torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0)))
    assert read_image(tmp_path / name, "").shape == (1, 8, 9)
    with refused(Reason.KIND, f"{name}: is no DICOM, of which alone a series_uid is accepted"):
        read_image(tmp_path / name, "1.2.3")
