"""Findings: the statements of a description or report, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One statement about an image.

    Args:
        kind: what was seen, such as "bright region".
        side: "left", "right", "midline", "both", or "" where nothing is said; the patient's side.
        place: where along the other axes, such as "anterior", or "".
        size: how large, in ``unit``; None where nothing is said.
        unit: "%" (of the head) or "mm"; "" without a size.
        intensity: in percent of the display range; None where nothing is said.
    """

    kind: str
    side: str = ""
    place: str = ""
    size: float | None = None
    unit: str = ""
    intensity: float | None = None
