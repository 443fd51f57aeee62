"""Lesions: what they are, where they lie, and the change that one makes to each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .appearances import Appearance
from .fields import blur, sigmoid
from .scenes import Scene

__all__ = ["KINDS", "Lesion", "PlannedLesion", "plan_lesions"]

KINDS = (
    "blob", "infarct", "haemorrhage", "oedema", "tumour", "calcification", "hypometabolism", "hypermetabolism", "spots"
)  # fmt: skip
"""Kinds of lesion; a blob is no disease, and may be anything, anywhere."""


@dataclass(frozen=True)
class Lesion:
    """The truth about one lesion.

    Args:
        label: its number in the map of lesions, from 1.
        kind: one of :data:`KINDS`.
        side: "left", "right" or "midline", the patient's; "" where nothing says so.
        place: such as "frontal"; of shapes without anatomy where in the picture, such as "anterior".
        size: diameter in mm.
        centre: row and column, in pixels.
        contrast: mean change inside of half its height, (anatomy, overlay), in parts of the display range.
        level: mean inside of the same, with the lesion.
        wanted: sign of the change that was asked for in either, -1, 0 or 1; a display that saturates, or whose
            luminance does not rise with the uptake, may show less or the opposite.
    """

    label: int
    kind: str
    side: str
    place: str
    size: float
    centre: tuple[float, float]
    contrast: tuple[float, float]
    level: tuple[float, float]
    wanted: tuple[int, int]


@dataclass(frozen=True)
class PlannedLesion:
    """A lesion before it is seen: where, and what it adds to either source, in parts of the display range."""

    kind: str
    size: float
    centre: tuple[int, int]
    signs: tuple[int, int]
    window: tuple[slice, slice]
    changes: tuple[np.ndarray, np.ndarray]


# How often a blob is brighter (1) or darker (-1) in the anatomy and in the overlay.
_SIGNS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (-1, 1), (1, -1))
_SIGN_SHARES = (0.17, 0.17, 0.19, 0.19, 0.08, 0.06, 0.08, 0.06)
# Signs of a kind by sequence, in CT and in emission; one of several is drawn, and "*" is any other sequence.
_Signs = dict[str, tuple[int, ...]]
_BRIGHT: _Signs = {"T1": (-1,), "T2": (1,), "FLAIR": (1,), "PD": (1,)}  # more water
# Diameters in mm, how often the kind is drawn, and its signs.
_KINDS: dict[str, tuple[tuple[float, float], float, _Signs]] = {
    "blob": ((3, 25), 0.5, {}),
    "infarct": ((5, 25), 0.09, {**_BRIGHT, "*": (1, -1), "CT": (-1,), "emission": (-1,)}),
    "haemorrhage": ((4, 25), 0.09, {"T1": (1, -1), "T2": (1, -1), "*": (-1,), "CT": (1,), "emission": (-1, 0)}),
    "oedema": ((10, 25), 0.05, {**_BRIGHT, "*": (1,), "CT": (-1,), "emission": (0, -1)}),
    "tumour": ((7, 25), 0.09, {**_BRIGHT, "T1": (1, -1), "*": (1, -1), "CT": (1, -1, 0), "emission": (1, -1)}),
    "calcification": ((2, 8), 0.05, {"T1": (0, -1), "SWI": (-1,), "*": (-1, 0), "CT": (1,), "emission": (0,)}),
    "hypometabolism": ((8, 25), 0.05, {"*": (0,), "CT": (0,), "emission": (-1,)}),
    "hypermetabolism": ((6, 25), 0.05, {"*": (0,), "CT": (0,), "emission": (1,)}),
    "spots": ((6, 20), 0.03, {**_BRIGHT, "*": (1,), "CT": (-1, 0), "emission": (0,)}),
}


def plan_lesions(
    rng: np.random.Generator,
    scene: Scene,
    sources: Sequence[Appearance],
    plain: np.ndarray,
    modality: str,
    count: int,
    kinds: Sequence[str] = KINDS,
    sizes: tuple[float, float] = (2.0, 25.0),
    contrasts: tuple[float, float] = (0.04, 0.35),
    shift: tuple[float, float] = (0.0, 0.0),
    turn: float = 0.0,
) -> list[PlannedLesion]:
    """Up to so many lesions that do not touch each other.

    Args:
        rng: source of randomness.
        scene: where they lie.
        sources: anatomy and overlay.
        plain: (2, H, W), as they are displayed without lesions.
        modality: the overlay's, "CT", "PT" or "NM".
        count: how many at most; twice as many are tried.
        kinds: which; in a scene without anatomy all are blobs.
        sizes: limits of their diameters in mm.
        contrasts: limits of their height in parts of the display range, before they are clipped to it.
        shift: how far the overlay lies from the anatomy, in pixels.
        turn: by how many degrees it is turned against it about the middle, as SciPy's ``ndimage.rotate`` turns.
    """
    rows, columns = (np.arange(n, dtype=np.float32) for n in scene.brain.shape)
    low = np.stack([blur(image, 2.5) for image in plain])
    both = (low.min(0) > 0.1) & (low.max(0) < 0.88)
    loose = low.max(0) > 0.08
    if scene.body is not None:
        loose &= scene.body > 1
    free = np.ones(scene.brain.shape, dtype=bool)
    margin = 4
    free[:margin], free[-margin:], free[:, :margin], free[:, -margin:] = False, False, False, False
    shares = np.array([_KINDS[kind][1] for kind in kinds])
    planned: list[PlannedLesion] = []
    placed: list[tuple[int, int, float]] = []
    for _ in range(2 * count):
        if len(planned) == count:
            break
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        if not scene.is_head:
            kind = "blob"
        signs = _signs(rng, kind, sources, modality)
        least, most = (float(np.clip(limit, *sizes)) for limit in _KINDS[kind][0])
        size = float(np.exp(rng.uniform(np.log(least), np.log(most))))
        radius = size / 2 / scene.spacing
        sigmas = [source.sigma for source in sources]
        size *= max(radius, 0.9 if signs[1] == 0 else 0.7 * sigmas[1], 0.9) / radius
        radius = size / 2 / scene.spacing
        shape = _shape(rng, kind, radius)
        reach = int(np.ceil(shape.reach + 3 * max(s for s, sign in zip(sigmas, signs, strict=True) if sign) + 4))
        where = (both if rng.random() < 0.8 else loose) & free
        if kind != "blob" or rng.random() < 0.7:
            where = where & (scene.brain > 0.5)
        for y, x, r in placed:
            where = where & ((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2 > (r + reach) ** 2)
        spots = np.flatnonzero(where)
        if not len(spots):
            continue
        y, x = divmod(int(spots[rng.integers(len(spots))]), scene.brain.shape[1])
        placed.append((y, x, reach))
        window = tuple(slice(max(c - reach, 0), c + reach + 1) for c in (y, x))
        heights = np.exp(rng.uniform(np.log(contrasts[0]), np.log(contrasts[1]), 2))
        changes = []
        for i, source in enumerate(sources):
            offset = _offset((y, x), scene.brain.shape, shift, turn) if i else (0.0, 0.0)
            dy, dx = rows[window[0], None] - y - offset[0], columns[None, window[1]] - x - offset[1]
            profile = blur(shape.profile(dy, dx), source.sigma) if signs[i] else np.zeros(dy.shape[:1] + dx.shape[1:])
            peak = np.abs(profile).max()
            profile = profile / max(peak, 0.35) if peak else profile
            change = np.where(np.abs(profile) < 0.01, 0, signs[i] * heights[i] * profile)
            changes.append(change.astype(np.float32))
        planned.append(PlannedLesion(kind, size, (y, x), signs, window, (changes[0], changes[1])))  # type: ignore[arg-type]
    return planned


def _offset(
    centre: tuple[int, int], size: tuple[int, ...], shift: tuple[float, float], turn: float
) -> tuple[float, float]:
    """How far what lies here in the anatomy lies from it in an overlay that is turned, then shifted."""
    y, x = centre[0] - (size[0] - 1) / 2, centre[1] - (size[1] - 1) / 2
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    return float(c * y - s * x - y) + shift[0], float(s * y + c * x - x) + shift[1]


def _signs(rng: np.random.Generator, kind: str, sources: Sequence[Appearance], modality: str) -> tuple[int, int]:
    table = _KINDS[kind][2]
    if not table:
        a, b = _SIGNS[rng.choice(len(_SIGNS), p=_SIGN_SHARES)]
        return a, b
    choices = table.get(sources[0].sequence, table["*"]), table["CT" if modality == "CT" else "emission"]
    a, b = (int(rng.choice(choice)) for choice in choices)
    if a and b and rng.random() < 0.5:  # often one source shows what the other does not yet, or no more
        return (a, 0) if rng.random() < 0.5 else (0, b)
    return (a, b) if a or b else (0, int(rng.choice((-1, 1))))


@dataclass(frozen=True)
class _Shape:
    """A lesion's outline: parts (row, column, radius) with ragged borders, soft, and perhaps hollow."""

    parts: tuple[tuple[float, float, float], ...]
    stretch: float
    turn: float
    waves: np.ndarray
    softness: float
    hollow: float
    core: float

    @property
    def reach(self) -> float:
        """How far it may reach from its centre, in pixels."""
        ragged = 1 + np.abs(self.waves).sum() / 2
        return (
            max(np.hypot(y, x) + r * ragged * max(self.stretch, 1 / self.stretch) for y, x, r in self.parts)
            + 4 * self.softness
        )

    def profile(self, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
        """Its height, 1 inside and `core` in its hollow, at offsets from its centre."""
        height = np.zeros(np.broadcast_shapes(dy.shape, dx.shape), dtype=np.float32)
        c, s = np.cos(self.turn), np.sin(self.turn)
        for y, x, radius in self.parts:
            a = (c * (dy - y) - s * (dx - x)) * self.stretch
            b = (s * (dy - y) + c * (dx - x)) / self.stretch
            angle = np.arctan2(a, b)
            outline = radius * (1 + sum(w[0] * np.cos((k + 2) * angle + w[1]) for k, w in enumerate(self.waves)))
            depth = outline - np.hypot(a, b)
            part = sigmoid(depth / self.softness)
            if self.hollow:
                part = part - (1 - self.core) * sigmoid((depth - self.hollow * radius) / self.softness)
            height = np.where(np.abs(part) > np.abs(height), part, height)
        return height.astype(np.float32)


def _shape(rng: np.random.Generator, kind: str, radius: float) -> _Shape:
    parts: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, radius),)
    if kind == "spots":
        count = int(rng.integers(3, 7))
        parts = tuple(
            (*rng.normal(0, radius * 0.7, 2), max(radius * rng.uniform(0.15, 0.35), 0.8)) for _ in range(count)
        )
    ragged = rng.uniform(0, 0.14) if rng.random() < 0.6 else 0.0
    waves = np.stack([rng.normal(0, ragged, 4) / np.arange(1, 5) ** 0.5, rng.uniform(0, 6.28, 4)], 1)
    stretch = np.exp(rng.uniform(-0.35, 0.35)) if rng.random() < 0.6 else 1.0
    softness = 0.3 + 1.2 * rng.random() ** 2 * (2 if kind == "oedema" else 1) * min(radius / 4, 1.5)
    ring = radius > 3 and rng.random() < {"tumour": 0.7, "blob": 0.12}.get(kind, 0.0)
    hollow, core = (rng.uniform(0.25, 0.5), rng.uniform(-0.4, 0.5)) if ring else (0.0, 1.0)
    return _Shape(
        parts, float(stretch), float(rng.uniform(0, np.pi)), waves, float(softness), float(hollow), float(core)
    )
