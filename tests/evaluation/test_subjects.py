import math

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from evaluation.report import bootstrap_interval, subject_means, wilcoxon_of_subjects


def test_intervals_of_single_cases_are_scipys():
    values = np.random.default_rng(0).gamma(2, size=30)
    options = {"n_resamples": 2000, "method": "BCa", "random_state": np.random.default_rng(0)}
    expected = bootstrap((values,), np.mean, **options).confidence_interval
    assert bootstrap_interval(values, range(30)) == pytest.approx(expected, abs=0.02)


def test_intervals_hold_what_they_promise_of_clusters():
    """Subjects differ more than their slices: of 95 % intervals, about so many hold the truth; by slices, far fewer."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(20), 10)
    held = by_slices = 0
    for _ in range(120):
        values = generator.normal(0, 1, 20)[subjects] + generator.normal(0, 0.3, 200)
        low, high = bootstrap_interval(values, subjects, resamples=500)
        held += low < 0 < high
        low, high = bootstrap_interval(values, range(200), resamples=500)
        by_slices += low < 0 < high
    assert held / 120 > 0.87
    assert by_slices / 120 < 0.6


def test_subjects_with_more_cases_weigh_more_in_the_mean():
    values, subjects = [1.0] * 9 + [0.0], ["a"] * 9 + ["b"]
    low, high = bootstrap_interval(values, subjects)
    assert (low, high) == (0, 1)
    assert subject_means(values, subjects).tolist() == [1, 0]


def test_intervals_at_their_ends():
    assert all(math.isnan(end) for end in bootstrap_interval([], []))
    assert all(math.isnan(end) for end in bootstrap_interval([1, 2], ["a", "a"]))
    assert bootstrap_interval([0.5, 0.5, 0.5], "abc") == (0.5, 0.5)
    shares = [0.0] * 9 + [1.0]
    low, high = bootstrap_interval(shares, range(10))
    assert 0 <= low < 0.1 < high < 0.6
    assert bootstrap_interval(shares, range(10)) == (low, high)
    assert bootstrap_interval(shares, range(10), level=0.5) != (low, high)


def test_each_subject_is_tested_once():
    differences = np.random.default_rng(0).normal(0.3, 1, 40)
    subjects = [i % 8 for i in range(40)]
    means = [differences[i::8].mean() for i in range(8)]
    assert wilcoxon_of_subjects(differences, subjects) == pytest.approx(wilcoxon(means).pvalue)
    assert wilcoxon_of_subjects(differences, range(40)) == pytest.approx(wilcoxon(differences).pvalue)
    # slices that cancel each other leave no difference
    assert wilcoxon_of_subjects([1, -1, 2, -2], ["a", "a", "b", "b"]) == 1


@pytest.mark.parametrize("function", [bootstrap_interval, wilcoxon_of_subjects, subject_means])
def test_what_does_not_belong_together_is_refused(function):
    for values, subjects in (([1.0, 2.0], ["a"]), ([1.0, math.nan], ["a", "b"]), ([[1.0], [2.0]], ["a", "b"])):
        with pytest.raises(ValueError, match="finite values, one for each"):
            function(values, subjects)
