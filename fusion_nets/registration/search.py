"""Register an overlay to an anatomy: where in the overlay's world a point of the anatomy's lies."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from fusion_nets import elastix_process
from fusion_nets.cautions import caution
from fusion_nets.clinical import Reason
from fusion_nets.clinical.grids import affine_of, is_one_grid, is_picture, on_cpu, thinned
from fusion_nets.slabs import some_places

from .bending import bent
from .elastix import align
from .foreground import foreground
from .mutual_information import similarity
from .plausibility import ENOUGH, MOST_PLACES, shared_content, why_implausible
from .starts import LONGER, along_the_body, height, shift_by
from .transform_files import Registration, RegistrationError

__all__ = ["RegistrationMode", "register"]

RegistrationMode = Literal["none", "rigid", "affine", "deformable", "auto"]
"""How an overlay may be registered, see :func:`register`."""

FEWEST_SLICES = 4
"""Along every axis; rotation cannot be told from fewer."""

LEAST_KEPT = 0.9
"""Of what the best start explains (similarity above 1): so much the result must, as interpolation and noise decide."""


def register(
    anatomy: MetaTensor,
    overlay: MetaTensor,
    mode: RegistrationMode = "auto",
    fallback: bool = False,
    limits: float = 1.0,
) -> Registration:
    """Find where the overlay has to be looked up so that it fits the anatomy.

    Mattes mutual information on a pyramid of three resolutions, sampled at random points with a fixed seed, by elastix
    (Klein et al., IEEE Trans Med Imaging 29:196, 2010); it starts from where the headers put the images, or from
    their centres laid on each other where that fits better. Where one field of view is longer from feet to head by
    more than 80 mm, such as of a whole-body PET, places all along it are tried too, head on head among them, and what
    is looked for is the shorter image in the longer one. The same images give the same matrix, bit for bit, on one
    machine. How good the images fit is measured independently, by :func:`similarity` before and after, over what the
    anatomy shows (or the overlay, where that is the shorter one).

    A result that cannot be right is refused: one that fits worse than the headers had it, that explains less than nine
    tenths of what the best start does, or, along a longer body, less than twice what another place does
    (a body without its head, say); that turns by more than 45 degrees, shifts what is shown by more than half its
    longest side from where it started, or stretches it by more than a factor of 1.25 along any direction. What is
    explained is similarity above 1.

    Args:
        anatomy: (1, H, W[, D]); the luminance of a coloured image.
        overlay: likewise.
        mode: "rigid" (three rotations, three shifts), "affine" (with scaling and shear), "deformable" (B-splines on top
            of the affine one, see :func:`fusion_nets.registration.bent`), "none", or "auto": none for
            images of one grid, for pictures and single slices, and where both have the same
            ``meta["frame_of_reference"]``, which is believed; rigid otherwise. Where another mode moves images of one
            frame of reference, a warning says how far.
        fallback: where registration fails, warn and go on without it.
        limits: how many times as far as said above a registration may turn and shift; the factor of stretching is
            taken to this power, and twice what another place explains becomes 1 + 1 / limits times.

    Returns:
        The matrix, how good it is, and why.

    Raises:
        RegistrationError: if the images cannot be registered, or the result cannot be right.
        ValueError: for another mode or number of channels, or limits that are not above 0.
    """
    if anatomy.shape[0] != 1 or overlay.shape[0] != 1:
        raise ValueError(f"images of {anatomy.shape[0]} and {overlay.shape[0]} channels; grey images are accepted")
    if mode not in get_args(RegistrationMode):
        raise ValueError(f"register is {mode!r}; accepted are {', '.join(get_args(RegistrationMode))}")
    if not 0 < limits < float("inf"):
        raise ValueError(f"register_limits is {limits}; a number above 0 is accepted, 1 for the usual limits")
    anatomy, overlay = on_cpu(anatomy), on_cpu(overlay)
    none = Registration(np.eye(4), mode, "none", None, None, "not asked for")
    if mode == "none":
        return none
    if mode == "auto":
        reason = _why_not(anatomy, overlay)
        if reason:
            elastix_process.leave()
            return replace(none, reason=reason)
    reason = "different or unknown frames of reference" if mode == "auto" else "asked for"
    try:
        linear = _registered(anatomy, overlay, replace(none, reason=reason), limits)
        if mode != "deformable":
            return linear
        return bent(anatomy, overlay, linear, limits, f"{_name(overlay)}: registration to {_name(anatomy)}")
    except RegistrationError as error:
        elastix_process.leave()
        if not fallback:
            raise
        logging.getLogger(__name__).warning("%s; going on without registration", error)
        said = str(error).replace(_name(overlay), "overlay").replace(_name(anatomy), "anatomy")
        return replace(none, reason=f"registration failed: {said.removeprefix('overlay: ')}")


def _why_not(anatomy: MetaTensor, overlay: MetaTensor) -> str | None:
    """Why "auto" does not register; None where it does."""
    if is_picture(anatomy) or is_picture(overlay):
        return "a picture has no place in the patient"
    if is_one_grid(overlay, anatomy):
        return "both lie on one grid"
    if _is_flat(anatomy) or _is_flat(overlay):
        return "too few slices to register"
    if not _share_frame(anatomy, overlay):
        return None
    return f"one frame of reference, {100 * shared_content(anatomy, overlay):.0f} % overlap"


def _share_frame(anatomy: MetaTensor, overlay: MetaTensor) -> bool:
    frames = [image.meta.get("frame_of_reference") for image in (anatomy, overlay)]
    return frames[0] is not None and frames[0] == frames[1]


def _registered(anatomy: MetaTensor, overlay: MetaTensor, asked: Registration, limits: float) -> Registration:
    for image in (anatomy, overlay):
        if is_picture(image):
            raise RegistrationError(
                Reason.SHAPE, f"{_name(image)}: a picture cannot be registered; register=none is accepted for it"
            )
        if _is_flat(image):
            raise RegistrationError(
                Reason.TOO_SMALL,
                f"{_name(image)}: size {tuple(image.shape[1:])} is too flat to register; volumes of {FEWEST_SLICES} or "
                "more slices are accepted, or register=none",
            )
    elastix_process.begin()
    mode = "affine" if asked.asked in ("affine", "deformable") else "rigid"
    is_swapped = height(anatomy) > height(overlay) + LONGER
    fixed, moving = (overlay, anatomy) if is_swapped else (anatomy, overlay)
    thin, thin_moving = thinned(fixed, ENOUGH), thinned(moving, ENOUGH)
    content, other = foreground(thin), foreground(thin_moving)
    for image, shown in ((fixed, content), (moving, other)):
        if not shown.any():
            raise RegistrationError(
                Reason.EMPTY, f"{_name(image)}: shows nothing to register by; register=none is accepted for it"
            )
    points = apply_affine(affine_of(thin), some_places(content, MOST_PLACES))
    centre = points.mean(axis=0)
    there = some_places(other, MOST_PLACES).mean(axis=0)
    starts = [shift_by(apply_affine(affine_of(thin_moving), there) - centre)]
    if height(moving) > height(fixed) + LONGER:
        starts += along_the_body(thin, thin_moving)
    before = similarity(thin, moving, content)
    fits = [similarity(thin, moving, content, one) for one in starts]
    best, start = before, np.eye(4)
    for fit, one in zip(fits, starts, strict=True):
        best, start = (fit, one) if fit > best else (best, start)
    pair = f"{_name(overlay)}: {mode} registration to {_name(anatomy)}"
    try:
        matrix = align(fixed, moving, content, affine_of(thin), start, centre, mode == "affine")
    except RuntimeError as error:
        raise RegistrationError(Reason.REGISTRATION, f"{pair}: elastix could not do it; {_way_out()}") from error
    after = similarity(thin, moving, content, matrix)
    measured = f"normalised mutual information {before:.4f} before, {after:.4f} after"
    there = apply_affine(matrix, centre)
    elsewhere = [fit for fit, one in zip(fits[1:], starts[1:], strict=True)
                 if np.linalg.norm(apply_affine(one, centre) - there) > LONGER]  # fmt: skip
    if after < before or after - 1 < LEAST_KEPT * (best - 1):
        worse = "made it worse" if after < before else f"explains less than where it started, {best:.4f}"
        raise RegistrationError(Reason.REGISTRATION, f"{pair} {worse} ({measured}); {_way_out()}")
    why = why_implausible(matrix, start, points, limits)
    if elsewhere and after - 1 < (1 + 1 / limits) * (max(elsewhere) - 1):
        why = f"hardly explains more than another place does, {max(elsewhere):.4f}"
    if why:
        raise RegistrationError(
            Reason.REGISTRATION,
            f"{pair} cannot be right: it {why} ({measured}); for a fusion larger register_limits, {_way_out()}",
        )
    reason = asked.reason
    if _share_frame(anatomy, overlay):
        moved = np.linalg.norm(apply_affine(matrix, points) - points, axis=1)
        far = f"moves it by {moved.mean():.1f} mm (up to {moved.max():.1f})"
        words = (
            "%s registration to the anatomy %s, though both share a frame of reference, which says where they lie (%s)"
        )
        words = f"{words}; --register auto or none believes it"
        caution(logging.getLogger(__name__), _name(overlay), words, mode, far, measured)
        reason = f"{reason}, though both share a frame of reference; {far}"
    matrix = np.linalg.inv(matrix) if is_swapped else matrix
    return replace(asked, matrix=matrix, mode=mode, before=before, after=after, reason=reason)


def _way_out() -> str:
    return "--register none, or --register_fallback to use it as it came, is accepted"


def _is_flat(image: MetaTensor) -> bool:
    return min((*image.shape[1:], 1)[:3]) < FEWEST_SLICES


def _name(image: MetaTensor) -> str:
    return str(image.meta.get("filename_or_obj", "image"))
