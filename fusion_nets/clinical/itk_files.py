"""NRRD and MetaImage, the forms of the ITK world."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .errors import ImageError, Reason, check_affine, check_voxels, unreadable
from .metaimage import LONGEST_HEADER, beside, read_metaimage
from .nifti import least_white

__all__ = ["ITK_SUFFIXES", "read_itk"]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of files that are read as NRRD or MetaImage."""
DATA_FILE = re.compile(rb"^data ?file: *(.*?)\s*$", re.MULTILINE | re.IGNORECASE)


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Read an NRRD or MetaImage file: (1 | 3, X, Y[, Z]), float32, its affine (RAS), and what means white in colours.

    Raises:
        ImageError: if it cannot be read, is gigantic, is no scalar or coloured image in two or three dimensions, or
            has its voxels in a file outside of its folder.
    """
    values, affine, kind = read_metaimage(path) if path.suffix.lower().startswith(".m") else _read_nrrd(path)
    channels, *shape = values.shape
    if channels not in (1, 3) or len(shape) not in (2, 3):
        raise ImageError(
            Reason.SHAPE, f"{path}: shape {tuple(shape)} of {channels} values; two or three axes of 1 or 3 are accepted"
        )
    array = np.ascontiguousarray(values, dtype=np.float32)
    array = array[..., 0] if len(shape) == 3 and shape[2] == 1 else array
    if min(array.shape[1:]) < 2:
        raise ImageError(
            Reason.TOO_SMALL, f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted"
        )
    white = least_white(array, kind, path) if channels == 3 else None
    return array, check_affine(path, np.diag([-1.0, -1, 1, 1]) @ affine), white


def _read_nrrd(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """(channels, X, Y[, Z]), the affine (LPS), and which kind of numbers they are, by ITK."""
    import itk

    with open(path, "rb") as header:
        text = re.split(rb"\r?\n\r?\n", header.read(LONGEST_HEADER), maxsplit=1)[0]
    for name in DATA_FILE.findall(text):
        beside(path, name.decode("utf-8", "replace"))
    try:
        file = itk.NrrdImageIO.New()
        file.SetFileName(str(path))
        file.ReadImageInformation()
        channels = file.GetNumberOfComponents()
        shape = tuple(file.GetDimensions(axis) for axis in range(file.GetNumberOfDimensions()))
        check_voxels(path, (channels, *shape), held=max(4, file.GetComponentSize()))
        if len(shape) not in (2, 3):
            raise ValueError(f"{len(shape)} dimensions")
        kind = "f" if file.GetComponentTypeAsString(file.GetComponentType()) in ("float", "double") else "i"
        if path.suffix.lower() == ".nrrd" and b"encoding: raw" in text.lower():
            _check_length(path, file.GetImageSizeInBytes())
        image_type = itk.Image[itk.F, len(shape)] if channels == 1 else itk.VectorImage[itk.F, len(shape)]
        reader = itk.ImageFileReader[image_type].New(ImageIO=file, FileName=str(path))
        reader.Update()
        image = reader.GetOutput()
        values = np.array(itk.array_view_from_image(image).reshape(*shape[::-1], channels).T, order="C")
        affine, size = np.eye(4), len(shape)
        affine[:size, :size] = itk.array_from_matrix(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
        affine[:size, 3] = list(image.GetOrigin())
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes ITK stumble in any way
        reason = RuntimeError(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
        raise unreadable(path, "NRRD file", "a whole one", reason) from error
    return values, affine, kind


def _check_length(path: Path, wanted: int) -> None:
    """Before ITK asks for memory that it will not fill."""
    if path.stat().st_size < wanted:
        raise ValueError(f"{path.stat().st_size} bytes, where its header promises {wanted}")
