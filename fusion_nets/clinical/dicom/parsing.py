"""Parsing DICOM files: nothing of what is in them reaches a log, and what is damaged is refused by name."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion_nets.quiet import Shared, silence

from ..errors import ImageError, Reason, check_pointer
from .identity import fingerprint

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

__all__ = ["UID_PATTERN", "parse", "parsing", "tells_patient", "where_in"]

UID_PATTERN = re.compile(r"\d+(\.\d+){4,}|2\.25\.\d{6,}")
MOST_DEFLATED = 2**28
_LOGGERS = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.encoders.base", "pydicom.pixels.utils")
"""Those, too, that there are not before pydicom needs them."""
_GROUPS_A_FILE_STARTS_WITH = (b"\x02\x00", b"\x08\x00", b"\x00\x08")


@contextmanager
def parsing(where: object) -> Iterator[None]:
    """Keep pydicom's remarks, which quote values, out of logs and warnings, and make its errors an :class:`ImageError`.

    Args:
        where: what the message starts with.

    Raises:
        ImageError: for whatever a damaged file makes pydicom stumble over.
    """
    try:
        with silence(_LOGGERS), _UNCHECKED:
            yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        # the message of the error may quote a value, such as the patient's name, and so might its traceback
        raise ImageError(
            Reason.DAMAGED, f"{where}: damaged DICOM ({type(error).__name__}); a whole file is accepted"
        ) from None


def _disable_value_validation() -> Any:
    from pydicom import config

    return config.disable_value_validation()


_UNCHECKED = Shared(_disable_value_validation)


def parse(path: Path, where: object, pixels: bool = False) -> Dataset | None:
    """Read a file, or its header without pixels; None where it is not DICOM (PS3.10 section 7.1, or without preamble).

    Args:
        path: the file.
        where: what messages start with.
        pixels: read them too.

    Raises:
        ImageError: if it cannot be opened, or is DICOM and damaged.
    """
    from pydicom import dcmread

    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError as error:
        raise ImageError(
            Reason.MISSING, f"{where}: cannot be opened ({error.strerror}); a readable file is accepted"
        ) from error
    check_pointer(where, start)
    marked = start[128:] == b"DICM"
    if not marked and start[:2] not in _GROUPS_A_FILE_STARTS_WITH:
        return None
    try:
        with parsing(where):
            if marked:
                _check_deflated(path, where)
            dataset = dcmread(path, stop_before_pixels=not pixels, force=not marked)
            known = "SOPClassUID" in dataset or "MediaStorageSOPClassUID" in dataset.file_meta
            if known and "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = _found_syntax(dataset, where)
    except MemoryError:
        if path.stat().st_size > 2**30:
            raise
        raise ImageError(
            Reason.DAMAGED, f"{where}: damaged DICOM: it promises more than it holds; a whole file is accepted"
        ) from None
    except ImageError as error:
        if marked or error.reason is Reason.INCOMPLETE:
            raise
        return None
    if not known and marked:
        raise ImageError(Reason.INCOMPLETE, f"{where}: SOPClassUID is missing; a whole DICOM file is accepted")
    return dataset if known else None


def _found_syntax(dataset: Dataset, where: object) -> UID:
    """How a file without that note in its meta information turned out to be written, if its pixels can be so, too."""
    from pydicom import uid

    if hasattr(dataset, "original_encoding"):
        implicit, little = dataset.original_encoding
    else:  # before pydicom 3.0
        implicit, little = dataset.read_implicit_vr, dataset.read_little_endian
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise ImageError(
            Reason.INCOMPLETE,
            f"{where}: TransferSyntaxUID is missing, by which its compressed pixels could be read; a whole file is "
            "accepted",
        )
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _check_deflated(path: Path, where: object) -> None:
    """Refuse a deflated file (PS3.5 A.5) that would fill the memory, because pydicom inflates it as a whole."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflate, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with open(path, "rb") as file:
        file.seek(144 + meta.FileMetaInformationGroupLength)
        while not inflate.eof and (chunk := inflate.unconsumed_tail or file.read(2**16)):
            inflated += len(inflate.decompress(chunk, 2**20))
            if inflated > MOST_DEFLATED:
                raise ImageError(
                    Reason.TOO_LARGE, f"{where}: inflates to more than {MOST_DEFLATED >> 20} MiB, which is not accepted"
                )


def tells_patient(text: str, dataset: Dataset) -> bool:
    """Whether a text holds a UID, or the name, ID or date of birth that a header has."""
    told = [str(dataset.get(key) or "") for key in ("PatientID", "PatientBirthDate", "AccessionNumber")]
    told += re.split(r"[\^=\s,]+", str(dataset.get("PatientName") or ""))
    text, words = text.casefold(), re.split(r"[\W_]+", text.casefold())
    return bool(UID_PATTERN.search(text)) or any(
        word and (word in text if len(word) > 3 else word in words) for word in map(str.casefold, told)
    )


def where_in(folder: Path, file: Path, dataset: Dataset | None = None) -> str:
    """What messages about a file in a folder start with: not its name, if that would tell who it is of.

    Args:
        folder: as it was given, or the file itself.
        file: in it.
        dataset: its header, if it could be read.
    """
    if file == folder:
        return str(file)
    name = str(file.relative_to(folder))
    if dataset is None:
        name = UID_PATTERN.sub(lambda uid: fingerprint(uid.group()), name)
    elif tells_patient(name, dataset):
        name = f"image {dataset.get('InstanceNumber') or '?'}"
    return f"{folder}: {name}"
