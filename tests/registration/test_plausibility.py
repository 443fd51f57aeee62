"""What registrations are looked for, refused and warned of: bodies, turned heads, frames of reference, no overlap."""

import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from refusals import refused
from scipy.spatial.transform import Rotation

from fusion_nets.clinical import Reason, read_image
from fusion_nets.registration import RegistrationError, foreground, register, shared_content
from fusion_nets.registration.plausibility import check_overlap, why_implausible
from fusion_nets.simulation import write_sample_study

pytestmark = pytest.mark.slow

EDGE = 4.0
DOWN = 117
"""Voxels of the body below the head's field of view."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """MRI and PET of the sample study at 4 mm."""
    files = write_sample_study(tmp_path_factory.mktemp("study"), spacing=EDGE)
    images = {name: read_image(files[name]) for name in ("mri", "pet")}
    images["pet"].meta |= {"modality": "PT", "units": "SUV"}
    return images


def placed(values, affine, /, **meta):
    values = torch.as_tensor(np.asarray(values, dtype=np.float32))
    return MetaTensor(values, meta={**meta, "affine": torch.as_tensor(np.asarray(affine)).double()})


def whole_body(pet, world, has_head=True):
    """The head's PET on a trunk with a large hot liver and a bladder, 640 mm long, of another frame of reference."""
    head = pet.numpy()[0]
    values = np.zeros((*head.shape[:2], head.shape[2] + DOWN), dtype=np.float32)
    x, y, z = np.meshgrid(*(np.arange(n) * EDGE for n in values.shape), indexing="ij")
    middle = np.array(values.shape[:2]) * EDGE / 2
    level = float(np.median(head[head > 0]))

    def ball(right, front, up, *radii):
        apart = (x - middle[0] - right) / radii[0], (y - middle[1] - front) / radii[1], (z - up) / radii[2]
        return sum(along**2 for along in apart) < 1

    trunk = (((x - middle[0]) / 90) ** 2 + ((y - middle[1]) / 80) ** 2 < 1) & (z < 400)
    neck = (np.hypot(x - middle[0], y - middle[1]) < 50) & (z < DOWN * EDGE + 30)
    values += 0.35 * level * (trunk | neck)
    values += 12 * level * ball(20, 0, 300, 65, 60, 80)
    values += 8 * level * ball(0, 20, 40, 30, 30, 25)
    values += np.random.default_rng(0).normal(0, 0.05 * level, values.shape) * (values > 0)
    affine = pet.affine.numpy().copy()
    affine[2, 3] -= DOWN * EDGE
    if has_head:
        values[:, :, DOWN:] = np.maximum(values[:, :, DOWN:], head)
    else:
        values = values[:, :, :DOWN]
    return placed(values[None], world @ affine, modality="PT", units="SUV", filename_or_obj="body.nii")


def moved(turn=(0, 0, 0), shift=(0, 0, 0), scale=1.0):
    return nib.affines.from_matvec(Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * scale, shift)


def errors(found, true, image):
    points = nib.affines.apply_affine(image.affine.numpy(), np.argwhere(foreground(image)))
    return np.linalg.norm(nib.affines.apply_affine(found, points) - nib.affines.apply_affine(true, points), axis=1)


def test_a_head_is_found_in_a_whole_body(study, monkeypatch):
    """Which the middle of what both show, or the headers, would lay on the liver."""
    world = moved((12, -8, 6), (35, -60, -900))
    body = whole_body(study["pet"], world)
    found = register(study["mri"], body, "auto")
    assert found.mode == "rigid"
    assert errors(found.matrix, world, study["mri"]).mean() < 2
    assert found.after > found.before + 0.1
    # where the body is the anatomy, the head is looked for in it all the same
    asked = []
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *how: asked.append(how) or found.matrix)
    back = register(body, study["mri"], "rigid")
    np.testing.assert_allclose(back.matrix @ found.matrix, np.eye(4), atol=1e-6)
    (how,) = asked
    assert how[0] is study["mri"]
    assert how[1] is body
    assert (back.before, back.after) == (found.before, found.after)


def test_a_body_without_the_head_is_refused(study):
    body = whole_body(study["pet"], moved(shift=(35, -60, -900)), has_head=False)
    with refused(Reason.REGISTRATION, "body.nii", "register", error=RegistrationError):
        register(study["mri"], body, "rigid")


def test_a_place_that_does_not_stand_out_is_refused(study, monkeypatch):
    """Twice as much as any other place must be explained, which the option lowers."""
    mri, world = study["mri"], moved(shift=(35, -60, -900))
    body = whole_body(study["pet"], world)
    monkeypatch.setattr(
        "fusion_nets.registration.search.along_the_body", lambda *_: [world, moved(shift=(35, -60, -700))]
    )
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: world)
    fits = {-900: 1.1, -700: 1.06}
    monkeypatch.setattr(
        "fusion_nets.registration.search.similarity", lambda *a: fits.get(round(a[3][2, 3]), 1.0) if len(a) > 3 else 1.0
    )
    with refused(Reason.REGISTRATION, "body.nii", "another place does, 1.0600", "register_limits"):
        register(mri, body, "rigid")
    assert register(mri, body, "rigid", limits=2).after == 1.1
    fallen = register(mri, body, "rigid", fallback=True)
    assert fallen.mode == "none"
    assert "hardly explains more" in fallen.reason


def about(image, matrix):
    """The same motion about what an image shows."""
    middle = nib.affines.apply_affine(image.affine.numpy(), np.argwhere(foreground(image)).mean(axis=0))
    there, back = moved(shift=middle), moved(shift=-middle)
    return there @ matrix @ back


@pytest.mark.parametrize(
    ("matrix", "words", "enough"),
    [
        (moved((0, 0, 64)), "turns by 64 degrees (up to 45", 1.5),
        (moved((40, 0, 40)), "turns by", 1.5),
        (moved((0, 0, -44)), None, 1),
        (moved(scale=1.4), "stretches by a factor of 1.40", 2),
        (moved(scale=1 / 1.4), "stretches by a factor of 1.40", 2),
        (moved(scale=1.2), None, 1),
        (np.diag([-1.0, 1, 1, 1]), "mirrors", None),
    ],
)
def test_limits_of_turning_and_stretching(study, matrix, words, enough, monkeypatch):
    """A result beyond them is refused even if it fits, as where the overlay really lies so; an option raises them."""
    mri, pet = study["mri"], study["pet"]
    true = about(mri, matrix)
    overlay = placed(pet.as_tensor(), true @ pet.affine.numpy(), modality="PT", units="SUV", filename_or_obj="b.nii")
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: true)
    if words is None:
        assert register(mri, overlay, "affine").mode == "affine"
        return
    with refused(Reason.REGISTRATION, "b.nii", words, "register_limits", error=RegistrationError):
        register(mri, overlay, "affine")
    if enough is None:
        with refused(Reason.REGISTRATION, words, error=RegistrationError):
            register(mri, overlay, "affine", limits=100)
    else:
        assert register(mri, overlay, "affine", limits=enough).mode == "affine"


def test_limits_of_shifting():
    points = np.array([[0.0, 0, 0], [100, 0, 0], [0, 160, 0]])
    start = moved(shift=(300, 0, -900))  # which does not count
    assert why_implausible(moved(shift=(300, 79, -900)), start, points) is None
    assert "shifts by 81 mm from where it started (up to 80)" in why_implausible(
        moved(shift=(300, 0, -819)), start, points
    )
    assert why_implausible(moved(shift=(300, 0, -819)), start, points, limits=2) is None
    both = why_implausible(moved((0, 0, 90), (300, 400, -900)), start, points)
    assert "turns by 90" in both
    assert "shifts by" in both


def test_what_explains_less_than_where_it_started_is_refused(study, monkeypatch):
    """Far apart the headers explain nothing, so that any result would be better than they."""
    mri, pet = study["mri"], study["pet"]
    far = moved(shift=(0, 700, 0))
    overlay = placed(pet.as_tensor(), far @ pet.affine.numpy(), modality="PT", filename_or_obj="b.nii")
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: moved(shift=(40, 740, 0)))
    with refused(Reason.REGISTRATION, "b.nii", "explains less than where it started", error=RegistrationError):
        register(mri, overlay, "rigid")


@pytest.mark.parametrize("limits", [0, -1, float("nan"), float("inf")])
def test_limits_that_are_none(study, limits):
    with pytest.raises(ValueError, match="register_limits"):
        register(study["mri"], study["pet"], "rigid", limits=limits)


def test_one_frame_of_reference_is_believed_or_told_how_far_it_was_left(study, monkeypatch, caplog):
    mri, pet = (placed(i.as_tensor(), i.affine, **{**i.meta, "frame_of_reference": "1"}) for i in study.values())
    overlay = placed(pet.as_tensor(), moved(shift=(3, 0, 0)) @ pet.affine.numpy(), **pet.meta)
    monkeypatch.setattr("fusion_nets.registration.search.align", lambda *_: moved(shift=(3, 4, 0)))
    monkeypatch.setattr("fusion_nets.registration.search.similarity", lambda *a: 1.1 if len(a) < 4 else 1.2)
    with caplog.at_level(logging.WARNING):
        assert register(mri, overlay, "auto").mode == "none"
        assert not caplog.records
        found = register(mri, overlay, "rigid")
    assert "moves it by 5.0 mm (up to 5.0)" in caplog.text
    assert "share a frame of reference" in caplog.text
    assert "5.0 mm" in found.reason
    assert found.mode == "rigid"
    # 38 % in the field of view of the other are resampled, and none is for the check of the overlap to refuse
    for up, share in ((100, 0.38), (400, 0.0)):
        apart = placed(pet.as_tensor(), moved(shift=(0, 0, up)) @ pet.affine.numpy(), **pet.meta)
        found = register(mri, apart, "auto")
        assert found.mode == "none"
        assert found.reason.startswith("one frame of reference")
        assert shared_content(mri, apart) == pytest.approx(share, abs=0.1)
    caplog.clear()
    other = placed(pet.as_tensor(), overlay.affine, **{**pet.meta, "frame_of_reference": "2"})
    assert register(mri, other, "rigid").reason == "asked for"
    assert not caplog.records


def test_the_share_is_of_the_smaller_content(study):
    mri, pet = study["mri"], study["pet"]
    slab = placed(pet.as_tensor()[..., 20:24], pet.affine.numpy() @ moved(shift=(0, 0, 20)), **pet.meta)
    for pair in ((mri, slab), (slab, mri), (mri, placed(slab[..., 1], slab.affine.numpy(), **pet.meta))):
        assert shared_content(*pair) > 0.95
    body = whole_body(pet, np.eye(4))
    assert shared_content(mri, body) > 0.9
    assert shared_content(body, mri) > 0.9
    assert shared_content(mri, placed(pet.as_tensor(), moved(shift=(0, 0, 500)) @ pet.affine.numpy())) == 0
    world = moved((0, 0, 30), (0, 0, 500))
    assert shared_content(mri, placed(pet.as_tensor(), world @ pet.affine.numpy()), world) > 0.95
    flat = placed(torch.zeros(1, 8, 8, 8), np.eye(4))  # shows nothing: all of it counts
    assert shared_content(flat, placed(torch.ones(1, 8, 8, 4), np.eye(4))) == 1


def test_no_overlap_is_refused_and_little_is_told(study, caplog):
    mri, pet = study["mri"], study["pet"]
    for up, accepted in ((60, True), (110, True), (150, False), (500, False)):
        caplog.clear()
        overlay = placed(
            pet.as_tensor(), moved(shift=(0, 0, up)) @ pet.affine.numpy(), units="SUV", filename_or_obj="b.nii"
        )
        share = shared_content(mri, overlay)
        assert (share >= 0.25) == accepted
        if accepted:
            check_overlap(mri, overlay, overlay)
            assert ("field of view" in caplog.text) == (share < 0.5)
            continue
        with refused(Reason.GRID, "b.nii", "at least 25 %", "least_overlap", error=RegistrationError):
            check_overlap(mri, overlay, overlay)
        check_overlap(mri, overlay, overlay, least=0)
        assert "b.nii" in caplog.text
    nothing = placed(np.full((1, 4, 4, 4), -1000.0), mri.affine)
    with refused(Reason.GRID, "shows nothing there", error=RegistrationError):
        check_overlap(mri, placed(pet.as_tensor(), moved(shift=(1, 0, 0)) @ pet.affine.numpy()), nothing)
