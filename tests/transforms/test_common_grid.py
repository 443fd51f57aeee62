import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.registration import (
    Registration,
    RegistrationError,
    Warp,
    read_transform,
    resample_onto,
    write_transform,
)
from fusion_nets.transforms import CommonGrid, CommonGridd, LoadStudyImaged

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))
RNG = np.random.default_rng(0)


def picture(path, height=40, width=36, colour=False):
    shape = (height, width, 3) if colour else (height, width)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


def nifti(path, shape=(40, 36, 4), affine=AFFINE):
    nib.save(nib.Nifti1Image(RNG.random(shape, dtype=np.float32), affine), path)
    return str(path)


def moved(matrix=None, by=(0, 0, 0)):
    """The affine of a patient who was turned and moved in world space."""
    return nib.affines.from_matvec(np.eye(3) if matrix is None else matrix, by) @ AFFINE


def on_one_grid(anatomy, overlay, **how):
    return CommonGridd(**how)(LoadStudyImaged()({"anatomy": anatomy, "overlay": overlay, "name": "case"}))


def assert_refused(anatomy, overlay, reason, *names, **how):
    with refused(reason, *names):
        on_one_grid(anatomy, overlay, **how)


@pytest.mark.parametrize("size", [(40, 37), (36, 40), (80, 72)])
@pytest.mark.parametrize("register", ["none", "auto"])
def test_pictures_of_different_size(tmp_path, size, register):
    anatomy, overlay = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", *size)
    assert_refused(anatomy, overlay, Reason.GRID, overlay, str(size), "(40, 36)", anatomy, register=register)


@pytest.mark.parametrize("colour", [False, True])
def test_pictures_of_one_size_stay_as_they_are(tmp_path, colour):
    anatomy, overlay = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", colour=colour)
    data = on_one_grid(anatomy, overlay, register="auto")
    assert torch.equal(data["overlay"].as_tensor(), read_image(overlay).as_tensor())
    assert data["overlay"].meta["registration"]["mode"] == "none"
    assert "picture" in data["overlay"].meta["registration"]["reason"]
    assert_refused(anatomy, overlay, Reason.SHAPE, "register=none", register="rigid")


def test_picture_beside_a_slice_of_nifti(tmp_path):
    """Rows and columns are not voxel axes; where they are said to be, as in what write_image makes, they fit."""
    a_picture, a_slice = picture(tmp_path / "a.png"), nifti(tmp_path / "b.nii", (40, 36))
    assert_refused(a_picture, a_slice, Reason.GRID, a_slice, a_picture)
    assert_refused(a_slice, a_picture, Reason.GRID, a_picture, a_slice)
    alike = nifti(tmp_path / "c.nii", (40, 36), read_image(a_picture).affine.numpy())
    assert on_one_grid(a_picture, alike)["overlay"].shape == (1, 40, 36)
    volume = nifti(tmp_path / "d.nii")
    assert_refused(a_picture, volume, Reason.GRID, volume, "(40, 36, 4)", "(40, 36)")


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((40, 36, 4), moved(by=(3, 0, 0))),
        ((40, 36, 4), moved(nib.eulerangles.euler2mat(0.1))),
        ((40, 36, 4), AFFINE @ np.diag([1.03, 1, 1, 1])),
        ((50, 20, 9), AFFINE @ np.diag([0.8, 1.7, 0.5, 1])),
        ((36, 40, 4), AFFINE @ nib.affines.from_matvec([[0, 1, 0], [1, 0, 0], [0, 0, 1]])),
        ((40, 36), AFFINE),
    ],
)
def test_volumes_of_other_grids_are_resampled(tmp_path, shape, affine):
    anatomy, overlay = nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", shape, affine)
    data = on_one_grid(anatomy, overlay)
    assert data["overlay"].shape == (1, 40, 36, 4)
    assert torch.equal(data["overlay"].affine, data["anatomy"].affine)
    wanted = resample_onto(read_image(overlay), read_image(anatomy))
    assert torch.equal(data["overlay"].as_tensor(), wanted.as_tensor())
    assert data["overlay"].meta["registration"]["mode"] == "none"


def test_exchanged_axes_are_put_back(tmp_path):
    """Every value lies where it lay, without interpolation."""
    anatomy = nifti(tmp_path / "a.nii")
    overlay = nifti(tmp_path / "b.nii", (36, 40, 4), AFFINE @ nib.affines.from_matvec(np.eye(3)[[1, 0, 2]]))
    found = on_one_grid(anatomy, overlay)["overlay"].numpy()
    np.testing.assert_allclose(found, read_image(overlay).numpy().swapaxes(1, 2), atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 36, 4), (40, 36)])
@pytest.mark.parametrize("register", ["none", "auto"])
def test_headers_that_were_rounded_lie_alike(tmp_path, shape, register):
    rounded = AFFINE + RNG.uniform(-3e-4, 3e-4, (4, 4)) * [[1], [1], [1], [0]]
    overlay = nifti(tmp_path / "b.nii", shape, rounded)
    data = on_one_grid(nifti(tmp_path / "a.nii", shape), overlay, register=register)
    assert torch.equal(data["overlay"].affine, data["anatomy"].affine)
    assert torch.equal(data["overlay"].as_tensor(), read_image(overlay).as_tensor())


def test_a_volume_onto_a_slice(tmp_path):
    anatomy = nifti(tmp_path / "a.nii", (40, 36), moved(by=AFFINE[:3, 2]))
    overlay = nifti(tmp_path / "b.nii")
    data = on_one_grid(anatomy, overlay, register="auto")
    np.testing.assert_allclose(data["overlay"].numpy(), read_image(overlay).numpy()[..., 1], atol=1e-4)
    assert "too few slices" in data["overlay"].meta["registration"]["reason"]
    assert_refused(anatomy, overlay, Reason.TOO_SMALL, register="rigid")


def blobs(offset=(0, 0, 0), seed=0):
    """A smooth structure in a head of 80 mm, at 4 mm; and where its voxels lie."""
    rng = np.random.default_rng(seed)
    affine = nib.affines.from_matvec(np.diag([4.0, 4, 4]), (-64, -64, -64))
    x = np.stack(np.meshgrid(*(np.arange(33) * 4.0 - 64,) * 3, indexing="ij"), -1) - offset
    values = 100.0 * (np.linalg.norm(x / [50, 40, 45], axis=-1) < 1)
    for centre, size, weight in zip(
        rng.uniform(-30, 30, (12, 3)), rng.uniform(6, 14, 12), rng.uniform(-80, 80, 12), strict=True
    ):
        values += weight * np.exp(-((np.linalg.norm(x - centre, axis=-1) / size) ** 2)) * (values > 0)
    return values.clip(0), affine


def as_image(values, affine, **meta):
    return MetaTensor(
        torch.as_tensor(values, dtype=torch.float32)[None], meta={**meta, "affine": torch.as_tensor(affine)}
    )


@pytest.fixture(scope="module")
def pair():
    """An overlay of other contrast that lies 12 mm to the right of the anatomy."""
    anatomy, affine = blobs()
    overlay, _ = blobs(offset=(12, -4, 0))
    overlay = np.where(overlay > 0, 180 - overlay, 0).clip(0)
    return as_image(anatomy, affine, filename_or_obj="a.nii"), as_image(overlay, affine + 0, filename_or_obj="b.nii")


@pytest.fixture
def apart(pair):
    """As :func:`pair`, on grids of their own, so that "auto" registers."""
    anatomy, overlay = pair
    return anatomy, as_image(overlay[0, 1:], shifted(overlay.affine, 4), filename_or_obj="b.nii")


def shifted(affine, by):
    """Along the first axis of the world."""
    return affine + torch.tensor([[0.0, 0, 0, by], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_registered_and_recorded(apart, tmp_path):
    anatomy, overlay = apart
    data = {"anatomy": anatomy, "overlay": overlay, "name": "case"}
    out = CommonGridd(register="auto", output_dir=tmp_path)(data)
    record = out["overlay"].meta["registration"]
    assert json.loads(json.dumps(record)) == record
    assert (record["asked"], record["mode"]) == ("auto", "rigid")
    assert record["after"] > record["before"] + 0.02
    np.testing.assert_allclose(np.array(record["matrix_ras_mm"])[:3, 3], [12, -4, 0], atol=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case_checkerboard.png", "case_registration.tfm"]
    np.testing.assert_allclose(read_transform(tmp_path / "case_registration.tfm"), record["matrix_ras_mm"], atol=1e-9)
    assert data["overlay"] is overlay
    assert "registration" not in overlay.meta
    through_a_loader = decollate_batch(list_data_collate([out, out]))[1]["overlay"].meta["registration"]
    assert through_a_loader["reason"] == record["reason"]
    np.testing.assert_allclose(through_a_loader["matrix_ras_mm"], record["matrix_ras_mm"])

    again = CommonGrid(transform=tmp_path / "case_registration.tfm")(overlay, anatomy)
    assert again.meta["registration"]["mode"] == "given"
    np.testing.assert_allclose(again.numpy(), out["overlay"].numpy(), atol=1e-3)
    again = CommonGrid(transform=json.loads(json.dumps(record))["matrix_ras_mm"])(overlay, anatomy)
    assert torch.equal(again.as_tensor(), out["overlay"].as_tensor())


def test_colours_are_registered_by_their_luminance(apart):
    anatomy, overlay = apart
    weights = torch.tensor([1.0, 0.6, 0.2]).reshape(3, 1, 1, 1)
    coloured = MetaTensor(overlay.as_tensor() * weights, meta={**overlay.meta, "white": 255})
    out = CommonGrid(register="rigid")(coloured, anatomy)
    assert out.shape == (3, *anatomy.shape[1:])
    np.testing.assert_allclose(np.array(out.meta["registration"]["matrix_ras_mm"])[:3, 3], [12, -4, 0], atol=1)
    assert torch.allclose(out[0] * 0.6, out[1], atol=1e-3)


def test_what_gets_worse_is_refused_and_the_flag_goes_on(apart, monkeypatch, caplog, tmp_path):
    wrong = np.eye(4)
    wrong[:3, 3] = (-30, 0, 0)
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: wrong)
    anatomy, overlay = apart
    data = {"anatomy": anatomy, "overlay": overlay, "name": "case"}
    with refused(Reason.REGISTRATION, "b.nii", "a.nii", "rigid", "--register_fall", error=RegistrationError):
        CommonGridd(register="auto", output_dir=tmp_path)(data)
    with caplog.at_level(logging.WARNING):
        out = CommonGridd(register="auto", register_fallback=True, output_dir=tmp_path)(data)
    assert "made it worse" in caplog.text
    assert "without registration" in caplog.text
    assert not list(tmp_path.iterdir())
    assert torch.equal(out["overlay"].as_tensor(), resample_onto(overlay, anatomy).as_tensor())
    record = out["overlay"].meta["registration"]
    assert ".nii" not in record["reason"]  # a record names no file
    assert record["mode"] == "none"
    assert "before" not in record
    assert "made it worse" in record["reason"]


def test_frames_of_reference(apart):
    anatomy, overlay = (MetaTensor(image.as_tensor(), meta=dict(image.meta)) for image in apart)
    for image in (anatomy, overlay):
        image.meta["frame_of_reference"] = "0123abcd"
    record = CommonGrid(register="auto")(overlay, anatomy).meta["registration"]
    assert record["mode"] == "none"
    assert "one frame of reference" in record["reason"]
    overlay.affine = shifted(overlay.affine, 300)  # a frame that puts both in different places shows no pair
    with refused(Reason.GRID, "b.nii", "0 %", "a.nii", "rigid", error=RegistrationError):
        CommonGrid(register="auto")(overlay, anatomy)
    record = CommonGrid(register="rigid")(overlay, anatomy).meta["registration"]
    assert record["mode"] == "rigid"
    assert "share a frame of reference" in record["reason"]
    np.testing.assert_allclose(np.array(record["matrix_ras_mm"])[:3, 3], [312, -4, 0], atol=1)


@pytest.mark.parametrize("register", ["none", "given", "fallen"])
def test_what_shows_another_place_is_refused(apart, register, monkeypatch, caplog):
    """However the overlay came to where it is: as its headers say, by a transform, after a registration that failed."""
    anatomy, overlay = apart
    away = np.eye(4)
    away[0, 3] = 300
    how = {"register": "none"}
    if register == "given":
        how["transform"] = away.tolist()
    else:
        overlay = as_image(overlay[0], shifted(overlay.affine, 300), filename_or_obj="b.nii")
    if register == "fallen":
        monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: np.diag([-1.0, 1, 1, 1]))
        how = {"register": "rigid", "register_fallback": True}
    data = {"anatomy": anatomy, "overlay": overlay, "name": "case"}
    with refused(Reason.GRID, "b.nii", "a.nii", "least_overlap", error=RegistrationError):
        CommonGridd(**how)(data)
    with caplog.at_level(logging.WARNING):
        out = CommonGridd(**how, least_overlap=0)(data)
    assert "b.nii: 0 % of what it or the anatomy shows" in caplog.text
    assert out["overlay"].min() == out["overlay"].max()


def test_a_transform_that_moves_nothing(tmp_path):
    anatomy, overlay = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    data = on_one_grid(anatomy, overlay, transform=np.eye(4).tolist())
    assert data["overlay"].meta["registration"]["mode"] == "none"
    assert torch.equal(data["overlay"].as_tensor(), read_image(overlay).as_tensor())


def test_arguments(tmp_path):
    with pytest.raises(ValueError, match="register is 'elastic'"):
        CommonGridd(register="elastic")
    with refused(Reason.MISSING, "absent.tfm", error=RegistrationError):
        CommonGrid(transform=tmp_path / "absent.tfm")
    for matrix in (np.eye(3).tolist(), np.zeros((4, 4)).tolist(), np.diag([1, 1, 0, 1]).tolist()):
        with pytest.raises(ValueError, match="transform is"):
            CommonGrid(transform=matrix)
    for wrong in ({"least_overlap": 1.5}, {"least_overlap": float("nan")}, {"register_limits": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CommonGridd(**wrong)
    with pytest.raises(KeyError):
        CommonGridd()({"anatomy": read_image(nifti(tmp_path / "a.nii"))})
    assert CommonGridd(allow_missing_keys=True)({"name": "a"}) == {"name": "a"}


def test_several_overlays_have_files_of_their_own(apart, tmp_path):
    anatomy, overlay = apart
    matrix = np.eye(4)
    matrix[0, 3] = 12
    path = write_transform(tmp_path / "a.tfm", Registration(matrix, "rigid", "rigid", 1.0, 1.1, ""))
    out = CommonGridd(["ct", "pet"], transform=path, output_dir=tmp_path / "out")(
        {"anatomy": anatomy, "ct": overlay, "pet": overlay, "name": "case"}
    )
    assert torch.equal(out["ct"], out["pet"])
    names = {f"case_{key}_{what}" for key in ("ct", "pet") for what in ("checkerboard.png", "registration.tfm")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_overlay_shows_what_the_anatomy_shows():
    """A PET of a body on a head's grid is one of a head; where the anatomy does not say it, its own header does."""
    affine = torch.diag(torch.tensor([10.0, 10, 10, 1], dtype=torch.float64))
    body = MetaTensor(torch.rand(1, 8, 8, 60), meta={"affine": affine, "units": "SUV", "body_part": "CHEST"})
    head = MetaTensor(torch.rand(1, 8, 8, 8), meta={"affine": affine, "body_part": "BRAIN"})
    assert CommonGrid()(body, head).meta["body_region"].startswith("head")
    del head.meta["body_part"]
    moved = CommonGrid()(body, head)
    assert "body_region" not in moved.meta
    assert moved.meta["body_part"] == "CHEST"


def test_given_transform_that_bends(pair, tmp_path, caplog):
    """It is used whole, recorded, and left beside the results; a fold is warned of, as it is the user's."""
    anatomy, overlay = pair
    for size, folds in ((1.0, False), (60.0, True)):
        numbers = np.random.default_rng(0).normal(0, size, (3, 12, 12, 12))
        grid = nib.affines.from_matvec(np.diag([20.0] * 3), [-110.0] * 3)
        warp = Warp(np.eye(4), numbers, grid)
        made = Registration(warp.matrix, "deformable", "deformable", 1.0, 1.1, "", warp=warp)
        path = write_transform(tmp_path / "given.tfm", made)
        data = {"anatomy": anatomy, "overlay": overlay, "name": "case"}
        caplog.clear()
        moved = CommonGridd(transform=path, output_dir=tmp_path / "out", least_overlap=0)(data)["overlay"]
        assert torch.equal(moved.as_tensor(), resample_onto(overlay, anatomy, read_transform(path)).as_tensor())
        told = moved.meta["registration"]
        assert told["mode"] == "given"
        assert (told["bending"]["folded"] > 0) == folds
        assert ("folds" in caplog.text) == folds
        assert isinstance(read_transform(tmp_path / "out" / "case_registration.tfm"), Warp)
