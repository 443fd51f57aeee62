"""What lies where in a head: the words of a report for a point of MNI space."""

from __future__ import annotations

import numpy as np

__all__ = ["in_head", "in_picture", "side_and_place"]


def in_head(x: float, y: float, z: float) -> tuple[str, str]:
    """Side and place of a point of MNI space (mm, RAS): a lobe, "cerebellar", "brainstem" or "basal", coarsely."""
    side = "midline" if abs(x) < 5 else "right" if x > 0 else "left"
    if z < -8 and abs(x) < 13 and -44 < y < -8:
        return side, "brainstem"
    if y < -38 and z < (-9 if abs(x) < 16 and y > -76 else -20):
        return side, "cerebellar"
    if abs(x) < 34 and -32 < y < 22 and -14 < z < 22:
        return side, "basal"
    if z < 2 + 0.25 * min(-y, 40) and abs(x) > 24 and -60 < y < 18:
        return side, "temporal"
    if y < -72 or (y < -58 and z < 18):
        return side, "occipital"
    if y < -22 - 0.25 * (z - 30) * (z > 30):
        return side, "parietal"
    return side, "frontal"


def in_picture(row: float, column: float) -> tuple[str, str]:
    """Side and place of a point (0 to 1 downwards and to the right) of a picture, the patient's right at its left."""
    side = "midline" if abs(column - 0.5) < 1 / 12 else "right" if column < 0.5 else "left"
    return side, "anterior" if row < 1 / 3 else "posterior" if row > 2 / 3 else "central"


def side_and_place(world: np.ndarray | None, centre: tuple[int, int], size: tuple[int, int]) -> tuple[str, str]:
    """Of a pixel, whether its scene is a head or not."""
    if world is None:
        return in_picture((centre[0] + 0.5) / size[0], (centre[1] + 0.5) / size[1])
    return in_head(*(float(v) for v in world[:, centre[0], centre[1]]))
