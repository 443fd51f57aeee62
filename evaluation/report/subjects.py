"""Statistics whose unit is the subject: slices and lesions of one head are no independent cases."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from fusion_nets.quiet import silence

__all__ = ["Interval", "bootstrap_interval", "subject_means", "wilcoxon_of_subjects"]


class Interval(NamedTuple):
    """A confidence interval; NaN where there are too few subjects for one."""

    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    subjects: Sequence[Hashable],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Confidence interval of the mean of values, by drawing subjects, each with all of its values (cluster bootstrap).

    Of shares (values of 0 and 1, such as lesions lost), the interval of the share.

    Args:
        values: finite.
        subjects: whose each value is.
        level: of confidence.
        seed: of the drawing; the same seed gives the same interval.
        resamples: how often all subjects are drawn.

    Returns:
        The interval, bias-corrected and accelerated; NaN for fewer than two subjects.

    Raises:
        ValueError: if there are as many subjects not as values, or a value is not finite.

    Source: B. Efron, R. J. Tibshirani, An introduction to the bootstrap, 1993, chapter 14; of clusters, A. C. Davison,
    D. V. Hinkley, Bootstrap methods and their application, 1997, section 3.8.

    Examples:
        >>> low, high = bootstrap_interval([0.5, 0.6, 0.7, 0.8, 0.6, 0.7], ["a", "a", "b", "b", "c", "d"])
        >>> 0.5 < low < 0.65 < high < 0.8
        True
    """
    from scipy.stats import bootstrap

    sums, counts = _of_subjects(values, subjects)
    if len(sums) < 2:
        return Interval(float("nan"), float("nan"))
    means = sums / counts
    if np.ptp(means) == 0:
        return Interval(float(means[0]), float(means[0]))

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return sums.sum(axis) / counts.sum(axis)

    for method in ("BCa", "percentile"):
        with silence():  # where all means but one are alike there is no acceleration: NaN, and percentiles instead
            low, high = bootstrap(
                (sums, counts),
                mean,
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                confidence_level=level,
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
    return Interval(float(low), float(high))


def subject_means(values: Sequence[float] | np.ndarray, subjects: Sequence[Hashable]) -> np.ndarray:
    """One value a subject, the mean of its own, in the order in which subjects come first; errors as above.

    Examples:
        >>> subject_means([1.0, 2.0, 6.0], ["b", "a", "b"])
        array([3.5, 2. ])
    """
    sums, counts = _of_subjects(values, subjects)
    return sums / counts


def wilcoxon_of_subjects(differences: Sequence[float] | np.ndarray, subjects: Sequence[Hashable]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of paired differences, over the means of subjects.

    1 where none differs. Subjects without a difference are left out; exact for 50 or fewer without ties, else by the
    normal approximation. With fewer than six subjects no p is below 0.05.

    Args:
        differences: of one method less another, of each case; finite.
        subjects: whose each case is.

    Raises:
        ValueError: if there are as many subjects not as differences, or one is not finite.

    Source: F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945.

    Examples:
        >>> wilcoxon_of_subjects([0.1, 0.2, 0.3, 0.1, 0.2, 0.4, 0.6], list("aabcdef"))
        0.03125
    """
    from scipy.stats import wilcoxon

    means = subject_means(differences, subjects)
    if not means.any():
        return 1.0
    return float(wilcoxon(means, zero_method="wilcox", method="auto").pvalue)


def _of_subjects(values: Sequence[float] | np.ndarray, subjects: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each subject."""
    given = np.asarray(values, dtype=float)
    if given.ndim != 1 or len(given) != len(subjects) or not np.isfinite(given).all():
        raise ValueError(f"expected finite values, one for each of {len(subjects)} entries of subjects, got {given}")
    number = {subject: i for i, subject in enumerate(dict.fromkeys(subjects))}
    whose = [number[subject] for subject in subjects]
    return np.bincount(whose, given, minlength=len(number)), np.bincount(whose, minlength=len(number)).astype(float)
