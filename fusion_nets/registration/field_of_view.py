"""Where an overlay was measured, seen from the anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy import ndimage

from fusion_nets.clinical.grids import affine_of, as_volume, is_one_grid, is_picture, thinned

from .foreground import foreground
from .warp import Warp, WorldTransform, linear_part

__all__ = ["NEAR_BORDER", "FieldOfView", "field_of_view", "outside_of", "outside_of_places"]

NEAR_BORDER = 6.0
"""Distance in mm over which an overlay comes up from where it ends: about a PET's resolution."""

COARSE = 3.0
"""Distance in mm of the places at which the distance from the border is computed; it is interpolated between them."""

AT_ONCE = 16
"""Slices that are looked at together."""

HALF_A_VOXEL = 0.5 + 1e-3


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Where on an anatomy's grid (H, W, D) an overlay was measured, half a voxel around its voxels included.

    Attributes:
        size: of the anatomy's grid.
        shape: of the overlay's grid, (H', W', D').
        target: affine of the anatomy, (4, 4).
        source: affine of the overlay.
        transform: the anatomy's world to the overlay's, RAS in mm.
        depth: at every so many voxels of the anatomy, how far in mm it is to what the anatomy shows beyond the border.
        off: likewise, how far it is to the field of view.
        every: how many, along each axis.
        covers: share of what the anatomy shows that lies in the field of view, 0 to 1.
    """

    size: tuple[int, ...]
    shape: tuple[int, ...]
    target: np.ndarray
    source: np.ndarray
    transform: WorldTransform | None
    depth: np.ndarray
    off: np.ndarray
    every: tuple[int, ...]
    covers: float

    def outside(self, slab: slice = slice(None)) -> np.ndarray:
        """Which voxels of some slices lie beyond the border, (H, W, d) bool."""
        return _outside(self.target, self.source, self.transform, self.size, self.shape, slab)

    def weight(self, slab: slice = slice(None)) -> np.ndarray:
        """How far inside voxels of some slices lie, (H, W, d) float32 from 0 at the border to 1, smoothly; 0 beyond.

        Only borders that cut through what the anatomy shows count: air may end where it will.
        """
        return np.where(self.outside(slab), np.float32(0), self._rising(self.depth, slab))

    def coverage(self, slab: slice = slice(None)) -> np.ndarray:
        """(H, W, d) float32: 1 in the field of view, beyond it down to 0, as smoothly."""
        return np.where(self.outside(slab), 1 - self._rising(self.off, slab), np.float32(1))

    def _rising(self, distance: np.ndarray, slab: slice) -> np.ndarray:
        start, stop, _ = slab.indices(self.size[2])
        fine = ndimage.affine_transform(
            distance,
            [1 / n for n in self.every],
            [0.0, 0.0, start / self.every[2]],
            (*self.size[:2], stop - start),
            order=1,
            mode="nearest",
        )
        share = (fine / NEAR_BORDER).clip(0, 1)
        return share * share * (3 - 2 * share)


def field_of_view(
    overlay: MetaTensor, anatomy: MetaTensor, transform: WorldTransform | None = None
) -> FieldOfView | None:
    """Where an overlay was measured; None where that is everywhere that the anatomy shows something.

    Pictures, and images on one grid, are measured everywhere.

    Args:
        overlay: (C, H', W', D'), of which only the grid counts.
        anatomy: (1, H, W, D).
        transform: anatomy's world to overlay's world, (4, 4), RAS in mm, or one that bends; by default they are one.
    """
    matrix = linear_part(transform)
    stays = not isinstance(transform, Warp) and (matrix is None or np.array_equal(matrix, np.eye(4)))
    if is_picture(anatomy) or is_picture(overlay) or (stays and is_one_grid(overlay, anatomy)):
        return None
    source, target = as_volume(overlay), as_volume(anatomy)
    thin = thinned(target, COARSE)
    size, shape = tuple(target.shape[1:]), tuple(source.shape[1:])
    tissue, way = foreground(thin), (affine_of(thin), affine_of(source), transform, thin.shape[1:], shape)

    def sure(slab: slice) -> np.ndarray:
        # what is found of the patient reaches a voxel too far, and so far nobody sees a border
        return ndimage.binary_erosion(tissue[..., slab], np.ones((3, 3, 1), bool), border_value=1)

    parts = [slice(k, k + AT_ONCE) for k in range(0, thin.shape[3], AT_ONCE)]
    missing = sum(np.count_nonzero(sure(part) & _outside(*way, part)) for part in parts)
    if not missing:
        return None
    outside = _outside(*way)
    depth, off = _distance_from(sure(slice(None)) & outside, thin), _distance_from(~outside, thin)
    every = tuple(round(float(n)) for n in (thin.pixdim / target.pixdim).tolist())
    covers = 1 - missing / sum(np.count_nonzero(sure(part)) for part in parts)
    return FieldOfView(size, shape, affine_of(target), affine_of(source), transform, depth, off, every, covers)


def _distance_from(mask: np.ndarray, image: MetaTensor) -> np.ndarray:
    """In mm, from the border of a mask, which lies half a voxel from its voxels; far from a mask of nothing."""
    if not mask.any():
        return np.full(mask.shape, 2 * NEAR_BORDER, np.float32)
    found = ndimage.distance_transform_edt(~mask, sampling=image.pixdim.tolist())
    return (found - float(image.pixdim.min()) / 2).clip(0).astype(np.float32)


def outside_of(between: np.ndarray, size: Sequence[int], shape: Sequence[int], slab: slice = slice(None)) -> np.ndarray:
    """Which voxels of some slices of a grid, (H, W, d) bool, lie outside another, further than half a voxel.

    Args:
        between: voxel index of the grid to voxel index of the other, (4, 4).
        size: of the grid.
        shape: of the other.
        slab: the slices.
    """
    steps = [np.arange(n, dtype=np.float32).reshape([-1 if i == a else 1 for i in range(3)])
             for a, n in enumerate(size)]  # fmt: skip
    steps[2] = steps[2][..., slab]
    outside = np.zeros((*size[:2], steps[2].size), dtype=bool)
    for row, n in zip(between[:3].astype(np.float32), shape, strict=True):
        there = row[0] * steps[0] + row[1] * steps[1] + row[2] * steps[2] + row[3]
        outside |= (there < -HALF_A_VOXEL) | (there > n - 1 + HALF_A_VOXEL)
    return outside


def outside_of_places(places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """As :func:`outside_of` of voxel indices (N, 3) of the other grid."""
    outside: np.ndarray = (places < -HALF_A_VOXEL) | (places > np.array(shape) - 1 + HALF_A_VOXEL)
    return np.any(outside, axis=-1)


def _outside(
    target: np.ndarray, source: np.ndarray, transform: WorldTransform | None,
    size: Sequence[int], shape: Sequence[int], slab: slice = slice(None),
) -> np.ndarray:  # fmt: skip
    to_voxels = np.linalg.inv(source)
    if not isinstance(transform, Warp):
        world = target if transform is None else transform @ target
        return outside_of(to_voxels @ world, size, shape, slab)
    numbers = range(*slab.indices(size[2]))
    made = np.empty((*size[:2], len(numbers)), dtype=bool)
    index = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), [0], indexing="ij"), axis=-1).reshape(-1, 3)
    for i, k in enumerate(numbers):
        index[:, 2] = k
        there = apply_affine(to_voxels, transform(apply_affine(target, index)))
        made[..., i] = outside_of_places(there, shape).reshape(size[:2])
    return made
