"""NIfTI images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from .errors import ImageError, Reason, check_affine, check_voxels, unreadable

__all__ = ["NIFTI_SUFFIXES", "least_white", "read_nifti"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""Endings of files that are read as NIfTI."""
SLICES_OF = 2**22
"""Voxels that are read at once."""


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Read a NIfTI image: (1 | 3, X, Y[, Z]), float32, its affine, and what means white in a coloured one.

    Raises:
        ImageError: if it cannot be read, is gigantic, or is no scalar or coloured image of one moment.
    """
    try:
        image = nib.load(path, keep_file_open=True)  # or a compressed one would be unpacked anew for every slice
        if not isinstance(image, nib.Nifti1Image):
            raise TypeError(f"a {type(image).__name__}")
        channels = _check_shape(image, path)
        array, kind = _values(image, channels)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes header, gzip or zlib stumble in any way
        raise unreadable(path, "NIfTI image", "a whole .nii or .nii.gz file", error) from error
    has_fields = bool(image.get_data_dtype().fields)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if min(array.shape[1:]) < 2:
        raise ImageError(
            Reason.TOO_SMALL, f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted"
        )
    white = 255 if has_fields else least_white(array, kind, path) if channels == 3 else None
    return array, check_affine(path, image.affine), white


def _values(image: nib.Nifti1Image, channels: int) -> tuple[np.ndarray, str]:
    """All values, and of which kind they were; a few slices at a time, because scaled ones would take twice as much."""
    shape = image.shape
    values = np.empty((channels, *shape[:3]), dtype=np.float32)
    names, kind = image.get_data_dtype().names, "f"
    at_once = max(1, SLICES_OF // max(1, shape[0] * shape[1]))
    for channel in range(1 if names else channels):
        colour = tuple(channel if length > 1 else 0 for length in shape[3:])
        for k in range(0, shape[2] if len(shape) > 2 else 1, at_once):
            slices = (slice(k, k + at_once),) if len(shape) > 2 else ()
            place = (slice(None), slice(None), *slices, *colour)
            part = np.asanyarray(image.dataobj[place])
            kind = part.dtype.kind
            into = values[..., slices[0]] if slices else values
            if names:
                into[:] = np.stack([part[name] for name in "RGB"])
            else:
                into[channel] = part
    return values, kind


def _check_shape(image: nib.Nifti1Image, path: Path) -> int:
    """How many channels there are, 3 of colours; refuse what is no image of one moment."""
    dtype, shape = image.get_data_dtype(), [n for i, n in enumerate(image.shape) if i < 3 or n != 1]
    series = image.ndim > 3 and image.shape[3] > 1 and image.header.get_xyzt_units()[1] in ("sec", "msec", "usec")
    colours = len(shape) == 4 and shape[3] == 3 and not dtype.fields and not series
    if not (len(shape) in (2, 3) or colours):
        raise ImageError(
            Reason.SHAPE, f"{path}: shape {image.shape}; two or three dimensions are accepted, with 3 colours at most"
        )
    check_voxels(path, (*shape, 3) if dtype.fields else tuple(shape))
    if dtype.kind == "c":
        raise ImageError(Reason.KIND, f"{path}: holds complex numbers; real ones are accepted, such as their magnitude")
    return 3 if colours or dtype.fields else 1


def least_white(colours: np.ndarray, kind: str, path: Path) -> int:
    """What means white where the file does not say it of its colours: the least that fits.

    Args:
        colours: all values.
        kind: of which kind they were in the file, as numpy calls it; whole numbers are not taken for 0 to 1.
        path: named in the message.

    Raises:
        ImageError: if nothing fits.
    """
    low, high = colours.min(), colours.max()
    for white in (255, 65535) if kind in "iu" else (1, 255, 65535):
        if low >= 0 and high <= white * 1.0001:  # a slope in the header is rounded
            return white
    raise ImageError(
        Reason.VALUES, f"{path}: colours from {low:g} to {high:g}; accepted are 0 to 1, to 255 or to 65535"
    )
