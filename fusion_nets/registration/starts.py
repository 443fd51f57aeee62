"""Where a registration may start along a body that is longer than the other image."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy import optimize

from fusion_nets.clinical.grids import affine_of, corners, thinned

from .foreground import foreground
from .mutual_information import similarity

__all__ = ["LONGER", "along_the_body", "height", "shift_by"]

LONGER = 80.0
"""In mm from feet to head: by how much a field of view is longer where the other's content may lie anywhere in it."""

STEP = 20.0
"""In mm along the body, between two starts."""

COARSE = 5.0
"""Distance in mm of the voxels by which starts are compared."""

BEST = 3
"""Starts that are shifted to where they fit best, beside that of head on head; they lie 40 mm apart or more."""

REACH = 30.0
"""In mm, by which a start is shifted at most: one and a half steps."""


def height(image: MetaTensor) -> float:
    """Extent of a volume from feet to head, in mm."""
    return float(np.ptp(corners(image)[:, 2]))


def shift_by(distance: np.ndarray) -> np.ndarray:
    """A shift in mm as a transform, (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, 3] = distance
    return matrix


def along_the_body(fixed: MetaTensor, moving: MetaTensor) -> list[np.ndarray]:
    """Shifts that lay what an image shows on a longer one, anywhere along the body.

    Tried are places from one end of the longer field of view to the other, every 20 mm, and the upper ends of what both
    show laid on each other, head to head. At each, what the longer one shows between these heights says how far to go
    to the side, to the front or back. Head to head, and the three of the greatest similarity that lie apart from it and
    each other, are then shifted by up to 30 mm to where similarity is greatest (Powell's method).

    Args:
        fixed: (1, H, W, D), the shorter; it shows something.
        moving: (1, H', W', D'), the longer.

    Returns:
        Transforms (4, 4) from the shorter's world to the longer's, RAS in mm; none where the longer shows nothing.
    """
    fixed, moving = thinned(fixed, COARSE), thinned(moving, COARSE)
    content = foreground(fixed)
    points, others = (_places(image, shown) for image, shown in ((fixed, content), (moving, foreground(moving))))
    if not len(points) or not len(others):
        return []
    low, high = points[:, 2].min(), points[:, 2].max()
    ends = corners(moving)[:, 2]
    first, last = ends.min() - low, max(ends.max() - high, ends.min() - low)
    middle = points.mean(axis=0)

    def shift(up: float) -> list[np.ndarray]:
        """By so much up, and to the middle there; nothing where nothing is shown."""
        there = _middle_between(moving, low + up, high + up)
        return [] if there is None else [np.array([*(there - middle)[:2], up])]

    def loss(distance: np.ndarray) -> float:
        return -similarity(fixed, moving, content, shift_by(distance))

    steps = np.linspace(first, last, int(np.ceil((last - first) / STEP)) + 1)
    chosen = shift(others[:, 2].max() - high)
    for one in sorted((one for up in steps for one in shift(up)), key=loss):
        if len(chosen) <= BEST and all(np.linalg.norm(one - other) > LONGER / 2 for other in chosen):
            chosen.append(one)
    how = {"maxfev": 120, "xtol": 0.5, "ftol": 1e-4}
    return [shift_by(optimize.minimize(loss, one, method="Powell", bounds=_near(one), options=how).x) for one in chosen]


def _near(shift: np.ndarray) -> list[tuple[float, float]]:
    return [(along - REACH, along + REACH) for along in shift]


def _places(image: MetaTensor, shown: np.ndarray) -> np.ndarray:
    """Of what is shown, (N, 3) in world mm."""
    return apply_affine(affine_of(image), np.argwhere(shown))


def _middle_between(image: MetaTensor, low: float, high: float) -> np.ndarray | None:
    """Of what an image shows between two heights, in world mm; None where that is nothing."""
    affine = affine_of(image)
    axis = int(np.abs(affine[2, :3]).argmax())
    index = np.tile((np.array(image.shape[1:]) - 1) / 2, (image.shape[1 + axis], 1))
    index[:, axis] = np.arange(len(index))
    heights = apply_affine(affine, index)[:, 2]
    (inside,) = np.nonzero((heights >= low) & (heights <= high))
    if not len(inside):
        return None
    start = np.zeros(3)
    start[axis] = inside[0]
    moved = affine.copy()
    moved[:3, 3] = apply_affine(affine, start)
    part = image.as_tensor().narrow(1 + axis, int(inside[0]), len(inside))
    slab = MetaTensor(part, meta={**image.meta, "affine": torch.from_numpy(moved)})
    points = _places(slab, foreground(slab))
    return points.mean(axis=0) if len(points) else None
