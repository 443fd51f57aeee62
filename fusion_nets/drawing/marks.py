"""What a picture of a patient carries beside the pixels: sides, a scale, and the window in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["AXIAL", "CORONAL", "SAGITTAL", "Plane", "draw_scale", "draw_sides", "scale_of", "window_words"]

Ink = int | tuple[int, int, int]

LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Of a scale, in mm."""

LONGEST_SCALE = 0.4
"""Of the picture's width."""


class Plane(NamedTuple):
    """How a volume whose axes run to L, A and S lies on a picture, radiological display.

    Attributes:
        right: the axis that runs to the right.
        up: the axis that runs up.
        through: the axis that runs through the picture.
        mirrored: whether the picture's right is the low end of its axis.
        sides: what is on the left, on the right, at the top and at the bottom; where the voxels are oblique, the
            nearest.
    """

    right: int
    up: int
    through: int
    mirrored: bool
    sides: str

    def lay(self, volume: np.ndarray) -> np.ndarray:
        """The volume (L, A, S, ...) as (to the right, up, through, ...)."""
        laid = np.moveaxis(volume, (self.right, self.up, self.through), (0, 1, 2))
        return laid[::-1] if self.mirrored else laid


AXIAL = Plane(0, 1, 2, False, "RLAP")
CORONAL = Plane(0, 2, 1, False, "RLSI")
SAGITTAL = Plane(1, 2, 0, True, "APSI")


def scale_of(width: float) -> tuple[float, str]:
    """The length of a scale on a picture of a width, both in mm, and how it is called.

    Examples:
        >>> scale_of(180.0), scale_of(12.0)
        ((50, '5 cm'), (2, '2 mm'))
    """
    fitting = [length for length in LENGTHS if length <= LONGEST_SCALE * width]
    length = fitting[-1] if fitting else LENGTHS[0]
    return length, f"{length // 10} cm" if length >= 10 else f"{length} mm"


def window_words(display: Mapping[str, Any] | None) -> str | None:
    """A display range in words, as :class:`fusion_nets.transforms.ScaleToDisplayRange` records it.

    Examples:
        >>> window_words({"window": "soft_tissue", "range": [-160, 240], "units": "HU"})
        '-160 to 240 HU (soft tissue)'
        >>> window_words({"window": "white", "range": [0, 255], "units": "grey"}) is None
        True
    """
    if not display or display["window"] == "white":
        return None
    low, high = display["range"]
    units = "" if display.get("units") in (None, "stored") else f" {display['units']}"
    return f"{low:.4g} to {high:.4g}{units} ({str(display['window']).replace('_', ' ')})"


def draw_sides(picture: Image.Image, sides: str, ink: Ink, paper: Ink) -> None:
    """Letters at the middle of the left, right, top and bottom edge."""
    draw, width, height = ImageDraw.Draw(picture), picture.width, picture.height
    ends = (
        ("lm", 4, height // 2),
        ("rm", width - 4, height // 2),
        ("mt", width // 2, 4),
        ("mb", width // 2, height - 4),
    )
    for side, (anchor, x, y) in zip(sides, ends, strict=True):
        draw.text((x, y), side, fill=ink, anchor=anchor, font_size=16, stroke_width=1, stroke_fill=paper)


def draw_scale(picture: Image.Image, pixels_per_mm: float, ink: Ink, paper: Ink) -> None:
    """A bar at the lower right, and how long it is."""
    length, name = scale_of(picture.width / pixels_per_mm)
    draw, y, x = ImageDraw.Draw(picture), picture.height - 10, picture.width - 10
    start = x - length * pixels_per_mm
    draw.line((start - 1, y, x + 1, y), fill=paper, width=5)
    draw.line((start, y, x, y), fill=ink, width=3)
    place = (start + x) / 2, y - 4
    draw.text(place, name, fill=ink, anchor="mb", font_size=14, stroke_width=1, stroke_fill=paper)
