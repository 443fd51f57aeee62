import math
import statistics

import pytest
from scipy.stats import wilcoxon

from evaluation.report import Comparison, PairedTest, Score, Summary, bootstrap_interval, holm

METRICS = {"Qabf": True, "MSE": False}


def scores(method, qabf, mse=None, groups=None):
    mse = qabf if mse is None else mse
    groups = groups or [""] * len(qabf)
    return [
        Score(f"case{i}", method, {"Qabf": a, "MSE": b}, group)
        for i, (a, b, group) in enumerate(zip(qabf, mse, groups, strict=True))
    ]


def test_summary_is_mean_and_sample_deviation_by_group():
    groups = ["CT-MRI", "CT-MRI", "PET-MRI", "PET-MRI"]
    comparison = Comparison(["A"], METRICS, scores("A", [1, 2, 3, 6], groups=groups))
    assert comparison.groups == ["CT-MRI", "PET-MRI"]
    interval = bootstrap_interval([1, 2, 3, 6], "abcd")
    assert comparison.summary("A", "Qabf") == Summary(4, 3.0, pytest.approx(math.sqrt(14 / 3)), 4, interval)
    interval = bootstrap_interval([3, 6], "ab")
    assert comparison.summary("A", "Qabf", "PET-MRI") == Summary(2, 4.5, pytest.approx(math.sqrt(4.5)), 2, interval)


def test_what_has_no_value_is_left_out():
    comparison = Comparison(["A"], METRICS, scores("A", [1.0, math.nan, math.inf], [math.nan] * 3))
    n, mean, deviation, subjects, (low, high) = comparison.summary("A", "Qabf")
    assert (n, mean, subjects) == (1, 1.0, 1)
    assert math.isnan(deviation)
    assert math.isnan(low)
    assert math.isnan(high)
    assert math.isnan(comparison.summary("A", "MSE").mean)


def test_the_best_mean_minds_the_direction_and_ties():
    both = scores("A", [0.5, 0.7]) + scores("B", [0.6, 0.8])
    comparison = Comparison(["A", "B"], METRICS, both)
    assert comparison.best("Qabf") == ["B"]
    assert comparison.best("MSE") == ["A"]
    tied = Comparison(["A", "B"], METRICS, scores("A", [0.5, 0.7]) + scores("B", [0.7, 0.5]))
    assert tied.best("Qabf") == ["A", "B"]
    assert Comparison(["A"], METRICS, scores("A", [0.5])).best("Qabf") == []


def test_cases_are_paired_by_name_against_the_first_method():
    ours, theirs = [0.9, 0.4, 0.7, 0.8, 0.65, 0.3], [0.5, 0.45, 0.6, 0.5, 0.6, 0.29]
    missing = scores("B", ours)[:-1]
    comparison = Comparison(["A", "B"], METRICS, [*reversed(missing), *scores("A", theirs)])
    qabf = comparison.tests[0]
    differences = [a - b for a, b in zip(ours[:-1], theirs[:-1], strict=True)]
    assert qabf[:5] == PairedTest("B", "Qabf", 5, 5, pytest.approx(0.1), 0, 0)[:5]
    assert qabf.p == pytest.approx(wilcoxon(differences).pvalue)
    assert qabf.p_holm == pytest.approx(2 * qabf.p)
    assert not comparison.complete


def test_exact_p_of_six_cases_that_all_improve():
    comparison = Comparison(["A", "B"], METRICS, scores("A", [0.0] * 6) + scores("B", [1, 2, 3, 4, 5, 6.0]))
    assert comparison.tests[0].p == pytest.approx(2 / 2**6)


def of_subjects(method, values, subjects):
    return [score._replace(subject=subject) for score, subject in zip(scores(method, values), subjects, strict=True)]


def test_slices_of_one_subject_are_no_cases_of_their_own():
    """Ten slices of each of six subjects that all improve: p is that of six, not of sixty."""
    whose = [f"s{i % 6}" for i in range(60)]
    gains = [1 + i / 100 for i in range(60)]
    both = of_subjects("A", [0.0] * 60, whose) + of_subjects("B", gains, whose)
    comparison = Comparison(["A", "B"], METRICS, both)
    assert comparison.subjects == [f"s{i}" for i in range(6)]
    test = comparison.tests[0]
    means = [statistics.mean(gains[i::6]) for i in range(6)]
    assert (test.n, test.subjects, test.difference) == (60, 6, pytest.approx(statistics.median(means)))
    assert test.p == pytest.approx(2 / 2**6)
    assert comparison.summary("B", "Qabf").subjects == 6
    alone = Comparison(["A", "B"], METRICS, [score._replace(subject="") for score in both])
    assert alone.tests[0].p < 1e-9


def test_a_case_is_of_one_subject():
    with pytest.raises(ValueError, match="case0: is of 's1' and of 's2'"):
        Comparison(["A", "B"], METRICS, of_subjects("A", [1], ["s1"]) + of_subjects("B", [1], ["s2"]))


def test_equal_methods_do_not_differ():
    comparison = Comparison(["A", "B"], METRICS, scores("A", [0.1, 0.2]) + scores("B", [0.1, 0.2]))
    assert [(test.difference, test.p, test.p_holm) for test in comparison.tests] == [(0, 1, 1)] * 2


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, and never below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("methods", "metrics", "given", "words"),
    [
        (["A"], METRICS, [], "nothing to compare"),
        (["A", "A"], METRICS, scores("A", [1]), "names of their own"),
        (["A"], METRICS, scores("B", [1]), "do not belong"),
        (["A"], {"VIF": True}, scores("A", [1]), "do not belong"),
        (["A"], METRICS, scores("A", [1]) * 2, "two scores"),
    ],
)
def test_what_does_not_belong_together_is_refused(methods, metrics, given, words):
    with pytest.raises(ValueError, match=words):
        Comparison(methods, metrics, given)
