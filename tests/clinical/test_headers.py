"""Units, codes and notes of volumes' headers: places and values are right, or it is said that they are a guess."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.clinical.grids import is_one_grid

RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 900, (6, 7, 5)).astype(np.int16)
AFFINE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.9, -1.4, 2.9]), (12, -7, 33))


def nifti(path, affine=AFFINE, values=VALUES, unit="mm", **codes):
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    image.set_qform(affine, codes.get("qform", 0))
    image.set_sform(affine, codes.get("sform", 2))
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("unit", "per_mm"), [("mm", 1), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
@pytest.mark.parametrize("codes", [{"sform": 1}, {"sform": 0, "qform": 1}, {"sform": 4, "qform": 1}])
def test_unit_of_space(tmp_path, caplog, unit, per_mm, codes):
    affine = np.diag([per_mm, per_mm, per_mm, 1]) @ AFFINE
    image = read_image(nifti(tmp_path / "a.nii", affine, unit=unit, **codes))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)
    np.testing.assert_allclose(image.pixdim, (0.9, 1.4, 2.9), atol=1e-5)
    assert not caplog.text


def test_unit_that_cannot_be_is_told(tmp_path, caplog):
    read_image(nifti(tmp_path / "a.nii", unit="meter"))
    assert "xyzt_units (meter)" in caplog.text


def test_place_that_is_a_guess_is_told(tmp_path, caplog):
    """Two such files of one size do not lie on one grid for that."""
    images = [read_image(nifti(tmp_path / f"{name}.nii", sform=0, qform=0)) for name in "ab"]
    assert caplog.text.count("neither qform_code nor sform_code") == 2
    assert [image.meta["placed"] for image in images] == [False, False]
    assert not is_one_grid(*images)
    placed = [read_image(nifti(tmp_path / f"{name}.nii")) for name in "cd"]
    assert "placed" not in placed[0].meta
    assert is_one_grid(*placed)
    assert not is_one_grid(placed[0], images[0])


def test_qform_and_sform_that_disagree(tmp_path, caplog):
    path = nifti(tmp_path / "a.nii", qform=1)
    read_image(path)
    assert not caplog.text
    image = nib.load(path)
    image.set_qform(nib.affines.from_matvec(np.eye(3), (3, 0, 0)) @ AFFINE, 1)
    nib.save(image, tmp_path / "b.nii")
    moved = read_image(tmp_path / "b.nii")
    assert "qform and sform differ by up to 3 mm" in caplog.text
    np.testing.assert_allclose(moved.affine, AFFINE, atol=1e-5)


HEADER = {
    "NDims": "3",
    "BinaryData": "True",
    "DimSize": "6 7 5",
    "Offset": "10 20 30",
    "TransformMatrix": "0 1 0 1 0 0 0 0 -1",
    "ElementSpacing": "1.5 2.5 4",
    "ElementType": "MET_SHORT",
}


def metaimage(path, equals=" = ", **changes):
    fields = {**HEADER, **changes, "ElementDataFile": "LOCAL"}
    lines = [f"{key}{equals}{value}" for key, value in fields.items() if value is not None]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode() + VALUES.tobytes(order="F"))
    return path


@pytest.mark.parametrize("equals", ["=", " =", " : ", ": ", " :", "\t=\t"])
def test_metaimage_however_its_fields_are_written(tmp_path, equals):
    expected = read_image(metaimage(tmp_path / "a.mha"))
    image = read_image(metaimage(tmp_path / "b.mha", equals))
    np.testing.assert_array_equal(image, VALUES[None])
    np.testing.assert_array_equal(image.affine, expected.affine)
    np.testing.assert_allclose(image.affine[:3, 3], (-10, -20, 30))


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1), ("um", 1e-3), ("cm", 10)])
def test_unit_of_metaimage(tmp_path, unit, scale):
    image = read_image(metaimage(tmp_path / "a.mha", DistanceUnits=unit))
    np.testing.assert_allclose(image.pixdim, np.array((1.5, 2.5, 4)) * scale)
    np.testing.assert_allclose(image.affine[:3, 3], np.array((-10, -20, 30)) * scale)


def test_size_of_elements_is_not_their_distance(tmp_path):
    np.testing.assert_allclose(read_image(metaimage(tmp_path / "a.mha", ElementSize="9 9 9")).pixdim, (1.5, 2.5, 4))
    alone = metaimage(tmp_path / "b.mha", ElementSize="3 3 3", ElementSpacing=None)
    np.testing.assert_allclose(read_image(alone).pixdim, (3, 3, 3))


def test_metaimage_that_does_not_say_all(tmp_path, caplog):
    image = read_image(metaimage(tmp_path / "a.mha", Offset=None))
    assert image.meta["placed"] is False
    assert "a guess" in caplog.text
    read_image(metaimage(tmp_path / "b.mha", ElementToIntensityFunctionSlope="2"))
    assert "ElementToIntensityFunction is not applied" in caplog.text


def nrrd(path, *lines):
    header = ["NRRD0005", "type: short", "dimension: 3", "sizes: 6 7 5", "endian: little", "encoding: raw", *lines]
    path.write_bytes("\n".join([*header, "", ""]).encode() + VALUES.tobytes(order="F"))
    return path


PLACE = ("space directions: (1.5,0,0) (0,2.5,0) (0,0,4)", "space origin: (10,20,30)")


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1), ("um", 1e-3), ("cm", 10), ("m", 1000)])
def test_unit_of_nrrd(tmp_path, unit, scale):
    path = nrrd(tmp_path / "a.nrrd", "space: RAS", *PLACE, f'space units: "{unit}" "{unit}" "{unit}"')
    image = read_image(path)
    np.testing.assert_allclose(image.affine[:3], np.array([[1.5, 0, 0, 10], [0, 2.5, 0, 20], [0, 0, 4, 30]]) * scale)


def test_unknown_unit_of_nrrd(tmp_path):
    with refused(Reason.UNITS, "space units", "furlong"):
        read_image(nrrd(tmp_path / "a.nrrd", "space: RAS", *PLACE, 'space units: "furlong" "mm" "mm"'))


@pytest.mark.parametrize("lines", [("spacings: 1.5 2.5 4",), ("space dimension: 3", *PLACE), ("space: RAS", PLACE[0])])
def test_nrrd_that_does_not_say_all(tmp_path, caplog, lines):
    image = read_image(nrrd(tmp_path / "a.nrrd", *lines))
    assert image.meta["placed"] is False
    np.testing.assert_allclose(image.pixdim, (1.5, 2.5, 4))
    assert "a guess" in caplog.text


def test_nan_around_the_brain_is_background(tmp_path, caplog):
    """As SPM masks its maps."""
    values = RNG.normal(0, 2, (6, 7, 5)).astype(np.float32)
    masked = values.copy()
    masked[:2] = masked[:, :, -1] = np.nan
    masked[4, 4, 2] = np.nan
    image = read_image(nifti(tmp_path / "a.nii", values=masked))
    known = np.isfinite(masked)
    np.testing.assert_array_equal(image[0][torch.from_numpy(known)], values[known])
    assert set(image[0][torch.from_numpy(~known)].tolist()) == {values[known].min()}
    assert f"NaN in {(~known).sum()} voxels, 1 of them within" in caplog.text


@pytest.mark.parametrize("where", [(2, 3, 2), (0, 0, 0)])
def test_infinity_is_refused_wherever_it_is(tmp_path, where):
    values = VALUES.astype(np.float32)
    values[0, 0, 0] = np.nan
    values[where] = np.inf
    with refused(Reason.NOT_FINITE, "a.nii"):
        read_image(nifti(tmp_path / "a.nii", values=values))


def test_what_was_guessed_is_no_place_after_resampling():
    guessed = MetaTensor(torch.rand(1, 4, 4, 4), meta={"placed": False})
    assert not is_one_grid(guessed, guessed)
