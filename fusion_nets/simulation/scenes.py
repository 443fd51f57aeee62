"""Scenes: what is to be imaged, as fractions of tissue on a grid: a slice of a head, or shapes without anatomy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .fields import blur, sigmoid, smooth_field
from .template import LABELS, packed_head

__all__ = ["TISSUES", "Scene", "head_scene", "shapes_scene"]

TISSUES = ("grey", "white", "csf", "bone", "diploe", "muscle", "fat", "striatum")
"""Of a head; what the fractions leave is air. Striatum is a part of grey matter."""
_PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Scene:
    """What is imaged.

    Args:
        fractions: (K, H, W), the tissues of :data:`TISSUES`, or as many shapes.
        spacing: of the pixels in mm.
        is_head: whether these are the tissues of a head.
        world: (3, H, W), where every pixel lies in the head, MNI millimetres (RAS); shapes have none.
        brain: (H, W), the fraction of grey and white matter; of shapes, of any of them.
        body: (H, W), depth under the skin in mm, negative in air; shapes have none.
        plane: "axial", "coronal" or "sagittal" of a head that is shown upright, else "".
    """

    fractions: np.ndarray
    spacing: float
    is_head: bool
    brain: np.ndarray
    world: np.ndarray | None = None
    body: np.ndarray | None = None
    plane: str = ""

    def mixed(self, levels: np.ndarray) -> np.ndarray:
        """(H, W), the sum of the tissues' levels."""
        return np.einsum("k,khw->hw", levels.astype(np.float32), self.fractions)


def head_scene(rng: np.random.Generator, size: tuple[int, int], spacing: float, upright: bool = False) -> Scene:
    """A slice of a head, at any plane and angle, deformed, its skull, scalp, folds and ventricles varied.

    Args:
        rng: source of randomness.
        size: pixels.
        spacing: of the pixels in mm.
        upright: as a reader is shown it, tilted a little: axial and coronal slices with the patient's right at the
            picture's left, sagittal ones with the face at its left. Otherwise it may be turned at will.
    """
    plane, world = _plane(rng, size, spacing, upright)
    channels, labels = packed_head().sample(world)
    grey, white, brain, _, striatum, height, face, base = channels
    u = rng.uniform

    height = height + smooth_field(rng, size, u(15, 35) / spacing) * u(0.2, 1.2)
    brain = sigmoid((brain - 0.5) / u(0.08, 0.16))
    soft = _folded(rng, grey, white, brain, height, spacing)
    gap, skull, scalp = u(0, 3), u(4, 10), u(3, 9)
    if rng.random() < 0.1:
        scalp = 1.0
    thickness = np.maximum(skull + smooth_field(rng, size, 25 / spacing) * u(0, 1.2), 2.5)
    depth = np.maximum(face, gap + thickness + scalp - height)

    width = 0.35 * spacing + 0.25  # how fast a surface passes a pixel, in mm

    def within(distance: np.ndarray) -> np.ndarray:
        return sigmoid(distance / width)

    fat = within(depth - 1.5) * (1 - within(depth - u(3, 7)))
    tissues = dict.fromkeys(TISSUES, np.zeros(size, dtype=np.float32))
    tissues["muscle"], tissues["fat"] = within(depth) - fat, fat

    def paint(name: str, part: np.ndarray) -> None:
        for below in tissues:
            tissues[below] = tissues[below] * (1 - part)
        if name != "air":
            tissues[name] = tissues[name] + part

    _paint_flesh(rng, paint, sigmoid((np.minimum(face, depth) - 5) / 1.5), spacing)
    _paint_face(paint, labels, depth, spacing)
    bone = within(gap + thickness - height)
    table = u(1.2, 2.2)
    marrow = (
        within(gap + thickness - table - height) * within(height - gap - table) * within(thickness - 2 * table - 0.5)
    )
    paint("bone", np.maximum(bone, within(base)))
    paint("diploe", marrow * (1 - within(base)))
    _paint_face(paint, np.where(base > 0, labels, 0), depth, spacing)
    paint("csf", within(gap - height))
    for name, part in soft.items():
        paint_part = part * brain
        tissues[name] = tissues[name] * (1 - brain) + paint_part
    for name in ("bone", "diploe", "muscle", "fat"):
        tissues[name] = tissues[name] * (1 - brain)
    nuclei = striatum * tissues["grey"]
    tissues["striatum"], tissues["grey"] = nuclei, tissues["grey"] - nuclei
    fractions = np.stack([tissues[name] for name in TISSUES]).astype(np.float32)
    matter = np.clip(fractions[[0, 1, 7]].sum(0), 0, 1)
    return Scene(np.clip(fractions, 0, 1), spacing, True, matter, world, depth, plane if upright else "")


def shapes_scene(rng: np.random.Generator, size: tuple[int, int], spacing: float) -> Scene:
    """Shapes that are no anatomy: patches of random fields, often inside an outline with air around."""
    count = int(rng.integers(4, 11))
    heights = sum(
        smooth_field(rng, size, scale / spacing, count) * scale for scale in rng.choice([2, 3, 5, 8, 12, 20], 2, False)
    )
    hard = np.argmax(heights, axis=0)
    fractions = np.stack([hard == i for i in range(count)]).astype(np.float32)
    fractions = blur(fractions, rng.uniform(0.35, 0.8))
    if rng.random() < 0.8:
        rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
        y = rows[:, None] / rng.uniform(0.6, 1.3) + rng.uniform(-0.4, 0.4)
        x = columns[None] / rng.uniform(0.6, 1.3) + rng.uniform(-0.4, 0.4)
        distance = np.hypot(y, x) + smooth_field(rng, size, 10 / spacing) * 0.05
        fractions *= sigmoid((rng.uniform(0.6, 0.95) - distance) * 40)
    return Scene(fractions, spacing, False, fractions.sum(0))


def _plane(rng: np.random.Generator, size: tuple[int, int], spacing: float, upright: bool) -> tuple[str, np.ndarray]:
    """World coordinates of every pixel, (3, H, W), of a plane that is scaled, turned and bent; and what it was."""
    kind = rng.choice(3, p=[0.6, 0.2, 0.2])
    # directions of a row's step downwards, of a column's step to the right, and across, in RAS
    down, right, across = {
        0: ((0, -1, 0), (-1, 0, 0), (0, 0, 1)),
        1: ((0, 0, -1), (-1, 0, 0), (0, 1, 0)),
        2: ((0, 0, -1), (0, -1, 0), (1, 0, 0)),
    }[int(kind)]
    axes = np.array([down, right, across], dtype=np.float32)
    middle = np.array([0, -18, 12], dtype=np.float32)
    reach = [(-45, 68), (-78, 48), (-52, 52)][int(kind)]
    centre = middle + axes[2] * (rng.uniform(*reach) - middle @ np.abs(axes[2]))
    tilt = 6 if upright else 25
    turn = rng.normal(0, 4) if upright else rng.uniform(-180, 180)
    axes = _rotation(np.deg2rad([rng.normal(0, tilt / 2), rng.normal(0, tilt / 2), turn])) @ axes
    stretch = np.array(rng.uniform(0.92, 1.1, 2), dtype=np.float32) * np.float32(rng.uniform(0.94, 1.08))
    room = [max(0.0, (230 - n * spacing) / 2) * 0.75 + 6 for n in size]
    shift = [rng.uniform(-r, r) for r in room]
    bend = smooth_field(rng, size, rng.uniform(14, 40) / spacing, 3) * rng.uniform(0, 4)
    rows = (np.arange(size[0], dtype=np.float32) - (size[0] - 1) / 2) * spacing + shift[0]
    columns = (np.arange(size[1], dtype=np.float32) - (size[1] - 1) / 2) * spacing + shift[1]
    a = rows[:, None] * stretch[0] + bend[0]
    b = columns[None] * stretch[1] + bend[1]
    return _PLANES[int(kind)], (
        centre.astype(np.float32)[:, None, None]
        + axes[0].astype(np.float32)[:, None, None] * a
        + axes[1].astype(np.float32)[:, None, None] * b
        + axes[2].astype(np.float32)[:, None, None] * bend[2]
    )


def _rotation(angles: np.ndarray) -> np.ndarray:
    """By angles about the first, second and third axis, in this order."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -s, s
        result = turn @ result
    return result


def _folded(
    rng: np.random.Generator, grey: np.ndarray, white: np.ndarray, brain: np.ndarray, height: np.ndarray, spacing: float
) -> dict[str, np.ndarray]:
    """Grey, white matter and fluid of a brain, adding up to 1; the template, an average, is folded and sharpened."""
    u, size = rng.uniform, grey.shape
    csf = np.clip(brain - grey - white, 0, 1)
    f = smooth_field(rng, size, u(3, 7) / spacing, 2)
    fold = f * u(0.03, 0.2)
    logits = np.stack([grey + fold[0], white - 0.7 * fold[0] + 0.5 * fold[1], csf + u(-0.05, 0.3) - fold[1]])
    if rng.random() < 0.7:  # made-up gyri under the surface, for the template's are blurred away
        waves = smooth_field(rng, size, u(3.5, 6) / spacing)
        slope = np.hypot(*np.gradient(waves)) / spacing
        away = np.abs(waves) / (slope + 0.05)  # millimetres to the next furrow
        shallow = sigmoid((height + u(10, 22)) / 3) * u(0.3, 1.0)
        furrow, cortex = np.exp(-((away / u(0.6, 1.8)) ** 2)), np.exp(-((away / u(2.5, 4)) ** 2))
        logits[2] += shallow * furrow * u(0.5, 1.5)
        logits[0] += shallow * (cortex - 0.5) * 0.7
        logits[1] -= shallow * (cortex - 0.5) * 0.7
    logits /= u(0.05, 0.16)
    soft = np.exp(logits - logits.max(0))
    soft /= soft.sum(0)
    if rng.random() < 0.25:  # wide ventricles, or a hole
        rows, columns = (np.arange(n, dtype=np.float32) for n in size)
        y, x, r = u(0.2, 0.8) * size[0], u(0.2, 0.8) * size[1], u(4, 15) / spacing
        distance = np.hypot((rows[:, None] - y) * u(0.6, 1.6), columns[None] - x)
        hole = sigmoid((r - distance + 2 * smooth_field(rng, size, 5 / spacing)) / 0.7)
        soft = soft * (1 - hole)
        soft[2] += hole
    return dict(zip(("grey", "white", "csf"), soft, strict=True))


_Paint = Callable[[str, np.ndarray], None]


def _paint_flesh(rng: np.random.Generator, paint: _Paint, where: np.ndarray, spacing: float) -> None:
    """Muscles, fat, bones and air ways of face and neck, none of them where it is in a head."""
    if rng.random() < 0.15 or not (where > 0.5).any():
        return
    heights = smooth_field(rng, where.shape, rng.uniform(2.5, 7) / spacing, 5)
    heights += np.array([1.5, 0.9, 0.0, -0.2, -0.5], dtype=np.float32)[:, None, None]
    chosen = np.argmax(heights, axis=0)
    for code, name in ((1, "fat"), (2, "bone"), (3, "diploe"), (4, "air")):
        paint(name, blur((chosen == code).astype(np.float32), 0.6) * where)


def _paint_face(paint: _Paint, labels: np.ndarray, depth: np.ndarray, spacing: float) -> None:
    """The modelled parts: orbits, nose, sinuses."""
    under = sigmoid((depth - 1.5) / 0.6)
    for code in np.unique(labels[labels > 0]):
        name = {"vitreous": "csf", "lens": "muscle"}.get(LABELS[code], LABELS[code])
        paint(name, blur((labels == code).astype(np.float32), 0.7 / spacing) * under)
