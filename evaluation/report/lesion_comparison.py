"""Methods compared by the lesions that can still be seen in their fused images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch

from evaluation.observers import (
    Lesion,
    area_under_curve,
    channel_responses,
    contrast_recovery,
    dense_difference_of_gaussians,
    hotelling_scores,
    lost,
    patches_at,
    source_names,
    subject_folds,
)
from evaluation.report.comparison import Comparison, Score
from evaluation.report.subjects import Interval, bootstrap_interval

__all__ = [
    "CurvePoint",
    "KindSummary",
    "LesionComparison",
    "LesionScore",
    "lesion_recoveries",
    "lesion_responses",
    "source_of",
]

Axis = Literal["contrast", "radius"]

_HALF, _LEVEL = 24, 1 / 255


class LesionScore(NamedTuple):
    """What became of one lesion in one method's fused image.

    Attributes:
        method: who fused it.
        case: name of the pair without lesions.
        kind: of the lesion, as in `evaluation.observers.lesion_kinds`.
        signs: in each source, anatomy first.
        make: as in `evaluation.observers.LESION_MAKES`.
        lesion: what was put in.
        recovery: of its contrast; NaN for none.
        responses: of channels of an observer, without noise, to the lesion and to the same place without, (2, P K), by
            what is seen: "grey", "colour", "sources".
        group: what the pair belongs to, such as "CT-MRI".
        subject: whose the pair is; "" for one of its own.
    """

    method: str
    case: str
    kind: str
    signs: tuple[int, ...]
    make: str
    lesion: Lesion
    recovery: float
    responses: Mapping[str, np.ndarray]
    group: str = ""
    subject: str = ""

    @property
    def owner(self) -> str:
        """Whose it is: the subject, or the pair."""
        return self.subject or self.case

    @property
    def lost(self) -> float:
        """1 for lost, 0 for kept, NaN without a recovery."""
        return lost(torch.tensor(self.recovery, dtype=torch.float64), _are_opposite(self.signs)).item()


class KindSummary(NamedTuple):
    """What a method kept of the lesions of one kind and make in one group of pairs.

    Attributes:
        method: who fused them.
        group: of the pairs.
        make: of the lesions.
        kind: of the lesions.
        signs: in each source, anatomy first.
        lesions: how many.
        subjects: in how many subjects.
        lost: share.
        interval: of the share, 95 %, by bootstrap over the subjects.
        recovery: median.
        grey: observer's area under the ROC curve, of the luminance.
        colour: the same in CIELAB; NaN of grey images.
        sources: the same of all sources, side by side.
    """

    method: str
    group: str
    make: str
    kind: str
    signs: tuple[int, ...]
    lesions: int
    subjects: int
    lost: float
    interval: Interval
    recovery: float
    grey: float
    colour: float
    sources: float


class CurvePoint(NamedTuple):
    """A point of a psychometric curve: the share of lesions kept, at one contrast or size."""

    method: str
    group: str
    source: str
    sign: str
    axis: Axis
    value: float
    lesions: int
    subjects: int
    kept: float
    interval: Interval


def source_of(signs: Sequence[int]) -> str:
    """Which source shows a lesion: "anatomy", "overlay", "overlay 2" and so on; else "both", or of more "several"."""
    if _is_of_one(signs):
        return source_names(len(signs))[_followed(signs)]
    return "both" if len(signs) == 2 else "several"


def _is_of_one(signs: Sequence[int]) -> bool:
    return sum(map(bool, signs)) == 1


def _are_opposite(signs: Sequence[int]) -> bool:
    return min(signs) < 0 < max(signs)


def _followed(signs: Sequence[int]) -> int:
    """The source whose change a lesion is followed by: the first overlay that shows it, or the anatomy."""
    return next((place for place, sign in enumerate(signs) if place and sign), 0)


def lesion_recoveries(
    fused: torch.Tensor,
    fused_without: torch.Tensor,
    sources: torch.Tensor,
    sources_without: torch.Tensor,
    signs: Sequence[int],
    lesions: Sequence[Lesion],
) -> list[float]:
    """Contrast recovery of each lesion of one pair, followed in its source; of several, in the first overlay.

    Args:
        fused: with the lesions, (1 | 3, H, W) in [0, 1].
        fused_without: the same.
        sources: anatomy and overlays with them, (S, H, W).
        sources_without: the same.
        signs: in each source, anatomy first.
        lesions: what was put in.
    """
    channel = slice(_followed(signs), _followed(signs) + 1)
    given = (fused, fused_without, sources[channel], sources_without[channel])
    images = [image.as_subclass(torch.Tensor).double()[None].cpu() for image in given]
    recoveries: list[float] = contrast_recovery(images[0], images[1], images[2], images[3], _places(lesions)).tolist()
    return recoveries


def lesion_responses(planes: torch.Tensor, lesions: Sequence[Lesion]) -> np.ndarray:
    """What an observer's channels see at the lesions of one image (P, H, W), without internal noise: (N, P K)."""
    patches = patches_at(planes.as_subclass(torch.Tensor).double()[None].cpu(), _places(lesions), _HALF)
    return channel_responses(patches, _channels()).numpy()


def _places(lesions: Sequence[Lesion]) -> torch.Tensor:
    return torch.tensor([[0, lesion.row, lesion.column] for lesion in lesions]).view(-1, 3)


@lru_cache(maxsize=1)
def _channels() -> torch.Tensor:
    return dense_difference_of_gaussians(2 * _HALF + 1)


@lru_cache(maxsize=32)
def _noise(count: int, planes: int) -> torch.Tensor:
    """Responses to internal noise of one grey level, with and without a lesion, (2, count, planes K)."""
    generator = np.random.default_rng(0)
    side = 2 * _HALF + 1
    # lesion by lesion, so that thousands need no memory
    drawn = [torch.tensor(generator.normal(0, _LEVEL, (1, planes, side, side))) for _ in range(2 * count)]
    return torch.cat([channel_responses(one, _channels()) for one in drawn]).view(2, count, -1)


def _area(responses: Sequence[np.ndarray], subjects: Sequence[str]) -> float:
    """Of responses (2, P K) of each lesion; NaN where there are too few subjects to train on others."""
    seen = torch.from_numpy(np.stack(responses, axis=1))
    present, absent = seen + _noise(seen.shape[1], seen.shape[2] // len(_channels()))
    try:
        return float(area_under_curve(*hotelling_scores(present, absent, subject_folds(subjects))))
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class LesionComparison:
    """What every method kept of every lesion, and what follows from it; subjects are the unit.

    Args:
        methods: names, the first being the baseline of the tests.
        scores: of all lesions.

    Raises:
        ValueError: if there is no score, or a score's method is not one of the methods.
    """

    methods: Sequence[str]
    scores: Sequence[LesionScore]

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("no lesion was judged; at least one is accepted")
        if unknown := {score.method for score in self.scores} - set(self.methods):
            raise ValueError(f"{sorted(unknown)} are no methods of {list(self.methods)}")

    @cached_property
    def makes(self) -> list[str]:
        """Makes of lesions, in their order; the first is that of the headline."""
        return list(dict.fromkeys(score.make for score in self.scores))

    @cached_property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        """Signs by kind of lesion, in their order."""
        return {score.kind: score.signs for score in self.scores}

    @cached_property
    def groups(self) -> list[str]:
        """What pairs belong to, in their order."""
        return list(dict.fromkeys(score.group for score in self.scores))

    @cached_property
    def count(self) -> int:
        """How many lesions were judged, of all makes and kinds."""
        return len({(s.case, s.kind, s.make, s.lesion.row, s.lesion.column) for s in self.scores})

    @cached_property
    def lost(self) -> Comparison:
        """Lost lesions of the headline's make as metrics, 0 or 1 of each lesion, by kind: shares, intervals, tests."""
        values: dict[tuple[str, str], tuple[LesionScore, dict[str, float]]] = {}
        for score in self.scores:
            if score.make == self.makes[0]:
                place = f"{score.case} {score.lesion.row} {score.lesion.column}"
                values.setdefault((place, score.method), (score, {}))[1][score.kind] = score.lost
        missing = dict.fromkeys(self.kinds, math.nan)
        return Comparison(
            list(self.methods),
            dict.fromkeys(self.kinds, False),
            [
                Score(place, method, {**missing, **of_kind}, score.group, subject=score.owner)
                for (place, method), (score, of_kind) in values.items()
            ],
        )

    @cached_property
    def summaries(self) -> list[KindSummary]:
        """Of every group, make, kind and method that has lesions."""
        gathered: dict[tuple[str, str, str, str], list[LesionScore]] = {}
        for score in self.scores:
            if not math.isnan(score.recovery):
                gathered.setdefault((score.group, score.make, score.kind, score.method), []).append(score)
        order = [
            (group, make, kind, method)
            for group in self.groups
            for make in self.makes
            for kind in self.kinds
            for method in self.methods
        ]
        return [_summary(gathered[key]) for key in order if key in gathered]

    def worst_kind(self, method: str, group: str, make: str) -> KindSummary | None:
        """The kind of lesion of one source of which a method loses most; None without any."""
        found = [
            summary
            for summary in self.summaries
            if (summary.method, summary.group, summary.make) == (method, group, make) and _is_of_one(summary.signs)
        ]
        return max(found, key=lambda summary: summary.lost, default=None)

    @cached_property
    def curves(self) -> list[CurvePoint]:
        """Shares kept against contrast, at the headline's radii, and against radius, at its contrast.

        Of discs in one source; both signs together (""), and each by itself ("bright", "dark").
        """
        discs = [
            score
            for score in self.scores
            if _is_of_one(score.signs) and score.lesion.form == "disc" and not math.isnan(score.recovery)
        ]
        headline = [score.lesion for score in self.scores if score.make == self.makes[0]]
        radii, amplitudes = {lesion.radius for lesion in headline}, {lesion.amplitude for lesion in headline}
        gathered: dict[tuple[str, str, str, Axis, float, str], list[LesionScore]] = {}
        for score in discs:
            places: list[tuple[Axis, float]] = []
            if score.lesion.radius in radii:
                places.append(("contrast", score.lesion.amplitude))
            if score.lesion.amplitude in amplitudes:
                places.append(("radius", score.lesion.radius))
            for sign in ("", "bright" if sum(score.signs) > 0 else "dark"):
                for axis, value in places:
                    key = (score.group, source_of(score.signs), score.method, axis, value, sign)
                    gathered.setdefault(key, []).append(score)
        points = []
        for (group, source, method, axis, value, sign), scores in gathered.items():
            kept, owners = [1 - score.lost for score in scores], [score.owner for score in scores]
            count, interval = len(set(owners)), bootstrap_interval(kept, owners)
            of = CurvePoint(method, group, source, sign, axis, value, len(kept), count, float(np.mean(kept)), interval)
            points.append(of)
        names = source_names(max(len(signs) for signs in self.kinds.values()))
        order: dict[str, int] = {name: number for number, name in enumerate([*self.groups, *names[1:], names[0]])}
        return sorted(
            points,
            key=lambda of: (
                *(order[of.group], order[of.source], list(self.methods).index(of.method)),
                *(of.sign, of.axis, of.value),
            ),
        )

    def worst(self, method: str, count: int = 10) -> list[LesionScore]:
        """The lesions of the headline's make of which a method keeps least, the worst first.

        Without those of opposite signs, which cannot both be kept in grey.
        """
        found = [
            score
            for score in self.scores
            if (score.method, score.make) == (method, self.makes[0])
            and not _are_opposite(score.signs)
            and not math.isnan(score.recovery)
        ]
        return sorted(found, key=_badness)[:count]


def _badness(score: LesionScore) -> tuple[float, str, str, int, int]:
    # of two that are equal, by name
    return score.recovery, score.case, score.kind, score.lesion.row, score.lesion.column


def _summary(scores: Sequence[LesionScore]) -> KindSummary:
    first, owners = scores[0], [score.owner for score in scores]
    shares = [score.lost for score in scores]
    areas = [
        _area([score.responses[seen] for score in scores], owners)
        if all(seen in score.responses for score in scores)
        else math.nan
        for seen in ("grey", "colour", "sources")
    ]
    return KindSummary(
        method=first.method,
        group=first.group,
        make=first.make,
        kind=first.kind,
        signs=first.signs,
        lesions=len(scores),
        subjects=len(set(owners)),
        lost=float(np.mean(shares)),
        interval=bootstrap_interval(shares, owners),
        recovery=float(np.median([score.recovery for score in scores])),
        grey=areas[0],
        colour=areas[1],
        sources=areas[2],
    )
