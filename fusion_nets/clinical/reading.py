"""Read one image of a study, or refuse it with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from PIL import Image

from .errors import ImageError, check_voxels

__all__ = ["ImageError", "NIFTI_SUFFIXES", "RASTER_SUFFIXES", "read_image"]

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
ENDINGS = ", ".join((*RASTER_SUFFIXES, *NIFTI_SUFFIXES))
RASTER_AFFINE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Of a picture's (row, column), in RAS: rows go to posterior, columns to the patient's left, a pixel is 1 mm."""


def read_image(path: str | os.PathLike[str]) -> MetaTensor:
    """Read a two-dimensional picture or a NIfTI image.

    Args:
        path: PNG, JPEG, TIFF or BMP (grey of 8 or 16 bit, or colour), or NIfTI (two or three dimensions, scalar or
            RGB).

    Returns:
        (1, H, W[, D]) for a grey image, (3, H, W[, D]) for a coloured one, float32, values as stored; three equal
        channels are grey. Pictures keep their row and column order, and what is transparent in them is black; a NIfTI
        image keeps its voxel axes and its affine, and a single slice of it is two-dimensional. ``meta["white"]`` is the
        value that means white in a picture or a coloured image (1, 255 or 65535); values that are measured have none.

    Raises:
        ImageError: if the file is missing, unreadable, of another kind, or holds no usable image.
    """
    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file it takes any name
        found = "is a folder" if os.path.isdir(path) else "no such file"
        raise ImageError(f"{path}: {found}; accepted are files ending in {ENDINGS}")
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        array, affine, white = _read_nifti(path)
    elif name.endswith(RASTER_SUFFIXES):
        array, affine, white = _read_raster(path)
    else:
        raise ImageError(f"{path}: unknown kind of file; accepted are {ENDINGS}")
    if (array == array[:1]).all():
        array = array[:1]
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if not torch.isfinite(tensor).all():
        raise ImageError(f"{path}: holds NaN or infinity; only finite values are accepted")
    if tensor.min() == tensor.max():
        value = tensor.min().item()
        raise ImageError(f"{path}: every pixel has the value {value:g}; an image with content is accepted")
    meta: dict[str, object] = {"filename_or_obj": str(path)}
    if white is not None:
        meta["white"] = white
    return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)


def _read_raster(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    try:
        with Image.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            picture.load()
    except Exception as error:  # a damaged file makes its decoder stumble in any way
        raise _unreadable(path, "picture", "a whole PNG, JPEG, TIFF or BMP file", error) from error
    if count > 1:
        raise ImageError(f"{path}: holds {count} pictures; a single one is accepted")
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
    raise ImageError(f"{path}: pixels of kind {picture.mode}; grey (8 or 16 bit) and RGB are accepted")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise TypeError(f"a {type(image).__name__}")
        has_fields = bool(image.get_data_dtype().fields)
        has_colour_axis = _check_shape(image, path)
        array = np.asanyarray(image.dataobj).squeeze(tuple(i for i in range(3, image.ndim) if image.shape[i] == 1))
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes header, gzip or zlib stumble in any way
        raise _unreadable(path, "NIfTI image", "a whole .nii or .nii.gz file", error) from error
    if has_fields:
        array = np.stack([array[channel] for channel in "RGB"])
    else:
        array = np.moveaxis(array, -1, 0) if has_colour_axis else array[None]
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if min(array.shape[1:]) < 2:
        raise ImageError(f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted")
    white = 255 if has_fields else _white(array, path) if has_colour_axis else None
    return array, _checked(image.affine, path), white


def _check_shape(image: nib.Nifti1Image, path: Path) -> bool:
    """Whether the last of its axes is that of the colours; refuse what is no image of one moment."""
    dtype, shape = image.get_data_dtype(), [n for i, n in enumerate(image.shape) if i < 3 or n != 1]
    series = image.ndim > 3 and image.shape[3] > 1 and image.header.get_xyzt_units()[1] in ("sec", "msec", "usec")
    colours = len(shape) == 4 and shape[3] == 3 and not dtype.fields and not series
    if not (len(shape) in (2, 3) or colours):
        raise ImageError(f"{path}: shape {image.shape}; two or three dimensions are accepted, with 3 colours at most")
    check_voxels(path, tuple(shape))
    if dtype.kind == "c":
        raise ImageError(f"{path}: holds complex numbers; real ones are accepted, such as their magnitude")
    return colours


def _white(colours: np.ndarray, path: Path) -> int:
    """What means white, which NIfTI does not say of colours on an axis of their own: the least that fits."""
    low, high = colours.min(), colours.max()
    for white in (255, 65535) if colours.dtype.kind in "iu" else (1, 255, 65535):
        if low >= 0 and high <= white * 1.0001:  # a slope in the header is rounded
            return white
    raise ImageError(f"{path}: colours from {low:g} to {high:g}; accepted are 0 to 1, to 255 or to 65535")


def _checked(affine: np.ndarray, path: Path) -> np.ndarray:
    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * voxel_sizes(affine).prod():
        return affine
    raise ImageError(f"{path}: its affine does not say where the voxels lie; one that can be inverted is accepted")


def _unreadable(path: Path, kind: str, accepted: str, error: Exception) -> ImageError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ImageError(f"{path}: not a readable {kind} ({reason}); {accepted} is accepted")
