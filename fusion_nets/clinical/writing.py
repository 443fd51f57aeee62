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

from .reading import NIFTI_SUFFIXES, RASTER_SUFFIXES
from .whole_files import whole_file

__all__ = ["write_image"]

_LOSSLESS = tuple(suffix for suffix in RASTER_SUFFIXES if suffix not in (".jpg", ".jpeg"))


def write_image(path: str | os.PathLike[str], image: torch.Tensor) -> Path:
    """Write a fused image in the form its name's ending asks for.

    Args:
        path: ends in .png, .tif, .tiff or .bmp (two-dimensional images, 8 bit), .nii or .nii.gz. NIfTI keeps a grey
            image as float32 in [0, 1] and a coloured one as RGB24, with the image's affine.
        image: (1 | 3, H, W[, D]) in [0, 1]. The affine of a MetaTensor says how a slice lies: a picture is written
            as a radiologist looks at it, patient's right on the left, anterior or superior on top.

    Returns:
        The path.

    Raises:
        ValueError: for another ending, a volume that should become a picture, or another number of channels.
    """
    path = Path(path)
    name = path.name.lower()
    affine = image.affine.cpu().numpy() if isinstance(image, MetaTensor) else np.eye(4)
    array = torch.as_tensor(image).detach().cpu().float().clamp(0, 1).numpy()
    if array.shape[0] not in (1, 3) or array.ndim not in (3, 4):
        raise ValueError(f"expected (1 | 3, H, W[, D]) to write, got {array.shape}")
    if name.endswith(NIFTI_SUFFIXES):
        with whole_file(path) as partial:
            nib.save(_as_nifti(array, affine), partial)
    elif name.endswith(_LOSSLESS):
        if array.ndim != 3:
            raise ValueError(f"{path}: a volume cannot become a picture; accepted are {', '.join(NIFTI_SUFFIXES)}")
        with whole_file(path) as partial:
            Image.fromarray(_as_rows(_to_8_bit(array), affine)).save(partial)
    else:
        raise ValueError(f"{path}: unknown ending; accepted are {', '.join((*_LOSSLESS, *NIFTI_SUFFIXES))}")
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
