"""What became of lesions, from scores of our own making: shares, curves, the worst, tables and figures."""

import csv
import io
import math

import numpy as np
import pytest
from PIL import Image

from evaluation.observers import Lesion
from evaluation.report import (
    Comparison,
    LesionComparison,
    LesionExample,
    LesionScore,
    Score,
    lesion_tables,
    psychometric_curves,
    report_html,
    worst_lesions,
)

HOSTILE = "<img src=x onerror=alert(1)>|*a*"
SIGNS = {"overlay bright": (0, 1), "anatomy dark": (-1, 0), "anatomy dark, overlay bright": (-1, 1)}


def score(method, case, kind, recovery, make="discs", radius=4.0, amplitude=0.16, row=30, subject=""):
    responses = np.random.default_rng([row, *case.encode()]).normal(size=(2, 10))
    responses[0] += 1
    lesion = Lesion(row, 30, radius, amplitude)
    group = case.partition(" ")[0]
    return LesionScore(
        method, case, kind, SIGNS[kind], make, lesion, recovery, {"grey": responses}, group, subject or case
    )


@pytest.fixture
def comparison():
    """Two methods, two groups of four heads with two lesions each: ours keeps all that is bright, theirs nothing."""
    scores = []
    for method, kept in (("ours", 0.9), (HOSTILE, 0.1)):
        for group in ("CT", "PET"):
            for head in range(4):
                for row in (30, 80):
                    where = {"row": row, "radius": 4.0 if row == 30 else 7.0}
                    case = f"{group} {head}"
                    scores.append(score(method, case, "overlay bright", kept + row / 1000, **where))
                    scores.append(score(method, case, "anatomy dark", 0.2 if head == 0 else 0.8, **where))
                    scores.append(score(method, case, "anatomy dark, overlay bright", -0.9, **where))
                    scores.append(score(method, case, "overlay bright", 0.0, "faint", amplitude=0.07, **where))
    return LesionComparison(["ours", HOSTILE], scores)


def test_shares_lost_and_their_intervals_are_over_subjects(comparison):
    of = {(one.method, one.group, one.make, one.kind): one for one in comparison.summaries}
    bright, dark = of["ours", "CT", "discs", "overlay bright"], of["ours", "CT", "discs", "anatomy dark"]
    assert (bright.lesions, bright.subjects, bright.lost) == (8, 4, 0)
    assert bright.recovery == pytest.approx(0.955)
    assert (dark.lost, dark.interval.low) == (0.25, 0.0)
    # of opposite signs, what shows either way is kept
    assert of["ours", "CT", "discs", "anatomy dark, overlay bright"].lost == 0
    assert of[HOSTILE, "PET", "discs", "overlay bright"].lost == 1
    assert of["ours", "CT", "faint", "overlay bright"].lost == 1
    assert 0.5 < bright.grey <= 1
    assert math.isnan(bright.colour)


def test_the_worst_kind_is_of_one_source_and_of_one_make(comparison):
    assert comparison.worst_kind("ours", "CT", "discs").kind == "anatomy dark"
    assert comparison.worst_kind(HOSTILE, "CT", "discs").kind == "overlay bright"
    assert comparison.worst_kind("ours", "CT", "rings") is None


def test_subjects_are_paired_not_lesions(comparison):
    tests = {test.metric: test for test in comparison.lost.tests}
    assert (tests["overlay bright"].n, tests["overlay bright"].subjects) == (16, 8)
    assert tests["overlay bright"].difference == 1
    assert tests["overlay bright"].p == pytest.approx(2 / 2**8)
    assert tests["anatomy dark"].p == 1


def test_curves_go_over_contrast_and_size(comparison):
    points = {
        (one.axis, one.value): one
        for one in comparison.curves
        if (one.method, one.group, one.source, one.sign) == ("ours", "CT", "overlay", "")
    }
    assert set(points) == {("contrast", 0.07), ("contrast", 0.16), ("radius", 4.0), ("radius", 7.0)}
    assert (points["contrast", 0.07].kept, points["contrast", 0.16].kept) == (0, 1)
    assert (points["contrast", 0.16].lesions, points["radius", 4.0].lesions) == (8, 4)
    signs = {one.sign for one in comparison.curves if one.source == "anatomy"}
    assert signs == {"", "dark"}


def test_the_worst_are_of_the_headline_and_of_no_opposite_signs(comparison):
    worst = comparison.worst(HOSTILE, 3)
    assert [one.recovery for one in worst] == pytest.approx([0.13] * 3)
    assert {(one.make, one.kind) for one in comparison.worst("ours", 99)} == {
        ("discs", "overlay bright"), ("discs", "anatomy dark"),
    }  # fmt: skip


def test_a_lesion_without_a_recovery_counts_nowhere(comparison):
    unseen = score("ours", "CT 9", "overlay bright", math.nan)
    more = LesionComparison(comparison.methods, [*comparison.scores, unseen])
    counted = [(one.lesions, one.lost, one.recovery, one.grey) for one in comparison.summaries]
    assert [(one.lesions, one.lost, one.recovery, one.grey) for one in more.summaries] == counted
    assert more.worst("ours", 99) == comparison.worst("ours", 99)
    rows = list(csv.DictReader(io.StringIO(lesion_tables(more)["lesions.csv"])))
    assert (rows[-1]["recovery"], rows[-1]["lost"]) == ("", "")


@pytest.mark.parametrize(("methods", "left"), [(["ours"], None), (["ours", HOSTILE], 0)])
def test_what_does_not_belong_together_is_refused(comparison, methods, left):
    scores = comparison.scores if left is None else []
    with pytest.raises(ValueError, match="no lesion was judged" if left == 0 else "no methods"):
        LesionComparison(methods, scores)


def test_the_page_escapes_names_and_says_the_worst_first(comparison):
    metrics = Comparison(["ours", HOSTILE], {"Qabf": True}, [Score("a", m, {"Qabf": 0.5}) for m in ("ours", HOSTILE)])
    page = report_html(metrics, lesions=comparison)
    assert "<img src=x" not in page
    assert "Lost of the worst kind of lesion in one source: ours 25 % (dark in the anatomy, CT); &lt;img" in page
    assert page.index("<h2>Lesions</h2>") < page.index("<h2>Summary</h2>")
    assert "<h2>Lesions</h2>" not in report_html(metrics)


def test_figures_show_every_method_and_the_lesion(comparison):
    light, dark = (np.asarray(Image.open(io.BytesIO(psychometric_curves(comparison, dark)))) for dark in (False, True))
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (abs(light[..., :3].astype(int) - colour).sum(-1) < 12).sum() > 100
    assert light.mean() > 128 > dark[..., :3].mean()
    assert psychometric_curves(comparison) == psychometric_curves(comparison)

    spot = np.zeros((64, 64))
    spot[28:33, 28:33] = 1
    example = LesionExample(comparison.scores[0], [np.zeros((64, 64)), spot, np.zeros((64, 64, 3)), spot])
    drawn = np.asarray(Image.open(io.BytesIO(worst_lesions([example])))).astype(int)
    ring = abs(drawn[..., :3] - (0xFF, 0xB0, 0x00)).sum(-1) < 12
    columns = [int(part.sum()) for part in np.array_split(ring[:, : drawn.shape[1] // 2], 4, axis=1)]
    assert [count > 50 for count in columns] == [False, True, False, True], "rings are in the overlay and the result"
    with pytest.raises(ValueError, match="four images"):
        worst_lesions([example._replace(images=[spot])])
