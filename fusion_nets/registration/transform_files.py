"""A registration, and the files that keep it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.files import whole_file

__all__ = ["Registration", "RegistrationError", "read_transform", "write_transform"]

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
