"""Simulated pairs: two images of one scene, without and with lesions whose truth is known; and more than two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from .appearances import Appearance, ct, emission, mri
from .places import side_and_place
from .scenes import Scene, head_scene, shapes_scene
from .simulated_lesions import KINDS, Lesion, PlannedLesion, plan_lesions

__all__ = ["MODALITIES", "PAIRS", "SimulatedPair", "simulate_pair", "simulate_sources"]

MODALITIES = ("CT", "PT", "NM")
"""Of the overlay, as DICOM calls them; the anatomy is an MRI."""
PAIRS = {"CT": "CT-MRI", "PT": "PET-MRI", "NM": "SPECT-MRI"}
"""What pairs are called, by the overlay's modality."""


@dataclass(frozen=True)
class SimulatedPair:
    """Two simulated sources of one scene, anatomy first.

    Args:
        image: (2, H, W) float32 in [0, 1], without lesions.
        lesion_image: (2, H, W), the same with lesions; noise and everything else are the same, so that the difference
            is the lesions' alone.
        lesion_map: (H, W) uint8, where a lesion changes either source, by its label; 0 elsewhere.
        lesions: the truth about each.
        modality: the overlay's, one of :data:`MODALITIES`.
        sequences: what the sources are, such as ("T2", "FDG").
        spacing: of the pixels in mm.
        is_head: whether it shows a head, or shapes without anatomy.
        plane: "axial", "coronal" or "sagittal" of a head that is shown upright, else "".
    """

    image: np.ndarray
    lesion_image: np.ndarray
    lesion_map: np.ndarray
    lesions: tuple[Lesion, ...]
    modality: str
    sequences: tuple[str, str]
    spacing: float
    is_head: bool
    plane: str = ""

    def truth(self) -> dict[str, Any]:
        """All that is known of it but the pixels, as JSON can hold it."""
        return {
            "modality": self.modality,
            "sequences": list(self.sequences),
            "spacing": round(self.spacing, 4),
            "is_head": self.is_head,
            "plane": self.plane,
            "lesions": [asdict(lesion) for lesion in self.lesions],
        }


def simulate_pair(
    seed: int | Sequence[int] | np.random.Generator,
    modality: str | None = None,
    size: int | tuple[int, int] = 256,
    *,
    spacing: tuple[float, float] | None = None,
    is_head: bool | None = None,
    upright: float = 0.5,
    lesions: int = 3,
    kinds: Sequence[str] = KINDS,
    lesion_sizes: tuple[float, float] = (2.0, 25.0),
    contrasts: tuple[float, float] = (0.04, 0.35),
    distractors: int = 2,
    misregistration: float = 2.0,
    rotation: float = 0.0,
) -> SimulatedPair:
    """Simulate an MRI and a CT, PET or SPECT image of the same slice, in display ranges.

    Args:
        seed: a whole number, several, or the generator to draw from; the same seed gives the same pair.
        modality: of the overlay, "CT", "PT" or "NM"; None draws one.
        size: pixels, one number or rows and columns, from 32.
        spacing: limits of the width of a pixel in mm; by default .75 to 1.7, and less for sizes that would then be more
            than 290 mm. The field of view is what size and spacing make it: a part of the head, if less than 230 mm.
        is_head: a head, or shapes without anatomy; None draws either.
        upright: share of the heads that are shown as a reader is shown them, and not turned at will.
        lesions: how many at most; those that find no place are left out.
        kinds: of :data:`~fusion_nets.simulation.KINDS`, which lesions there are.
        lesion_sizes: limits of their diameters in mm. One that a source's blur would swallow is drawn larger.
        contrasts: limits of their heights, in parts of the display range.
        distractors: how many lesions more, at most, are in both versions and not in the truth.
        misregistration: by how many pixels, at most, the overlay lies beside the anatomy, in half of the pairs.
        rotation: by how many degrees, at most, the overlay is turned against the anatomy, in half of the pairs.

    Raises:
        ValueError: for a size, modality, kind or limit that is not accepted.
        ModuleNotFoundError: for a head, if the extra `fusion-nets[sample]` is not installed.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds are {list(kinds)}; accepted are one or more of {', '.join(KINDS)}")
    if not 0 < contrasts[0] <= contrasts[1] or not 0 < lesion_sizes[0] <= lesion_sizes[1]:
        raise ValueError(f"contrasts are {contrasts}, lesion_sizes {lesion_sizes}; two rising numbers above 0 each are")
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    drawn, plain = _drawn(rng, (modality,), size, spacing, is_head, upright, misregistration, rotation)
    (drawn_modality,) = drawn.modalities
    options: dict[str, Any] = {"kinds": kinds, "sizes": lesion_sizes, "contrasts": contrasts}
    options |= {"shift": drawn.shift, "turn": drawn.turn}
    linear = [source.linear for source in drawn.sources]
    for lesion in plan_lesions(
        rng, drawn.scene, drawn.sources, plain, drawn_modality, int(rng.integers(distractors + 1)), **options
    ):
        for image, change in zip(linear, lesion.changes, strict=True):
            image[lesion.window] += change
    plain = np.stack([source.display(image) for source, image in zip(drawn.sources, linear, strict=True)])
    planned = plan_lesions(rng, drawn.scene, drawn.sources, plain, drawn_modality, lesions, **options)
    changed = plain.copy()
    shown_first = rng.random() < 0.5  # whether lesions undergo the display, or are drawn on it
    for lesion in planned:
        for image, change in zip(linear, lesion.changes, strict=True):
            image[lesion.window] += change
    if shown_first or drawn_modality == "CT":
        changed = np.stack([source.display(image) for source, image in zip(drawn.sources, linear, strict=True)])
    else:
        changed[0] = drawn.sources[0].display(linear[0])
        for lesion in planned:
            changed[1][lesion.window] += lesion.changes[1]
    cut = _field_of_view(rng, drawn.scene, 2)
    plain, changed = (np.where(cut, 0, np.clip(images, 0, 1)) for images in (plain, changed))
    if rng.random() < 0.85:
        plain, changed = (np.rint(images * 255) / 255 for images in (plain, changed))
    plain, changed = plain.astype(np.float32), changed.astype(np.float32)
    lesion_map = np.zeros(plain.shape[1:], dtype=np.uint8)
    truths: list[Lesion] = []
    for lesion in planned:
        here = (slice(None), *lesion.window)
        there = np.any(plain[here] != changed[here], axis=0)
        if not there.any():
            continue
        label = len(truths) + 1
        lesion_map[lesion.window][there] = label
        truths.append(_truth(lesion, label, plain, changed, drawn.scene))
    changed = np.where(lesion_map > 0, changed, plain)
    names = (drawn.sources[0].sequence, drawn.sources[1].sequence)
    scene = drawn.scene
    return SimulatedPair(
        plain,
        changed,
        lesion_map,
        tuple(truths),
        drawn_modality,
        names,
        scene.spacing,
        scene.is_head,
        scene.plane,
    )


def simulate_sources(
    seed: int | Sequence[int] | np.random.Generator,
    modalities: Sequence[str] = MODALITIES,
    size: int | tuple[int, int] = 256,
    *,
    spacing: tuple[float, float] | None = None,
    is_head: bool | None = None,
    upright: float = 0.5,
    misregistration: float = 2.0,
    rotation: float = 0.0,
) -> np.ndarray:
    """Simulate an MRI and any number of overlays of the same slice, in display ranges of 8 bit, without lesions.

    Args:
        seed: as of :func:`simulate_pair`, like all that follow.
        modalities: of the overlays, in their order, each "CT", "PT" or "NM".
        size: pixels.
        spacing: limits of the width of a pixel in mm.
        is_head: a head, or shapes without anatomy.
        upright: share of the heads that are not turned at will.
        misregistration: in pixels, of each overlay.
        rotation: in degrees, of each overlay.

    Returns:
        (1 + overlays, H, W) float32 in [0, 1], the MRI first.

    Raises:
        ValueError: for a size or modality that is not accepted.
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    drawn, plain = _drawn(rng, modalities, size, spacing, is_head, upright, misregistration, rotation)
    shown = np.where(_field_of_view(rng, drawn.scene, len(plain)), 0, np.clip(plain, 0, 1))
    return (np.rint(shown * 255) / 255).astype(np.float32)


@dataclass(frozen=True)
class _Drawn:
    scene: Scene
    sources: tuple[Appearance, ...]
    modalities: tuple[str, ...]
    shift: tuple[float, float]
    """Of the last overlay, and by how many degrees it is turned before that."""
    turn: float


def _drawn(
    rng: np.random.Generator,
    modalities: Sequence[str | None],
    size: int | tuple[int, int],
    spacing: tuple[float, float] | None,
    is_head: bool | None,
    upright: float,
    misregistration: float,
    rotation: float,
) -> tuple[_Drawn, np.ndarray]:
    """A scene and its sources, and how they are displayed; one that holds next to nothing is drawn again."""
    rows, columns = (size, size) if isinstance(size, int) else size
    if min(rows, columns) < 32:
        raise ValueError(f"size is {size}; 32 pixels or more are accepted along both axes")
    for modality in modalities:
        if modality not in (None, *MODALITIES):
            raise ValueError(f"modality is {modality!r}; accepted are {', '.join(MODALITIES)}")
    while True:
        drawn = _drawn_once(rng, modalities, (rows, columns), spacing, is_head, upright, misregistration, rotation)
        plain = np.stack([source.display(source.linear) for source in drawn.sources])
        if all((image > 0.1).mean() > 0.03 for image in plain):
            return drawn, plain


def _drawn_once(
    rng: np.random.Generator,
    modalities: Sequence[str | None],
    size: tuple[int, int],
    spacing: tuple[float, float] | None,
    is_head: bool | None,
    upright: float,
    misregistration: float,
    rotation: float,
) -> _Drawn:
    chosen = tuple(modality or str(rng.choice(MODALITIES)) for modality in modalities)
    is_head = rng.random() < 0.5 if is_head is None else is_head
    limits = spacing or ((0.75, 1.15) if rng.random() < 0.6 else (1.0, 1.7))
    if spacing is None:  # a head of 160 mm or so shall not be lost in its field of view
        limits = (min(limits[0], 215 / max(size)), min(limits[1], 290 / max(size)))
    width = float(rng.uniform(*limits))
    scene = head_scene(rng, size, width, rng.random() < upright) if is_head else shapes_scene(rng, size, width)
    sources, shift, turn = [mri(rng, scene)], (0.0, 0.0), 0.0
    for modality in chosen:
        other = scene
        if not is_head and rng.random() < 0.15:  # two different things
            other = shapes_scene(rng, size, width)
        overlay = ct(rng, other) if modality == "CT" else emission(rng, other, modality)
        shift, turn = (0.0, 0.0), 0.0
        if rotation and rng.random() < 0.5:
            turn = float(rng.uniform(-rotation, rotation))
            overlay.linear[:] = ndimage.rotate(overlay.linear, turn, reshape=False, order=1, mode="nearest")
        if rng.random() < 0.5:
            shift = (float(rng.uniform(-1, 1)) * misregistration, float(rng.uniform(-1, 1)) * misregistration)
            overlay.linear[:] = ndimage.shift(overlay.linear, shift, order=1, mode="nearest")
        sources.append(overlay)
    return _Drawn(scene, tuple(sources), chosen, shift, turn)


def _field_of_view(rng: np.random.Generator, scene: Scene, sources: int) -> np.ndarray:
    """(sources, H, W): what the scanners did not see."""
    size = scene.brain.shape
    cut = np.zeros((sources, *size), dtype=bool)
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    for part in cut:
        if rng.random() < 0.12:  # a straight edge
            angle = rng.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + rng.normal(0, 0.15)
            part |= np.cos(angle) * rows[:, None] + np.sin(angle) * columns[None] > rng.uniform(0.45, 0.95)
        if rng.random() < 0.04:  # a round one
            part |= np.hypot(rows[:, None], columns[None]) > rng.uniform(0.9, 1.2)
    return cut


def _truth(lesion: PlannedLesion, label: int, plain: np.ndarray, changed: np.ndarray, scene: Scene) -> Lesion:
    contrast, level = [0.0, 0.0], [0.0, 0.0]
    largest = max(lesion.changes, key=lambda change: float(np.abs(change).max()))
    for i, (image, after, change) in enumerate(zip(plain, changed, lesion.changes, strict=True)):
        shape = change if change.any() else largest
        core = np.abs(shape) > 0.5 * np.abs(shape).max()
        contrast[i] = round(float((after - image)[lesion.window][core].mean()), 4)
        level[i] = round(float(after[lesion.window][core].mean()), 4)
    side, place = side_and_place(scene.world, lesion.centre, scene.brain.shape)
    centre = (float(lesion.centre[0]), float(lesion.centre[1]))
    return Lesion(
        label,
        lesion.kind,
        side,
        place,
        round(lesion.size, 2),
        centre,
        (contrast[0], contrast[1]),
        (level[0], level[1]),
        lesion.signs,
    )
