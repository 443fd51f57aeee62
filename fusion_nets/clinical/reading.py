"""Read one image of a study, or refuse it with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, UnidentifiedImageError

__all__ = ["ImageError", "NIFTI_SUFFIXES", "RASTER_SUFFIXES", "read_image"]

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
RASTER_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Of a picture's (row, column), in RAS: rows go to posterior, columns to the patient's left, a pixel is 1 mm."""


class ImageError(ValueError):
    """An image that cannot be used; the message names the file and what would be accepted."""


def read_image(path: str | os.PathLike[str]) -> MetaTensor:
    """Read a two-dimensional picture or a NIfTI image.

    Args:
        path: PNG, JPEG, TIFF or BMP (8 or 16 bit, grey or colour), or NIfTI (two or three dimensions, scalar or RGB).

    Returns:
        (1, H, W[, D]) for a grey image, (3, H, W[, D]) for a coloured one, float32, values as stored. Pictures keep
        their row and column order, one with three equal channels being grey; a NIfTI image keeps its voxel axes and its
        affine. ``meta["white"]`` is the value that means white (255 or 65535), and missing where values are measured.

    Raises:
        ImageError: if the file is missing, unreadable, of another kind, or holds no usable image.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        array, affine, white = _read_nifti(path)
    elif name.endswith(RASTER_SUFFIXES):
        array, affine, white = _read_raster(path)
    else:
        accepted = ", ".join((*RASTER_SUFFIXES, *NIFTI_SUFFIXES))
        raise ImageError(f"{path}: unknown kind of file; accepted are {accepted}")
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not torch.isfinite(tensor).all():
        raise ImageError(f"{path}: holds NaN or infinity; only finite values are accepted")
    if tensor.min() == tensor.max():
        raise ImageError(f"{path}: every pixel has the value {tensor.min().item():g}; an image with content is needed")
    meta: dict[str, object] = {"filename_or_obj": str(path)}
    if white is not None:
        meta["white"] = white
    return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)


def _read_raster(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise ImageError(f"{path}: holds {picture.n_frames} pictures; a single one is accepted")
            array = np.asarray(_without_palette_and_alpha(picture, path))
    except ImageError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable picture ({type(error).__name__}: {error})") from error
    white = 255 if array.dtype == np.uint8 else 65535
    array = np.moveaxis(np.atleast_3d(array), -1, 0)
    if (array == array[:1]).all():
        array = array[:1]
    return array, RASTER_AFFINE.copy(), white


def _without_palette_and_alpha(picture: Image.Image, path: Path) -> Image.Image:
    """As grey (8 or 16 bit) or RGB: a palette's indices and a mask's weights are no intensities."""
    if picture.mode in ("L", "RGB") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode == "I" and picture.format == "PNG":
        return picture.convert("I;16")
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    if picture.mode in ("P", "PA", "RGBA", "RGBa", "RGBX"):
        return picture.convert("RGB")
    raise ImageError(f"{path}: colour model {picture.mode!r}; grey and RGB are accepted")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    try:
        image = nib.load(path)
        stored = image.get_data_dtype()
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel passes on whatever gzip, zlib or the header raise
        raise ImageError(f"{path}: not a readable NIfTI image ({type(error).__name__}: {error})") from error
    if stored.fields:
        array = np.stack([array[channel] for channel in ("R", "G", "B")])
        return _as_volume(array, path), image.affine, 255
    array = np.squeeze(array, axis=tuple(axis for axis in range(3, array.ndim) if array.shape[axis] == 1))
    if array.ndim == 4 and array.shape[-1] == 3:
        return _as_volume(np.moveaxis(array, -1, 0), path), image.affine, 255 if stored == np.uint8 else None
    if array.ndim not in (2, 3):
        raise ImageError(
            f"{path}: shape {array.shape}; two or three dimensions are accepted, with 3 colours at the most"
        )
    return _as_volume(array[None], path), image.affine, None


def _as_volume(array: np.ndarray, path: Path) -> np.ndarray:
    """Drop a single last slice, so that a NIfTI slice is two-dimensional; refuse what has no area."""
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if min(array.shape[1:]) < 2:
        raise ImageError(f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are needed")
    return array
