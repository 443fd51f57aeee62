import copy
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_phantoms import instances, save
from pydicom import uid
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.clinical.dicom import pick_series, read_series

SHAPE = (40, 44, 4)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def read(path):
    return read_series(pick_series(path))


def by_dcmtk(program, *options):
    def compress(source, target):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install dcmtk")
        target.mkdir()
        for file in source.iterdir():
            subprocess.run([program, *options, str(file), str(target / file.name)], check=True, capture_output=True)

    return compress


def by_gdcm(syntax):
    gdcm = pytest.importorskip("gdcm")

    def compress(source, target):
        target.mkdir()
        for file in source.iterdir():
            reader = gdcm.ImageReader()
            reader.SetFileName(str(file))
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(target / file.name))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()

    return compress


LOSSLESS = [
    (by_dcmtk("dcmcjpeg", "+e1"), uid.JPEGLosslessSV1),
    (by_dcmtk("dcmcjpeg", "+el"), uid.UID("1.2.840.10008.1.2.4.57")),  # JPEGLossless, which pydicom 2 takes for .70
    (by_dcmtk("dcmcjpls", "+el"), uid.JPEGLSLossless),
    (by_dcmtk("dcmcrle"), uid.RLELossless),
    (by_gdcm("JPEG2000Lossless"), uid.JPEG2000Lossless),
    (by_dcmtk("dcmconv", "+td"), uid.DeflatedExplicitVRLittleEndian),
    (by_dcmtk("dcmconv", "+tb"), uid.ExplicitVRBigEndian),
    (by_dcmtk("dcmconv", "+ti"), uid.ImplicitVRLittleEndian),
]


@pytest.mark.parametrize(("compress", "syntax"), LOSSLESS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_lossless_equals_the_original(tmp_path, compress, syntax, modality):
    """CT is signed, MR is not."""
    source = save(tmp_path / "plain", instances(modality, shape=SHAPE))
    compress(source, tmp_path / "packed")
    assert pydicom.dcmread(next((tmp_path / "packed").iterdir())).file_meta.TransferSyntaxUID == syntax
    image, expected = read(tmp_path / "packed"), read(source)
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(image.affine, expected.affine)


@pytest.mark.parametrize(
    ("compress", "syntax", "most"),
    [
        (by_gdcm("JPEG2000"), uid.JPEG2000, 4),
        (by_dcmtk("dcmcjpls", "+en", "+md", "2"), uid.JPEGLSNearLossless, 2),
        (by_dcmtk("dcmcjpeg", "+eb", "+q", "95"), uid.JPEGBaseline8Bit, 40),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lossy_is_near_the_original(tmp_path, compress, syntax, most):
    source = save(tmp_path / "plain", instances("MR", shape=SHAPE))
    compress(source, tmp_path / "packed")
    packed = [pydicom.dcmread(file) for file in sorted((tmp_path / "packed").iterdir())]
    assert {dataset.file_meta.TransferSyntaxUID for dataset in packed} == {syntax}
    image = read(tmp_path / "packed")
    if syntax == uid.JPEGBaseline8Bit:  # to which dcmcjpeg scales each slice
        assert np.corrcoef(image.numpy().ravel(), read(source).numpy().ravel())[0, 1] > 0.9
    else:
        assert np.abs(image - read(source)).max() <= most


def capture(pixels, photometric, **attributes):
    """One secondary capture of (rows, columns[, 3]) without geometry."""
    instance = copy.deepcopy(instances("CT", shape=(16, 18, 2))[0])
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    instance.Modality = "OT"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(instance, keyword)
    del instance.RescaleIntercept, instance.RescaleType, instance.SliceThickness, instance.SliceLocation
    instance.Rows, instance.Columns = pixels.shape[:2]
    instance.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if instance.SamplesPerPixel == 3:
        instance.PlanarConfiguration = 0
    instance.PhotometricInterpretation = photometric
    instance.BitsAllocated = instance.BitsStored = 8 * pixels.dtype.itemsize
    instance.HighBit, instance.PixelRepresentation = instance.BitsStored - 1, 0
    instance.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(instance, keyword, value)
    return instance


RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (48, 40, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (48, 40), dtype=np.uint8)


def test_colour(tmp_path):
    image = read(save(tmp_path, [capture(COLOUR, "RGB")]))
    np.testing.assert_array_equal(image, COLOUR.transpose(2, 1, 0))
    assert image.meta["units"] == "colour"
    assert image.meta["white"] == 255
    np.testing.assert_array_equal(image.affine, np.diag([-1, -1, 1, 1]))


def test_colour_by_plane(tmp_path):
    planes = capture(COLOUR, "RGB", PlanarConfiguration=1, PixelData=COLOUR.transpose(2, 0, 1).tobytes())
    np.testing.assert_array_equal(read(save(tmp_path, [planes])), COLOUR.transpose(2, 1, 0))


@pytest.mark.parametrize("compress", [by_gdcm("JPEG2000Lossless"), by_dcmtk("dcmcrle"), by_dcmtk("dcmcjpeg", "+e1")])
def test_compressed_colour(tmp_path, compress):
    source = save(tmp_path / "plain", [capture(COLOUR, "RGB")])
    compress(source, tmp_path / "packed")
    np.testing.assert_array_equal(read(tmp_path / "packed"), COLOUR.transpose(2, 1, 0))


def test_jpeg_of_colours(tmp_path):
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0:240:48j, 0:200:40j], 90.0), -1).astype(np.uint8)
    source = save(tmp_path / "plain", [capture(smooth, "RGB")])
    by_dcmtk("dcmcjpeg", "+eb", "+q", "95")(source, tmp_path / "packed")
    packed = pydicom.dcmread(tmp_path / "packed" / "IM0001.dcm")
    assert packed.PhotometricInterpretation.startswith("YBR_FULL")
    assert np.abs(read(tmp_path / "packed").numpy() - smooth.transpose(2, 1, 0)).max() < 12


def test_ybr_uncompressed(tmp_path):
    """By the equations of PS3.3 C.7.6.3.1.2."""
    red, green, blue = np.moveaxis(COLOUR.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [-0.1687 * red - 0.3313 * green + 0.5 * blue + 128, 0.5 * red - 0.4187 * green - 0.0813 * blue + 128]
    ybr = np.stack([luma, *chroma], -1).round().clip(0, 255).astype(np.uint8)
    image = read(save(tmp_path, [capture(ybr, "YBR_FULL")]))
    assert np.abs(image.numpy() - COLOUR.transpose(2, 1, 0)).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(tmp_path, bits):
    table = RNG.integers(0, 2**bits, (3, 256)).astype(f"u{bits // 8}")
    luts = {}
    for name, values in zip(("Red", "Green", "Blue"), table, strict=True):
        luts[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        luts[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    image = read(save(tmp_path, [capture(GREY, "PALETTE COLOR", **luts)]))
    np.testing.assert_array_equal(image, table[:, GREY.T])
    assert image.meta["units"] == "colour"
    assert image.meta["white"] == 2**bits - 1


def test_grey_picture(tmp_path):
    image = read(save(tmp_path, [capture(GREY, "MONOCHROME2")]))
    np.testing.assert_array_equal(image[0], GREY.T)
    assert image.meta["units"] == "grey"
    assert image.meta["white"] == 255


def test_lowest_value_means_white(tmp_path):
    image = read(save(tmp_path / "a", [capture(GREY, "MONOCHROME1")]))
    np.testing.assert_array_equal(image[0], 255 - GREY.T)
    for modality in ("CT", "MR"):  # what measures keeps its sense
        series = instances(modality, shape=SHAPE)
        expected = read(save(tmp_path / modality / "2", series)).numpy()
        for instance in series:
            instance.PhotometricInterpretation = "MONOCHROME1"
        inverted = read(save(tmp_path / modality / "1", series)).numpy()
        np.testing.assert_array_equal(inverted, expected if modality == "CT" else 2**16 - 1 - expected)


@pytest.mark.parametrize(
    ("photometric", "words"), [("HSV", "HSV"), ("RGB", "RGB with SamplesPerPixel 1"), ("", "missing"), ("CMYK", "CMYK")]
)
def test_unsupported_photometric_interpretation(tmp_path, photometric, words):
    folder = save(tmp_path, [capture(GREY, photometric)])
    with refused(Reason.KIND, f"PhotometricInterpretation is {words}"):
        read(folder)


@pytest.mark.parametrize(("compress", "syntax"), LOSSLESS[:5], ids=lambda value: getattr(value, "name", ""))
def test_truncated_while_compressed(tmp_path, compress, syntax):
    source = save(tmp_path / "plain", instances("CT", shape=SHAPE))
    compress(source, tmp_path / "packed")
    file = tmp_path / "packed" / "IM0002.dcm"
    content = file.read_bytes()
    file.write_bytes(content[: -len(content) // 4])
    with refused(Reason.DAMAGED, "IM0002.dcm"):
        read(tmp_path / "packed")


def test_little_that_claims_to_be_much(tmp_path):
    source = save(tmp_path / "plain", instances("CT", shape=SHAPE)[:1])
    by_dcmtk("dcmcrle")(source, tmp_path / "packed")
    dataset = pydicom.dcmread(tmp_path / "packed" / "IM0001.dcm")
    dataset.Rows = dataset.Columns = 12000
    dataset.save_as(tmp_path / "packed" / "IM0001.dcm")
    with refused(Reason.DAMAGED, "PixelData"):
        read(tmp_path / "packed")


def test_unknown_transfer_syntax(tmp_path):
    folder = save(tmp_path, instances("CT", shape=SHAPE)[:1])
    dataset = pydicom.dcmread(folder / "IM0001.dcm")
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"\x00\x00\x01\xb3" + bytes(100)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(folder / "IM0001.dcm")
    with refused(Reason.DAMAGED, "PixelData", "MPEG2"):
        read(folder)
