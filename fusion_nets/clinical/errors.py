"""What is said when an image cannot be used."""

from __future__ import annotations

import numpy as np
from nibabel.affines import voxel_sizes

__all__ = ["ImageError", "MOST_VOXELS", "check_affine", "check_voxels", "unreadable"]

MOST_VOXELS = 240 * 2**20
"""As float32 they take just under 1 GiB; a header that claims more is damaged, or more than memory holds."""

MOST_BYTES = MOST_VOXELS * 4
"""For the image and what it is made from, where both are in memory as a whole."""


class ImageError(ValueError):
    """An image that cannot be used; the message names the file and what would be accepted."""


def check_voxels(where: object, shape: tuple[int, ...], held: int = 0) -> None:
    """Refuse a size before memory is asked for.

    Args:
        where: what the message starts with.
        shape: of the voxels, colours included.
        held: bytes per voxel that have to be held beside the float32 that is made of it.

    Raises:
        ImageError: for more voxels than :data:`MOST_VOXELS`.
    """
    count = 1
    for length in shape:
        count *= int(length)  # not in numpy's integers, which overflow
    if count > MOST_VOXELS or count * (4 + held) > MOST_BYTES or min(shape) < 0:
        most = min(MOST_VOXELS, MOST_BYTES // (4 + held))
        raise ImageError(f"{where}: shape {shape}; up to {most >> 20} x 1024 x 1024 voxels of this kind are accepted")


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
