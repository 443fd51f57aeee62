"""Where the slices of a series lie, and whether they make a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ImageError, Reason
from .frames import Frame, normal_of

__all__ = ["Stack", "place", "straighten"]

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
MOST_DRIFT = 0.1
"""Millimetres by which the last slice may be beside the normal through the first and count as above it."""

SIGNS_OF_SEVERAL_VOLUMES = {
    "TemporalPositionIndex": "temporal positions",
    "TemporalPositionIdentifier": "temporal positions",
    "EffectiveEchoTime": "echoes",
    "EchoTime": "echoes",
    "EchoNumbers": "echoes",
    "InversionTime": "inversion times",
    "DiffusionBValue": "diffusion weightings",
    "FrameReferenceTime": "time frames",
    "TriggerTime": "phases of the heart",
    "NominalCardiacTriggerDelayTime": "phases of the heart",
    "FrameType": "types of frame",
    "ImageType": "types of image",
    "AcquisitionNumber": "acquisitions",
    "AcquisitionTime": "acquisition times",
}


@dataclass(frozen=True)
class Stack:
    """Frames as the slices of a volume.

    Attributes:
        order: of the frames, along the normal.
        affine: (4, 4), from column, row and slice to RAS, mm; without the shear.
        shear: columns and rows by which each slice is further than the one before; (0, 0) for right angles.
    """

    order: list[int]
    affine: np.ndarray
    shear: tuple[float, float] = (0.0, 0.0)


def place(frames: Sequence[Frame], where: str) -> Stack:
    """Order frames along their normal, and check that they are the slices of one volume.

    By hand: highdicom.spatial orders slices, too, but says of what is no volume neither why nor which slice.

    Args:
        frames: in any order.
        where: what messages about all of them start with.

    Raises:
        ImageError: for missing, unevenly spaced or differently turned slices, several at one place, and frames without
            geometry, if there is more than one.
    """
    if (stacks := len({str(frame.get("StackID")) for frame in frames})) > 1:
        raise ImageError(
            Reason.AMBIGUOUS, f"{where}: holds {stacks} stacks (by StackID); a series of one of them is accepted"
        )
    spacing = _in_plane(frames, where)
    orientations, positions = [], []
    for frame in frames:
        orientation, position = frame.orientation, frame.position
        if orientation is None or position is None:
            if len(frames) == 1:
                return Stack([0], np.diag([-spacing[0], -spacing[1], 1, 1]))  # as a picture lies
            keyword = "ImageOrientationPatient" if orientation is None else "ImagePositionPatient"
            raise ImageError(
                Reason.INCOMPLETE, f"{frame.where}: {keyword} is missing; slices that say where they lie are accepted"
            )
        orientations.append(orientation)
        positions.append(position)
    for frame, orientation in zip(frames, orientations, strict=True):
        if np.abs(orientation - orientations[0]).max() > 1e-3:
            raise ImageError(
                Reason.MIXED,
                f"{frame.where}: ImageOrientationPatient differs from that of {_short(frames[0], where)}; "
                "slices of one orientation are accepted",
            )
    axes = orientations[0]
    normal = normal_of(axes)
    points = np.stack(positions)
    order = np.argsort(points @ normal, kind="stable").tolist()
    points = points[order]
    step, shear = _step(points, axes, normal, [frames[index] for index in order], where)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[0] * spacing[0], axes[1] * spacing[1], step], axis=1)
    affine[:3, 3] = points[0]
    return Stack(order, LPS_TO_RAS @ affine, (shear[0] / spacing[0], shear[1] / spacing[1]))


def _in_plane(frames: Sequence[Frame], where: str) -> tuple[float, float]:
    """Distance of columns and of rows; 1 mm for a picture that does not say."""
    spacings: list[np.ndarray] = []
    for frame in frames:
        values = frame.numbers("PixelSpacing", 2)
        if values is None and (len(frames) > 1 or frame.position is not None):
            raise ImageError(
                Reason.INCOMPLETE,
                f"{frame.where}: PixelSpacing is missing; slices that say how large they are are accepted",
            )
        values = np.ones(2) if values is None else values[:2]
        if values.min() <= 0:
            raise ImageError(
                Reason.DAMAGED, f"{frame.where}: PixelSpacing is not positive; two distances in mm are accepted"
            )
        if spacings and np.abs(values - spacings[0]).max() > 1e-3 * spacings[0].min():
            raise ImageError(
                Reason.MIXED,
                f"{frame.where}: PixelSpacing differs from that of {_short(frames[0], where)}; "
                "slices of one size are accepted",
            )
        spacings.append(values)
    return float(spacings[0][1]), float(spacings[0][0])


def _step(
    points: np.ndarray, axes: np.ndarray, normal: np.ndarray, frames: Sequence[Frame], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """From slice to slice along the normal (mm), and how far that leads along a row and along a column."""
    if len(points) == 1:
        thickness = frames[0].number("SpacingBetweenSlices") or frames[0].number("SliceThickness") or 1.0
        return normal * abs(thickness), np.zeros(2)
    heights = (points - points[0]) @ normal
    gaps = np.diff(heights)
    even = heights[-1] / (len(heights) - 1)
    tolerance = max(0.06, 0.02 * even)
    if (apart := gaps > 0.05 * gaps.max()).sum() < len(gaps) or gaps.max() < 1e-3:
        raise _several_at_one_place(frames, int(np.flatnonzero(~apart)[0]), where)
    if np.abs(heights - even * np.arange(len(heights))).max() > tolerance:
        slices = gaps / gaps.min()
        widest = int(gaps.argmax())
        between = f"between {_short(frames[widest], where)} and {_short(frames[widest + 1], where)}"
        if np.abs(slices - np.rint(slices)).max() < 0.1:
            missing = int(np.rint(slices - 1).sum())
            raise ImageError(
                Reason.INCOMPLETE,
                f"{where}: {missing} {'slice is' if missing == 1 else 'slices are'} missing, by ImagePositionPatient "
                f"{between}; a series without gaps is accepted",
            )
        raise ImageError(
            Reason.GEOMETRY,
            f"{where}: uneven spacing by ImagePositionPatient, {gaps.min():.3g} to {gaps.max():.3g} mm, the widest "
            f"{between}; evenly spaced slices are accepted",
        )
    beside = (points - points[0]) @ axes.T
    drift = beside[-1] / (len(points) - 1)
    if np.abs(beside - np.outer(np.arange(len(points)), drift)).max() > tolerance:
        raise ImageError(
            Reason.GEOMETRY,
            f"{where}: by ImagePositionPatient, the slices lie beside each other; slices above each other are accepted",
        )
    if np.abs(beside[-1]).max() <= MOST_DRIFT:
        drift = np.zeros(2)
    return normal * even, drift


def _several_at_one_place(frames: Sequence[Frame], first: int, where: str) -> ImageError:
    for keyword, what in SIGNS_OF_SEVERAL_VOLUMES.items():
        values = {str(frame.get(keyword)) for frame in frames}
        if 1 < len(values) <= len(frames) // 2:
            return ImageError(
                Reason.AMBIGUOUS,
                f"{where}: holds {len(values)} {what} (by {keyword}), which lie at the same places; "
                "a series of one of them is accepted",
            )
    return ImageError(
        Reason.GEOMETRY,
        f"{where}: by ImagePositionPatient, {_short(frames[first], where)} and {_short(frames[first + 1], where)} "
        "lie at the same place (duplicate slice); one slice at a place is accepted",
    )


def _short(frame: Frame, where: str) -> str:
    return frame.where.removeprefix(f"{where}: ")


def straighten(volume: np.ndarray, stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Bring slices that a tilted gantry took onto a grid with right angles, by linear interpolation along the shear.

    The grid keeps the pixels of the first slice and grows by what the others stick out; there it has the lowest value.

    Args:
        volume: (C, columns, rows, slices), float32.
        stack: with its shear.

    Returns:
        The volume on the new grid, and its affine.
    """
    from scipy import ndimage

    last = np.asarray(stack.shear) * (volume.shape[3] - 1)
    before, behind = np.floor(np.minimum(last, 0)).astype(int), np.ceil(np.maximum(last, 0)).astype(int)
    size = (volume.shape[0], *(volume.shape[1:3] + behind - before), volume.shape[3])
    straight = np.full(size, volume.min(), dtype=np.float32)
    for channel in range(volume.shape[0]):
        for k in range(volume.shape[3]):
            offset = before - np.asarray(stack.shear) * k
            ndimage.affine_transform(
                volume[channel, :, :, k],
                np.ones(2),
                offset,
                output_shape=size[1:3],
                output=straight[channel, :, :, k],
                order=1,
                cval=float(volume.min()),
            )
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ before
    return straight, affine
