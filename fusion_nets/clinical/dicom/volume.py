"""Make a series a volume with an affine and units."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import ImageError, Reason, check_affine, check_voxels
from ..measured import MEASURED
from .frames import Frame
from .identity import fingerprint
from .parsing import parsing
from .pixels import check_photometric, decode, padding, white_of
from .series import Series
from .stacking import Stack, place, straighten
from .units import Measure, measure_of

__all__ = ["read_series"]

logger = logging.getLogger(__name__)


def read_series(series: Series) -> MetaTensor:
    """Read the pixels of a series.

    Args:
        series: as :func:`pick_series` gives it.

    Returns:
        (1 | 3, columns, rows[, slices]), float32, the slices in the order of ``series.datasets``; a single slice is
        two-dimensional. ``affine`` maps voxels to RAS in mm. CT is in HU, PET in SUV by body weight where its header
        says enough, or Bq/ml, others as their slope and intercept say. Slices of a tilted gantry are brought onto a
        grid with right angles; padding has the lowest value of what is no padding. ``meta`` holds "units", "modality",
        "series" and "frame_of_reference" (fingerprints), "window" and "white" where they are known.

    Raises:
        ImageError: naming the file and the attribute, for slices that do not make one volume, sizes beyond memory, and
            pixels that are missing, damaged or of an unsupported kind.
    """
    with parsing(series.path):
        return _read(series)


def _read(series: Series) -> MetaTensor:
    where = str(series.path)
    frames = series.frames()
    channels, white = _alike(frames, where)
    stack = place(frames, where)
    size = int(frames[0].header.Columns), int(frames[0].header.Rows), len(frames)
    check_voxels(where, (channels, *size))
    _tell_part(series)
    measure = measure_of(frames, series.modality, where)
    picture = measure.units == "stored" and _is_picture(frames, measure)
    volume = np.empty((channels, *size), dtype=np.float32)
    _fill(volume, series, frames, stack, measure)
    if not np.isfinite(volume.sum(dtype=np.float64)):
        raise ImageError(Reason.NOT_FINITE, f"{where}: holds NaN or infinity; only finite values are accepted")
    affine = check_affine(where, stack.affine)
    if any(stack.shear):
        grown = np.add(size[:2], np.abs(stack.shear) * size[2])
        check_voxels(where, (channels, *(int(length) for length in grown), size[2]))
        volume, affine = straighten(volume, stack)
    meta: dict[str, object] = {
        "filename_or_obj": where,
        "units": ("colour" if channels == 3 else "grey") if picture else measure.units,
        "series": fingerprint(series.uid),
    }
    if series.modality:
        meta["modality"] = series.modality
    if picture:
        meta["white"] = white
    if series.frame_of_reference_uid:
        meta["frame_of_reference"] = fingerprint(series.frame_of_reference_uid)
    if channels == 1 and (window := _window(frames[stack.order[len(frames) // 2]], measure)):
        meta["window"] = window
    volume = volume[..., 0] if volume.shape[3] == 1 else volume
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(volume)), affine=torch.from_numpy(affine), meta=meta)


def _alike(frames: Sequence[Frame], where: str) -> tuple[int, int]:
    """Channels and white of all frames; refuse what differs from frame to frame and must not."""
    first = frames[0]
    if len(frames) > 1 and len({frame.instance for frame in frames}) not in (1, len(frames)):
        raise ImageError(
            Reason.AMBIGUOUS, f"{where}: holds several multi-frame objects; the file of one of them is accepted"
        )
    for frame in frames:
        for keyword in ("Rows", "Columns", "PhotometricInterpretation", "FrameOfReferenceUID", "SOPClassUID"):
            if frame.header.get(keyword) != first.header.get(keyword):
                other = first.where.removeprefix(f"{where}: ")
                raise ImageError(
                    Reason.MIXED,
                    f"{frame.where}: {keyword} differs from that of {other}; images of one kind are accepted",
                )
    return check_photometric(first.header, first.where), white_of(first.header)


def _tell_part(series: Series) -> None:
    """Of PET, the header says how many slices there are (PS3.3 C.8.9.1); of a part, such as the head, fewer."""
    number = series.datasets[0].get("NumberOfSlices")
    if number and series.path.is_dir() and series.images < int(number):
        logger.warning(
            "%s: NumberOfSlices is %s, but %d are there, side by side: a part of the series",
            series.path,
            number,
            series.images,
        )


def _is_picture(frames: Sequence[Frame], measure: Measure) -> bool:
    """Whether stored values go from black to white, and do not measure anything."""
    from pydicom.uid import UID

    first = frames[0].header
    secondary = "Secondary Capture" in UID(str(first.get("SOPClassUID"))).name
    as_stored = set(measure.slopes) == {1.0} and set(measure.intercepts) == {0.0}
    colour = first.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2")
    return colour or (secondary and as_stored and not first.get("PixelRepresentation"))


def _fill(volume: np.ndarray, series: Series, frames: Sequence[Frame], stack: Stack, measure: Measure) -> None:
    slices = {(frames[index].instance, frames[index].index): (k, index) for k, index in enumerate(stack.order)}
    outside: list[tuple[int, np.ndarray]] = []
    lowest = np.inf
    for instance, (file, header) in enumerate(zip(series.files, series.datasets, strict=True)):
        where = series.where(instance)
        for number, pixels in enumerate(decode(file, where)):
            if pixels.shape[2] != volume.shape[0]:
                raise ImageError(
                    Reason.SHAPE,
                    f"{where}: PixelData has {pixels.shape[2]} channels; {volume.shape[0]} are accepted here",
                )
            k, index = slices[instance, number]
            values = np.moveaxis(pixels, -1, 0).swapaxes(1, 2)
            padded = padding(values, header)
            if header.get("PhotometricInterpretation") == "MONOCHROME1" and measure.units not in MEASURED:
                values = _inverted(values, header)
            volume[:, :, :, k] = values * measure.slopes[index] + measure.intercepts[index]
            if padded is None or not padded.any():
                lowest = min(lowest, float(volume[..., k].min()))
            else:
                outside.append((k, padded))
                lowest = min(lowest, float(volume[..., k].min(where=~padded, initial=np.inf)))
    if np.isfinite(lowest):
        for k, padded in outside:
            volume[..., k][padded] = lowest


def _inverted(values: np.ndarray, header: object) -> np.ndarray:
    """Stored values of which the lowest means white (PS3.3 C.7.6.3.1.2), so that the highest does."""
    bits = int(header.get("BitsStored"))  # type: ignore[attr-defined]
    return (-1 if header.get("PixelRepresentation") else 2**bits - 1) - values.astype(np.int64)  # type: ignore[attr-defined]


def _window(frame: Frame, measure: Measure) -> tuple[float, float] | None:
    """The first window of the header (PS3.3 C.11.2.1.2) as lowest and highest value, in the units that are given."""
    centre, width = frame.number("WindowCenter"), frame.number("WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    return (centre - width / 2) * measure.factor, (centre + width / 2) * measure.factor
