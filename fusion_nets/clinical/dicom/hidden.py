"""What lies beside the picture in pixel data: overlay planes and others in unused bits, bytes after the last pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .parsing import parsing
from .pixels import GREY, stored_frames

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["remove_hidden"]


def remove_hidden(instance: Dataset) -> None:
    """Take out of an instance's pixel data what is not the picture.

    That is bits of a word outside of HighBit and BitsStored, where overlay planes lie (retired, PS3.5-2004 8.1.1) or
    whatever somebody put there, and bytes after the last pixel. Those below the picture become 0; those above repeat
    the sign of signed values and are 0 of others. Words that are the padding value stay, though it may have more bits.
    Compressed pixels stay compressed where nothing is hidden in them.

    Raises:
        ValueError: for bits and sizes that cannot be, and colours that are compressed and have unused bits.
        ImageError: if compressed pixels cannot be decoded.
    """
    from pydicom import DataElement
    from pydicom.uid import ExplicitVRLittleEndian

    if "PixelData" not in instance:
        return
    word = int(instance.BitsAllocated)
    syntax = instance.file_meta.TransferSyntaxUID
    is_native = not syntax.is_compressed or syntax.is_deflated
    if not is_native and int(instance.get("BitsStored") or word) == word:
        return
    if is_native:
        data = instance.PixelData[: _length(instance)]
        words = _words(instance, data, ">" if not syntax.is_little_endian else "<")
        clean = data if words is None else _clean(words, instance).tobytes()
    else:
        if instance.PhotometricInterpretation not in GREY:
            raise ValueError("compressed colours have unused bits (Bits Stored); uncompressed ones are accepted")
        with parsing("an image"):
            words = np.concatenate([frame.ravel() for frame in stored_frames(instance)])
        kept = _clean(words, instance)
        if np.array_equal(kept, words):
            return
        instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        clean = kept.astype(kept.dtype.newbyteorder("<")).tobytes()
    vr = "OB" if word <= 8 and is_native and instance["PixelData"].VR == "OB" else "OW"
    instance["PixelData"] = DataElement(0x7FE00010, vr, clean + b"\0" * (len(clean) % 2))


def _length(instance: Dataset) -> int:
    """Of native pixel data, in bytes without padding."""
    values = int(instance.Rows) * int(instance.Columns) * int(instance.get("SamplesPerPixel") or 1)
    bits = values * int(instance.get("NumberOfFrames") or 1) * int(instance.BitsAllocated)
    bits = bits * 2 // 3 if instance.PhotometricInterpretation == "YBR_FULL_422" else bits
    return -(-bits // 8)


def _words(instance: Dataset, data: bytes, order: str) -> np.ndarray | None:
    """The words of native pixel data; None where all their bits are the picture."""
    word, bits = int(instance.BitsAllocated), int(instance.get("BitsStored") or instance.BitsAllocated)
    if bits == word:
        return None
    if word not in (8, 16, 32, 64) or len(data) % (word // 8):
        raise ValueError(
            f"Bits Allocated is {word} with Bits Stored {bits}; whole data of 8, 16 or 32 bits are accepted"
        )
    return np.frombuffer(data, f"{order}{'i' if instance.get('PixelRepresentation') else 'u'}{word // 8}")


def _clean(words: np.ndarray, instance: Dataset) -> np.ndarray:
    word, bits = 8 * words.dtype.itemsize, int(instance.get("BitsStored") or 8 * words.dtype.itemsize)
    high = int(bits - 1 if instance.get("HighBit") in (None, "") else instance.HighBit)
    above, below = word - 1 - high, high + 1 - bits
    if above < 0 or below < 0:
        raise ValueError(f"High Bit is {high} with Bits Stored {bits}; the last bit of a value is accepted")
    clean = ((words << above) >> (above + below)) << below
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if (value := instance.get(keyword)) not in (None, ""):
            is_padding = words.view(f"{words.dtype.str[0]}u{words.dtype.itemsize}") == int(value) % 2**word
            clean = np.where(is_padding, words, clean)
    return clean.astype(words.dtype)
