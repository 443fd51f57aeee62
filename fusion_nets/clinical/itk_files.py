"""NRRD and MetaImage, by ITK."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .errors import ImageError, check_affine, check_voxels, unreadable
from .nifti import least_white

__all__ = ["ITK_SUFFIXES", "read_itk"]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
DATA_FILE = {
    ".n": re.compile(rb"^data ?file: *(.*?)\s*$", re.MULTILINE | re.IGNORECASE),
    ".m": re.compile(rb"^ElementDataFile *= *(.*?)\s*$", re.MULTILINE),
}
LONGEST_HEADER = 2**16


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Read an NRRD or MetaImage file: (1 | 3, X, Y[, Z]), float32, its affine (RAS), and what means white in colours.

    Raises:
        ImageError: if it cannot be read, is gigantic, is no scalar or coloured image in two or three dimensions, or
            has its voxels in a file outside of its folder.
    """
    import itk

    _check_data_file(path)
    try:
        file = (itk.NrrdImageIO if path.suffix.lower().startswith(".n") else itk.MetaImageIO).New()
        file.SetFileName(str(path))
        file.ReadImageInformation()
        channels = file.GetNumberOfComponents()
        shape = tuple(file.GetDimensions(axis) for axis in range(file.GetNumberOfDimensions()))
        if len(shape) not in (2, 3) or channels not in (1, 3):
            raise ImageError(
                f"{path}: shape {shape} of {channels} values; two or three dimensions of 1 or 3 are accepted"
            )
        check_voxels(path, (channels, *shape))
        if file.GetImageSizeInBytes() > 2**30:
            check_voxels(path, (channels, *shape, file.GetComponentSize()))
        kind = "f" if file.GetComponentTypeAsString(file.GetComponentType()) in ("float", "double") else "i"
        image_type = itk.Image[itk.F, len(shape)] if channels == 1 else itk.VectorImage[itk.F, len(shape)]
        reader = itk.ImageFileReader[image_type].New(ImageIO=file, FileName=str(path))
        reader.Update()
        image = reader.GetOutput()
        array = itk.array_view_from_image(image).T.reshape(channels, *shape).copy()
        affine = np.eye(4)
        size = len(shape)
        affine[:size, :size] = itk.array_from_matrix(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
        affine[:size, 3] = list(image.GetOrigin())
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes ITK stumble in any way
        reason = RuntimeError(str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__)
        raise unreadable(path, "NRRD or MetaImage file", "a whole one", reason) from error
    array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
    if min(array.shape[1:]) < 2:
        raise ImageError(f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted")
    white = least_white(array, kind, path) if channels == 3 else None
    return array, check_affine(path, np.diag([-1.0, -1, 1, 1]) @ affine), white


def _check_data_file(path: Path) -> None:
    """Refuse a header that would have any other file on this machine read as its voxels."""
    with open(path, "rb") as file:
        header = file.read(LONGEST_HEADER)
    if path.suffix.lower().startswith(".n"):
        header = re.split(rb"\r?\n\r?\n", header, maxsplit=1)[0]
    for found in DATA_FILE[path.suffix.lower()[:2]].findall(header):
        if found == b"LOCAL":
            return
        name = found.decode("utf-8", "replace")
        data, folder = (path.parent / name).resolve(), path.parent.resolve()
        if not data.is_relative_to(folder) or not data.is_file():
            raise ImageError(f"{path}: its voxels are in {name!r}; a single file in the same folder is accepted")
