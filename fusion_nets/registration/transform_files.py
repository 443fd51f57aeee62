"""A registration, and the files that keep it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.files import whole_file

from .warp import Warp, WorldTransform

__all__ = ["Registration", "RegistrationError", "read_transform", "write_transform"]

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's world to that of MONAI and nibabel, and back."""


_LINEAR = re.compile(
    r"#Insight Transform File V1\.0\s+#Transform 0\s+Transform: AffineTransform_double_3_3\s+"
    r"Parameters:([-+.\deE ]+)\s+FixedParameters:([-+.\deE ]+)\s*"
)
"""A text as :func:`write_transform` and 3D Slicer write it, of what does not bend."""

_LONGEST = 4096
"""Characters of such a text; one that is longer is ITK's to read."""

_Told = tuple[str, Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]
"""A transform of a file: its name, its parameters and its fixed parameters."""


class RegistrationError(ImageError):
    """A registration that cannot be made, or that made things worse."""


@dataclass(frozen=True, eq=False)
class Registration:
    """Where the points of the anatomy lie in the overlay.

    Attributes:
        matrix: (4, 4) float64, from the anatomy's world to the overlay's, RAS in mm.
        asked: the mode that was asked for.
        mode: what was done: "none", "rigid", "affine", "deformable", or "given" for a transform that was made before.
        before: :func:`similarity` of the images as they came; None where nothing was registered.
        after: the same under the matrix.
        reason: why this mode was taken.
        warp: with what bends beside the matrix; None where nothing does.
        bending: what it does, for the record.
    """

    matrix: np.ndarray
    asked: str
    mode: str
    before: float | None
    after: float | None
    reason: str
    warp: Warp | None = None
    bending: Mapping[str, Any] | None = None

    @property
    def transform(self) -> WorldTransform:
        """All of it: the matrix, or what bends."""
        return self.matrix if self.warp is None else self.warp

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON knows it; similarities only where they were measured."""
        measured = {"measure": "normalised mutual information", "before": self.before, "after": self.after}
        return {
            "asked": self.asked,
            "mode": self.mode,
            "reason": self.reason,
            "matrix_ras_mm": self.matrix.tolist(),
            **({} if self.before is None else measured),
            **({} if self.bending is None else {"bending": dict(self.bending)}),
        }


def write_transform(path: str | os.PathLike[str], registration: Registration) -> Path:
    """Save a registration as an ITK transform that resamples the overlay onto the anatomy.

    An ``AffineTransform_double_3_3``. As is usual in ITK, it maps points of the fixed image (the anatomy) to those of
    the moving one (the overlay), and its world is LPS: x and y have the other sign than in ``registration.matrix``.
    3D Slicer, ITK-SNAP and SimpleITK read it. What bends is a ``CompositeTransform_double_3_3`` of it and a
    ``BSplineTransform_double_3_3``, which comes first. The text is written here, as ITK takes 20 s to load.

    Args:
        path: ends in .tfm.
        registration: what to save.

    Returns:
        The path.

    Raises:
        ValueError: for another ending.
    """
    path = Path(path)
    if path.suffix.lower() != ".tfm":
        raise ValueError(f"{path}: unknown ending; .tfm is accepted")
    lps = TO_LPS @ registration.matrix @ TO_LPS
    linear = [*lps[:3, :3].ravel(), *lps[:3, 3]]
    kinds: list[_Told] = [("AffineTransform_double_3_3", linear, [0, 0, 0])]
    if registration.warp is not None:
        kinds = [("CompositeTransform_double_3_3", [], []), *kinds, _splines(registration.warp)]
    lines = ["#Insight Transform File V1.0"]
    for number, (kind, numbers, fixed) in enumerate(kinds):
        lines += [f"#Transform {number}", f"Transform: {kind}"]
        if len(numbers):
            lines += [f"Parameters: {_words(numbers)}", f"FixedParameters: {_words(fixed)}"]
    with whole_file(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def read_transform(path: str | os.PathLike[str]) -> WorldTransform:
    """Read an ITK transform, such as :func:`write_transform` or 3D Slicer saves it.

    Args:
        path: an ITK transform file (.tfm, .txt or .h5) with a single three-dimensional transform of translation,
            rotation, similarity or affine kind, from points of the anatomy to points of the overlay; or with cubic
            B-splines, alone or composed with one of these, which is done after them.

    Returns:
        (4, 4) float64, anatomy's world to overlay's, RAS in mm; or what bends.

    Raises:
        RegistrationError: if there is no such file, or no such transform in it.
    """
    path = Path(path)
    accepted = "an ITK transform file (.tfm) with one linear transform in three dimensions, or B-splines before it,"
    accepted += " is accepted"
    if not path.is_file():
        raise RegistrationError(Reason.MISSING, f"{path}: no such file; {accepted}")
    splines = None
    try:
        matrix = _matrix_in(path)
        if matrix is None:
            matrix, splines = _read_by_itk(path)
    except Exception as error:
        raise RegistrationError(Reason.DAMAGED, f"{path}: not a transform that can be read; {accepted}") from error
    if matrix is None or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-6:
        raise RegistrationError(Reason.KIND, f"{path}: {accepted}")
    matrix = TO_LPS @ matrix @ TO_LPS
    return matrix if splines is None else Warp(matrix, *splines)


def _matrix_in(path: Path) -> np.ndarray | None:
    """The matrix (LPS) of a text that tells one, which takes no ITK to read; None for any other file."""
    with path.open("rb") as file:
        text = file.read(_LONGEST + 1).decode("latin-1")
    told = _LINEAR.fullmatch(text)
    if told is None or len(text) > _LONGEST:  # what follows may be another transform, or the rest of a number
        return None
    numbers, centre = ([float(word) for word in words.split()] for words in told.groups())
    if len(numbers) != 12 or len(centre) != 3 or not np.isfinite([*numbers, *centre]).all():
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(numbers[:9], (3, 3))
    matrix[:3, 3] = np.array(numbers[9:]) + centre - matrix[:3, :3] @ centre
    return matrix


def _read_by_itk(path: Path) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]:
    """The matrix (LPS) of any file, None where it has no such, and coefficients and grid of splines before it."""
    import itk

    (transform,) = itk.transformread(str(path))
    splines, transform = _parted(transform)
    corner = np.vstack([np.zeros(3), np.eye(3)])
    there = np.array([transform.TransformPoint(point) for point in corner.tolist()], dtype=np.float64)
    if not transform.IsLinear() or there.shape != (4, 3):
        return None, splines
    matrix = np.eye(4)
    matrix[:3, 3] = there[0]
    matrix[:3, :3] = (there[1:] - there[0]).T
    return matrix, splines


def _splines(warp: Warp) -> _Told:
    """The bending as ITK has it."""
    lps, sign = TO_LPS @ warp.grid, np.diag(TO_LPS)[:3]
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    numbers = (warp.coefficients * sign[:, None, None, None]).swapaxes(1, 3).ravel()
    grid = [*warp.coefficients.shape[1:], *lps[:3, 3], *edges, *(lps[:3, :3] / edges).ravel()]
    return "BSplineTransform_double_3_3", numbers, grid


def _words(numbers: Sequence[float] | np.ndarray) -> str:
    """Each as the shortest that is read as the same float64; 0 has no sign."""
    return " ".join(repr(float(number) + 0.0).removesuffix(".0") for number in numbers)


def _parted(transform: Any) -> tuple[tuple[np.ndarray, np.ndarray] | None, Any]:
    """Coefficients and grid of the B-splines that come first, and the linear transform after them."""
    import itk

    parts = [transform]
    if transform.GetNameOfClass() == "CompositeTransform":  # what was added last is done first
        parts = [transform.GetNthTransform(i) for i in range(transform.GetNumberOfTransforms())]
    if parts[-1].GetNameOfClass() != "BSplineTransform":
        return None, transform
    *after, splines = parts
    if len(after) > 1:
        raise ValueError("more than one transform beside B-splines")
    fixed, numbers = (
        np.array([given.GetElement(i) for i in range(given.GetSize())], dtype=np.float64)
        for given in (splines.GetFixedParameters(), splines.GetParameters())
    )
    size = fixed[:3].astype(int)
    if numbers.size != 3 * size.prod() or fixed.size != 18:
        raise ValueError("no cubic B-splines in three dimensions")
    grid = np.eye(4)
    grid[:3, :3], grid[:3, 3] = fixed[9:].reshape(3, 3) * fixed[6:9], fixed[3:6]
    sign = np.diag(TO_LPS)[:3]
    coefficients = numbers.reshape(3, *size[::-1]).swapaxes(1, 3) * sign[:, None, None, None]
    return (coefficients, TO_LPS @ grid), after[0] if after else itk.AffineTransform[itk.D, 3].New()
