"""Register an overlay to an anatomy: where in the overlay's world a point of the anatomy's lies."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.clinical.grids import affine_of, as_volume, is_one_grid, is_picture, overlap, thinned, voxels_between
from fusion_nets.files import whole_file

from .elastix import align
from .foreground import foreground
from .resampling import air

__all__ = [
    "Registration",
    "RegistrationError",
    "RegistrationMode",
    "read_transform",
    "register",
    "similarity",
    "write_transform",
]

RegistrationMode = Literal["none", "rigid", "affine", "auto"]
"""How an overlay may be registered, see :func:`register`."""

OVERLAPS_WELL = 0.5
"""Share of the smaller content that a common frame of reference must bring together to be believed."""

FEWEST_SLICES = 4
"""Along every axis; rotation cannot be told from fewer."""

ENOUGH = 2.0
"""Distance in mm of the voxels by which the patient is found and the similarity is measured."""

MOST_POINTS = 200_000
"""At which the similarity is measured."""

BINS = 32

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's world to that of MONAI and nibabel, and back."""


class RegistrationError(ImageError):
    """A registration that cannot be made, or that made things worse."""


@dataclass(frozen=True, eq=False)
class Registration:
    """Where the points of the anatomy lie in the overlay.

    Attributes:
        matrix: (4, 4) float64, from the anatomy's world to the overlay's, RAS in mm.
        asked: the mode that was asked for.
        mode: what was done: "none", "rigid", "affine", or "given" for a transform that was made before.
        before: :func:`similarity` of the images as they came; None where nothing was registered.
        after: the same under the matrix.
        reason: why this mode was taken.
    """

    matrix: np.ndarray
    asked: str
    mode: str
    before: float | None
    after: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON knows it; similarities only where they were measured."""
        measured = {"measure": "normalised mutual information", "before": self.before, "after": self.after}
        return {
            "asked": self.asked,
            "mode": self.mode,
            "reason": self.reason,
            "matrix_ras_mm": self.matrix.tolist(),
            **({} if self.before is None else measured),
        }


def register(
    anatomy: MetaTensor, overlay: MetaTensor, mode: RegistrationMode = "auto", fallback: bool = False
) -> Registration:
    """Find where the overlay has to be looked up so that it fits the anatomy.

    Mattes mutual information on a pyramid of three resolutions, sampled at random points with a fixed seed, by elastix
    (Klein et al., IEEE Trans Med Imaging 29:196, 2010); it starts from where the headers put the images, or from
    their centres laid on each other where that fits better. The same images give the same matrix, bit for bit, on one
    machine. How good the images fit is measured independently, by :func:`similarity` before and after.

    Args:
        anatomy: (1, H, W[, D]); the luminance of a coloured image.
        overlay: likewise.
        mode: "rigid" (three rotations, three shifts), "affine" (with scaling and shear), "none", or "auto": none for
            images of one grid, for pictures and single slices, and where both have the same
            ``meta["frame_of_reference"]`` and most of the smaller one's content lies in the other's field of view;
            rigid otherwise.
        fallback: where registration fails, warn and go on without it.

    Returns:
        The matrix, how good it is, and why.

    Raises:
        RegistrationError: if the images cannot be registered, or fit worse afterwards.
        ValueError: for another mode or number of channels.
    """
    if anatomy.shape[0] != 1 or overlay.shape[0] != 1:
        raise ValueError(f"images of {anatomy.shape[0]} and {overlay.shape[0]} channels; grey images are accepted")
    if mode not in get_args(RegistrationMode):
        raise ValueError(f"register is {mode!r}; accepted are {', '.join(get_args(RegistrationMode))}")
    none = Registration(np.eye(4), mode, "none", None, None, "not asked for")
    if mode == "none":
        return none
    if mode == "auto":
        reason = _why_not(anatomy, overlay)
        if reason:
            return replace(none, reason=reason)
        none = replace(none, reason="different or unknown frames of reference")
    try:
        return _registered(anatomy, overlay, "affine" if mode == "affine" else "rigid", none)
    except RegistrationError as error:
        if not fallback:
            raise
        logging.getLogger(__name__).warning("%s; going on without registration", error)
        return replace(none, reason=f"registration failed: {str(error).removeprefix(f'{_name(overlay)}: ')}")


def similarity(
    anatomy: MetaTensor, overlay: MetaTensor, content: np.ndarray, transform: np.ndarray | None = None
) -> float:
    """Normalised mutual information of two images over the content of the first, from 1 (none) to 2 (all).

    (H(A) + H(B)) / H(A, B) (Studholme et al., Pattern Recognition 32:71, 1999), of 32 by 32 levels each between the
    0.5th and 99.5th percentile, at no more than 200,000 evenly spread voxels of the content; the overlay interpolated
    linearly, air where it ends.

    Args:
        anatomy: (1, H, W[, D]).
        overlay: likewise.
        content: (H, W[, D]) bool, as :func:`fusion_nets.registration.foreground` gives it.
        transform: anatomy's world to overlay's world, (4, 4), RAS in mm.
    """
    fixed, moving = as_volume(anatomy), as_volume(overlay)
    index = np.argwhere(content.reshape(fixed.shape[1:]))
    if not len(index):
        return 1.0
    index = index[:: -(-len(index) // MOST_POINTS)]
    between = voxels_between(moving, fixed, transform)
    there = between[:3, :3] @ index.T + between[:3, 3:]
    here = fixed[0].numpy()[tuple(index.T)]
    found = ndimage.map_coordinates(moving[0].numpy(), there, order=1, mode="constant", cval=air(overlay))
    counts, _, _ = np.histogram2d(_levels(here), _levels(found), BINS, ((0, BINS), (0, BINS)))
    joint = counts / counts.sum()
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both else 1.0


def _why_not(anatomy: MetaTensor, overlay: MetaTensor) -> str | None:
    """Why "auto" does not register; None where it does."""
    if is_picture(anatomy) or is_picture(overlay):
        return "a picture has no place in the patient"
    if is_one_grid(overlay, anatomy):
        return "both lie on one grid"
    if _is_flat(anatomy) or _is_flat(overlay):
        return "too few slices to register"
    frames = [image.meta.get("frame_of_reference") for image in (anatomy, overlay)]
    if frames[0] is None or frames[0] != frames[1]:
        return None
    thin, thin_overlay = thinned(anatomy, ENOUGH), thinned(overlay, ENOUGH)
    shared = max(overlap(thin, overlay, foreground(thin)), overlap(thin_overlay, anatomy, foreground(thin_overlay)))
    return f"one frame of reference, {100 * shared:.0f} % overlap" if shared >= OVERLAPS_WELL else None


def _registered(anatomy: MetaTensor, overlay: MetaTensor, mode: str, none: Registration) -> Registration:
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
    thin, thin_overlay = thinned(anatomy, ENOUGH), thinned(overlay, ENOUGH)
    head, hot = foreground(thin), foreground(thin_overlay)
    for image, content in ((anatomy, head), (overlay, hot)):
        if not content.any():
            raise RegistrationError(
                Reason.EMPTY, f"{_name(image)}: shows nothing to register by; register=none is accepted for it"
            )
    centre, other = (_centre(image, content) for image, content in ((thin, head), (thin_overlay, hot)))
    shifted = np.eye(4)
    shifted[:3, 3] = other - centre
    before = similarity(thin, overlay, head)
    start = shifted if similarity(thin, overlay, head, shifted) > before else np.eye(4)
    try:
        matrix = align(anatomy, overlay, head, affine_of(thin), start, centre, mode == "affine")
    except RuntimeError as error:
        raise RegistrationError(
            Reason.REGISTRATION, f"{_name(overlay)}: elastix could not register it to {_name(anatomy)}; {_way_out()}"
        ) from error
    after = similarity(thin, overlay, head, matrix)
    if after < before:
        raise RegistrationError(
            Reason.REGISTRATION,
            f"{_name(overlay)}: {mode} registration to {_name(anatomy)} made it worse (normalised mutual information "
            f"{before:.4f} before, {after:.4f} after); {_way_out()}",
        )
    return replace(none, matrix=matrix, mode=mode, before=before, after=after)


def _way_out() -> str:
    return "--register none, or --register_fallback to use it as it came, is accepted"


def _is_flat(image: MetaTensor) -> bool:
    return min((*image.shape[1:], 1)[:3]) < FEWEST_SLICES


def _name(image: MetaTensor) -> str:
    return str(image.meta.get("filename_or_obj", "image"))


def _centre(image: MetaTensor, content: np.ndarray) -> np.ndarray:
    """Of a content, in world mm."""
    affine = affine_of(image)
    return affine[:3, :3] @ np.argwhere(content).mean(axis=0) + affine[:3, 3]


def _levels(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    return (values.clip(low, high) - low) / max(high - low, np.finfo(np.float32).tiny) * (BINS - 1e-3)


def _entropy(shares: np.ndarray) -> float:
    filled = shares[shares > 0]
    return float(-(filled * np.log(filled)).sum())


def write_transform(path: str | os.PathLike[str], registration: Registration) -> Path:
    """Save a registration as an ITK transform that resamples the overlay onto the anatomy.

    An ``AffineTransform_double_3_3``. As is usual in ITK, it maps points of the fixed image (the anatomy) to those of
    the moving one (the overlay), and its world is LPS: x and y have the other sign than in ``registration.matrix``.
    3D Slicer, ITK-SNAP and SimpleITK read it.

    Args:
        path: ends in .tfm.
        registration: what to save.

    Returns:
        The path.

    Raises:
        ValueError: for another ending.
    """
    import itk

    path = Path(path)
    if path.suffix.lower() != ".tfm":
        raise ValueError(f"{path}: unknown ending; .tfm is accepted")
    lps = TO_LPS @ registration.matrix @ TO_LPS
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3])))
    transform.SetOffset(lps[:3, 3].tolist())
    with whole_file(path) as partial:
        itk.transformwrite([transform], str(partial))
    return path


def read_transform(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a linear ITK transform, such as :func:`write_transform` or 3D Slicer saves it.

    Args:
        path: an ITK transform file (.tfm or .txt) with a single three-dimensional transform of translation, rotation,
            similarity or affine kind, from points of the anatomy to points of the overlay.

    Returns:
        (4, 4) float64, anatomy's world to overlay's, RAS in mm.

    Raises:
        RegistrationError: if there is no such file, or no such transform in it.
    """
    import itk

    path = Path(path)
    accepted = "an ITK transform file (.tfm) with one linear transform in three dimensions is accepted"
    if not path.is_file():
        raise RegistrationError(Reason.MISSING, f"{path}: no such file; {accepted}")
    try:
        transforms = itk.transformread(str(path))
        (transform,) = transforms
        corner = np.vstack([np.zeros(3), np.eye(3)])
        there = np.array([transform.TransformPoint(point) for point in corner.tolist()], dtype=np.float64)
        linear = bool(transform.IsLinear())
    except Exception as error:
        raise RegistrationError(Reason.DAMAGED, f"{path}: not a transform that can be read; {accepted}") from error
    matrix = np.eye(4)
    matrix[:3, 3] = there[0]
    matrix[:3, :3] = (there[1:] - there[0]).T
    if not linear or there.shape != (4, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise RegistrationError(Reason.KIND, f"{path}: {accepted}")
    return TO_LPS @ matrix @ TO_LPS
