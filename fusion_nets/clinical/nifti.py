"""NIfTI images."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from fusion_nets.cautions import caution
from fusion_nets.slabs import release, zeros

from .bids_pet import frame_times
from .choosing import Labels, Wanted, choose_volumes
from .errors import ImageError, Pixels, Reason, check_affine, check_voxels, unreadable

__all__ = ["NIFTI_SUFFIXES", "least_white", "read_nifti"]

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""Endings of files that are read as NIfTI."""
SLICES_OF = 2**22
"""Voxels that are read at once."""

MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
RGB_VECTOR = 2003
EDGES = (0.001, 50.0)
"""Of a voxel, in mm: others make one doubt the unit."""


def read_nifti(path: Path, volume: Wanted = None) -> Pixels:
    """Read a NIfTI image: (1 | 3, X, Y[, Z]), float32, its affine in mm, and what means white in a coloured one.

    Colours are what says so: RGB24, RGBA32, the intent of an RGB vector, or three unsigned whole numbers on the fifth
    axis, which holds vectors; three volumes on the fourth axis are a series.

    Args:
        path: the file.
        volume: which one of several is meant, see :func:`~fusion_nets.clinical.choosing.choose_volumes`; a ".bval"
            file beside the image gives them their b-values, and the sidecar of a PET (BIDS) its frames' times; the mean
            of frames is weighted by how long each took.

    Raises:
        ImageError: if it cannot be read, is gigantic, or is no scalar or coloured image of one moment.
    """
    try:
        image = nib.load(path, keep_file_open=True)  # or a compressed one would be unpacked anew for every slice
        if not isinstance(image, nib.Nifti1Image):
            raise TypeError(f"a {type(image).__name__}")
        channels = _check_kind(image, path)
        chosen = _chosen(image, channels, path, volume)
        array, kind = _values(image, channels, chosen, _shares(image, chosen, path))
        affine, is_placed = _affine(image, path)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes header, gzip or zlib stumble in any way
        raise unreadable(path, "NIfTI image", "a whole .nii or .nii.gz file", error) from error
    has_fields = bool(image.get_data_dtype().fields)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if min(array.shape[1:]) < 2:
        raise ImageError(
            Reason.TOO_SMALL, f"{path}: size {array.shape[1:]}; at least 2 pixels along each axis are accepted"
        )
    white = 255 if has_fields else least_white(array, kind, path) if channels == 3 else None
    return Pixels(array, affine, white, is_placed)


def _affine(image: nib.Nifti1Image, path: Path) -> tuple[np.ndarray, bool]:
    """Voxels to mm (RAS), and whether the file says so, or it had to be guessed from the voxels' size."""
    header = image.header
    unit = _unit(header, 0)
    scale = np.diag([*[MILLIMETRES.get(unit, 1.0)] * 3, 1.0])
    affine = check_affine(path, scale @ image.affine)
    edges = voxel_sizes(affine)
    if not EDGES[0] <= edges.min() <= edges.max() <= EDGES[1]:
        caution(logger, path, "voxels of %.3g to %.3g mm, by xyzt_units (%s)", edges.min(), edges.max(), unit)
    by_quaternion, by_matrix = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if by_quaternion is None and by_matrix is None:
        caution(logger, path, "neither qform_code nor sform_code is set; where it lies in the patient is a guess")
        return affine, False
    if by_quaternion is not None and by_matrix is not None:
        ends = np.argwhere(np.ones((2, 2, 2))) * (np.array((*image.shape, 1, 1)[:3]) - 1)
        apart = apply_affine(scale @ by_quaternion, ends) - apply_affine(scale @ by_matrix, ends)
        if not (distance := float(np.linalg.norm(apart, axis=1).max())) <= 0.1 * edges.min():
            caution(logger, path, "qform and sform differ by up to %.3g mm; the sform is taken", distance)
    return affine, True


def _unit(header: nib.Nifti1Header, which: int) -> str:
    """Of space (0) or time (1); codes that the standard does not have count as unknown."""
    try:
        return str(header.get_xyzt_units()[which])
    except KeyError:
        return "unknown"


def _chosen(image: nib.Nifti1Image, channels: int, path: Path, volume: Wanted) -> list[tuple[int, ...]]:
    """Where on the axes behind the third the volumes lie that are meant."""
    shape = image.shape[3:] if image.get_data_dtype().fields or channels == 1 else ()
    places = [index[::-1] for index in np.ndindex(shape[::-1])]
    if not places:
        raise ImageError(Reason.SHAPE, f"{path}: shape {image.shape}; a volume with voxels is accepted")
    return [places[n] for n in choose_volumes(path, _labels(image, places, path), volume)]


def _labels(image: nib.Nifti1Image, places: list[tuple[int, ...]], path: Path) -> list[Labels]:
    labels: list[dict[str, object]] = [{} for _ in places]
    if len(places) < 2:
        return list(labels)
    step, unit = float(image.header["pixdim"][4]), SECONDS.get(_unit(image.header, 1))
    if unit and len(places) == image.shape[3]:
        for n, label in enumerate(labels):
            label["seconds"] = n * step * unit
    for key, told in zip(("FrameTimesStart", "FrameDuration"), frame_times(path, len(places)), strict=True):
        for label, time in zip(labels, told or (), strict=False):
            label.pop("seconds", None)
            label[key] = time
    weightings = path.with_name(f"{path.name[: path.name.lower().rindex('.nii')]}.bval")
    if weightings.is_file():
        values = weightings.read_text(encoding="ascii", errors="replace").split()
        if len(values) == len(labels):
            for label, value in zip(labels, values, strict=True):
                label["DiffusionBValue"] = value
    return list(labels)


def _shares(image: nib.Nifti1Image, chosen: list[tuple[int, ...]], path: Path) -> list[float]:
    """What each of the chosen volumes counts in their mean: of frames of PET, how long it took."""
    durations = frame_times(path, image.shape[3])[1] if len(chosen) > 1 and image.ndim == 4 else None
    weights = [durations[place[0]] if durations else 1.0 for place in chosen]
    return [weight / sum(weights) for weight in weights]


def _values(
    image: nib.Nifti1Image, channels: int, chosen: list[tuple[int, ...]], shares: list[float]
) -> tuple[np.ndarray, str]:
    """All values, and of which kind they were; a few slices at a time, because scaled ones would take twice as much."""
    shape, names, kind = image.shape, image.get_data_dtype().names, "f"
    values = zeros((channels, *shape[:3]))
    at_once = max(1, SLICES_OF // max(1, shape[0] * shape[1]))
    for channel in range(1 if names else channels):
        colour = tuple(channel if length > 1 else 0 for length in shape[3:])
        for volume, share in zip(chosen, shares, strict=True) if channels == 1 or names else [(colour, 1.0)]:
            for k in range(0, shape[2] if len(shape) > 2 else 1, at_once):
                slices = (slice(k, k + at_once),) if len(shape) > 2 else ()
                place = (slice(None), slice(None), *slices, *volume)
                part = np.asanyarray(image.dataobj[place])
                kind = part.dtype.kind
                into = values[..., slices[0]] if slices else values
                if names:
                    into += np.stack([part[name] for name in "RGB"]) * np.float32(share)
                elif len(chosen) == 1:
                    into[channel] = part
                else:
                    into[channel] += part * share
                release()
    return values, kind


def _check_kind(image: nib.Nifti1Image, path: Path) -> int:
    """How many channels there are, 3 of colours; refuse what is no image."""
    dtype, shape = image.get_data_dtype(), image.shape
    several = [n for n in shape[3:] if n != 1]
    vectors = len(shape) > 4 and several == [3] and shape[4] == 3 and not dtype.fields
    colours = several == [3] and not dtype.fields and int(image.header["intent_code"]) == RGB_VECTOR
    colours = colours or (vectors and dtype.kind == "u" and int(image.header["intent_code"]) == 0)
    if len(shape) < 2:
        raise ImageError(Reason.SHAPE, f"{path}: shape {shape}; two or three dimensions are accepted, of a volume")
    channels = 3 if colours or dtype.fields else 1
    check_voxels(path, (*shape[:3], *((3,) if channels == 3 else ())))
    if dtype.kind == "c":
        raise ImageError(Reason.KIND, f"{path}: holds complex numbers; real ones are accepted, such as their magnitude")
    return channels


def least_white(colours: np.ndarray, kind: str, path: Path) -> int:
    """What means white where the file does not say it of its colours: the least that fits.

    Args:
        colours: all values.
        kind: of which kind they were in the file, as numpy calls it; whole numbers are not taken for 0 to 1.
        path: named in the message.

    Raises:
        ImageError: if nothing fits.
    """
    low, high = colours.min(), colours.max()
    for white in (255, 65535) if kind in "iu" else (1, 255, 65535):
        if low >= 0 and high <= white * 1.0001:  # a slope in the header is rounded
            return white
    raise ImageError(
        Reason.VALUES, f"{path}: colours from {low:g} to {high:g}; accepted are 0 to 1, to 255 or to 65535"
    )
