"""Write a fused image: a picture or NIfTI."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from .reading import NIFTI_SUFFIXES, RASTER_AFFINE, RASTER_SUFFIXES
from .whole_files import whole_file

__all__ = ["OUTPUT_SUFFIXES", "write_image"]

_LOSSLESS = tuple(suffix for suffix in RASTER_SUFFIXES if suffix not in (".jpg", ".jpeg"))
OUTPUT_SUFFIXES = (*_LOSSLESS, *NIFTI_SUFFIXES)


def write_image(path: str | os.PathLike[str], image: torch.Tensor) -> Path:
    """Write a fused image in the form its name's ending asks for.

    Args:
        path: ends in .png, .tif, .tiff or .bmp (two-dimensional images, 8 bit), .nii or .nii.gz. NIfTI keeps a grey
            image as float32 in [0, 1] and a coloured one as RGB24, with the image's affine.
        image: (1 | 3, H, W[, D]) in [0, 1]; values beyond become black or white. The affine of a MetaTensor says how a
            slice lies: a picture is written as a radiologist looks at it, the patient's right (or front, in a
            sagittal slice) on the left, front or head on top. A tensor without one keeps its rows and columns.

    Returns:
        The path.

    Raises:
        ValueError: for another ending, a volume that should become a picture, another number of channels, or values
            that are not finite.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith(OUTPUT_SUFFIXES):
        raise ValueError(f"{path}: unknown ending; accepted are {', '.join(OUTPUT_SUFFIXES)}")
    if image.ndim not in (3, 4) or image.shape[0] not in (1, 3):
        raise ValueError(f"{path}: expected (1 | 3, H, W[, D]) to write, got {tuple(image.shape)}")
    if image.ndim == 4 and name.endswith(_LOSSLESS):
        raise ValueError(f"{path}: a volume cannot become a picture; accepted are {', '.join(NIFTI_SUFFIXES)}")
    array = torch.as_tensor(image).detach().cpu().float().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: not written, the image holds NaN or infinity; only finite values are accepted")
    array = array.clip(0, 1)
    if isinstance(image, MetaTensor):
        affine = image.affine.cpu().numpy()
    else:
        affine = RASTER_AFFINE if image.ndim == 3 else np.eye(4)
    with whole_file(path) as partial:
        if name.endswith(NIFTI_SUFFIXES):
            nib.save(_as_nifti(array, affine), partial)
        else:
            Image.fromarray(_as_rows(_to_8_bit(array), affine)).save(partial)
    return path


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    return np.rint(array * 255).astype(np.uint8)


def _as_nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    if array.shape[0] == 1:
        image = nib.Nifti1Image(array[0], affine)
        image.header["cal_max"] = 1
    else:
        rgb = np.dtype([("R", np.uint8), ("G", np.uint8), ("B", np.uint8)])
        image = nib.Nifti1Image(np.ascontiguousarray(np.moveaxis(_to_8_bit(array), 0, -1)).view(rgb)[..., 0], affine)
    image.header.set_xyzt_units("mm")
    return image


def _as_rows(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(C, H, W) as (rows, columns[, 3]), turned to the radiological view of the plane it lies in."""
    here = io_orientation(affine)
    in_plane = set(here[:2, 0].astype(int))
    columns = "L" if 0 in in_plane else "P"
    rows = "I" if 2 in in_plane else "P"
    through = "LPI"[({0, 1, 2} - in_plane).pop()]
    turn = ornt_transform(here, axcodes2ornt((rows, columns, through)))
    volume = np.moveaxis(array, 0, -1)[:, :, None, :]
    picture = apply_orientation(volume, turn)[:, :, 0, :]
    return np.ascontiguousarray(picture[..., 0] if array.shape[0] == 1 else picture)
