"""Write a fused image: a picture, a volume, or a picture of every slice."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import aff2axcodes, apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fusion_nets.files import SIGNATURE, whole_file, whole_folder
from fusion_nets.slabs import release, slabs, zeros

from .grids import radiological_view
from .reading import RASTER_AFFINE, RASTER_SUFFIXES
from .volume_files import VOLUME_SUFFIXES, save_volume

__all__ = ["OUTPUT_SUFFIXES", "PICTURE_SUFFIXES", "write_image", "write_slice", "write_slices", "write_values"]

PICTURE_SUFFIXES = tuple(suffix for suffix in RASTER_SUFFIXES if suffix not in (".jpg", ".jpeg"))
"""Of pictures without loss."""
OUTPUT_SUFFIXES = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
"""Endings of files that can be written."""
PNG_LEVEL = 2
"""Of its compression: 6, Pillow's, takes three times as long for files that are a ninth smaller."""


def write_image(path: str | os.PathLike[str], image: torch.Tensor) -> Path:
    """Write a fused image in the form its name's ending asks for.

    Args:
        path: ends in .png, .tif, .tiff or .bmp (two-dimensional images, 8 bit), .nii, .nii.gz, .nrrd or .mha. These
            keep a grey image as float32 in [0, 1] and a coloured one as RGB of 8 bit, with the image's affine.
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
    if image.ndim == 4 and name.endswith(PICTURE_SUFFIXES):
        raise ValueError(f"{path}: a volume cannot become a picture; accepted are {', '.join(VOLUME_SUFFIXES)}")
    array, affine = _displayed(path, image)
    if name.endswith(VOLUME_SUFFIXES):
        stored = zeros(array.shape, np.float32 if array.shape[0] == 1 else np.uint8)
        for part in slabs(array.shape):
            slab = array[..., part]
            stored[..., part] = slab.clip(0, 1) if array.shape[0] == 1 else _to_8_bit(slab)
        save_volume(path, stored, affine, {}, white=1)
    else:
        with whole_file(path) as partial:
            Image.fromarray(_as_rows(_to_8_bit(array), affine)).save(partial, compress_level=PNG_LEVEL)
    return path


def write_values(path: str | os.PathLike[str], image: MetaTensor) -> Path:
    """Write an image in its own units, with its geometry, and with modality and units said beside its values.

    Args:
        path: ends in .nii, .nii.gz, .nrrd or .mha.
        image: (1 | 3, H, W[, D]) as :func:`fusion_nets.clinical.read_image` gives it. Whole numbers are stored as such
            in the smallest kind that holds them (CT in HU as int16), others as float32, colours as RGB of 8 bit.

    Returns:
        The path.

    Raises:
        ValueError: for another ending.
    """
    path = Path(path)
    if not path.name.lower().endswith(VOLUME_SUFFIXES):
        raise ValueError(f"{path}: unknown ending; accepted are {', '.join(VOLUME_SUFFIXES)}")
    white = float(image.meta.get("white", 0))
    save_volume(path, _as_stored(image), image.affine.cpu().numpy(), image.meta, white)
    return path


def _as_stored(image: MetaTensor) -> np.ndarray:
    array = image.as_tensor().detach().cpu().numpy()
    white = image.meta.get("white")
    if array.shape[0] == 3:
        return _converted(array, np.uint8, lambda part: np.rint((part / (white or 1)).clip(0, 1) * 255))
    if not all((array[..., part] == np.rint(array[..., part])).all() for part in slabs(array.shape)):
        return array.astype(np.float32, copy=False)
    kinds = (np.uint8, np.uint16) if white else (np.int16, np.uint16, np.int32)
    ends = [(array[..., part].min(), array[..., part].max()) for part in slabs(array.shape)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    kind = next((k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max), np.float32)
    return array.astype(np.float32, copy=False) if kind is np.float32 else _converted(array, kind, lambda part: part)


def _converted(array: np.ndarray, kind: type, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    made = zeros(array.shape, kind)
    for part in slabs(array.shape):
        made[..., part] = function(array[..., part])
    return made


def write_slices(
    folder: str | os.PathLike[str], image: torch.Tensor, made: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Write every slice of a volume as a PNG of 8 bit, `0001.png` and so on, as a radiologist looks at it.

    Args:
        folder: appears when all are written. One that holds nothing but such slices is replaced.
        image: (1 | 3, H, W[, D]) in [0, 1], see :func:`write_image`; slices lie along the last axis and are numbered in
            its order.
        made: a folder of such slices of the same image, as :func:`write_slice` writes them; they are moved from there.

    Returns:
        The files.

    Raises:
        ValueError: if the folder holds something else, or the image cannot be written.
    """
    folder = Path(folder)
    array, affine = _displayed(folder, image)
    array = array if array.ndim == 4 else array[..., None]
    names = [f"{k:04d}.png" for k in range(1, array.shape[-1] + 1)]
    with whole_folder(folder) as partial:
        for k, name in enumerate(names):
            if made is not None and (Path(made) / name).is_file():
                os.replace(Path(made) / name, partial / name)
            else:
                _save_slice(partial / name, array[..., k], affine)
                release()
    return [folder / name for name in names]


def write_slice(path: str | os.PathLike[str], image: torch.Tensor, affine: np.ndarray) -> None:
    """Write one slice of a volume as :func:`write_slices` does.

    Args:
        path: ends in .png.
        image: (1 | 3, H, W) in [0, 1].
        affine: of the volume.
    """
    with whole_file(path) as partial:
        _save_slice(partial, torch.as_tensor(image).detach().cpu().float().numpy(), affine)


def _save_slice(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    signed = PngInfo()
    signed.add_text("Software", SIGNATURE.decode())
    Image.fromarray(_as_rows(_to_8_bit(array), affine)).save(path, pnginfo=signed, compress_level=PNG_LEVEL)


def _displayed(path: Path, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(1 | 3, H, W[, D]), and its affine."""
    if image.ndim not in (3, 4) or image.shape[0] not in (1, 3):
        raise ValueError(f"{path}: expected (1 | 3, H, W[, D]) to write, got {tuple(image.shape)}")
    array = torch.as_tensor(image).detach().cpu().float().numpy()
    if not all(np.isfinite(array[..., part]).all() for part in slabs(array.shape)):
        raise ValueError(f"{path}: not written, the image holds NaN or infinity; only finite values are accepted")
    if isinstance(image, MetaTensor):
        affine = image.affine.cpu().numpy()
    else:
        affine = RASTER_AFFINE if image.ndim == 3 else np.eye(4)
    return array, affine


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    return np.rint(array.clip(0, 1).astype(np.float64) * 255).astype(np.uint8)


def _as_rows(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(C, H, W) as (rows, columns[, 3]), turned to the radiological view of the plane it lies in."""
    columns, rows = radiological_view(affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt((rows, columns, aff2axcodes(affine)[2])))
    volume = np.moveaxis(array, 0, -1)[:, :, None, :]
    picture = apply_orientation(volume, turn)[:, :, 0, :]
    return np.ascontiguousarray(picture[..., 0] if array.shape[0] == 1 else picture)
