"""Store a volume as it is in a file that keeps its geometry: NIfTI, NRRD or MetaImage."""

from __future__ import annotations

import gzip
import re
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np

from fusion_nets.files import whole_file
from fusion_nets.slabs import is_large, scratch_folder, slabs, zeros

from .grids import RAS_TO_LPS
from .itk_files import nrrd_fields, nrrd_header
from .metaimage import metaimage_fields
from .nifti import NIFTI_SUFFIXES
from .quantities import MEASURED

__all__ = ["NOTED", "VOLUME_SUFFIXES", "note", "noted", "read_note", "save_volume"]

WRITTEN_BY_ITK = (".nrrd", ".mha")
"""Their forms with a second file for the pixels (.nhdr, .mhd) are only read: two files cannot appear at once."""
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *WRITTEN_BY_ITK)
LEVEL = 3
"""Of gzip: 6 takes more than twice as long for files that are a twentieth smaller."""
NOTED = {
    "modality": r"[A-Z]{2}",
    "units": "|".join(map(re.escape, (*MEASURED, "stored", "grey", "colour"))),
    "white": r"1|255|65535",
}
"""What a volume's file says of its values beside them, and how that looks."""


def save_volume(
    path: Path, array: np.ndarray, affine: np.ndarray, meta: Mapping[str, object], white: float = 0
) -> None:
    """Write a file, whole or not at all; the same volume has the same bytes.

    NIfTI says modality and units in ``descrip``, such as "modality=CT units=HU", NRRD and MetaImage in fields of these
    names. ITK writes these two, in its coordinates (LPS), compressed.

    Args:
        path: ends in one of :data:`VOLUME_SUFFIXES`.
        array: (1, H, W[, D]) of any real kind, or (3, H, W[, D]) of uint8; stored as it is.
        affine: RAS, mm.
        meta: of the image, from which :data:`NOTED` is taken.
        white: value that viewers of NIfTI are asked to show white; 0 leaves it to them.
    """
    said = {key: str(meta[key]) for key in NOTED if meta.get(key)}
    if array.shape[0] == 3:
        said.pop("white", None)  # which 8 bit say themselves
    with whole_file(path) as partial:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            image = _nifti(array, affine, note(said), white)
            is_packed = path.name.lower().endswith(".gz")
            if not is_large(array.shape):
                content = image.to_bytes()
                partial.write_bytes(gzip.compress(content, LEVEL, mtime=0) if is_packed else content)
                return
            with open(partial, "wb") as file:
                if not is_packed:
                    image.to_stream(file)
                    return
                with tempfile.TemporaryFile(dir=scratch_folder()) as whole:
                    image.to_stream(whole)
                    _compress(whole, file)
        else:
            _write_by_itk(partial, array, affine, said)


def note(said: Mapping[str, str]) -> str:
    """What is said of an image as one short line."""
    return " ".join(f"{key}={value}" for key, value in said.items())


def noted(line: str) -> dict[str, str]:
    """What :func:`note` made a line of; nothing of a line by others."""
    parts = [part.split("=", 1) for part in line.split() if "=" in part]
    return {key: value for key, value in parts if re.fullmatch(NOTED.get(key, "(?!)"), value)}


def read_note(path: Path) -> dict[str, str]:
    """What the header of a volume's file, written by :func:`save_volume`, says of its values.

    Args:
        path: of a file that could be read.
    """
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        header: Any = nib.load(path).header
        return noted(header["descrip"].item().decode("latin-1"))
    if path.suffix.lower().startswith(".m"):
        fields = metaimage_fields(path)
        return noted(note({key: fields[key] for key in NOTED if key in fields}))
    fields = nrrd_fields(nrrd_header(path))
    return noted(note({key: fields[key] for key in NOTED if key in fields}))


def _nifti(array: np.ndarray, affine: np.ndarray, description: str, white: float) -> nib.Nifti1Image:
    if array.shape[0] == 1:
        image = nib.Nifti1Image(array[0], affine)
        image.header["cal_max"] = white
    else:
        coloured = zeros(array.shape[1:], np.dtype([("R", np.uint8), ("G", np.uint8), ("B", np.uint8)]))
        for slab in slabs(array.shape):
            for name, channel in zip("RGB", array, strict=True):
                coloured[name][..., slab] = channel[..., slab]
        image = nib.Nifti1Image(coloured, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description[:79]
    return image


def _compress(whole: IO[bytes], into: IO[bytes]) -> None:
    """What ``gzip.compress`` makes of a file without time, piece by piece."""
    into.write(gzip.compress(b"", LEVEL, mtime=0)[:10])
    packer, checksum, size = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0, 0
    whole.seek(0)
    while piece := whole.read(2**22):
        into.write(packer.compress(piece))
        checksum, size = zlib.crc32(piece, checksum), size + len(piece)
    into.write(packer.flush() + struct.pack("<LL", checksum, size % 2**32))


def _write_by_itk(path: Path, array: np.ndarray, affine: np.ndarray, said: Mapping[str, str]) -> None:
    import itk

    array = array if array.ndim == 4 else array[..., None]
    turned = np.ascontiguousarray(array.transpose(3, 2, 1, 0))  # ITK's first axis is numpy's last
    if array.shape[0] == 3:
        image = itk.image_from_array(turned, ttype=itk.Image[itk.RGBPixel[itk.UC], 3])
    else:
        image = itk.image_from_array(turned[..., 0])
    to_lps = RAS_TO_LPS @ affine[:3]
    spacing = np.linalg.norm(to_lps[:, :3], axis=0)
    image.SetOrigin(to_lps[:, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_lps[:, :3] / spacing)))
    dictionary = image.GetMetaDataDictionary()
    for key, value in said.items():
        dictionary[key] = value
    itk.imwrite(image, str(path), compression=True)
