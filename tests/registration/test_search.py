import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from refusals import refused
from scipy.spatial.transform import Rotation

from fusion_nets import slabs
from fusion_nets.clinical import Reason, read_image
from fusion_nets.registration import (
    Registration,
    RegistrationError,
    elastix,
    foreground,
    read_transform,
    register,
    resample_onto,
    similarity,
    write_transform,
)
from fusion_nets.simulation import write_sample_study

pytestmark = pytest.mark.slow

TURN, SHIFT = (15, -15, 15), (-20, 20, 20)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """MRI, PET and CT of the sample study at 4 mm."""
    files = write_sample_study(tmp_path_factory.mktemp("study"), spacing=4)
    images = {name: read_image(files[name]) for name in ("mri", "pet", "ct")}
    images["ct"].meta |= {"modality": "CT", "units": "HU"}
    images["pet"].meta |= {"modality": "PT", "units": "SUV"}
    return images


@pytest.fixture(scope="module")
def head(study):
    """Points of the head, in mm."""
    return nib.affines.apply_affine(study["mri"].affine.numpy(), np.argwhere(foreground(study["mri"])))


def with_affine(image, affine, **meta):
    known = getattr(image, "meta", {})
    values = image.as_tensor() if isinstance(image, MetaTensor) else image
    return MetaTensor(values, meta={**known, **meta, "affine": torch.as_tensor(affine).double()})


def about(points, linear, shift):
    """A linear map about the middle of points, and a shift."""
    middle = points.mean(axis=0)
    return nib.affines.from_matvec(linear, middle + shift - linear @ middle)


def offset(points, turn=TURN, shift=SHIFT, scale=(1, 1, 1)):
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    return about(points, rotation @ np.diag(scale), np.array(shift))


def errors(found, true, points):
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(true, points), axis=1)


@pytest.mark.parametrize("overlay", ["pet", "ct"])
def test_the_furthest_offset_is_found(study, head, overlay):
    """The twelve cases of the acceptance are those of tests/benchmarks/registration_accuracy.py."""
    true = offset(head)
    moved = with_affine(study[overlay], true @ study[overlay].affine.numpy())
    assert errors(np.eye(4), true, head).mean() > 35
    found = register(study["mri"], moved, "rigid")
    assert errors(found.matrix, true, head).mean() < 1
    assert (found.asked, found.mode) == ("rigid", "rigid")
    assert found.after > found.before + 0.05
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    if overlay == "ct":
        assert np.array_equal(register(study["mri"], moved, "rigid").matrix, found.matrix)  # bit for bit

    record = found.as_dict()
    assert json.loads(json.dumps(record)) == record
    fitted = resample_onto(moved, study["mri"], found.matrix)
    inside = foreground(study["mri"])
    apart = (fitted - resample_onto(study[overlay], study["mri"]))[0][torch.from_numpy(inside)]
    assert apart.abs().median() < 0.05 * (study[overlay].max() - study[overlay].min())


def test_a_long_study_is_registered_in_slabs_and_on_larger_voxels(study, head, monkeypatch):
    """Slabs change no bit; 1,000 slices of 512 x 512 go through elastix at 3.4 mm instead of 2, here 7 instead of 4."""
    true = offset(head)
    moved = with_affine(study["ct"], true @ study["ct"].affine.numpy())
    whole = register(study["mri"], moved, "rigid")
    for name in ("LARGE", "SLAB", "LISTED"):
        monkeypatch.setattr(slabs, name, 20_000)
    in_slabs = register(study["mri"], moved, "rigid")
    assert np.array_equal(in_slabs.matrix, whole.matrix)
    assert (in_slabs.before, in_slabs.after) == (whole.before, whole.after)
    monkeypatch.setattr(elastix, "MOST", study["mri"].numel() / 1.7**3)
    coarser = register(study["mri"], moved, "rigid")
    assert errors(coarser.matrix, true, head).mean() < 1
    assert 0 < errors(coarser.matrix, whole.matrix, head).mean() < 1


def test_scaling_is_found_by_affine_alone(study, head):
    true = offset(head, (4, -3, 6), (6, 4, -5), scale=(1.06, 0.95, 1.04))
    moved = with_affine(study["ct"], true @ study["ct"].affine.numpy())
    affine, rigid = (register(study["mri"], moved, mode) for mode in ("affine", "rigid"))
    assert affine.mode == "affine"
    assert errors(affine.matrix, true, head).mean() < 1
    assert errors(rigid.matrix, true, head).mean() > 1.5
    assert affine.after > rigid.after


def test_voxels_of_gantry_tilt_stored_the_other_way_round_and_far_away(study, head):
    """The world is what counts; images that do not meet are laid on each other first."""
    tilt = nib.affines.from_matvec(np.array([[-4.0, 0, 0], [0, 4, 1.2], [0, 0, -5]]), (96, -130, 100))
    grid = MetaTensor(torch.zeros(1, 48, 60, 33), meta={"affine": torch.from_numpy(tilt)})
    true = offset(head, (5, -4, 8), (400, -300, 1000))
    found = register(study["mri"], with_affine(resample_onto(study["ct"], grid), true @ tilt), "auto")
    assert found.before == pytest.approx(1)
    assert errors(found.matrix, true, head).mean() < 1


def test_auto_leaves_alone_what_fits(study, head, monkeypatch):
    mri, pet = study["mri"], study["pet"]
    assert register(mri, pet).reason == "both lie on one grid"
    shifted = pet.affine.numpy() + np.array([[0, 0, 0, 3.0], [0] * 4, [0] * 4, [0] * 4])
    one, other = "0123abcd", "4567cdef"
    same = register(
        with_affine(mri, mri.affine, frame_of_reference=one), with_affine(pet, shifted, frame_of_reference=one)
    )
    assert (same.mode, same.asked, same.before) == ("none", "auto", None)
    assert np.array_equal(same.matrix, np.eye(4))
    assert same.reason.startswith("one frame of reference, 100 % overlap")
    for frame in (other, None):
        apart = with_affine(pet, shifted, **({"frame_of_reference": frame} if frame else {}))
        monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: offset(head, (0, 0, 0), (3, 0, 0)))
        assert register(mri, apart).mode == "rigid"
    assert register(mri, with_affine(pet, shifted), "none").reason == "not asked for"


def test_flat_images_pictures_and_empty_ones(study, caplog):
    mri, pet = study["mri"], study["pet"]
    single = MetaTensor(pet.as_tensor()[..., 20], meta={**pet.meta, "filename_or_obj": "single.nii"})
    two = MetaTensor(pet.as_tensor()[..., 20:22], meta={**pet.meta, "filename_or_obj": "two.nii"})
    drawn = MetaTensor(pet.as_tensor()[..., 20], meta={"filename_or_obj": "a.png", "white": 255})
    for image, name in ((single, "single.nii"), (two, "two.nii"), (drawn, "a.png")):
        assert register(mri, image, "auto").mode == "none"
        for pair in ((mri, image), (image, mri)):
            with refused(
                Reason.SHAPE if image is drawn else Reason.TOO_SMALL, name, "register=none", error=RegistrationError
            ):
                register(*pair, "rigid")
    empty = with_affine(torch.zeros_like(pet), pet.affine.numpy() * 1.5, filename_or_obj="empty.nii")
    with refused(Reason.EMPTY, "empty.nii", error=RegistrationError):
        register(mri, empty, "rigid")
    with caplog.at_level(logging.WARNING):
        fallen = register(mri, empty, "auto", fallback=True)
    assert (fallen.mode, fallen.asked) == ("none", "auto")
    assert fallen.reason.startswith("registration failed: shows nothing")
    assert "empty.nii: shows nothing to register by" in caplog.text


def test_elastix_giving_up(study, monkeypatch):
    def give_up(*_):
        raise RuntimeError("too many samples map outside moving image buffer")

    monkeypatch.setattr("fusion_nets.registration.search.align", give_up)
    shifted = with_affine(study["ct"], study["ct"].affine.numpy() * 1.1)
    with refused(Reason.REGISTRATION, "or --register_fallback to use it"):
        register(study["mri"], shifted, "rigid")
    assert register(study["mri"], shifted, "rigid", fallback=True).mode == "none"


def test_arguments(study):
    with pytest.raises(ValueError, match="register is 'elastic'"):
        register(study["mri"], study["ct"], "elastic")
    with pytest.raises(ValueError, match="channels"):
        register(study["mri"], MetaTensor(torch.rand(3, 8, 8, 8)))


def test_similarity(study, head):
    """2 for an image and a relabelling of it, 1 for what has nothing in common, and less the further apart."""
    mri, inside = study["mri"], foreground(study["mri"])
    assert similarity(mri, mri, inside) == pytest.approx(2)
    assert similarity(mri, with_affine(1000 - mri, mri.affine), inside) == pytest.approx(2, abs=0.1)
    noise = torch.rand(mri.shape, generator=torch.Generator().manual_seed(0))
    assert similarity(mri, with_affine(noise, mri.affine), inside) == pytest.approx(1, abs=0.01)
    assert similarity(mri, with_affine(torch.ones_like(mri), mri.affine), inside) == pytest.approx(1)
    assert similarity(mri, study["ct"], np.zeros_like(inside)) == 1
    apart = [similarity(mri, study["ct"], inside, offset(head, (0, 0, 0), (by, 0, 0))) for by in (0, 2, 5, 10, 500)]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] == pytest.approx(1)


MATRIX = nib.affines.from_matvec(
    Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix() @ np.diag([1.1, 1, 0.9]), (5, -7, 11)
)


def test_the_transform_as_itk_reads_it(tmp_path):
    import itk

    path = write_transform(tmp_path / "out" / "a.tfm", Registration(MATRIX, "affine", "affine", 1.0, 1.1, ""))
    assert [file.name for file in path.parent.iterdir()] == ["a.tfm"]
    (transform,) = itk.transformread(str(path))  # by its TransformFileReader
    assert isinstance(transform, itk.AffineTransform[itk.D, 3])
    right, anterior, superior = 12.0, -34.0, 56.0
    there = MATRIX @ [right, anterior, superior, 1]
    found = (
        itk.AffineTransform[itk.D, 3].cast(transform) if hasattr(itk.AffineTransform[itk.D, 3], "cast") else transform
    )
    found = np.array(found.TransformPoint([-right, -anterior, superior]))
    np.testing.assert_allclose(found * [-1, -1, 1], there[:3], atol=1e-9)
    np.testing.assert_allclose(read_transform(path), MATRIX, atol=1e-9)
    first = path.read_bytes()
    assert write_transform(path, Registration(MATRIX, "affine", "affine", 1.0, 1.1, "")).read_bytes() == first


def test_transforms_of_other_programs(tmp_path):
    """A rotation about a centre, as a registration in ITK or 3D Slicer saves it."""
    import itk

    centre = np.array([3.0, -8.0, 20.0])
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetCenter(centre.tolist())
    transform.SetRotation(0.1, -0.2, 0.3)
    transform.SetTranslation([4.0, 5.0, 6.0])
    itk.transformwrite([transform], str(tmp_path / "euler.tfm"))
    point = np.array([10.0, 20.0, 30.0])
    wanted = np.array(transform.TransformPoint(point.tolist())) * [-1, -1, 1]
    matrix = read_transform(tmp_path / "euler.tfm")
    np.testing.assert_allclose((matrix @ [*(point * [-1, -1, 1]), 1])[:3], wanted, atol=1e-9)


def test_what_is_no_transform(tmp_path):
    import itk

    with pytest.raises(ValueError, match=r"a\.mat"):
        write_transform(tmp_path / "a.mat", Registration(MATRIX, "rigid", "rigid", 1.0, 1.1, ""))
    with refused(Reason.MISSING, "absent.tfm", error=RegistrationError):
        read_transform(tmp_path / "absent.tfm")
    (tmp_path / "text.tfm").write_text("#Insight Transform File V1.0\nnothing\n")
    flat = itk.AffineTransform[itk.D, 2].New()
    itk.transformwrite([flat], str(tmp_path / "flat.tfm"))
    whole = itk.AffineTransform[itk.D, 3].New()
    itk.transformwrite([whole, whole], str(tmp_path / "two.tfm"))
    for name in ("text", "flat", "two"):
        with refused(Reason.DAMAGED, f"{name}.tfm", error=RegistrationError):
            read_transform(tmp_path / f"{name}.tfm")
