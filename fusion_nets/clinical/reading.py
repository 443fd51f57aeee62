"""Read one image of a study, or refuse it with a reason."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from fusion_nets.slabs import extremes, kept, release, slabs

from .absent import fill_absent
from .bids_names import bids_name
from .bids_pet import pet_measure
from .choosing import Wanted
from .errors import ImageError, Reason, check_pointer
from .itk_files import ITK_SUFFIXES, read_itk
from .modalities import modality_code
from .nifti import NIFTI_SUFFIXES, read_nifti
from .raster import RASTER_AFFINE, RASTER_SUFFIXES, read_picture
from .volume_files import read_note

__all__ = [
    "INPUT_SUFFIXES",
    "ITK_SUFFIXES",
    "NIFTI_SUFFIXES",
    "RASTER_AFFINE",
    "RASTER_SUFFIXES",
    "is_dicom",
    "read_image",
]

READERS = {
    RASTER_SUFFIXES: read_picture,
    NIFTI_SUFFIXES: read_nifti,
    ITK_SUFFIXES: read_itk,
}
"""What reads a file of each form but DICOM, with the volume that is meant: its pixels, affine (RAS), and white."""
INPUT_SUFFIXES = tuple(suffix for suffixes in READERS for suffix in suffixes)
"""Endings of files that can be read; DICOM goes by its content."""
ACCEPTED = f"accepted are DICOM (a file or a folder) and files ending in {', '.join(INPUT_SUFFIXES)}"


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a source is read as DICOM: a folder, or a file without the ending of another form.

    Examples:
        >>> is_dicom("study/IM0001"), is_dicom("study.nii.gz")
        (True, False)
    """
    return os.path.isdir(path) or not os.fspath(path).lower().endswith(INPUT_SUFFIXES)


def read_image(
    path: str | os.PathLike[str], series_uid: str | None = None, modality: str | None = None, volume: Wanted = None
) -> MetaTensor:
    """Read an image in any of the forms that hospitals use.

    Args:
        path: a folder of DICOM files or one of them (see :func:`fusion_nets.clinical.dicom.read_series`); NIfTI, NRRD
            or MetaImage (a volume or slice of scalars or RGB, or one of several); PNG, JPEG, TIFF or BMP (grey of 8 or
            16 bit, or colour). NIfTI with a name by BIDS, such as ``sub-01_pet.nii.gz``, is what its suffix and, of
            PET, its sidecars say (:func:`fusion_nets.clinical.bids_pet.pet_measure`).
        series_uid: which series of DICOM is meant among several, or the fingerprint of its UID.
        modality: likewise, its modality, as :func:`fusion_nets.clinical.modality_code` takes it; of a file that does
            not say its own, this is it.
        volume: which of several volumes or pictures is meant: a number from 1, what tells it apart ("echo=30",
            "b=1000", "EchoTime=30"), "mean", or several of these parted by commas, such as "b=1000,mean".

    Returns:
        (1, H, W[, D]) for a grey image, (3, H, W[, D]) for a coloured one, float32, in the units of
        ``meta["units"]`` ("HU", "SUV", "Bq/ml", "counts", "stored", "grey" or "colour"); three equal channels are grey.
        Pictures keep their row and column order, and what is transparent in them is black; other images keep their
        voxel axes and have an affine (RAS, mm), DICOM in the order column, row, slice; a single slice is
        two-dimensional.
        ``meta["white"]`` is the value that means white in a picture or a coloured image; values that are measured have
        none. ``meta["modality"]`` is there where the modality is known. ``meta["placed"]`` is False where the file does
        not say where it lies in the patient, so that its affine is a guess. NaN around the image is background.

    Raises:
        ImageError: if the file is missing, unreadable, of another kind or modality, or holds no usable image.
        ValueError: for a modality that is none.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from fusion_nets.clinical import read_image, write_image
        >>> with TemporaryDirectory() as folder:
        ...     path = write_image(f"{folder}/a.nii.gz", torch.rand(1, 8, 9, 3))
        ...     image = read_image(path)
        >>> tuple(image.shape), image.meta["units"]
        ((1, 8, 9, 3), 'stored')
    """
    path = Path(path)
    modality = modality_code(modality) if modality else None
    name = path.name.lower()
    is_file = os.path.isfile(path)  # unlike Path.is_file it takes any name
    if os.path.islink(path) and not os.path.exists(path):
        raise ImageError(
            Reason.MISSING,
            f"{path}: is a link to a file that is not there, such as of git-annex, which `git annex get` fetches; "
            f"{ACCEPTED}",
        )
    if not is_file and not os.path.isdir(path):
        raise ImageError(Reason.MISSING, f"{path}: no such file; {ACCEPTED}")
    if is_file and name.endswith(INPUT_SUFFIXES):
        if series_uid:
            raise ImageError(Reason.KIND, f"{path}: is no DICOM, of which alone a series_uid is accepted")
        image = _read_file(path, volume, modality)
    elif is_file and not _may_be_dicom(path):
        raise ImageError(Reason.KIND, f"{path}: unknown kind of file; {ACCEPTED}")
    else:
        from .dicom import pick_series, read_series

        image = read_series(pick_series(path, series_uid, modality), volume)
    values = image.as_tensor()
    if image.shape[0] == 3 and all(
        (values[1:, ..., part] == values[:1, ..., part]).all() for part in slabs(image.shape)
    ):
        image = image[:1]  # type: ignore[assignment]
        image.meta["units"] = "grey" if image.meta["units"] == "colour" else image.meta["units"]
    low, high = extremes(image)
    release()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(Reason.NOT_FINITE, f"{path}: holds NaN or infinity; only finite values are accepted")
    if low == high:
        raise ImageError(Reason.EMPTY, f"{path}: every pixel has the value {low:g}; an image with content is accepted")
    if modality and image.meta.setdefault("modality", modality) != modality:
        raise ImageError(
            Reason.KIND, f"{path}: says that it is {image.meta['modality']}, not {modality}; what it says is accepted"
        )
    if volume is not None:
        image.meta["volume"] = str(volume)
    return image


def _read_file(path: Path, volume: Wanted, modality: str | None) -> MetaTensor:
    name = path.name.lower()
    read = next(read for suffixes, read in READERS.items() if name.endswith(suffixes))
    with suppress(OSError), open(path, "rb") as file:  # what cannot be opened is refused by what reads it
        check_pointer(path, file.read(40))
    array, affine, white, is_placed = read(path, volume)
    units = "stored" if white is None else "grey" if array.shape[0] == 1 else "colour"
    meta: dict[str, object] = {"filename_or_obj": str(path), "units": units}
    if white is not None:
        meta["white"] = white
    if not is_placed:
        meta["placed"] = False
    if name.endswith((*NIFTI_SUFFIXES, *ITK_SUFFIXES)):
        said = read_note(path)
        meta |= {key: int(value) if key == "white" else value for key, value in said.items()}
    if name.endswith(NIFTI_SUFFIXES) and white is None:
        _read_by_bids(path, array, meta, modality)
    array = kept(array)
    fill_absent(array, path)
    tensor = torch.from_numpy(array)
    return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)


def _read_by_bids(path: Path, array: np.ndarray, meta: dict[str, object], modality: str | None) -> None:
    """Take the modality from a name by BIDS, and the units of PET from its sidecars, where the file tells neither."""
    named = bids_name(path)
    if named is None or named.modality is None or modality not in (None, named.modality) or "modality" in meta:
        return
    meta["modality"] = named.modality
    if named.modality != "PT":
        return
    units, factor = pet_measure(path)
    if meta["units"] not in ("stored", units):
        raise ImageError(
            Reason.DAMAGED,
            f"{path}: says that it is in {meta['units']}, and its sidecar that it is in {units}; one unit is accepted",
        )
    if meta["units"] == "stored" and factor != 1:
        for part in slabs(array.shape):
            array[..., part] *= factor
    meta["units"] = units


def _may_be_dicom(path: Path) -> bool:
    """Whether a file without a known ending is worth being parsed."""
    from .dicom.parsing import parse

    try:
        return parse(path, path) is not None
    except ImageError:
        return True  # and refused with its reason
