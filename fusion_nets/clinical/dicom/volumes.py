"""Volumes of a series that lie at the same places, and which of them is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..choosing import Labels, Wanted, choose_volumes
from ..errors import ImageError
from .frames import Frame, normal_of
from .series import Series

__all__ = ["pick_volumes"]

SIGNS = (
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "EffectiveEchoTime",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "FrameReferenceTime",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "ComplexImageComponent",
    "FrameType",
    "ImageType",
    "FlipAngle",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
)
"""By what volumes are told apart, what says most about them first."""
PRIVATE_B_VALUES = (
    ((0x0019, 0x100C), "SIEMENS MR HEADER"),
    ((0x0043, 0x1039), "GEMS_PARM_01"),
    ((0x2001, 0x1003), "Philips Imaging DD 001"),
)
MOST_SIGNS = 3
SAME_PLACE = 0.02
"""Millimetres."""


def pick_volumes(series: Series, wanted: Wanted = None) -> list[Series]:
    """The volume of a series that is meant, as a series of its frames alone; several where their mean is.

    Args:
        series: as it was found.
        wanted: as :func:`fusion_nets.clinical.read_image` takes it; None where there is only one.

    Raises:
        ImageError: if no volume or more than one is meant; the message lists what there is.
    """
    frames = series.frames()
    volumes = _volumes(frames)
    if len(volumes) == 1 and wanted is None:
        return [series]
    chosen = choose_volumes(series.path, [labels for labels, _ in volumes], wanted)
    return [series.only([frames[index] for index in volumes[number][1]]) for number in chosen]


def _volumes(frames: Sequence[Frame]) -> list[tuple[Labels, list[int]]]:
    whole: list[tuple[Labels, list[int]]] = [({}, list(range(len(frames))))]
    try:
        orientations = [frame.orientation for frame in frames]
        positions = [frame.position for frame in frames]
    except ImageError:
        return whole  # refused with its reason when it is placed
    if len(frames) < 2 or any(value is None for value in (*orientations, *positions)):
        return whole
    parts: dict[tuple[str, ...], list[int]] = defaultdict(list)
    planes = _planes([orientation for orientation in orientations if orientation is not None])
    for index, frame in enumerate(frames):
        parts[str(frame.get("StackID") or ""), planes[index]].append(index)
    if min(map(len, parts.values())) < min(2, max(map(len, parts.values()))):
        return whole  # a slice that is turned, which is refused when it is placed
    stacks, several = len({stack for stack, _ in parts}) > 1, len({plane for _, plane in parts}) > 1
    result: list[tuple[Labels, list[int]]] = []
    for (stack, plane), members in sorted(parts.items()):
        of_part = ({"StackID": stack} if stacks else {}) | ({"plane": plane} if several else {})
        normal = normal_of(np.asarray(orientations[members[0]]))
        heights = np.array([np.asarray(positions[index]) @ normal for index in members])
        for labels, inside in _at_places([frames[index] for index in members], _ranks(heights)):
            result.append(({**of_part, **labels}, [members[index] for index in inside]))
    return result


def _planes(orientations: Sequence[np.ndarray]) -> list[str]:
    """The nearest plane of each; nearly one orientation is one plane, though it lie between two."""
    known: list[tuple[np.ndarray, str]] = []
    planes = []
    for orientation in orientations:
        plane = next((name for other, name in known if np.abs(other - orientation).max() < 0.01), None)
        if plane is None:
            plane = ("sagittal", "coronal", "axial")[int(np.abs(normal_of(orientation)).argmax())]
            known.append((orientation, plane))
        planes.append(plane)
    return planes


def _ranks(heights: np.ndarray) -> np.ndarray:
    """At which of the places each frame lies."""
    order = np.argsort(heights, kind="stable")
    ranks = np.empty(len(heights), dtype=int)
    ranks[order] = np.concatenate([[0], np.cumsum(np.diff(heights[order]) > SAME_PLACE)])
    return ranks


def _at_places(frames: Sequence[Frame], ranks: np.ndarray) -> list[tuple[Labels, list[int]]]:
    """Parted by the fewest signs that leave one frame at each place; by their order where nothing tells them apart."""
    whole: list[tuple[Labels, list[int]]] = [({}, list(range(len(frames))))]
    counts = np.bincount(ranks)
    if counts.max() == 1:
        return whole
    values = {sign: [_value(frame, sign) for frame in frames] for sign in SIGNS}
    varying = [sign for sign in SIGNS if len(set(values[sign])) > 1]
    for number in range(1, MOST_SIGNS + 1):
        for signs in combinations(varying, number):
            parts: dict[tuple[Any, ...], list[int]] = defaultdict(list)
            for index, key in enumerate(zip(*(values[sign] for sign in signs), strict=True)):
                parts[key].append(index)
            places = [ranks[inside] for inside in parts.values()]
            alone = all(len(set(part)) == len(part) for part in places)
            if alone and max(map(len, places)) == len(counts) and len(parts) <= counts.max() + 1:
                return [(dict(zip(signs, key, strict=True)), parts[key]) for key in sorted(parts, key=_order)]
    if len(set(counts)) > 1:
        return whole  # a slice that is there twice
    order = sorted(range(len(frames)), key=lambda index: (int(frames[index].get("InstanceNumber") or 0), index))
    by_order: list[list[int]] = [[] for _ in range(int(counts.max()))]
    seen: dict[int, int] = defaultdict(int)
    for index in order:
        by_order[seen[ranks[index]]].append(index)
        seen[ranks[index]] += 1
    return [({}, inside) for inside in by_order]


def _value(frame: Frame, sign: str) -> float | str:
    value = frame.get(sign)
    if sign == "DiffusionBValue" and value is None:
        known = (_b_value(frame.private(*where)) for where in PRIVATE_B_VALUES)
        value = next((one for one in known if one is not None), None)
    if sign == "DiffusionGradientOrientation" and value is None and (nested := frame.get(_GRADIENT)):
        value = nested[0].get("DiffusionGradientOrientation")
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = list(value) if isinstance(value, Sequence) else [value]
    try:
        return float(parts[0]) if len(parts) == 1 else "\\".join(str(part) for part in parts)
    except (TypeError, ValueError):
        return str(value)


_GRADIENT = "DiffusionGradientDirectionSequence"


def _b_value(value: Any) -> float | None:
    """Of a vendor's own attribute; GE adds a thousand millions to it."""
    try:
        first = value.decode("ascii").split("\\")[0] if isinstance(value, bytes) else value
        first = first if isinstance(first, (str, float, int)) else first[0]
        return float(first) % 1e6
    except (AttributeError, IndexError, TypeError, UnicodeDecodeError, ValueError):
        return None


def _order(key: tuple[Any, ...]) -> list[tuple[bool, float, str]]:
    return [(isinstance(value, str), 0.0 if isinstance(value, str) else value, str(value)) for value in key]
