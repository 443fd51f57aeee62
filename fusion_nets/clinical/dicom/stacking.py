"""Where the slices of a series lie, and whether they make a volume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion_nets.cautions import caution
from fusion_nets.slabs import release, zeros

from ..errors import ImageError, Reason
from .frames import Frame, normal_of

__all__ = ["Stack", "even_out", "place", "straighten"]

logger = logging.getLogger(__name__)

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
MOST_DRIFT = 0.1
"""Millimetres by which the last slice may be beside the normal through the first and count as above it."""

FEWEST_ALIKE = 3
"""Distances in a row that make a part of a series with slices of its own spacing, not a hole."""


@dataclass(frozen=True)
class Stack:
    """Frames as the slices of a volume.

    Attributes:
        order: of the frames, along the normal.
        affine: (4, 4), from column, row and slice to RAS, mm; without the shear.
        shear: columns and rows by which each slice is further than the one before; (0, 0) for right angles.
        heights: where the slices lie along the normal, in steps of the affine, if their distances vary; else None.
    """

    order: list[int]
    affine: np.ndarray
    shear: tuple[float, float] = (0.0, 0.0)
    heights: np.ndarray | None = None


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
    step, shear, heights = _step(points, axes, normal, [frames[index] for index in order], where)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[0] * spacing[0], axes[1] * spacing[1], step], axis=1)
    affine[:3, 3] = points[0]
    return Stack(order, LPS_TO_RAS @ affine, (shear[0] / spacing[0], shear[1] / spacing[1]), heights)


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """From slice to slice along the normal (mm), how far that leads along a row and a column, and uneven heights."""
    if len(points) == 1:
        thickness = frames[0].number("SpacingBetweenSlices") or frames[0].number("SliceThickness") or 1.0
        return normal * abs(thickness), np.zeros(2), None
    heights = (points - points[0]) @ normal
    gaps = np.diff(heights)
    even = heights[-1] / (len(heights) - 1)
    tolerance = max(0.06, 0.02 * even)
    if (apart := gaps > 0.05 * gaps.max()).sum() < len(gaps) or gaps.max() < 1e-3:
        raise _several_at_one_place(frames, int(np.flatnonzero(~apart)[0]), where)
    finest = None
    if np.abs(heights - even * np.arange(len(heights))).max() > tolerance:
        finest = _finest(gaps)
    if finest:
        words = "slices are %.3g to %.3g mm apart; those between are interpolated, %.3g mm apart"
        caution(logger, where, words, gaps.min(), gaps.max(), finest)
        even = finest
    elif np.abs(heights - even * np.arange(len(heights))).max() > tolerance:
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
    drift = beside[-1] / heights[-1] * even
    if np.abs(beside - np.outer(heights / even, drift)).max() > tolerance:
        raise ImageError(
            Reason.GEOMETRY,
            f"{where}: by ImagePositionPatient, the slices lie beside each other; slices above each other are accepted",
        )
    if np.abs(beside[-1]).max() <= MOST_DRIFT:
        drift = np.zeros(2)
    return normal * even, drift, heights / even if finest else None


def _finest(gaps: np.ndarray) -> float | None:
    """The least of the distances that slices keep over parts of a series; None where they do not."""
    parts: list[list[float]] = []
    for gap in gaps:
        if parts and abs(gap - parts[-1][0]) <= max(0.06, 0.02 * parts[-1][0]):
            parts[-1].append(float(gap))
        else:
            parts.append([float(gap)])
    for number, part in enumerate(parts):
        beside = [other[0] for other in parts[max(number - 1, 0) : number + 2]]
        between = len(part) == 1 and 0 < number < len(parts) - 1 and min(beside) < part[0] < max(beside)
        if len(part) < FEWEST_ALIKE and not between:
            return None
    return min(float(np.median(part)) for part in parts if len(part) >= FEWEST_ALIKE)


def _several_at_one_place(frames: Sequence[Frame], first: int, where: str) -> ImageError:
    return ImageError(
        Reason.GEOMETRY,
        f"{where}: by ImagePositionPatient, {_short(frames[first], where)} and {_short(frames[first + 1], where)} "
        "lie at the same place (duplicate slice); one slice at a place is accepted",
    )


def _short(frame: Frame, where: str) -> str:
    return frame.where.removeprefix(f"{where}: ")


def even_out(volume: np.ndarray, stack: Stack) -> np.ndarray:
    """Slices at even distances, by linear interpolation between those that are there.

    Args:
        volume: (C, columns, rows, slices), float32.
        stack: with its heights.
    """
    heights = np.asarray(stack.heights)
    places = np.arange(int(heights[-1] + 1e-3) + 1)
    above = np.searchsorted(heights, places - 1e-3).clip(1, len(heights) - 1)
    weight = ((places - heights[above - 1]) / (heights[above] - heights[above - 1])).clip(0, 1)
    even = zeros((*volume.shape[:3], len(places)))
    for k, (upper, share) in enumerate(zip(above, weight, strict=True)):
        even[..., k] = volume[..., upper - 1] * (1 - share) + volume[..., upper] * share
        release()
    return even


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
    straight, lowest = zeros(size), volume.min()
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
                cval=float(lowest),
            )
            release()
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ before
    return straight, affine
