"""Lesions put into registered pairs, so that their fused images can be judged: where, which, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.ndimage import binary_erosion, binary_fill_holes, gaussian_filter
from scipy.special import expit

__all__ = [
    "LESION_KINDS",
    "LESION_MAKES",
    "Lesion",
    "LesionCase",
    "LesionMake",
    "draw_lesions",
    "insert_lesions",
    "lesion_cases",
    "lesion_change",
    "lesion_kinds",
    "lesion_places",
    "source_names",
]

Form = Literal["disc", "ring", "ragged"]

LESION_KINDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "overlay bright": (0, 1),
        "overlay dark": (0, -1),
        "anatomy bright": (1, 0),
        "anatomy dark": (-1, 0),
        "both bright": (1, 1),
        "anatomy dark, overlay bright": (-1, 1),
    }
)
"""Signs of a lesion in the anatomy and in the overlay, by kind; `lesion_kinds` has those of more sources."""

# of a disc, how fast it fades at its edge, in pixels
_FADE = 0.8
# of a ring, its hole's radius as a share of its own
_HOLE = 0.6
# pixels of tissue that a place keeps to the next one's, to the border, to the bone, and to where tissue ends
_APART, _MARGIN, _FROM_BONE, _FROM_EDGE = 34, 24, 8, 4
_BLUR, _BLUR_NUCLEAR = 0.7, 2.5


class LesionMake(NamedTuple):
    """How lesions are drawn.

    Attributes:
        radii: in pixels, one of which is drawn for each lesion.
        amplitude: change at the middle before blurring, as a share of white.
        form: a disc, a ring, or a disc with a ragged edge.
    """

    radii: tuple[float, ...] = (4.0, 7.0)
    amplitude: float = 0.16
    form: Form = "disc"


LESION_MAKES: Mapping[str, LesionMake] = MappingProxyType(
    {
        "discs": LesionMake(),
        "small": LesionMake((2.0,)),
        "large": LesionMake((11.0, 14.0)),
        "faint": LesionMake(amplitude=0.07),
        "strong": LesionMake(amplitude=0.3),
        "rings": LesionMake((5.0, 7.0), form="ring"),
        "ragged": LesionMake(form="ragged"),
    }
)
"""Makes to judge by: the first is that of the headline, the others show whether more was learnt than discs."""


class Lesion(NamedTuple):
    """A lesion in a slice.

    Attributes:
        row: of its middle.
        column: of its middle.
        radius: in pixels.
        amplitude: change at the middle before blurring, as a share of white; its sign is the kind's.
        form: a disc, a ring, or a disc with a ragged edge.
        seed: of what is random in its form.
    """

    row: int
    column: int
    radius: float
    amplitude: float = 0.16
    form: Form = "disc"
    seed: int = 0


class LesionCase(NamedTuple):
    """A pair with lesions of one kind, or more sources.

    Attributes:
        kind: of `lesion_kinds`, or "none".
        signs: in each source, anatomy first.
        images: the sources, (S, H, W).
        lesions: what was put in, and of "none" what the other kinds have.
    """

    kind: str
    signs: tuple[int, ...]
    images: np.ndarray
    lesions: Sequence[Lesion]


def source_names(count: int) -> list[str]:
    """What the sources are called: anatomy, overlay, overlay 2, and so on.

    Examples:
        >>> source_names(3)
        ['anatomy', 'overlay', 'overlay 2']
    """
    return ["anatomy", "overlay", *(f"overlay {number}" for number in range(2, count))][:count]


def lesion_kinds(sources: int = 2) -> Mapping[str, tuple[int, ...]]:
    """Signs of a lesion in each source, by kind: in one source alone, in all, and of opposite signs.

    Raises:
        ValueError: for fewer than two sources.

    Examples:
        >>> list(lesion_kinds(3))[2:5], lesion_kinds(3)["overlay 2 dark"], lesion_kinds(3)["all bright"]
        (['overlay 2 bright', 'overlay 2 dark', 'anatomy bright'], (0, 0, -1), (1, 1, 1))
    """
    if sources < 2:
        raise ValueError(f"{sources} sources have no kinds of lesions; 2 or more are accepted")
    if sources == 2:
        return LESION_KINDS
    kinds: dict[str, tuple[int, ...]] = {}
    for place in [*range(1, sources), 0]:
        for word, sign in (("bright", 1), ("dark", -1)):
            alone = tuple(sign * (place == other) for other in range(sources))
            kinds[f"{source_names(sources)[place]} {word}"] = alone
    return {**kinds, "all bright": (1,) * sources, "anatomy dark, overlays bright": (-1, *(1,) * (sources - 1))}


def lesion_cases(
    anatomy: np.ndarray,
    overlay: np.ndarray | Sequence[np.ndarray],
    generator: np.random.Generator,
    ct: bool | Sequence[bool] = False,
    make: LesionMake = LESION_MAKES["discs"],
    most: int = 5,
    kinds: Mapping[str, tuple[int, ...]] | None = None,
) -> Iterator[LesionCase]:
    """A pair as it is ("none") and with lesions of each kind, all at the same places, in 8-bit grey levels.

    Fuse each, and compare it with the fused image of "none" (`contrast_recovery`, `observer_area`).

    Args:
        anatomy: (H, W) in [0, 1], registered with the overlay.
        overlay: (H, W) in [0, 1]; several as a list.
        generator: where places, radii and forms are drawn; one seeded by the pair's name gives the same for any order
            of pairs: `np.random.default_rng([seed, *name.encode()])`.
        ct: whether the overlay is a CT: lesions then lie within the skull, and are as sharp as in the anatomy. Of
            nuclear medicine, they are blurred. One for all overlays, or one for each.
        make: how they are drawn.
        most: the most lesions in a pair.
        kinds: signs by kind; by default those of `lesion_kinds`.

    Yields:
        "none" and each kind; nothing for a pair that has no place for a lesion.

    Raises:
        ValueError: as `draw_lesions`.

    Examples:
        >>> rows, columns = np.mgrid[:128, :128]
        >>> head = (np.hypot(rows - 64, columns - 64) < 50) * 0.5
        >>> cases = list(lesion_cases(head, head, np.random.default_rng(0), most=2))
        >>> [case.kind for case in cases][:3], len(cases[0].lesions), cases[0].images.shape
        (['none', 'overlay bright', 'overlay dark'], 2, (2, 128, 128))
    """
    lesions = draw_lesions(anatomy, overlay, generator, ct, make, most)
    if not lesions:
        return
    overlays, are_ct = _each(overlay, ct)
    blurs = [_BLUR, *(_BLUR if is_ct else _BLUR_NUCLEAR for is_ct in are_ct)]
    changes = [lesion_change(lesions, anatomy.shape, blur) for blur in blurs]
    images = np.stack([anatomy, *overlays])
    for kind, signs in {"none": (0,) * len(images), **(kinds or lesion_kinds(len(images)))}.items():
        yield LesionCase(kind, signs, insert_lesions(images, signs, changes), lesions)


def _each(overlay: np.ndarray | Sequence[np.ndarray], ct: bool | Sequence[bool]) -> tuple[list[np.ndarray], list[bool]]:
    """Overlays one by one, and whether each is a CT."""
    overlays = [overlay] if isinstance(overlay, np.ndarray) else list(overlay)
    are_ct = list(ct) if isinstance(ct, Sequence) else [ct] * len(overlays)
    if not overlays or len(are_ct) != len(overlays):
        raise ValueError(f"{len(overlays)} overlays, of which {len(are_ct)} are told whether they are a CT")
    return overlays, are_ct


def draw_lesions(
    anatomy: np.ndarray,
    overlay: np.ndarray | Sequence[np.ndarray],
    generator: np.random.Generator,
    ct: bool | Sequence[bool] = False,
    make: LesionMake = LESION_MAKES["discs"],
    most: int = 5,
) -> list[Lesion]:
    """Lesions of one make, where a pair has a place for them; arguments as for `lesion_cases`.

    Raises:
        ValueError: if the sources are not (H, W) of one shape, or the make has no radius or an unknown form.

    Examples:
        >>> head = np.pad(np.full((64, 64), 0.5), 32)
        >>> draw_lesions(head, head, np.random.default_rng(0), make=LesionMake((3.0,), 0.1, "ring"), most=1)
        [Lesion(row=57, column=38, radius=3.0, amplitude=0.1, form='ring', seed=1629215769)]
    """
    if not make.radii or make.form not in get_args(Form):
        raise ValueError(f"{make}: at least one radius and a form of {', '.join(get_args(Form))} are accepted")
    places = lesion_places(anatomy, overlay, generator, ct, most)
    radii = generator.choice(make.radii, len(places))
    seeds = generator.integers(2**31, size=len(places))
    return [
        Lesion(row, column, float(radius), make.amplitude, make.form, int(seed))
        for (row, column), radius, seed in zip(places, radii, seeds, strict=True)
    ]


def lesion_places(
    anatomy: np.ndarray,
    overlay: np.ndarray | Sequence[np.ndarray],
    generator: np.random.Generator,
    ct: bool | Sequence[bool] = False,
    most: int = 5,
) -> list[tuple[int, int]]:
    """Where all sources show tissue that is neither black nor white, apart from each other and from the border.

    Under a CT, within the skull; under nuclear medicine, where there is uptake. Arguments as for `lesion_cases`.

    Returns:
        Rows and columns, at most `most`; none for a pair without such a place.

    Raises:
        ValueError: if the sources are not (H, W) of one shape, or there are not as many of `ct` as overlays.

    Examples:
        >>> head = np.pad(np.full((64, 64), 0.5), 32)
        >>> lesion_places(head, head, np.random.default_rng(0), most=2)
        [(57, 38), (61, 90)]
    """
    overlays, are_ct = _each(overlay, ct)
    shapes = [source.shape for source in (anatomy, *overlays)]
    if anatomy.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(f"expected sources (H, W) of one shape, got {' and '.join(map(str, shapes))}")
    smooth = gaussian_filter(anatomy, 3)
    fit = tissue = (smooth > 0.12) & (smooth < 0.9)
    for one, is_ct in zip(overlays, are_ct, strict=True):
        smooth = gaussian_filter(one, 3)
        if is_ct:
            within = binary_fill_holes(one > 0.85) & (smooth < 0.8) & (smooth > 0.1)
            fit = fit & binary_erosion(within, iterations=_FROM_BONE)
        else:
            fit = fit & binary_erosion(tissue & (smooth > 0.15) & (smooth < 0.85), iterations=_FROM_EDGE)
    inner = np.zeros_like(fit)
    inner[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    places: list[tuple[int, int]] = []
    for row, column in generator.permutation(np.argwhere(fit & inner)):
        if len(places) == most:
            break
        if all((row - other) ** 2 + (column - across) ** 2 > _APART**2 for other, across in places):
            places.append((int(row), int(column)))
    return places


def lesion_change(lesions: Sequence[Lesion], shape: tuple[int, ...], blur: float) -> np.ndarray:
    """What lesions add to an image, before their sign: (H, W), 1 being white.

    Args:
        lesions: as drawn.
        shape: of the image, (H, W).
        blur: of the scanner, sigma of a Gaussian in pixels.

    Examples:
        >>> lesion_change([Lesion(8, 8, radius=4.0, amplitude=0.2)], (17, 17), blur=0.7)[8, ::4].round(2)
        array([0. , 0.1, 0.2, 0.1, 0. ])
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    change = np.zeros(shape)
    for lesion in lesions:
        down, across = rows - lesion.row, columns - lesion.column
        change += lesion.amplitude * _profile(lesion, np.hypot(down, across), np.arctan2(down, across))
    return gaussian_filter(change, blur)


def _profile(lesion: Lesion, distance: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """0 to 1."""
    radius: float | np.ndarray = lesion.radius
    if lesion.form == "ragged":
        generator = np.random.default_rng(lesion.seed)
        waves = [(n, generator.normal(0, 0.3 / n**0.5), generator.uniform(0, 2 * np.pi)) for n in range(2, 7)]
        radius = radius * np.clip(1 + sum(height * np.cos(n * angle + phase) for n, height, phase in waves), 0.4, 1.6)
    profile = _disc(distance, radius)
    return profile - _disc(distance, _HOLE * radius) if lesion.form == "ring" else profile


def _disc(distance: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    return expit((radius - distance) / _FADE)


def insert_lesions(images: np.ndarray, signs: Sequence[int], changes: Sequence[np.ndarray]) -> np.ndarray:
    """Sources with lesions, as 8-bit grey levels show them: (S, H, W) in [0, 1].

    Args:
        images: anatomy and overlays, (S, H, W) in [0, 1].
        signs: 1, -1 or 0 for each.
        changes: of each, as `lesion_change` gives them.

    Examples:
        >>> insert_lesions(np.full((2, 1, 1), 0.4), (1, -1), [np.full((1, 1), 0.2)] * 2).ravel()
        array([0.6, 0.2])
    """
    changed = [image + sign * change for image, sign, change in zip(images, signs, changes, strict=True)]
    return np.rint(np.clip(changed, 0, 1) * 255) / 255
