import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.registration import NEAR_BORDER, Warp, field_of_view, resample_onto
from fusion_nets.slabs import slabs

AFFINE = torch.diag(torch.tensor([1.0, 1, 2, 1], dtype=torch.float64))


@pytest.fixture
def anatomy():
    """A head of 40 x 40 x 40 mm in air."""
    values = torch.zeros(1, 60, 60, 30)
    values[:, 10:50, 10:50, 5:25] = 1
    return MetaTensor(values, affine=AFFINE)


def part_of(anatomy, rows):
    return MetaTensor(torch.ones(1, rows, *anatomy.shape[2:]), affine=anatomy.affine, meta={"modality": "PT"})


def test_what_covers_all_that_is_shown_has_no_border(anatomy):
    assert field_of_view(part_of(anatomy, 50), anatomy) is None
    assert field_of_view(anatomy, anatomy) is None


def test_the_border_is_where_resampling_fills(anatomy):
    overlay = MetaTensor(torch.ones(1, 21, 40, 40), affine=torch.diag(torch.tensor([1.7, 1.7, 1.7, 1])).double())
    overlay.meta["modality"] = "PT"
    turn = np.eye(4)
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    view = field_of_view(overlay, anatomy, turn)
    outside = resample_onto(overlay, anatomy, turn)[0].numpy() == 0
    assert 0.2 < outside.mean() < 0.8
    assert (view.outside() == outside).all()
    parts = [view.outside(slab) for slab in (slice(0, 11), slice(11, 30))]
    assert (np.concatenate(parts, axis=-1) == outside).all()


def test_the_border_of_an_overlay_that_bends(anatomy):
    overlay = part_of(anatomy, 30)
    grid = np.diag([20.0, 20, 20, 1])
    grid[:3, 3] = -20
    warp = Warp(np.eye(4), np.random.default_rng(0).normal(0, 4, (3, 7, 7, 7)), grid)
    outside = resample_onto(overlay, anatomy, warp)[0].numpy() == 0
    assert (field_of_view(overlay, anatomy, warp).outside() == outside).all()


def test_weights_rise_from_the_border_that_cuts_tissue(anatomy):
    view = field_of_view(part_of(anatomy, 30), anatomy)
    weight = view.weight()
    assert weight[29, 30, 15] < 0.1  # the last row
    assert (np.diff(weight[:30, 30, 15]) <= 0).all()
    assert (weight[: 30 - int(NEAR_BORDER) - 6, 30, 15] == 1).all()
    assert (weight[:20, :, 0] > 0).all()  # air ends where it will
    assert view.covers == pytest.approx(0.5, abs=0.05)
    for slab in (slice(3, 9), slice(29, 30)):
        assert np.array_equal(view.weight(slab), weight[..., slab])


def test_coverage_falls_beyond_the_border_alone(anatomy):
    view = field_of_view(part_of(anatomy, 30), anatomy)
    coverage = view.coverage()
    assert (coverage[:30] == 1).all()
    assert (coverage[30 + int(NEAR_BORDER) + 4 :] == 0).all()
    assert 0.1 < coverage[32, 30, 15] < 0.9
    assert (np.diff(coverage[:, 30, 15]) <= 0).all()


def test_no_tissue_within_leaves_nothing_covered(anatomy):
    away = np.eye(4)
    away[0, 3] = 500
    view = field_of_view(part_of(anatomy, 30), anatomy, away)
    assert view.covers == 0
    assert not view.coverage().any()
    assert view.outside().all()


def test_slabs_of_a_large_volume_are_its_parts(anatomy, monkeypatch):
    view = field_of_view(part_of(anatomy, 30), anatomy)
    whole = view.coverage()
    monkeypatch.setattr("fusion_nets.slabs.LARGE", 1)
    monkeypatch.setattr("fusion_nets.slabs.SLAB", 60 * 60 * 4)
    parts = [view.coverage(slab) for slab in slabs((1, 60, 60, 30))]
    assert len(parts) == 8
    assert np.array_equal(np.concatenate(parts, axis=-1), whole)
