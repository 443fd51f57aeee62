"""read_image on DICOM, NRRD and MetaImage; pictures and NIfTI are in test_reading.py."""

import gzip

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.clinical.dicom import fingerprint, new_series, new_study, write_instances

RNG = np.random.default_rng(0)
VALUES = RNG.integers(-1000, 3000, (6, 7, 5)).astype(np.int16)
COLOURS = RNG.integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.9, -1.4, 2.9]), (12, -7, 33))


def by_itk(path, values, affine=AFFINE, colour=False, compressed=False):
    """Written by ITK: (X, Y[, Z][, 3]) and the affine in RAS."""
    order = (*range(values.ndim - 1 - colour, -1, -1), values.ndim - 1) if colour else range(values.ndim - 1, -1, -1)
    image = itk.image_from_array(np.ascontiguousarray(values.transpose(*order)), is_vector=colour)
    size = values.ndim - colour
    lps = (np.diag([-1.0, -1, 1, 1]) @ affine)[: size + (size == 3), :]
    spacing = np.linalg.norm(affine[:size, :size], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:size, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:size, :size] / spacing)))
    itk.imwrite(image, str(path), compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_volume(tmp_path, name, compressed):
    image = read_image(by_itk(tmp_path / name, VALUES, compressed=compressed))
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image[0], VALUES)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.meta["units"] == "stored"
    assert "white" not in image.meta
    assert "modality" not in image.meta


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_kinds_of_numbers(tmp_path, kind, ending):
    values = (VALUES.astype("f8") / 50).clip(-100 if kind[0] != "u" else 0, 100).astype(kind)
    header = {
        "nrrd": "NRRD0004\ntype: {}\ndimension: 3\nsizes: 6 7 5\nspace: left-posterior-superior\n"
        "space origin: (0,0,0)\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\nencoding: raw\n\n",
        "mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 6 7 5\n"
        "ElementSpacing = 1 1 2\nElementType = MET_{}\nElementDataFile = LOCAL\n",
    }
    kinds = ["u1", "i1", "u2", "i4", "u4", "f4", "f8"]
    names = {
        "nrrd": ["uint8", "int8", "uint16", "int32", "uint32", "float", "double"],
        "mha": ["UCHAR", "CHAR", "USHORT", "INT", "UINT", "FLOAT", "DOUBLE"],
    }
    path = tmp_path / f"a.{ending}"
    path.write_bytes(header[ending].format(names[ending][kinds.index(kind)]).encode() + values.tobytes(order="F"))
    image = read_image(path)
    np.testing.assert_array_equal(image[0], values.astype(np.float32))
    np.testing.assert_array_equal(image.affine, np.diag([-1, -1, 2, 1]))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_colours(tmp_path, name):
    image = read_image(by_itk(tmp_path / name, COLOURS, colour=True))
    np.testing.assert_array_equal(image, np.moveaxis(COLOURS, -1, 0))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.meta["units"] == "colour"
    assert image.meta["white"] == 255


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_equal_colours_are_grey(tmp_path, name):
    image = read_image(by_itk(tmp_path / name, np.repeat(COLOURS[..., :1], 3, -1), colour=True))
    np.testing.assert_array_equal(image[0], COLOURS[..., 0])
    assert image.meta["units"] == "grey"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_single_slice(tmp_path, name):
    flat = read_image(by_itk(tmp_path / name, VALUES[:, :, 0], affine=np.diag([-1.5, -2, 1, 1])))
    assert flat.shape == (1, 6, 7)
    np.testing.assert_allclose(flat.affine, np.diag([-1.5, -2, 1, 1]))
    deep = read_image(by_itk(tmp_path / name, VALUES[:, :, :1]))
    assert deep.shape == (1, 6, 7)
    np.testing.assert_allclose(deep.affine, AFFINE, atol=1e-6)


def test_right_anterior_superior_space(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 6 7 5\n"
        "space directions: (2,0,0) (0,3,0) (0,0,4)\nkinds: domain domain domain\nendian: little\nencoding: gzip\n"
        "space origin: (5,6,7)\n\n"
    )
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + gzip.compress(VALUES.tobytes(order="F")))
    image = read_image(path)
    np.testing.assert_array_equal(image[0], VALUES)
    np.testing.assert_allclose(image.affine, nib.affines.from_matvec(np.diag([2, 3, 4]), (5, 6, 7)))


def assert_refused(path, reason, *names, **how):
    with refused(reason, *names) as caught:
        read_image(path, **how)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("left", [0.05, 0.5, 0.95])
def test_cut_short(tmp_path, name, left):
    path = by_itk(tmp_path / name, VALUES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    assert_refused(path, Reason.DAMAGED)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_gigantic(tmp_path, name):
    path = by_itk(tmp_path / name, VALUES)
    path.write_bytes(path.read_bytes().replace(b"6 7 5", b"4000 4000 4000"))
    assert_refused(path, Reason.TOO_LARGE, "(1, 4000, 4000, 4000)")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_shapes_that_are_no_image(tmp_path, name):
    path = by_itk(tmp_path / name, RNG.random((4, 4, 4, 2), dtype=np.float32), colour=True)
    assert_refused(path, Reason.AMBIGUOUS, "2 volumes")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.mhd", b"ElementDataFile = a.raw", b"ElementDataFile = ../secret.raw"),
        ("a.mhd", b"ElementDataFile = a.raw", b"ElementDataFile = LIST\n../secret.raw"),
        ("a.mhd", b"ElementDataFile = a.raw", b"ElementDataFile = link.raw"),
        ("a.nhdr", b"data file: a.raw", b"data file: ../secret.raw"),
        ("a.nhdr", b"data file: a.raw", b"datafile:../secret.raw"),
        ("a.nhdr", b"data file: a.raw", b"data file: LIST\n../secret.raw"),
        ("a.nhdr", b"data file: a.raw", b"data file: link.raw"),
        ("a.nhdr", b"data file: a.raw", b"data file: absent.raw"),
    ],
)
def test_voxels_in_a_file_elsewhere(tmp_path, name, before, after):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    path = by_itk(folder / name, VALUES)
    assert read_image(path).shape == (1, 6, 7, 5)
    header = path.read_bytes()
    assert before in header
    path.write_bytes(header.replace(before, after))
    assert_refused(path, Reason.KIND)


def test_ending_in_capitals(tmp_path):
    by_itk(tmp_path / "a.nrrd", VALUES).rename(tmp_path / "A.NRRD")
    np.testing.assert_array_equal(read_image(tmp_path / "A.NRRD")[0], VALUES)


# DICOM


@pytest.fixture
def disc(tmp_path):
    """A CT and an MR in one folder."""
    uids = {}
    for number, modality in enumerate(("CT", "MR"), start=1):
        values = VALUES if modality == "CT" else VALUES + 1000
        meta = {"units": "HU" if modality == "CT" else "stored"}
        image = MetaTensor(torch.from_numpy(np.float32(values[None])), affine=torch.from_numpy(AFFINE), meta=meta)
        series = new_series(image, modality, new_study("a", patient_name="Roe^Jane", patient_id="PID4711"), number)
        write_instances(tmp_path / modality, series)
        uids[modality] = series[0].SeriesInstanceUID
    return tmp_path, uids


def test_folder_of_dicom(disc):
    folder, uids = disc
    for which in ({"modality": "CT"}, {"series_uid": uids["CT"]}, {"series_uid": fingerprint(uids["CT"])}):
        image = read_image(folder, **which)
        assert image.meta["units"] == "HU"
        assert image.meta["modality"] == "CT"
        assert sorted(image[0].numpy().ravel()) == sorted(VALUES.ravel())
    assert_refused(folder, Reason.AMBIGUOUS, fingerprint(uids["CT"]), fingerprint(uids["MR"]))


@pytest.mark.parametrize("name", ["IM0001.dcm", "IM0001", "IM0001.IMA", "1.2.840.7.3"])
def test_file_of_dicom_of_any_name(disc, name):
    folder, _ = disc
    (folder / "MR" / "IM0001.dcm").rename(folder / name)
    image = read_image(folder / name)
    assert image.shape == (1, 6, 7)
    assert image.meta["modality"] == "MR"
    assert_refused(folder / name, Reason.MISSING, "modality CT", modality="CT")


def test_damaged_dicom_is_refused_as_such(tmp_path):
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM" + b"\x02\x00")
    assert_refused(tmp_path / "a", Reason.INCOMPLETE, "DICOM")


def test_modality_of_a_file_that_does_not_say_it(tmp_path):
    path = by_itk(tmp_path / "a.mha", VALUES)
    assert read_image(path, modality="PT").meta["modality"] == "PT"


def test_slice_without_content(disc):
    folder, _ = disc
    image = MetaTensor(torch.zeros(1, 6, 7, 2), affine=torch.from_numpy(AFFINE), meta={"units": "HU"})
    write_instances(folder / "air", new_series(image, "CT", new_study("a"), 9))
    assert_refused(folder / "air", Reason.EMPTY)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"NDims = 3", b"NDims = -1"),  # at which ITK's own reader ends the process
        (b"NDims = 3", b"NDims = 2"),
        (b"DimSize = 6 7 5", b"DimSize = 6 -7 -5"),
        (b"DimSize = 6 7 5", b"DimSize = 6 7"),
        (b"ElementType = MET_SHORT", b"ElementType = MET_OTHER"),
        (b"BinaryData = True", b"BinaryData = False"),
        (b"Offset = ", b"Offset = 1 "),
        (b"Offset = ", b"Offset = x "),
        (b"TransformMatrix = ", b"TransformMatrix = nan "),
    ],
)
def test_damaged_metaimage_header(tmp_path, before, after):
    path = by_itk(tmp_path / "a.mha", VALUES)
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))
    assert_refused(path, Reason.DAMAGED, "MetaImage")


def test_big_endian_metaimage_with_a_header_to_skip(tmp_path):
    header = "NDims = 3\nElementByteOrderMSB = True\nDimSize = 6 7 5\nElementType = MET_SHORT\nHeaderSize = {}\n"
    (tmp_path / "a.raw").write_bytes(b"12345678" + VALUES.astype(">i2").tobytes(order="F"))
    for skip in (8, -1):
        (tmp_path / "a.mhd").write_text(header.format(skip) + "ElementDataFile = a.raw\n")
        np.testing.assert_array_equal(read_image(tmp_path / "a.mhd")[0], VALUES)
