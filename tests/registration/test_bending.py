"""Deformable registration: the error on a deformation that is known, folds, limits, files and resampling."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from refusals import refused
from scipy import ndimage

from fusion_nets.clinical import Reason
from fusion_nets.registration import (
    Registration,
    RegistrationError,
    Warp,
    bending_of,
    foreground,
    read_transform,
    register,
    resample_onto,
    similarity,
    write_transform,
)
from fusion_nets.registration import bending as module

pytestmark = pytest.mark.slow

SIZE, EDGE = (44, 48, 40), 4.0
AXES = np.array([70.0, 80, 65])
TILT = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.05, 0.08), (3, -4, 5))
BLOBS = [
    (rng.uniform(-45, 45, 3), rng.uniform(7, 16), rng.uniform(-60, 60))
    for rng in [np.random.default_rng(0)]
    for _ in range(60)
]


def grid(tilt=None):
    return (np.eye(4) if tilt is None else tilt) @ nib.affines.from_matvec(
        np.diag([EDGE] * 3), -EDGE * (np.array(SIZE) - 1) / 2
    )


def places(affine):
    return apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1))


def scene(x):
    """A head of 140 x 160 x 130 mm with structures within it, at points (..., 3)."""
    inside = 1 / (1 + np.exp((np.linalg.norm(x / AXES, axis=-1) - 1) * 15))
    return inside * (100 + sum(w * np.exp(-((x - c) ** 2).sum(-1) / s**2) for c, s, w in BLOBS))


def moved_by(x):
    """A smooth deformation of up to 9 mm, in mm."""
    one, other = (np.exp(-((x - c) ** 2).sum(-1) / (2 * 28.0**2)) for c in ([20.0, 10, 10], [-30.0, -20, -5]))
    return one[..., None] * [8.0, -4, 3] + other[..., None] * [-3.0, 7, -5]


def as_image(values, affine, **meta):
    return MetaTensor(
        torch.from_numpy(values.astype(np.float32))[None], meta={**meta, "affine": torch.from_numpy(affine)}
    )


def warp(amplitude=4.0, spacing=24.0, seed=0):
    size = tuple(int(np.ceil(n * EDGE / spacing)) + 5 for n in SIZE)
    affine = nib.affines.from_matvec(np.diag([spacing] * 3), -spacing * (np.array(size) - 1) / 2)
    return Warp(TILT, np.random.default_rng(seed).normal(0, amplitude, (3, *size)), affine)


@pytest.fixture(scope="module")
def pair():
    """An anatomy that lies oblique, and an overlay of other contrast whose points are bent, turned and shifted."""
    rng = np.random.default_rng(0)
    anatomy = as_image(scene(places(grid(TILT))) + rng.normal(0, 2, SIZE), grid(TILT), filename_or_obj="a.nii")
    x = places(grid())
    back = x = x - [2.0, -3, 2]  # overlay = anatomy + bending + shift
    for _ in range(20):
        back = x - moved_by(back)
    values = np.where(np.linalg.norm(back / AXES, axis=-1) < 1.02, 180 - scene(back), 0) + rng.normal(0, 2, SIZE)
    return anatomy, as_image(values, grid(), filename_or_obj="b.nii")


@pytest.fixture(scope="module")
def found(pair):
    """Deformable, and what it is on top of."""
    bent = register(*pair, "deformable")
    linear = replace(bent, mode="affine", after=bent.bending["before"], warp=None, bending=None)
    return {"affine": linear, "deformable": bent}


def errors(pair, transform):
    """Distances in mm from where points of the head lie in truth, beyond 8 mm from its edge."""
    x = places(grid(TILT)).reshape(-1, 3)
    x = x[np.linalg.norm(x / AXES, axis=-1) < 0.88]
    truth = x + moved_by(x) + [2.0, -3, 2]
    there = transform(x) if isinstance(transform, Warp) else apply_affine(transform, x)
    return np.linalg.norm(there - truth, axis=1)


def test_error_on_a_known_deformation(pair, found):
    """Affine leaves what is bent, 2.0 mm in the mean; on top of it, a third of that is left (.6 mm)."""
    before, after = (errors(pair, found[mode].transform) for mode in ("affine", "deformable"))
    assert 1.5 < before.mean() < 3
    assert after.mean() < 0.4 * before.mean()
    assert np.percentile(after, 95) < 0.4 * np.percentile(before, 95)


def test_record_tells_of_the_bending(pair, found):
    told = found["deformable"].as_dict()
    assert (told["asked"], told["mode"]) == ("deformable", "deformable")
    assert told["after"] > told["bending"]["before"] > told["before"]
    assert told["bending"]["folded"] == 0
    assert 0 < told["bending"]["least_volume"] < 1 < told["bending"]["most_volume"] < 3
    assert 3 < told["bending"]["most_mm"] < 15
    assert "bending" not in found["affine"].as_dict()


def test_same_images_same_bits(pair, found):
    again = module.bent(*pair, found["affine"], 1.0, "b.nii")
    assert np.array_equal(again.warp.coefficients, found["deformable"].warp.coefficients)


def test_resampled_overlay_fits_better(pair, found):
    anatomy, overlay = pair
    content = foreground(anatomy)
    fits = [similarity(anatomy, resample_onto(overlay, anatomy, one.transform), content) for one in found.values()]
    assert fits[1] > fits[0] + 0.02


def test_file_is_what_itk_reads(tmp_path):
    """Its points are those of ITK's own transform, and it comes back as it was."""
    import itk

    bent = warp()
    path = write_transform(tmp_path / "a.tfm", Registration(bent.matrix, "a", "deformable", 1, 1, "", warp=bent))
    again = read_transform(path)
    (transform,) = itk.transformread(str(path))
    points = np.random.default_rng(1).uniform(-80, 80, (50, 3))
    lps = np.array([-1.0, -1, 1])
    theirs = np.array([list(transform.TransformPoint(point.tolist())) for point in points * lps]) * lps
    np.testing.assert_allclose(bent(points), theirs, atol=1e-8)
    np.testing.assert_allclose(again(points), theirs, atol=1e-8)
    far = np.array([[0.0, 0, 500]])
    np.testing.assert_allclose(bent(far), apply_affine(TILT, far))
    itk.transformwrite([transform], str(tmp_path / "b.h5"))
    np.testing.assert_allclose(read_transform(tmp_path / "b.h5")(points), theirs, atol=1e-8)


def test_oblique_grid_comes_back(tmp_path):
    bent = warp()
    bent = Warp(bent.matrix, bent.coefficients, TILT @ bent.grid)
    path = write_transform(tmp_path / "a.tfm", Registration(bent.matrix, "a", "deformable", 1, 1, "", warp=bent))
    points = np.random.default_rng(1).uniform(-60, 60, (50, 3))
    np.testing.assert_allclose(read_transform(path)(points), bent(points), atol=1e-8)


def test_transform_of_another_kind_is_refused(tmp_path):
    import itk

    splines = itk.BSplineTransform[itk.D, 3, 3].New()
    made = itk.CompositeTransform[itk.D, 3].New()
    for part in (splines, itk.AffineTransform[itk.D, 3].New()):  # splines come last
        made.AddTransform(part)
    itk.transformwrite([made], str(tmp_path / "a.tfm"))
    with refused(Reason.KIND, "a.tfm", "splines", error=RegistrationError):
        read_transform(tmp_path / "a.tfm")


def test_jacobian_tells_volumes_and_folds():
    """Of a stretch along one axis, and of a fold where more is taken away than there is."""
    flat = warp(amplitude=0)
    index = np.stack(np.meshgrid(*map(np.arange, flat.coefficients.shape[1:]), indexing="ij"), -1)
    control = apply_affine(flat.grid, index)
    for factor in (1.25, 0.5, -0.5):
        coefficients = np.zeros_like(flat.coefficients)
        coefficients[0] = (factor - 1) * control[..., 0]  # cubic splines repeat a line
        bent = Warp(np.eye(4), coefficients, flat.grid)
        points = np.random.default_rng(0).uniform(-40, 40, (30, 3))
        np.testing.assert_allclose(bent.jacobians(points), factor, atol=1e-6)
        np.testing.assert_allclose(bent(points)[:, 0], factor * points[:, 0], atol=1e-6)
        assert bending_of(bent, points)["folded"] == (factor < 0)


@pytest.mark.parametrize("kept", [0, 1, None])
def test_what_folds_is_done_stiffer_and_then_refused(pair, monkeypatch, kept):
    asked = []

    def bend(*arguments):
        asked.append(arguments[-1])
        return warp(0.01) if len(asked) - 1 == kept else warp(60)

    monkeypatch.setattr(module, "bend", bend)
    monkeypatch.setattr(module, "similarity", lambda *given: 1.2 if isinstance(given[-1], Warp) else 1.1)
    linear = Registration(np.eye(4), "deformable", "affine", 1.0, 1.1, "")
    if kept is None:
        with refused(Reason.REGISTRATION, "folds", "%", "register_fallback", error=RegistrationError):
            module.bent(*pair, linear, 1.0, "b.nii")
        assert tuple(asked) == module.STIFFNESS
    else:
        told = module.bent(*pair, linear, 1.0, "b.nii").bending
        assert (told["stiffness"], told["folded"]) == (module.STIFFNESS[kept], 0)


def test_limits(pair, monkeypatch):
    far = warp(0)
    far.coefficients[:] = 40.0
    monkeypatch.setattr(module, "bend", lambda *_: far)
    monkeypatch.setattr(module, "similarity", lambda *given: 1.2 if isinstance(given[-1], Warp) else 1.1)
    linear = Registration(np.eye(4), "deformable", "affine", 1.0, 1.1, "")
    with refused(Reason.REGISTRATION, "moves a place by 69 mm", "up to 30", "register_limits", error=RegistrationError):
        module.bent(*pair, linear, 1.0, "b.nii")
    assert module.bent(*pair, linear, 3.0, "b.nii").mode == "deformable"
    monkeypatch.setattr(module, "similarity", lambda *a: 1.2 if isinstance(a[-1], np.ndarray) else 1.1)
    with refused(Reason.REGISTRATION, "made it hardly better", error=RegistrationError):
        module.bent(*pair, linear, 3.0, "b.nii")


def test_resampling_looks_up_where_the_warp_leads(pair, monkeypatch):
    """Against SciPy point by point, in slabs of any thickness; air beyond the overlay."""
    from fusion_nets.registration import resampling

    anatomy, overlay = pair
    bent = warp(3.0)
    whole = resample_onto(overlay, anatomy, bent)
    there = apply_affine(np.linalg.inv(grid()), bent(places(grid(TILT)).reshape(-1, 3)))
    wanted = ndimage.map_coordinates(overlay[0].numpy(), there.T, order=1, mode="nearest").reshape(SIZE)
    beyond = np.maximum(-0.5 - there, there - np.array(SIZE) + 0.5).max(axis=1).reshape(SIZE)
    outside = beyond > 0.01
    assert 0.01 < outside.mean() < 0.5
    np.testing.assert_allclose(whole[0].numpy()[beyond < -0.01], wanted[beyond < -0.01], atol=1e-3)
    assert (whole[0].numpy()[outside] == overlay.min().item()).all()
    assert torch.equal(whole.affine, anatomy.affine)
    monkeypatch.setattr(resampling, "AT_ONCE", 5000)
    assert torch.equal(resample_onto(overlay, anatomy, bent).as_tensor(), whole.as_tensor())


def test_coefficients_of_zero_are_the_linear_transform(pair):
    anatomy, overlay = pair
    matrix = TILT @ TILT
    flat = Warp(matrix, np.zeros((3, 10, 10, 10)), np.diag([30.0, 30, 30, 1]))
    one, other = (resample_onto(overlay, anatomy, transform).numpy() for transform in (flat, matrix))
    np.testing.assert_allclose(one, other, atol=0.02)
    content = foreground(anatomy)
    assert similarity(anatomy, overlay, content, flat) == pytest.approx(similarity(anatomy, overlay, content, matrix))
