"""Make a series a volume with an affine and units."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data import MetaTensor

from fusion_nets.cautions import caution
from fusion_nets.slabs import kept, release, slabs, zeros

from ..absent import fill_absent
from ..choosing import Wanted
from ..errors import ImageError, Reason, check_affine, check_voxels
from ..quantities import MEASURED
from .frames import Frame
from .identity import fingerprint
from .mosaic import tile_of
from .parsing import parsing
from .pixels import check_photometric, decode, exact, looked, padding, shown, white_of
from .series import Series
from .stacking import Stack, even_out, place, straighten
from .units import Measure, measure_of
from .volumes import pick_volumes

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["read_series"]

logger = logging.getLogger(__name__)

RELEASED = 32
"""Slices after which the memory of a large volume is given back."""


def read_series(series: Series, volume: Wanted = None) -> MetaTensor:
    """Read the pixels of a series.

    Args:
        series: as :func:`pick_series` gives it.
        volume: which of several volumes at the same places is meant, as :func:`fusion_nets.clinical.read_image` takes
            it.

    Returns:
        (1 | 3, columns, rows[, slices]), float32, the slices in the order of ``series.datasets``; a single slice is
        two-dimensional. ``affine`` maps voxels to RAS in mm. CT is in HU, PET in SUV by body weight where its header
        says enough, or Bq/ml, others as their slope and intercept say. Slices of a tilted gantry are brought onto a
        grid with right angles, those at varying distances onto the finest; padding, and NaN around the image, has the
        lowest value of what is no padding. ``meta`` holds "units", "modality", "series" and "frame_of_reference"
        (fingerprints), "body_part", "window" and "white" where they are known.

    Raises:
        ImageError: naming the file and the attribute, for slices that do not make one volume, sizes beyond memory, and
            pixels that are missing, damaged or of an unsupported kind.
    """
    with parsing(series.path):
        parts = pick_volumes(series, volume)
        image = _read(parts[0])
        for part in parts[1:]:
            other = _read(part)
            if other.meta["units"] != image.meta["units"] or not np.allclose(other.affine, image.affine, atol=1e-3):
                raise ImageError(
                    Reason.MIXED, f"{series.path}: the volumes differ in grid or units; a single one is accepted"
                )
            for slab in slabs(image.shape):
                image.as_tensor()[..., slab] += other.as_tensor()[..., slab]
        if len(parts) > 1:
            for slab in slabs(image.shape):
                image.as_tensor()[..., slab] /= len(parts)
        return image


def _read(series: Series) -> MetaTensor:
    where = str(series.path)
    frames = series.frames()
    channels, white = _alike(frames, where)
    stack = place(frames, where)
    rows, columns = frames[0].size
    check_voxels(where, (channels, columns, rows, len(frames)))
    _tell_part(series)
    measure = measure_of(frames, series.modality, where)
    picture = measure.units == "stored" and _is_picture(frames, measure)
    array = zeros((channels, columns, rows, len(frames)))
    _fill(array, series, frames, stack, measure, picture)
    fill_absent(array, where)
    if picture and channels == 1 and white > 255 and not _is_windowed(frames) and array.max() < white / 2:
        caution(logger, where, "no window, and no value above %g of %d: not taken for a picture", array.max(), white)
        picture = False
    affine = check_affine(where, stack.affine)
    if stack.heights is not None:
        check_voxels(where, (channels, columns, rows, int(stack.heights[-1]) + 2))
        array = even_out(array, stack)
    if any(stack.shear):
        grown = np.add((columns, rows), np.abs(stack.shear) * array.shape[3])
        check_voxels(where, (channels, *(int(length) for length in grown), array.shape[3]))
        array, affine = straighten(array, stack)
    meta: dict[str, object] = {
        "filename_or_obj": where,
        "units": ("colour" if channels == 3 else "grey") if picture else measure.units,
        "series": fingerprint(series.uid),
    }
    if series.modality:
        meta["modality"] = series.modality
    if picture:
        meta["white"] = white
    if isinstance(part := frames[0].get("BodyPartExamined"), str) and part.strip():
        meta["body_part"] = part.strip()
    if series.frame_of_reference_uid:
        meta["frame_of_reference"] = fingerprint(series.frame_of_reference_uid)
    if not picture and channels == 1 and (window := _window(frames[stack.order[len(frames) // 2]], measure)):
        meta["window"] = window
    array = array[..., 0] if array.shape[3] == 1 else array
    return MetaTensor(torch.from_numpy(kept(array)), affine=torch.from_numpy(affine), meta=meta)


def _alike(frames: Sequence[Frame], where: str) -> tuple[int, int]:
    """Channels and white of all frames; refuse what differs from frame to frame and must not."""
    first = frames[0]
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
        words = "NumberOfSlices is %s, but %d are there, side by side: a part of the series"
        caution(logger, series.path, words, number, series.images)


def _is_picture(frames: Sequence[Frame], measure: Measure) -> bool:
    """Whether stored values go from black to white, and do not measure anything."""
    from pydicom.uid import UID

    first = frames[0].header
    secondary = "Secondary Capture" in UID(str(first.get("SOPClassUID"))).name
    as_stored = set(measure.slopes) == {1.0} and set(measure.intercepts) == {0.0}
    colour = first.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2")
    return colour or (secondary and as_stored and not first.get("PixelRepresentation"))


def _is_windowed(frames: Sequence[Frame]) -> bool:
    return all(frame.get("WindowWidth") is not None or frame.get("VOILUTSequence") for frame in frames)


def _fill(
    volume: np.ndarray, series: Series, frames: Sequence[Frame], stack: Stack, measure: Measure, picture: bool
) -> None:
    slices = {(frames[index].instance, frames[index].index): (k, index) for k, index in enumerate(stack.order)}
    outside: list[tuple[int, np.ndarray]] = []
    lowest = np.inf
    for instance, number, pixels in _decoded(series, frames):
        if (instance, number) not in slices:
            continue  # of another volume
        k, index = slices[instance, number]
        if k % RELEASED == 0:
            release()
        frame = frames[index]
        if pixels.shape[2] != volume.shape[0]:
            raise ImageError(
                Reason.SHAPE,
                f"{frame.where}: PixelData has {pixels.shape[2]} channels; {volume.shape[0]} are accepted here",
            )
        padded = padding(pixels, frame.header)
        values = _values(exact(pixels, frame.header, frame.where, padded), frame, measure.units in MEASURED, picture)
        padded = None if padded is None else np.moveaxis(padded, -1, 0).swapaxes(1, 2)
        values = np.moveaxis(values, -1, 0).swapaxes(1, 2)
        plane = np.asarray(values * measure.slopes[index] + measure.intercepts[index], dtype=np.float32)
        volume[:, :, :, k] = plane
        if padded is None or not padded.any():
            lowest = min(lowest, float(plane.min()))
        else:
            outside.append((k, padded))
            lowest = min(lowest, float(plane.min(where=~padded, initial=np.inf)))
    if np.isfinite(lowest):
        for k, padded in outside:
            volume[..., k][padded] = lowest


def _decoded(series: Series, frames: Sequence[Frame]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Instance, number and pixels of each frame; a mosaic's tiles one by one."""
    tiled = {frame.instance: frame.size for frame in frames if frame.is_tile}
    for instance, file in enumerate(series.files):
        for number, pixels in enumerate(decode(file, series.where(instance))):
            if instance not in tiled:
                yield instance, number, pixels
                continue
            for frame in frames:
                if frame.instance == instance:
                    yield instance, frame.index, tile_of(pixels, frame.index, tiled[instance])


def _values(stored: np.ndarray, frame: Frame, measured: bool, picture: bool) -> np.ndarray:
    """What stands for stored values before slope and intercept: by their table, shown as a picture, or turned round."""
    header, inverted = frame.header, frame.header.get("PhotometricInterpretation") == "MONOCHROME1" and not measured
    if table := header.get("ModalityLUTSequence"):
        looked_up = looked(stored, header)
        return 2 ** int(table[0].LUTDescriptor[2]) - 1 - looked_up if inverted else looked_up
    if picture and stored.shape[2] == 1 and header.get("PhotometricInterpretation") != "PALETTE COLOR":
        levels = shown(stored, header)
        return white_of(header) - levels if inverted else levels
    return _inverted(stored, header) if inverted else stored


def _inverted(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored values of which the lowest means white (PS3.3 C.7.6.3.1.2), so that the highest does."""
    bits = int(header.BitsStored)
    return np.asarray((-1 if header.get("PixelRepresentation") else 2**bits - 1) - values.astype(np.int64))


def _window(frame: Frame, measure: Measure) -> tuple[float, float] | None:
    """The first window of the header (PS3.3 C.11.2.1.2) as lowest and highest value, in the units that are given."""
    centre, width = frame.number("WindowCenter"), frame.number("WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    return (centre - width / 2) * measure.factor, (centre + width / 2) * measure.factor
