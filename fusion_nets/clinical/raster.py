"""Pictures: PNG, JPEG, TIFF and BMP."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import ImageError, Reason, unreadable

__all__ = ["RASTER_AFFINE", "RASTER_SUFFIXES", "read_picture"]

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of files that are read as pictures."""
RASTER_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Of a picture's (row, column), in RAS: rows go to posterior, columns to the patient's left, a pixel is 1 mm."""

MOST_PIXELS = 2**26
"""More is not a picture of a slice, but one that is meant to fill the memory."""


def read_picture(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Read a picture: (1 | 3, rows, columns), :data:`RASTER_AFFINE`, and what means white.

    Raises:
        ImageError: if it cannot be read, is gigantic, or holds several or something else than grey or colours.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            picture = Image.open(path)
        with picture:
            count = getattr(picture, "n_frames", 1)
            if picture.width * picture.height > MOST_PIXELS:
                raise ImageError(
                    Reason.TOO_LARGE,
                    f"{path}: {picture.width} x {picture.height} pixels; up to 8192 x 8192 are accepted",
                )
            picture.load()
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes its decoder stumble in any way
        raise unreadable(path, "picture", "a whole PNG, JPEG, TIFF or BMP file", error) from error
    if count > 1:
        raise ImageError(Reason.AMBIGUOUS, f"{path}: holds {count} pictures; a single one is accepted")
    array = np.asarray(_as_grey_or_rgb(picture, path))
    white = 255 if array.dtype == np.uint8 else 65535
    return np.moveaxis(np.atleast_3d(array), -1, 0), RASTER_AFFINE.copy(), white


def _as_grey_or_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """As grey (8 or 16 bit) or RGB: colours of a palette looked up, what is transparent as on a black screen."""
    if picture.mode in ("L", "RGB") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode == "I" and picture.format == "PNG":  # 16 bit grey, as Pillow before 11 has it
        return picture.convert("I;16")
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("P", "PA", "LA", "RGBA", "RGBX"):
        screen = Image.new("RGBA", picture.size, "black")
        return Image.alpha_composite(screen, picture.convert("RGBA")).convert("RGB")
    raise ImageError(Reason.KIND, f"{path}: pixels of kind {picture.mode}; grey (8 or 16 bit) and RGB are accepted")
