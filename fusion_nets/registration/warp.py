"""A transform that bends: cubic B-splines, then a linear one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

__all__ = ["WorldTransform", "Warp", "linear_part"]

STEP = 0.5
"""In mm: half of it on either side of a point, its surroundings are looked at."""

AT_ONCE = 2**18
"""Points whose surroundings are looked at together."""


@dataclass(frozen=True, eq=False)
class Warp:
    """Takes a point x of the anatomy's world to ``matrix @ (x + displacement(x))`` in the overlay's, RAS in mm.

    The displacement is a tensor product of uniform cubic B-splines (Rueckert et al., IEEE Trans Med Imaging 18:712,
    1999), as ITK's ``BSplineTransform`` of order 3 has it: nothing beyond the control points but one on each side.

    Attributes:
        matrix: (4, 4) float64.
        coefficients: (3, X, Y, Z) float64, of the displacement at the control points, in mm.
        grid: (4, 4), from the index of a control point to where it lies.
    """

    matrix: np.ndarray
    coefficients: np.ndarray
    grid: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Where points (N, 3) lie in the overlay."""
        return apply_affine(self.matrix, points + self.displacement(points))

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """By how much points (N, 3) are moved before the linear part, (N, 3)."""
        index = apply_affine(np.linalg.inv(self.grid), points).T
        last = np.array(self.coefficients.shape[1:])[:, None] - 2
        inside = ((index >= 1 - 1e-9) & (index <= last + 1e-9)).all(axis=0)
        moved = [ndimage.map_coordinates(one, index, order=3, prefilter=False) for one in self.coefficients]
        return np.where(inside[:, None], np.stack(moved, axis=-1), 0.0)

    def jacobians(self, points: np.ndarray) -> np.ndarray:
        """Determinant of the bending's Jacobian at points (N, 3): volume there over volume here, below 0 a fold."""
        parts = []
        for start in range(0, len(points), AT_ONCE):
            some = points[start : start + AT_ONCE]
            steps = np.eye(3) * STEP / 2
            columns = [self.displacement(some + step) - self.displacement(some - step) for step in steps]
            parts.append(np.linalg.det(np.eye(3) + np.stack(columns, axis=-1) / STEP))
        return np.concatenate(parts) if parts else np.empty(0)


WorldTransform = np.ndarray | Warp
"""From the anatomy's world to the overlay's: (4, 4), RAS in mm, or one that bends."""


def linear_part(transform: WorldTransform | None) -> np.ndarray | None:
    """The matrix of a transform."""
    return transform.matrix if isinstance(transform, Warp) else transform
