"""Pictures: PNG, JPEG, TIFF and BMP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fusion_nets.quiet import silence

from .choosing import Wanted, choose_volumes
from .errors import ImageError, Pixels, Reason, unreadable

__all__ = ["RASTER_AFFINE", "RASTER_SUFFIXES", "read_picture"]

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of files that are read as pictures."""
RASTER_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Of a picture's (row, column), in RAS: rows go to posterior, columns to the patient's left, a pixel is 1 mm."""

BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, ORIENTATION, WHITE_IS_ZERO = 258, 259, 262, 274, 0
"""Of TIFF 6.0."""
MOST_PIXELS = 2**26
"""More is not a picture of a slice, but one that is meant to fill the memory."""


def read_picture(path: Path, volume: Wanted = None) -> Pixels:
    """Read a picture: (1 | 3, rows, columns), :data:`RASTER_AFFINE`, and what means white.

    It is turned as its EXIF orientation says, and black is black also where a TIFF stores white as 0.

    Args:
        path: the file.
        volume: which of several pictures in it is meant.

    Raises:
        ImageError: if it cannot be read, is gigantic, or holds several or something else than grey or colours.
    """
    try:
        with silence():  # of pictures that are large, refused below
            picture = Image.open(path)
        with picture:
            chosen = choose_volumes(path, [{} for _ in range(getattr(picture, "n_frames", 1))], volume)
            if len(chosen) > 1:
                raise ImageError(Reason.AMBIGUOUS, f"{path}: holds {len(chosen)} pictures; one of them is accepted")
            if chosen[0]:
                picture.seek(chosen[0])
            if picture.width * picture.height > MOST_PIXELS:
                raise ImageError(
                    Reason.TOO_LARGE,
                    f"{path}: {picture.width} x {picture.height} pixels; up to 8192 x 8192 are accepted",
                )
            tags = dict(getattr(picture, "tag_v2", {}))
            if tags.get(ORIENTATION) in (5, 6, 7, 8) and tags.get(COMPRESSION, 1) == 1:
                raise ImageError(
                    Reason.KIND,
                    f"{path}: its Orientation is {tags[ORIENTATION]} without compression, which Pillow misreads; one "
                    "that is compressed or upright is accepted",
                )
            picture.load()
            turned = ImageOps.exif_transpose(picture)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes its decoder stumble in any way
        raise unreadable(path, "picture", "a whole PNG, JPEG, TIFF or BMP file", error) from error
    array = np.asarray(_as_grey_or_rgb(turned, path))
    white = 255
    if array.dtype != np.uint8:
        white = 2 ** int(np.max(tags.get(BITS_PER_SAMPLE, 16))) - 1
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow knows of 8 bit alone
            array = white - array
    return Pixels(np.moveaxis(np.atleast_3d(array), -1, 0), RASTER_AFFINE.copy(), white)


def _as_grey_or_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """As grey (8 or 16 bit) or RGB: colours of a palette looked up, what is transparent as on a black screen."""
    if "transparency" in picture.info and picture.mode in ("1", "L", "RGB"):
        picture = picture.convert("RGBA")
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
