"""Decode the pixels of an instance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, Reason
from .parsing import parse, parsing

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["check_photometric", "decode", "padding", "white_of"]

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
PIXEL_ATTRIBUTES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

MOST_COMPRESSED = 2000
"""Bytes that one byte of compressed pixels may stand for; what claims more is damaged or meant to fill the memory."""

DECODERS = {"1.2.840.10008.1.2.4.50": "pillow", "1.2.840.10008.1.2.4.90": "pillow", "1.2.840.10008.1.2.4.91": "pillow"}
"""Transfer syntaxes for which pydicom would ask GDCM first, though Pillow stands damaged streams better."""


def check_photometric(header: Dataset, where: str) -> int:
    """How many channels an instance will have: 1 (grey) or 3 (colour).

    Raises:
        ImageError: for a photometric interpretation (PS3.3 C.7.6.3.1.2) that cannot be read.
    """
    found = str(header.get("PhotometricInterpretation") or "missing")
    samples = header.get("SamplesPerPixel") or 1
    if found not in (*GREY, *COLOUR) or samples != (3 if found in COLOUR[:-1] else 1):
        raise ImageError(
            Reason.KIND,
            f"{where}: PhotometricInterpretation is {found} with SamplesPerPixel {samples}; "
            f"accepted are {', '.join((*GREY, *COLOUR))}",
        )
    return 1 if found in GREY else 3


def white_of(header: Dataset) -> int:
    """What means white: the highest value that fits into its bits, or that its palette has."""
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return 255 if int(header.RedPaletteColorLookupTableDescriptor[2]) == 8 else 65535
    return int(2 ** int(header.get("BitsStored") or 8)) - 1


def decode(path: Path, where: str) -> Iterator[np.ndarray]:
    """The stored values of a file, compressed or not, frame by frame: (rows, columns, 1 | 3).

    Palettes are looked up, and all colours are RGB.

    Raises:
        ImageError: if there are none, or they are damaged, cut short, or of an encoding that cannot be read.
    """
    dataset = parse(path, where, pixels=True)
    if dataset is None or not any(keyword in dataset for keyword in PIXEL_ATTRIBUTES):
        raise ImageError(Reason.DAMAGED, f"{where}: no pixel data; a whole DICOM image is accepted")
    with parsing(where):
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        count = int(dataset.get("NumberOfFrames") or 1)
        shape = int(dataset.Rows), int(dataset.Columns)
        if syntax is not None and syntax.is_compressed and not syntax.is_deflated:
            wanted = count * math.prod(shape) * int(dataset.BitsAllocated) // 8
            if wanted > MOST_COMPRESSED * len(dataset.PixelData):
                raise ImageError(
                    Reason.DAMAGED, f"{where}: PixelData is too short for {count} of {shape}; a whole file is accepted"
                )
        frames = _decoded(dataset, str(syntax or ""))
    for _ in range(count):
        try:
            with parsing(where):
                frame = next(frames).reshape(*shape, -1)
        except ImageError as error:
            name = getattr(syntax, "name", "none")
            raise ImageError(
                Reason.DAMAGED,
                f"{where}: PixelData cannot be decoded (TransferSyntaxUID: {name}); whole data are accepted, "
                "uncompressed or JPEG, JPEG-LS, JPEG 2000 or RLE",
            ) from error
        yield frame


def _decoded(dataset: Dataset, syntax: str) -> Iterator[np.ndarray]:
    try:
        from pydicom import pixels
    except ImportError:
        yield from _decoded_by_pydicom_2(dataset)
        return
    is_palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    for frame in pixels.iter_pixels(dataset, decoding_plugin=DECODERS.get(syntax, "")):
        yield pixels.apply_color_lut(frame, dataset)[..., :3] if is_palette else frame


def _decoded_by_pydicom_2(dataset: Dataset) -> Iterator[np.ndarray]:
    """All frames at once, and colours as they are stored: pydicom 3 does better."""
    from pydicom.pixel_data_handlers import apply_color_lut, convert_color_space

    array = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)[..., :3]
    elif dataset.PhotometricInterpretation.startswith("YBR_FULL"):
        array = convert_color_space(array, dataset.PhotometricInterpretation, "RGB", per_frame=True)
    count = int(dataset.get("NumberOfFrames") or 1)
    yield from array.reshape(count, dataset.Rows, dataset.Columns, -1)


def padding(stored: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Which pixels are padding (PS3.3 C.7.5.1.1.2): outside of what was imaged. None where no such value is given."""
    value = header.get("PixelPaddingValue")
    if value in (None, "") or stored.dtype.kind not in "iu":
        return None
    limit = header.get("PixelPaddingRangeLimit")
    bounds = [_wrapped(one, stored.dtype) for one in (value, value if limit in (None, "") else limit)]
    return (stored >= min(bounds)) & (stored <= max(bounds))


def _wrapped(value: int, kind: np.dtype) -> int:
    """A value whose sign was lost or made up, because the representation of what it is compared with was unknown."""
    return int(
        np.asarray(int(value) & (2 ** (8 * kind.itemsize) - 1), f"u{kind.itemsize}").view(f"{kind.kind}{kind.itemsize}")
    )
