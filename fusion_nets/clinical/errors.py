"""What is said when an image cannot be used."""

from __future__ import annotations

__all__ = ["ImageError", "MOST_VOXELS", "check_voxels"]

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
    if count > MOST_VOXELS:
        raise ImageError(f"{where}: shape {shape}; up to 1024 x 1024 x 256 voxels are accepted, in any shape")
