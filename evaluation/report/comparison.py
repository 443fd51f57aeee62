"""Methods compared over the same cases: means, spreads, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from evaluation.report.subjects import Interval, bootstrap_interval, subject_means, wilcoxon_of_subjects

__all__ = ["Comparison", "Failure", "PairedTest", "Score", "Summary", "holm"]


class Score(NamedTuple):
    """What one method reached in one case.

    Attributes:
        case: its name.
        method: who fused it.
        values: by metric; NaN where an image has no value.
        group: what the case belongs to, such as "PET-MRI"; "" for nothing.
        slices: number of slices with content that the values are means of.
        subject: whose case it is; "" for a case of its own.
    """

    case: str
    method: str
    values: Mapping[str, float]
    group: str = ""
    slices: int = 1
    subject: str = ""


class Failure(NamedTuple):
    """An image that could not be measured: of one method, or of none where a source is at fault ("")."""

    case: str
    method: str
    reason: str


class Summary(NamedTuple):
    """Values of a method in a metric.

    Attributes:
        n: how many.
        mean: NaN of none.
        deviation: sample standard deviation over cases; NaN of one.
        subjects: whose they are, how many.
        interval: of the mean, 95 %, by bootstrap over the subjects; NaN for fewer than two.
    """

    n: int
    mean: float
    deviation: float
    subjects: int
    interval: Interval


class PairedTest(NamedTuple):
    """Wilcoxon's signed-rank test of a method against the baseline, over the subjects of the cases that both have.

    Attributes:
        method: the one that is held against the baseline.
        metric: in which of its values.
        n: cases that both have.
        subjects: whose they are, how many; each counts once, by its mean.
        difference: median over the subjects of the method's value less the baseline's.
        p: two-sided; 1 where no subject differs.
        p_holm: the same, corrected for all tests of the comparison.
    """

    method: str
    metric: str
    n: int
    subjects: int
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
            a case comes twice for one method, or is of two subjects.
    """

    methods: Sequence[str]
    metrics: Mapping[str, bool]
    scores: Sequence[Score]
    failures: Sequence[Failure] = field(default=())
    subject_of: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _summaries: dict[tuple[str, str, str | None], Summary] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
            if self.subject_of.setdefault(score.case, score.subject or score.case) != (score.subject or score.case):
                raise ValueError(
                    f"{score.case}: is of {self.subject_of[score.case]!r} and of {score.subject!r}; one "
                    "subject is accepted"
                )

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
    def subjects(self) -> list[str]:
        """Whose the cases are, in their order."""
        return list(dict.fromkeys(self.subject_of[case] for case in self.cases))

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
        asked = (method, metric, group)
        if asked not in self._summaries:
            by_case = self.values(*asked)
            values, subjects = np.array(list(by_case.values())), [self.subject_of[case] for case in by_case]
            mean = float(values.mean()) if len(values) else float("nan")
            deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            interval = bootstrap_interval(values, subjects)
            self._summaries[asked] = Summary(len(values), mean, deviation, len(set(subjects)), interval)
        return self._summaries[asked]

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
        """Every other method against the baseline in every metric that both have, see `wilcoxon_of_subjects`.

        Corrected by S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
        Statistics 6 (1979), over all of them.
        """
        tests = []
        for method in self.methods[1:]:
            for metric in self.metrics:
                ours, theirs = self.values(method, metric), self.values(self.baseline, metric)
                differences = {case: value - theirs[case] for case, value in ours.items() if case in theirs}
                if differences:
                    given = list(differences.values()), [self.subject_of[case] for case in differences]
                    means = subject_means(*given)
                    p = wilcoxon_of_subjects(*given)
                    difference = float(np.median(means))
                    tests.append(PairedTest(method, metric, len(differences), len(means), difference, p, 1.0))
        corrected = holm([test.p for test in tests])
        return [test._replace(p_holm=p) for test, p in zip(tests, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values, in their order; the family-wise error rate is kept at any level."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return [float(value) for value in corrected]
