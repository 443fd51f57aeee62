"""Whether a registration can be right, and whether two images show one place at all."""

from __future__ import annotations

import logging

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy import linalg

from fusion_nets.cautions import caution
from fusion_nets.clinical import Reason
from fusion_nets.clinical.grids import as_volume, is_one_grid, is_picture, overlap, thinned
from fusion_nets.slabs import extremes

from .foreground import foreground
from .transform_files import RegistrationError

__all__ = ["ENOUGH", "LEAST_OVERLAP", "MOST_PLACES", "check_overlap", "shared_content", "why_implausible"]

ENOUGH = 2.0
"""Distance in mm of the voxels by which the patient is found and the similarity is measured."""

MOST_PLACES = 2**22
"""Of the patient's voxels that are looked at one by one; of more, so many that are evenly spread."""

MOST_TURN = 45.0
"""In degrees: no scanner's head rest lets a head lie further from how it lay in another."""

MOST_SHIFT = 0.5
"""Of the longest side of what is shown: a start that is further off has laid something else on it."""

MOST_STRETCH = 1.25
"""Along any direction, or its inverse: the same head is not larger; calibrations differ by a few percent."""

LEAST_OVERLAP = 0.25
"""Share of the smaller content that must lie in the other's field of view."""

OVERLAPS_WELL = 0.5
"""Share from which nothing is said of it."""


def why_implausible(matrix: np.ndarray, start: np.ndarray, points: np.ndarray, limits: float = 1.0) -> str | None:
    """What of a registration cannot be right, in words; None where it may be.

    Args:
        matrix: (4, 4), one world to another, RAS in mm.
        start: (4, 4), where the registration started.
        points: (N, 3), what is shown, in mm of the first world.
        limits: how many times as far as usual it may go: a turn by 45 degrees, a shift from the start by half the
            longest side of what is shown; a stretch or shrinkage is limited to 1.25 to this power.
    """
    turn, stretch = linalg.polar(matrix[:3, :3])
    if np.linalg.det(turn) < 0:
        return "mirrors"
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    middle = points.mean(axis=0)
    shift = float(np.linalg.norm(apply_affine(matrix, middle) - apply_affine(start, middle)))
    scales = np.linalg.eigvalsh(stretch)
    scale = float(max(scales.max(), 1 / scales.min()))
    most_turn, most_shift = limits * MOST_TURN, limits * MOST_SHIFT * float(np.ptp(points, axis=0).max())
    most_scale = MOST_STRETCH**limits
    said = [
        *([f"turns by {degrees:.0f} degrees (up to {most_turn:.0f} can be right)"] if degrees > most_turn else []),
        *([f"shifts by {shift:.0f} mm from where it started (up to {most_shift:.0f})"] if shift > most_shift else []),
        *([f"stretches by a factor of {scale:.2f} (up to {most_scale:.2f})"] if scale > most_scale else []),
    ]
    return " and ".join(said) or None


def shared_content(anatomy: MetaTensor, overlay: MetaTensor, transform: np.ndarray | None = None) -> float:
    """Share of what one image shows that lies in the other's field of view, 0 to 1: the greater of both shares.

    A slab within a head counts as 1, a head within a body, too. Where nothing stands out, all that is in the field of
    view counts as shown.

    Args:
        anatomy: (1, H, W[, D]).
        overlay: (1, H', W'[, D']).
        transform: world of the anatomy to world of the overlay, (4, 4), RAS in mm.
    """
    first, second = (thinned(as_volume(image), ENOUGH) for image in (anatomy, overlay))
    back = None if transform is None else np.linalg.inv(transform)
    return max(overlap(first, overlay, _shown(first), transform), overlap(second, anatomy, _shown(second), back))


def check_overlap(
    anatomy: MetaTensor,
    overlay: MetaTensor,
    moved: MetaTensor,
    transform: np.ndarray | None = None,
    least: float = LEAST_OVERLAP,
) -> None:
    """Refuse an overlay that does not show the place that the anatomy shows, or hardly; warn where it is not much.

    Pictures, and images on one grid, are not looked at.

    Args:
        anatomy: (1, H, W[, D]).
        overlay: (1, H', W'[, D']).
        moved: the overlay on the anatomy's grid, (C, H, W[, D]).
        transform: world of the anatomy to world of the overlay, (4, 4), RAS in mm.
        least: what :func:`shared_content` must be; below a quarter it is warned of still.

    Raises:
        RegistrationError: for a smaller share; or where all of the overlay that is there has one value, unless `least`
            is 0.
    """
    if is_picture(anatomy) or is_picture(overlay):
        return
    if (transform is None or np.array_equal(transform, np.eye(4))) and is_one_grid(overlay, anatomy):
        return
    share = shared_content(anatomy, overlay, transform)
    name, other = (str(image.meta.get("filename_or_obj", "image")) for image in (overlay, anatomy))
    said = f"{name}: {100 * share:.0f} % of what it or {other} shows lies in the field of view of the other"
    (low, high), (lowest, highest) = extremes(moved), extremes(overlay)
    is_empty = low == high and lowest != highest
    if share < least or (is_empty and least > 0):
        what = f"{said}, at least {100 * least:.0f} % are accepted" if share < least else f"{name}: shows nothing there"
        raise RegistrationError(
            Reason.GRID,
            f"{what}; to register them (rigid), a transform, or a smaller least_overlap (0 takes any) is accepted",
        )
    if share < OVERLAPS_WELL:
        words = "%.0f %% of what it or the anatomy shows lies in the field of view of the other"
        caution(logging.getLogger(__name__), name, words, 100 * share)


def _shown(image: MetaTensor) -> np.ndarray:
    content = foreground(image)
    return content if content.any() else np.ones_like(content)
