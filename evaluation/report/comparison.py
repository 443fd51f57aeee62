"""Methods compared over the same cases: means, spreads, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

__all__ = ["Comparison", "Failure", "PairedTest", "Score", "Summary", "holm"]


class Score(NamedTuple):
    """What one method reached in one case.

    Attributes:
        case: its name.
        method: who fused it.
        values: by metric; NaN where an image has no value.
        group: what the case belongs to, such as "PET-MRI"; "" for nothing.
        slices: number of slices with content that the values are means of.
    """

    case: str
    method: str
    values: Mapping[str, float]
    group: str = ""
    slices: int = 1


class Failure(NamedTuple):
    """An image that could not be measured: of one method, or of none where a source is at fault ("")."""

    case: str
    method: str
    reason: str


class Summary(NamedTuple):
    """Mean and sample standard deviation of `n` values; NaN for a mean of none, or the deviation of one."""

    n: int
    mean: float
    deviation: float


class PairedTest(NamedTuple):
    """Wilcoxon's signed-rank test of a method against the baseline, over the cases that both have.

    Attributes:
        method: the one that is held against the baseline.
        metric: in which of its values.
        n: cases that both have.
        difference: median of the method's value less the baseline's.
        p: two-sided; 1 where no case differs.
        p_holm: the same, corrected for all tests of the comparison.
    """

    method: str
    metric: str
    n: int
    difference: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Every score of every method, and what follows from them.

    Args:
        methods: names, the first being the baseline of the tests.
        metrics: whether a higher value is better, by name, in the order they are shown.
        scores: a case and method at most once.
        failures: what could not be measured.

    Raises:
        ValueError: if there is no score or no metric, a score's method or metrics are not those of the comparison, or
            a case comes twice for one method.
    """

    methods: Sequence[str]
    metrics: Mapping[str, bool]
    scores: Sequence[Score]
    failures: Sequence[Failure] = field(default=())

    def __post_init__(self) -> None:
        if not self.scores or not self.metrics:
            raise ValueError("there is nothing to compare; at least one score in one metric is accepted")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods {list(self.methods)} need names of their own")
        seen = set()
        for score in self.scores:
            if score.method not in self.methods or set(score.values) != set(self.metrics):
                raise ValueError(
                    f"{score.case}: scores of {score.method!r} in {sorted(score.values)} do not belong to a comparison "
                    f"of {list(self.methods)} in {sorted(self.metrics)}"
                )
            if (score.case, score.method) in seen:
                raise ValueError(f"{score.case}: {score.method!r} has two scores; one is accepted")
            seen.add((score.case, score.method))

    @property
    def baseline(self) -> str:
        """The method that the others are tested against."""
        return self.methods[0]

    @cached_property
    def cases(self) -> list[str]:
        """Cases with a score, in their order."""
        return list(dict.fromkeys(score.case for score in self.scores))

    @cached_property
    def groups(self) -> list[str]:
        """What cases belong to, in their order; none where all belong to one."""
        groups = list(dict.fromkeys(score.group for score in self.scores))
        return groups if len(groups) > 1 else []

    @property
    def complete(self) -> bool:
        """Whether every method has every case, so that means are over the same ones."""
        return len(self.scores) == len(self.cases) * len(self.methods)

    def values(self, method: str, metric: str, group: str | None = None) -> dict[str, float]:
        """Finite values of a method by case, of one group or of all (None)."""
        return {
            score.case: score.values[metric]
            for score in self.scores
            if score.method == method and group in (None, score.group) and np.isfinite(score.values[metric])
        }

    def summary(self, method: str, metric: str, group: str | None = None) -> Summary:
        """Mean and spread of a method in a metric, over one group or all cases (None)."""
        values = np.array(list(self.values(method, metric, group).values()))
        mean = float(values.mean()) if len(values) else float("nan")
        return Summary(len(values), mean, float(values.std(ddof=1)) if len(values) > 1 else float("nan"))

    def best(self, metric: str, group: str | None = None) -> list[str]:
        """Methods with the best mean in a metric: none where fewer than two have one, several where they are equal."""
        means = {method: self.summary(method, metric, group).mean for method in self.methods}
        means = {method: mean for method, mean in means.items() if np.isfinite(mean)}
        if len(means) < 2:
            return []
        best = max(means.values()) if self.metrics[metric] else min(means.values())
        return [method for method, mean in means.items() if mean == best]

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Every other method against the baseline in every metric that both have.

        F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945): cases without a difference
        are left out; exact for 50 cases or fewer without ties, else by the normal approximation. S. Holm, A simple
        sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979), over all of them.
        """
        tests = []
        for method in self.methods[1:]:
            for metric in self.metrics:
                ours, theirs = self.values(method, metric), self.values(self.baseline, metric)
                differences = np.array([value - theirs[case] for case, value in ours.items() if case in theirs])
                if len(differences):
                    difference = float(np.median(differences))
                    tests.append(PairedTest(method, metric, len(differences), difference, _wilcoxon(differences), 1.0))
        corrected = holm([test.p for test in tests])
        return [test._replace(p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in their order; the family-wise error rate is kept at any level."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return [float(value) for value in corrected]


def _wilcoxon(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="wilcox", method="auto").pvalue)
