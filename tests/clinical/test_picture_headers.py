"""What a picture's header says of how it is meant: which value is white, which way is up, what is seen through."""

import struct

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, read_image

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 2**16, (12, 10)).astype("<u2")
GREY = RNG.integers(0, 256, (12, 10), dtype=np.uint8)


def tiff(path, content, bits, white_is_zero, size=(12, 10)):
    """A TIFF of one strip, by hand (TIFF 6.0, section 4): Pillow writes none of these."""
    entries = {256: size[1], 257: size[0], 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 8, 277: 1}
    entries |= {278: size[0], 279: len(content)}
    content += bytes(len(content) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(content))
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    path.write_bytes(head + content + struct.pack("<H", len(entries)) + fields + bytes(4))
    return path


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_white_that_is_zero(tmp_path, bits, white_is_zero):
    values, white = (GREY, 255) if bits == 8 else (WIDE, 65535)
    image = read_image(tiff(tmp_path / "a.tif", values.tobytes(), bits, white_is_zero))
    assert image.meta["white"] == white
    np.testing.assert_array_equal(image[0], white - values if white_is_zero else values)


def test_white_of_12_bit(tmp_path):
    values = RNG.integers(0, 4096, (12, 10))
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    image = read_image(tiff(tmp_path / "a.tif", packed.astype(np.uint8).tobytes(), 12, False))
    assert image.meta["white"] == 4095
    np.testing.assert_array_equal(image[0], values)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_which_way_is_up(tmp_path, name, orientation, turn):
    """By the orientation of EXIF, as any viewer shows it."""
    smooth = np.add.outer(np.arange(24) * 3, np.arange(16) * 5).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth).save(tmp_path / name, exif=exif, **({"compression": "tiff_lzw"} if ".tif" in name else {}))
    image = read_image(tmp_path / name)
    expected = np.rot90(smooth, turn).astype(int)
    assert image.shape[1:] == expected.shape
    assert np.abs(image[0].numpy() - expected).max() <= (4 if name == "a.jpg" else 0)


def test_turned_tiff_that_pillow_reads_wrong(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.tif", exif=exif)
    with refused(Reason.KIND, "Orientation"):
        read_image(tmp_path / "a.tif")


def test_value_that_is_seen_through_is_black(tmp_path):
    values = GREY.copy()
    values[3:6] = 200
    Image.fromarray(values).save(tmp_path / "a.png", transparency=200)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], np.where(values == 200, 0, values))
