"""Words of pixels: windows, tables, bits and encodings that are not what is usual."""

import copy

import numpy as np
import pydicom
import pytest
from dicom_phantoms import instances, save
from pydicom import uid
from refusals import refused
from test_dicom_pixels import RNG, SHAPE, by_dcmtk, capture, read

from fusion_nets.clinical import Reason


def test_modality_table(tmp_path):
    """In place of a slope (PS3.3 C.11.1)."""
    series = instances("CT", shape=SHAPE)
    expected = read(save(tmp_path / "plain", series)).numpy()
    lowest = int(min(instance.pixel_array.min() for instance in series))
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    for instance in series:
        values = instance.pixel_array
        instance.PixelRepresentation, instance.PixelData = 0, (values - lowest).astype("<u2").tobytes()
        del instance.RescaleSlope, instance.RescaleIntercept, instance.RescaleType
        table.LUTData = (np.arange(4096) * 2).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        instance.ModalityLUTSequence = [copy.deepcopy(table)]
    image = read(save(tmp_path / "table", series))
    assert image.meta["units"] == "HU"
    np.testing.assert_array_equal(image, (expected - lowest) * 2)


def wide_capture(window, bits=16, **attributes):
    pixels = RNG.integers(0, 4096, (48, 40)).astype("<u2")
    told = {"WindowCenter": window[0], "WindowWidth": window[1]} if window else {}
    return pixels, capture(pixels, "MONOCHROME2", BitsStored=bits, HighBit=bits - 1, **told, **attributes)


def test_window_of_a_wide_secondary_capture_says_what_is_white(tmp_path):
    pixels, instance = wide_capture((2048, 4096))
    image = read(save(tmp_path, [instance]))
    assert image.meta["units"] == "grey"
    np.testing.assert_allclose(image[0] / image.meta["white"], pixels.T / 4095, atol=1e-4)


def test_inverted_window(tmp_path):
    pixels, instance = wide_capture((1000, 501), PhotometricInterpretation="MONOCHROME1")
    image = read(save(tmp_path, [instance]))
    np.testing.assert_allclose(image[0] / image.meta["white"], 1 - ((pixels.T - 749.5) / 500).clip(0, 1), atol=1e-3)


def test_wide_secondary_capture_that_does_not_say_what_is_white(tmp_path, caplog):
    pixels, instance = wide_capture(None)
    image = read(save(tmp_path, [instance]))
    assert (image.meta["units"], "white" in image.meta) == ("stored", False)
    assert "no window" in caplog.text
    np.testing.assert_array_equal(image[0], pixels.T)
    twelve = read(save(tmp_path / "12", [wide_capture(None, bits=12)[1]]))
    assert twelve.meta["white"] == 4095


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_bits_that_are_no_pixels(tmp_path, signed, high):
    """Values in any bits of their words, with an overlay or anything else in the others (PS3.5 section 8.1.1)."""
    values = RNG.integers(-2048 if signed else 0, 2048 if signed else 4096, (48, 40))
    words = (values & 0xFFF) << (high - 11)
    others = RNG.integers(0, 2**16, values.shape) & ~(0xFFF << (high - 11))
    series = instances("MR", shape=(40, 48, 1))
    (instance,) = series
    instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 12, high, signed
    instance.add_new(0x60000102, "US", 12)
    instance.PixelData = (words | others).astype("<u2").tobytes()
    np.testing.assert_array_equal(read(save(tmp_path, series))[0], values.T)


def test_values_beyond_their_bits_are_told(tmp_path, caplog):
    (instance,) = instances("MR", shape=(40, 48, 1))
    instance.BitsStored, instance.HighBit = 8, 7
    read(save(tmp_path, [instance]))
    assert "more bits than BitsStored" in caplog.text


@pytest.mark.parametrize("high", [3, 20])
def test_high_bit_that_cannot_be(tmp_path, high):
    (instance,) = instances("MR", shape=(40, 48, 1))
    instance.BitsStored, instance.HighBit = 12, high
    with refused(Reason.DAMAGED, "HighBit"):
        read(save(tmp_path, [instance]))


def test_jpeg_of_12_bit(tmp_path):
    rows, columns = np.mgrid[0:48, 0:40]
    smooth = (2000 + 1500 * np.sin(rows / 9) * np.cos(columns / 7)).astype("<u2")
    (instance,) = instances("MR", shape=(40, 48, 1))
    instance.BitsStored, instance.HighBit, instance.PixelData = 12, 11, smooth.tobytes()
    by_dcmtk("dcmcjpeg", "+ee", "+q", "98")(save(tmp_path / "plain", [instance]), tmp_path / "packed")
    (file,) = (tmp_path / "packed").iterdir()
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID == uid.JPEGExtended12Bit
    by_dcmtk("dcmdjpeg")(tmp_path / "packed", tmp_path / "unpacked")
    expected = pydicom.dcmread(next((tmp_path / "unpacked").iterdir())).pixel_array
    np.testing.assert_array_equal(read(tmp_path / "packed")[0], expected.T)


@pytest.mark.parametrize("preamble", [True, False])
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_without_meta_information(tmp_path, syntax, preamble):
    series = instances("CT", shape=SHAPE)
    expected = read(save(tmp_path / "whole", series))
    (tmp_path / "bare").mkdir()
    implicit = syntax == uid.ImplicitVRLittleEndian
    for number, instance in enumerate(series):
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
        bare = pydicom.Dataset(instance)
        pydicom.filewriter.write_dataset(buffer, bare)
        start = bytes(128) + b"DICM" if preamble else b""
        (tmp_path / "bare" / f"{number}").write_bytes(start + buffer.getvalue())
    image = read(tmp_path / "bare")
    np.testing.assert_array_equal(image, expected)
    assert image.meta["units"] == "HU"


def test_compressed_without_meta_information(tmp_path):
    source = save(tmp_path / "plain", instances("CT", shape=SHAPE)[:1])
    by_dcmtk("dcmcrle")(source, tmp_path / "packed")
    (file,) = (tmp_path / "packed").iterdir()
    content = file.read_bytes()
    meta = 144 + int.from_bytes(content[140:144], "little")
    file.write_bytes(content[meta:])
    with refused(Reason.INCOMPLETE, "TransferSyntaxUID"):
        read(tmp_path / "packed")
