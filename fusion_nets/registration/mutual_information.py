"""How well two images fit."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy import ndimage

from fusion_nets.clinical.grids import affine_of, as_volume, on_cpu, voxels_between
from fusion_nets.slabs import some_places

from .resampling import air
from .warp import Warp, WorldTransform

__all__ = ["similarity"]

MOST_POINTS = 200_000
"""At which the similarity is measured."""

BINS = 32


def similarity(
    anatomy: MetaTensor, overlay: MetaTensor, content: np.ndarray, transform: WorldTransform | None = None
) -> float:
    """Normalised mutual information of two images over the content of the first, from 1 (none) to 2 (all).

    (H(A) + H(B)) / H(A, B) (Studholme et al., Pattern Recognition 32:71, 1999), of 32 by 32 levels each between the
    0.5th and 99.5th percentile, at no more than 200,000 evenly spread voxels of the content; the overlay interpolated
    linearly, air where it ends.

    Args:
        anatomy: (1, H, W[, D]).
        overlay: likewise.
        content: (H, W[, D]) bool, as :func:`fusion_nets.registration.foreground` gives it.
        transform: anatomy's world to overlay's world, (4, 4), RAS in mm, or one that bends.
    """
    anatomy, overlay = on_cpu(anatomy), on_cpu(overlay)
    fixed, moving = as_volume(anatomy), as_volume(overlay)
    index = some_places(content.reshape(fixed.shape[1:]), MOST_POINTS)
    if not len(index):
        return 1.0
    if isinstance(transform, Warp):
        there = apply_affine(np.linalg.inv(affine_of(moving)), transform(apply_affine(affine_of(fixed), index))).T
    else:
        between = voxels_between(moving, fixed, transform)
        there = between[:3, :3] @ index.T + between[:3, 3:]
    here = fixed[0].numpy()[tuple(index.T)]
    found = ndimage.map_coordinates(moving[0].numpy(), there, order=1, mode="constant", cval=air(overlay))
    counts, _, _ = np.histogram2d(_levels(here), _levels(found), BINS, ((0, BINS), (0, BINS)))
    joint = counts / counts.sum()
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both else 1.0


def _levels(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    if not low < high:
        low, high = float(values.min()), float(values.max())
    return (values.clip(low, high) - low) / max(high - low, np.finfo(np.float32).tiny) * (BINS - 1e-3)


def _entropy(shares: np.ndarray) -> float:
    filled = shares[shares > 0]
    return float(-(filled * np.log(filled)).sum())
