"""What is said when an image cannot be used."""

from __future__ import annotations

import numpy as np
from nibabel.affines import voxel_sizes

__all__ = ["ImageError", "MOST_VOXELS", "check_affine", "check_voxels", "unreadable"]

MOST_VOXELS = 2**28
"""As float32 they take 1 GiB; a header that claims more is damaged, or the image would not fit into memory."""


class ImageError(ValueError):
    """An image that cannot be used; the message names the file and what would be accepted."""


def check_voxels(where: object, shape: tuple[int, ...]) -> None:
    """Refuse a size before memory is asked for.

    Args:
        where: what the message starts with.
        shape: of the voxels, colours included.

    Raises:
        ImageError: for more voxels than :data:`MOST_VOXELS`.
    """
    count = 1
    for length in shape:
        count *= int(length)  # not in numpy's integers, which overflow
    if count > MOST_VOXELS or min(shape) < 0:
        raise ImageError(f"{where}: shape {shape}; up to 1024 x 1024 x 256 voxels are accepted, in any shape")


def check_affine(where: object, affine: np.ndarray) -> np.ndarray:
    """The affine (4, 4), if it says where voxels lie.

    Raises:
        ImageError: if it cannot be inverted, nearly, or is not finite.
    """
    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * voxel_sizes(affine).prod() > 0:
        return affine
    raise ImageError(f"{where}: its affine does not say where the voxels lie; one that can be inverted is accepted")


def unreadable(where: object, kind: str, accepted: str, error: Exception) -> ImageError:
    """What to raise when a library stumbles over a file.

    Args:
        where: what the message starts with.
        kind: of file that it was taken for.
        accepted: what would be.
        error: what the library raised.
    """
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ImageError(f"{where}: not a readable {kind} ({reason}); {accepted} is accepted")
