"""Decode the pixels of an instance."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusion_nets.cautions import caution

from ..errors import ImageError, Reason
from .parsing import parse, parsing

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["check_photometric", "decode", "exact", "looked", "padding", "shown", "stored_frames", "white_of"]

logger = logging.getLogger(__name__)

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
PIXEL_ATTRIBUTES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

MOST_COMPRESSED = 2000
"""Bytes that one byte of compressed pixels may stand for; what claims more is damaged or meant to fill the memory."""

EXTENDED = "1.2.840.10008.1.2.4.51"
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
        frames = stored_frames(dataset)
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


def stored_frames(dataset: Dataset) -> Iterator[np.ndarray]:
    """The words of each frame as they are stored, unused bits and all; of colours RGB."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    if syntax == EXTENDED and int(dataset.BitsStored) > 8:
        yield from _extended(dataset)
        return
    try:
        from pydicom import pixels
    except ImportError:
        yield from _decoded_by_pydicom_2(dataset)
        return
    is_palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    by = DECODERS.get(syntax, "")
    for frame in pixels.iter_pixels(dataset, decoding_plugin=by, correct_unused_bits=False):  # which minds no HighBit
        yield pixels.apply_color_lut(frame, dataset)[..., :3] if is_palette else frame


def _extended(dataset: Dataset) -> Iterator[np.ndarray]:
    """JPEG of 12 bit (process 4) by GDCM itself, which pydicom does not ask for it."""
    import gdcm
    from pydicom import encaps

    count = int(dataset.get("NumberOfFrames") or 1)
    if hasattr(encaps, "generate_frames"):
        frames = encaps.generate_frames(dataset.PixelData, number_of_frames=count)
    else:  # before pydicom 3.0
        frames = encaps.generate_pixel_data_frame(dataset.PixelData, count)
    for frame in frames:
        fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
        fragment.SetByteStringValue(frame)
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((int(dataset.Columns), int(dataset.Rows), 1))
        image.SetDataElement(element)
        kind = gdcm.PhotometricInterpretation.GetPIType(str(dataset.PhotometricInterpretation))
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(EXTENDED)))
        bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
        image.SetPixelFormat(gdcm.PixelFormat(1, int(dataset.BitsAllocated), bits, bits - 1, signed))
        buffer = image.GetBuffer().encode("utf-8", "surrogateescape")
        yield np.frombuffer(buffer, np.dtype("<i2" if signed else "<u2"))


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


def exact(stored: np.ndarray, header: Dataset, where: str, padded: np.ndarray | None = None) -> np.ndarray:
    """The stored values without what else is in their words: overlays and others beyond BitsStored, below HighBit.

    Args:
        stored: (rows, columns, C) as they were decoded.
        header: of the instance.
        where: what messages start with.
        padded: which of them are padding, whose value may have more bits.

    Raises:
        ImageError: if HighBit cannot be.
    """
    if stored.dtype.kind not in "iu" or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return stored  # looked up already
    word, bits = 8 * stored.dtype.itemsize, int(header.get("BitsStored") or 8 * stored.dtype.itemsize)
    high = header.get("HighBit")
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    compressed = syntax is not None and syntax.is_compressed and not syntax.is_deflated and "RLE" not in syntax.name
    shift = 0 if high in (None, "") or compressed else int(high) + 1 - bits
    if shift < 0 or (not compressed and shift + bits > word):
        raise ImageError(
            Reason.DAMAGED, f"{where}: HighBit is {high} with BitsStored {bits}; the last bit of a value is accepted"
        )
    if bits >= word:
        return stored
    left = word - bits - shift
    values = (stored << left) >> (word - bits)  # of signed ones the sign is kept
    changed = values != stored if padded is None else (values != stored) & ~padded
    if not shift and not _has_embedded_overlay(header) and (lost := int(changed.sum())):
        caution(logger, where, "%d values need more bits than BitsStored, %d; the others are cut off", lost, bits)
    return values


def _has_embedded_overlay(header: Dataset) -> bool:
    return any((group, 0x0102) in header and header[group, 0x0102].value for group in range(0x6000, 0x6020, 2))


def looked(values: np.ndarray, header: Dataset) -> np.ndarray:
    """What the modality table (PS3.3 C.11.1) has for stored values."""
    try:
        from pydicom.pixels import apply_modality_lut
    except ImportError:
        from pydicom.pixel_data_handlers import apply_modality_lut  # type: ignore[no-redef]

    return np.asarray(apply_modality_lut(values, header))


def shown(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Grey levels of a picture as its window or table (PS3.3 C.11.2) shows them, from 0 to :func:`white_of`."""
    try:
        from pydicom.pixels import apply_voi_lut
    except ImportError:
        from pydicom.pixel_data_handlers import apply_voi_lut  # type: ignore[no-redef]

    table, width = header.get("VOILUTSequence"), header.get("WindowWidth")
    width = width[0] if isinstance(width, Sequence) else width
    if not table and (width in (None, "") or float(width) < 1):
        return values
    levels = apply_voi_lut(values, header, prefer_lut=bool(table))
    if table:
        levels = levels / (2 ** int(table[0].LUTDescriptor[2]) - 1) * white_of(header)
    return np.asarray(levels, dtype=np.float64).clip(0, white_of(header))


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
