"""Frames: what a classic instance says once and a multi-frame one per frame, looked up alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion_nets.cautions import caution

from ..errors import ImageError, Reason
from .mosaic import is_mosaic, tiles

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["CHOSEN", "Frame", "frames_of", "normal_of"]

CHOSEN = "chosen_frames"
"""Of a header in memory: which of its frames count, if not all."""

logger = logging.getLogger(__name__)

NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"


@dataclass(frozen=True)
class Frame:
    """One frame of an instance.

    Attributes:
        where: what messages start with.
        instance: which of the instances it belongs to.
        index: which of its instance's frames it is.
        groups: attributes of the frame alone, those of its functional groups (PS3.3 C.7.6.16) without their sequences.
        header: of the instance.
    """

    where: str
    instance: int
    index: int
    groups: Dataset
    header: Dataset

    def get(self, keyword: str) -> Any:
        """Value of an attribute; None where it is missing or empty."""
        for dataset in (self.groups, self.header):
            value = dataset.get(keyword)
            if value is not None and value != "" and not (isinstance(value, Sequence) and len(value) == 0):
                return value
        return None

    def numbers(self, keyword: str, count: int = 1) -> np.ndarray | None:
        """Values of a numerical attribute, (count,) or more; None where it is missing.

        Raises:
            ImageError: if they are fewer, or not finite numbers.
        """
        value = self.get(keyword)
        if value is None:
            return None
        try:
            numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
        except (TypeError, ValueError):
            numbers = np.empty(0)
        if numbers.ndim != 1 or len(numbers) < count or not np.isfinite(numbers).all():
            raise ImageError(Reason.DAMAGED, f"{self.where}: {keyword} is damaged; {count} finite values are accepted")
        return numbers

    def number(self, keyword: str) -> float | None:
        """The first value of a numerical attribute; None where it is missing."""
        values = self.numbers(keyword)
        return None if values is None else float(values[0])

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, of a mosaic's tile its own."""
        return int(self.get("Rows")), int(self.get("Columns"))

    @property
    def is_tile(self) -> bool:
        """Whether it is a part of its instance's picture."""
        return "Rows" in self.groups

    def private(self, tag: tuple[int, int], creator: str) -> Any:
        """Value of a private attribute (PS3.5 section 7.8), in whichever block its creator has reserved; else None."""
        for dataset in (self.groups, self.header):
            try:
                return dataset.private_block(tag[0], creator)[tag[1] & 0xFF].value
            except KeyError:
                continue
        return None

    @property
    def position(self) -> np.ndarray | None:
        """Of the centre of the first pixel (LPS, mm)."""
        values = self.numbers("ImagePositionPatient", 3)
        return None if values is None else values[:3]

    @property
    def orientation(self) -> np.ndarray | None:
        """(2, 3): unit vectors along a row and along a column (LPS), at right angles.

        Raises:
            ImageError: if they are not, by more than rounding.
        """
        values = self.numbers("ImageOrientationPatient", 6)
        if values is None:
            return None
        axes = values[:6].reshape(2, 3)
        lengths = np.linalg.norm(axes, axis=1)
        if np.abs(lengths - 1).max() > 1e-2 or abs(axes[0] @ axes[1]) > 1e-2:
            raise ImageError(
                Reason.DAMAGED,
                f"{self.where}: ImageOrientationPatient is damaged; two unit vectors at right angles are accepted",
            )
        row = axes[0] / lengths[0]
        column = axes[1] - (axes[1] @ row) * row
        return np.stack([row, column / np.linalg.norm(column)])


def normal_of(orientation: np.ndarray) -> np.ndarray:
    """Unit vector from slice to slice (LPS)."""
    return np.cross(*orientation)


def frames_of(instances: Sequence[tuple[str, Dataset]]) -> list[Frame]:
    """The frames of instances, in their order.

    Args:
        instances: what messages about an instance start with, and its header.

    Raises:
        ImageError: if a multi-frame instance says nothing of one of its frames, or has none.
    """
    return [frame for number, (where, header) in enumerate(instances) for frame in _frames(where, number, header)]


def _frames(where: str, instance: int, header: Dataset) -> list[Frame]:
    from pydicom import Dataset

    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    count = 1 if (number := header.get("NumberOfFrames")) in (None, "") else int(number)
    if count < 1:
        raise ImageError(Reason.DAMAGED, f"{where}: NumberOfFrames is {count}; at least 1 is accepted")
    if per_frame:
        if len(per_frame) != count:
            raise ImageError(
                Reason.DAMAGED,
                f"{where}: PerFrameFunctionalGroupsSequence has {len(per_frame)} items, NumberOfFrames is {count}; "
                "a whole file is accepted",
            )
        shared = _flat(header.get("SharedFunctionalGroupsSequence") or [])
        groups = []
        for item in per_frame:
            flat = Dataset()
            flat.update(shared)
            flat.update(_flat([item]))
            groups.append(flat)
    elif count == 1 and is_mosaic(header):
        one = Frame(where, 0, 0, Dataset(), header)
        spacing, apart = one.numbers("PixelSpacing", 2), one.number("SpacingBetweenSlices")
        groups = tiles(header, where, one.position, one.orientation, spacing, apart)
    elif header.get("SOPClassUID") == NUCLEAR_MEDICINE:
        groups = _nuclear_medicine(where, header, count)
    elif count > 1:
        raise ImageError(
            Reason.KIND,
            f"{where}: holds {count} frames without PerFrameFunctionalGroupsSequence; "
            "enhanced multi-frame objects and reconstructed NM are accepted",
        )
    else:
        groups = [Dataset()]
    names = [where] if len(groups) == 1 else [f"{where}: frame {index + 1}" for index in range(len(groups))]
    frames = [
        Frame(name, instance, index, flat, header) for index, (name, flat) in enumerate(zip(names, groups, strict=True))
    ]
    chosen = getattr(header, CHOSEN, None)
    return frames if chosen is None else [frames[index] for index in chosen]


def _flat(items: Sequence[Dataset]) -> Dataset:
    """What stands in the sequences of functional groups, as if it stood beside them.

    Not in private ones: Philips repeats there what the standard ones say, rounded or of another image.
    """
    from pydicom import Dataset

    flat = Dataset()
    for item in items:
        for element in item:
            if element.VR == "SQ" and element.value and not element.tag.is_private:
                flat.update(element.value[0])
    return flat


def _nuclear_medicine(where: str, header: Dataset, count: int) -> list[Dataset]:
    """Place the frames of a reconstructed volume, PS3.3 C.8.4.15: slices lie along the normal, in steps with a sign."""
    from pydicom import Dataset

    values = list(header.get("ImageType") or [])
    kind = str(values[2]) if len(values) > 2 else ""
    if kind != "RECON TOMO":
        raise ImageError(
            Reason.KIND, f"{where}: ImageType is {kind or 'missing'}; a reconstructed volume (RECON TOMO) is accepted"
        )
    for keyword in ("EnergyWindowVector", "DetectorVector", "TimeSlotVector"):
        if len(set(np.atleast_1d(header.get(keyword) or [1]).tolist())) > 1:
            raise ImageError(Reason.AMBIGUOUS, f"{where}: {keyword} has several values; a single volume is accepted")
    detector = (header.get("DetectorInformationSequence") or [Dataset()])[0]
    first = Frame(where, 0, 0, detector, header)
    position, orientation, spacing = first.position, first.orientation, first.number("SpacingBetweenSlices")
    if position is None or orientation is None:
        raise ImageError(
            Reason.INCOMPLETE,
            f"{where}: DetectorInformationSequence lacks ImagePositionPatient or ImageOrientationPatient; "
            "both are accepted",
        )
    if count > 1 and not spacing:
        spacing = first.number("SliceThickness")
        if not spacing:
            raise ImageError(
                Reason.INCOMPLETE,
                f"{where}: SpacingBetweenSlices and SliceThickness are missing; the distance of slices is accepted",
            )
        caution(logger, where, "SpacingBetweenSlices is missing; SliceThickness, %g mm, is taken", spacing)
    slices = first.numbers("SliceVector", count)
    slices = np.arange(1, count + 1) if slices is None else slices[:count]
    groups = []
    for number in slices:
        place = Dataset()
        place.ImagePositionPatient = (position + (number - 1) * (spacing or 0) * normal_of(orientation)).tolist()
        place.ImageOrientationPatient = orientation.ravel().tolist()
        groups.append(place)
    return groups
