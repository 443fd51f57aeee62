"""MetaImage, as ITK writes it.

ITK's own reader ends the process when a header is damaged (such as ``NDims = -1``), which no caller can catch; so the
few fields that matter are read here.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from fusion_nets.cautions import caution

from .choosing import Labels
from .errors import ImageError, Reason, check_voxels, unreadable

__all__ = ["Stored", "beside", "metaimage_fields", "read_metaimage"]

logger = logging.getLogger(__name__)

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
SYNONYMS = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_INTENSITY = (("Slope", 1), ("Offset", 0))
MILLIMETRES = {"mm": 1.0, "um": 0.001, "cm": 10.0, "?": 1.0}
LONGEST_HEADER = 2**16


class Stored(NamedTuple):
    """What a file of the ITK world holds.

    Attributes:
        values: (channels, X, Y[, Z[, T]]).
        affine: (4, 4), LPS, mm.
        kind: which kind of numbers they are, as numpy calls it.
        is_colour: whether the channels are red, green and blue.
        is_placed: whether it says where it lies.
        labels: what tells its volumes apart, if it says so.
    """

    values: np.ndarray
    affine: np.ndarray
    kind: str
    is_colour: bool
    is_placed: bool
    labels: list[Labels]


def read_metaimage(path: Path) -> Stored:
    """Read an .mha or .mhd file.

    Raises:
        ImageError: if it is damaged or cut short, is gigantic, or has its voxels in several files or outside of its
            folder.
    """
    try:
        with open(path, "rb") as file:
            fields, start = _header(file)
            dimensions = int(fields["NDims"])
            shape = tuple(map(int, fields["DimSize"].split()))
            channels = int(fields.get("ElementNumberOfChannels", 1))
            if len(shape) != dimensions or min(*shape, channels) < 1:
                raise ValueError("DimSize does not fit NDims")
            order = ">" if _true(fields.get("BinaryDataByteOrderMSB")) else "<"
            kind = np.dtype(order + TYPES[fields["ElementType"]])
            check_voxels(path, (channels, *shape), held=kind.itemsize)
            if not _true(fields.get("BinaryData", "True")):
                raise ValueError("voxels are written as text")
            name, skip = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
            wanted = channels * int(np.prod(shape, dtype=object)) * kind.itemsize
            if name.upper() == "LOCAL":
                values = _data(file, start, wanted, fields)
            else:
                with open(beside(path, name), "rb") as data:
                    length = data.seek(0, os.SEEK_END)
                    values = _data(data, length - wanted if skip == -1 else skip, wanted, fields)
        array = np.frombuffer(values, kind).reshape(*shape[::-1], channels).T
        affine = np.eye(max(dimensions, 3) + 1)
        key = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
        spacing = _numbers(fields, key, np.ones(dimensions))
        directions = _numbers(fields, "TransformMatrix", np.eye(dimensions).ravel()).reshape(dimensions, dimensions)
        affine[:dimensions, :dimensions] = directions.T * spacing  # one direction after the other
        affine[:dimensions, -1] = _numbers(fields, "Offset", np.zeros(dimensions))
        affine = np.delete(np.delete(affine, range(3, dimensions), 0), range(3, dimensions), 1)
        affine[:3] *= MILLIMETRES[fields.get("DistanceUnits", "mm").lower()]
        slope, intercept = (float(fields.get(f"ElementToIntensityFunction{name}", n)) for name, n in _INTENSITY)
    except ImageError:
        raise
    except Exception as error:
        raise unreadable(path, "MetaImage file", "a whole one, binary, of one data file,", error) from error
    if (slope, intercept) != (1, 0):
        caution(logger, path, "ElementToIntensityFunction is not applied; values are as stored")
    is_colour = channels == 3 and kind.kind == "u" and kind.itemsize <= 2
    return Stored(array, affine, kind.kind, is_colour, "Offset" in fields, [])


def metaimage_fields(path: Path) -> dict[str, str]:
    """What a header says, field by field, damaged or not."""
    with open(path, "rb") as file:
        return _header(file)[0]


def beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names.

    Raises:
        ImageError: if it is none in the header's folder, so that no other file on this machine is read as voxels.
    """
    data = Path(os.path.realpath(path.parent / name.replace("\0", "/")))
    inside = data.is_relative_to(path.parent.resolve()) or (
        Path(name).name == name and "/.git/annex/objects/" in data.as_posix()
    )
    if inside and os.path.isfile(data):
        return data
    raise ImageError(Reason.KIND, f"{path}: its voxels are in {name!r}; a single file in the same folder is accepted")


def _header(file: BinaryIO) -> tuple[dict[str, str], int]:
    """The fields, up to the one that says where the voxels are, and how long they are."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields and file.tell() < LONGEST_HEADER:
        line = file.readline(LONGEST_HEADER).decode("utf-8", "replace")
        if not line:
            break
        key, value = [*re.split("[=:]", line, maxsplit=1), ""][:2]  # MetaIO takes either
        fields[SYNONYMS.get(key.strip(), key.strip())] = value.strip()
    return fields, file.tell()


def _data(file: BinaryIO, start: int, wanted: int, fields: dict[str, str]) -> bytes:
    file.seek(start)
    if _true(fields.get("CompressedData")):
        unpacked = zlib.decompressobj().decompress(file.read(), wanted)
    else:
        here, end = file.tell(), file.seek(0, os.SEEK_END)
        file.seek(here)
        unpacked = file.read(wanted) if end - here >= wanted else b""
    if len(unpacked) < wanted:
        raise ValueError("fewer voxels than DimSize says")
    return unpacked


def _numbers(fields: dict[str, str], key: str, default: np.ndarray) -> np.ndarray:
    if key not in fields:
        return default
    numbers = np.array(fields[key].split(), dtype=np.float64)
    if numbers.shape != default.shape:
        raise ValueError(f"{key} has {len(numbers)} numbers")
    return numbers


def _true(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1", "t", "yes")
