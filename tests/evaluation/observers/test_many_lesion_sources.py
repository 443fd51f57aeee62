"""Lesions of more than two sources, and of volumes."""

import csv
import io

import numpy as np
import pytest
import torch
from heads import head_pair

from evaluation.observers import (
    LESION_KINDS,
    ContrastRecoveryMetric,
    Lesion,
    LostLesionsMetric,
    ObserverAreaMetric,
    contrast_recovery,
    lesion_cases,
    lesion_change,
    lesion_kinds,
    lesion_places,
    patches_at,
    source_names,
)
from evaluation.report import LesionComparison, LesionScore, lesion_recoveries, lesion_tables, source_of

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def sources(number=0):
    """MRI, CT and a tracer of one head."""
    anatomy, ct = head_pair(number, ct=True)
    return anatomy, ct, head_pair(number, ct=False)[1]


def cases(number=0):
    anatomy, ct, tracer = sources(number)
    return list(lesion_cases(anatomy, [ct, tracer], np.random.default_rng(number), ct=[True, False], most=3))


def fuse(images):
    """(S, H, W) -> (1, H, W)."""
    return (WEIGHTS[:, None, None] * torch.as_tensor(images)).sum(0, keepdim=True)


def test_kinds_are_those_of_two_or_of_each_source_alone():
    assert lesion_kinds() is LESION_KINDS
    kinds = lesion_kinds(4)
    assert source_names(4) == ["anatomy", "overlay", "overlay 2", "overlay 3"]
    alone = {kind: source_of(signs) for kind, signs in kinds.items() if sum(map(abs, signs)) == 1}
    assert alone == {f"{name} {word}": name for name in source_names(4) for word in ("bright", "dark")}
    assert [source_of(signs) for signs in kinds.values() if sum(map(abs, signs)) > 1] == ["several"] * 2
    assert source_of((1, 1)) == "both"
    with pytest.raises(ValueError, match="2 or more are accepted"):
        lesion_kinds(1)


def test_places_are_tissue_in_all_sources_whatever_their_order():
    anatomy, ct, tracer = sources()
    places = lesion_places(anatomy, [ct, tracer], np.random.default_rng(0), [True, False], most=9)
    assert len(places) > 2
    assert lesion_places(anatomy, [tracer, ct], np.random.default_rng(0), [False, True], most=9) == places
    for row, column in places:
        for source in (anatomy, ct, tracer):
            assert 0.05 < source[row - 1 : row + 2, column - 1 : column + 2].mean() < 0.9
    # one overlay in a list is that overlay
    pair = lesion_places(anatomy, ct, np.random.default_rng(0), ct=True, most=9)
    assert lesion_places(anatomy, [ct], np.random.default_rng(0), [True], most=9) == pair
    with pytest.raises(ValueError, match="2 overlays, of which 1 are told"):
        lesion_places(anatomy, [ct, tracer], np.random.default_rng(0), [True])
    with pytest.raises(ValueError, match="0 overlays"):
        lesion_places(anatomy, [], np.random.default_rng(0))


def test_each_kind_changes_the_sources_that_it_names():
    none, *changed = cases()
    assert [case.kind for case in changed] == list(lesion_kinds(3))
    for case in changed:
        assert case.images.shape[0] == 3
        for sign, image, before in zip(case.signs, case.images, none.images, strict=True):
            at = [(image - before)[lesion.row, lesion.column] for lesion in case.lesions]
            assert np.sign(at).tolist() == [sign] * len(case.lesions)


def test_recovery_is_followed_in_the_source_that_shows_the_lesion():
    none, *changed = cases()
    for case in changed:
        got = lesion_recoveries(fuse(case.images), fuse(none.images), *map(torch.tensor, (case.images, none.images)),
                                case.signs, case.lesions)  # fmt: skip
        if source_of(case.signs) == "several":
            continue
        place = source_names(3).index(source_of(case.signs))
        assert got == pytest.approx([WEIGHTS[place].item()] * len(case.lesions), abs=0.01), case.kind


def test_tables_have_a_sign_for_each_source():
    def score(method, signs, recovery):
        shown = {"grey": np.zeros((2, 10)), "sources": np.zeros((2, 30))}
        kind = next(kind for kind, of in lesion_kinds(3).items() if of == signs)
        return LesionScore(method, "case", kind, signs, "discs", Lesion(9, 9, 4.0), recovery, shown)

    scores = [score("ours", signs, -0.6) for signs in lesion_kinds(3).values()]
    comparison = LesionComparison(["ours"], scores)
    rows = list(csv.DictReader(io.StringIO(lesion_tables(comparison)["lesions.csv"])))
    assert [row["source"] for row in rows][4::2] == ["anatomy", "several"]
    assert (rows[2]["sign_overlay_2"], rows[2]["kind"]) == ("1", "overlay 2 bright")
    # of opposite signs it is kept either way
    assert [row["lost"] for row in rows] == ["1.0"] * 7 + ["0.0"]
    assert {point.source for point in comparison.curves} == {"overlay", "overlay 2", "anatomy"}
    assert comparison.worst_kind("ours", "", "discs").kind == "overlay bright"


@pytest.fixture(scope="module")
def study():
    """`y_pred` (B, 2, H, W) and `y` (B, 7, H, W) of heads with lesions in the second overlay."""
    pred, given = [], []
    for number in range(6):
        none, *changed = cases(number)
        case = next(case for case in changed if case.kind == "overlay 2 bright")
        middles = np.zeros((1, *none.images.shape[1:]))
        for lesion in none.lesions:
            middles[0, lesion.row, lesion.column] = number + 1
        pred.append(torch.cat([fuse(case.images), fuse(none.images)]))
        given.append(np.concatenate([case.images, none.images, middles]))
    return torch.stack(pred), torch.tensor(np.array(given))


def test_metrics_follow_any_source(study):
    pred, y = study
    recovery = ContrastRecoveryMetric(source=2)
    values = recovery(y_pred=pred, y=y)
    assert len(values) == (y[:, -1] > 0).sum()
    assert recovery.aggregate().item() == pytest.approx(0.2, abs=0.01)
    lost = LostLesionsMetric(source=2)
    lost(y_pred=pred, y=y)
    assert lost.aggregate() == 1
    # the first overlay shows nothing
    assert ContrastRecoveryMetric()(y_pred=pred, y=y).isnan().all()
    side_by_side = ObserverAreaMetric(sees="sources", sources=3)
    assert side_by_side(y_pred=pred, y=y).shape == (len(values), 1 + 2 * 3 * 10)
    assert side_by_side.aggregate() > 0.6
    with pytest.raises(ValueError, match="sources=2 cannot see 3 sources"):
        ObserverAreaMetric(sees="sources")(y_pred=pred, y=y)
    with pytest.raises(ValueError, match="follows source 3, and y has 3, from 0"):
        ContrastRecoveryMetric(source=3)(y_pred=pred, y=y)
    with pytest.raises(ValueError, match="or a number from 0"):
        ContrastRecoveryMetric(source=-1)


# --- volumes


@pytest.mark.parametrize("span", [1, 2, 3, 5])
def test_a_lesion_that_spans_slices(span):
    """A fused volume that keeps half of it in every slice, or all of it in some."""
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(1, 1, 40, 40, 12, generator=generator, dtype=torch.float64)
    spot = torch.tensor(lesion_change([Lesion(20, 18, 4.0, 0.2)], (40, 40), 0.7))
    lesion = torch.zeros_like(before)
    lesion[..., 5 : 5 + span] = spot[..., None]
    places = torch.tensor([[0, 20, 18, 5 + span // 2]])
    other = torch.rand(1, 1, 40, 40, 12, generator=generator, dtype=torch.float64)
    half = contrast_recovery(
        0.5 * (before + lesion + other), 0.5 * (before + other), before + lesion, before, places, (12, 12, 4)
    )
    assert half.item() == pytest.approx(0.5)
    first = before.clone()
    first[..., 5] += spot
    in_one = contrast_recovery(first, before, before + lesion, before, places, half=(12, 12, 4))
    assert in_one.item() == pytest.approx(1 / span)
    metric = ContrastRecoveryMetric(half=(12, 12, 4))
    middles = torch.zeros_like(before)
    middles[0, 0, 20, 18, 5 + span // 2] = 1
    got = metric(
        y_pred=torch.cat([first, before], dim=1), y=torch.cat([other, before + lesion, other, before, middles], dim=1)
    )
    assert got.item() == pytest.approx(in_one.item())
    with pytest.raises(ValueError, match=r"ObserverAreaMetric expects y as \(B, 5, H, W\)"):
        ObserverAreaMetric()(y_pred=torch.cat([first, before], dim=1), y=middles.expand(-1, 5, -1, -1, -1))


def test_blocks_at_places():
    volume = torch.arange(2 * 4 * 5 * 6.0).view(2, 1, 4, 5, 6)
    got = patches_at(volume, torch.tensor([[1, 2, 2, 3], [0, 0, 0, 0]]), half=(1, 2, 1))
    assert got.shape == (2, 1, 3, 5, 3)
    assert torch.equal(got[0, 0], volume[1, 0, 1:4, :, 2:5])
    assert torch.equal(got[1, 0, 1:, 2:, 1:], volume[0, 0, :2, :3, :2])
    assert (got[1, 0, 0] == 0).all()
    with pytest.raises(ValueError, match=r"\(N, 4\) whole numbers"):
        patches_at(volume, torch.tensor([[0, 0, 0]]), 1)
    with pytest.raises(ValueError, match="or 3, one for each axis"):
        patches_at(volume, torch.tensor([[0, 0, 0, 0]]), (1, 1))
    with pytest.raises(ValueError, match="outside"):
        patches_at(volume, torch.tensor([[0, 0, 0, 6]]), 1)
