import math

import numpy as np
import pytest
import torch
from heads import head_pair
from scipy.ndimage import distance_transform_edt

from evaluation.observers import (
    contrast_recovery,
    region_contrast,
    region_labels,
    region_recovery,
    region_rings,
    regions_lost,
)


def two_regions(shape=(48, 40, 10)):
    labels = torch.zeros(shape, dtype=torch.int32)
    labels[10:14, 10:15, 3:6], labels[20:26, 10:14, 2:5] = 7, 3
    return labels


def test_a_ring_keeps_its_distance_to_all_regions():
    labels, spacing = two_regions(), (1.0, 1.5, 3.0)
    rings = region_rings(labels, spacing)
    away = {label: distance_transform_edt((labels != label).numpy(), spacing) for label in (3, 7)}
    nearest = np.minimum(away[3], away[7])
    for label in (3, 7):
        ring = (rings == label).numpy()
        assert ring.sum() > 100
        assert away[label][ring].min() >= 3
        assert away[label][ring].max() <= 8
        assert (away[label][ring] == nearest[ring]).all()
    np.testing.assert_array_equal((rings > 0).numpy(), (nearest >= 3) & (nearest <= 8))


def test_a_ring_stays_inside_the_patient_and_its_box_changes_nothing():
    labels = two_regions()
    inside = torch.zeros(labels.shape, dtype=torch.bool)
    inside[:, :16] = True
    rings = region_rings(labels, inside=inside)
    assert not rings[~inside].any()
    torch.testing.assert_close(rings[inside], region_rings(labels)[inside])
    padded = torch.nn.functional.pad(labels, (5, 5) * 3)
    torch.testing.assert_close(region_rings(padded)[5:-5, 5:-5, 5:-5], region_rings(labels))


def test_no_region_has_no_ring():
    nothing = torch.zeros(6, 6, dtype=torch.int32)
    assert not region_rings(nothing).any()
    assert region_recovery(torch.rand(1, 6, 6), torch.rand(2, 6, 6), nothing, nothing).shape == (0, 2)
    with pytest.raises(ValueError, match="two rising distances"):
        region_rings(nothing, ring=(8, 3))


def test_contrast_is_what_numpy_finds_region_by_region():
    labels, values = two_regions(), torch.randn(2, 48, 40, 10, generator=torch.Generator().manual_seed(0)) * 300 - 900
    rings = region_rings(labels)
    got = region_contrast(values, labels, rings)
    assert region_labels(labels).tolist() == [3, 7]
    for row, label in enumerate((3, 7)):
        inside, around = (values.double()[:, which == label].numpy() for which in (labels, rings))
        contrast = inside.mean(1) - around.mean(1)
        np.testing.assert_allclose(got.mean[row], inside.mean(1), rtol=1e-12)
        np.testing.assert_allclose(got.contrast[row], contrast, rtol=1e-9)
        np.testing.assert_allclose(got.cnr[row], abs(contrast) / around.std(1), rtol=1e-9)


def test_what_cannot_be_said_is_nan():
    labels = torch.zeros(20, 20, dtype=torch.int32)
    labels[10, 10] = 1
    flat = torch.full((1, 20, 20), -1000.0)
    flat[0, 10, 10] = 40
    whole = region_contrast(flat, labels, region_rings(labels))
    assert whole.contrast.tolist() == [[1040.0]]
    assert whole.cnr.tolist() == [[math.inf]]  # nothing varies in the ring
    assert region_contrast(flat * 0, labels, region_rings(labels)).cnr.isnan().all()
    few = region_rings(labels, ring=(1, 1.1))
    assert (few > 0).sum() == 4
    assert region_contrast(flat, labels, few).contrast.isnan().all()
    assert region_recovery(flat, flat.repeat(2, 1, 1), labels, few).isnan().all()


def sources():
    pair = torch.tensor(head_pair(0, ct=True))
    labels = torch.zeros(144, 144, dtype=torch.int32)
    labels[50:58, 60:70], labels[80:86, 84:92] = 1, 2
    pair[1] += 0.2 * (labels == 1)
    return pair, labels


def test_shares_of_the_sources_are_recovered():
    pair, labels = sources()
    rings = region_rings(labels)
    for shares in ((0.5, 0.5), (1.0, 0.0), (0.8, 0.3), (0.4, -0.6)):
        fused = (torch.tensor(shares).view(2, 1, 1) * pair).sum(0, keepdim=True) + 0.1
        got = region_recovery(fused, pair, labels, rings)
        torch.testing.assert_close(got, torch.tensor([shares, shares]).double(), atol=1e-6, rtol=0)


def test_sources_that_cannot_be_told_apart_are_each_given_all():
    pair, labels = sources()
    alike = torch.stack([pair[1], 0.5 * pair[1] + 0.2])
    got = region_recovery(pair[1:], alike, labels, region_rings(labels))
    torch.testing.assert_close(got, torch.tensor([[1.0, 2.0]] * 2).double(), atol=1e-6, rtol=0)


def test_a_source_that_shows_nothing_has_no_recovery():
    pair, labels = sources()
    pair[0] = 0.4
    got = region_recovery(0.7 * pair[1:], pair, labels, region_rings(labels))
    assert got[:, 0].isnan().all()
    torch.testing.assert_close(got[:, 1], torch.full((2,), 0.7).double(), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="differ in size"):
        region_recovery(pair[:1, :9], pair, labels, labels)


def test_lost_is_what_is_seen_and_not_kept_by_either_of_its_sign():
    nan = math.nan
    cases = [  # contrast, ratio and recovery in both sources, and where it is lost
        ((1, 1), (3.0, 0.2), (0.2, 0.9), (True, False)),
        ((1, 1), (0.2, 3.0), (0.9, nan), (False, True)),
        ((-1, -2), (3.0, 3.0), (0.1, 0.8), (False, False)),
        ((-1, 2), (3.0, 3.0), (0.1, 0.8), (True, False)),
        ((-1, -2), (3.0, 3.0), (0.1, -0.4), (True, True)),
        ((1, nan), (3.0, nan), (0.3, nan), (False, False)),
        ((1, 1), (0.9, 0.9), (0.0, 0.0), (False, False)),
    ]
    contrast, cnr, recovery = (torch.tensor([case[i] for case in cases], dtype=torch.float64) for i in range(3))
    assert regions_lost(contrast, cnr, recovery).tolist() == [list(case[3]) for case in cases]


FUSIONS = {
    "mean": lambda pair: pair.mean(0, keepdim=True),
    "maximum": lambda pair: pair.amax(0, keepdim=True),
    "the anatomy": lambda pair: pair[:1],
    "the overlay": lambda pair: pair[1:],
}


@pytest.fixture(scope="module")
def known():
    """Lesions of one source in simulated pairs: pair with, without, core, other lesions, spacing, source, middle."""
    pytest.importorskip("nilearn")
    from fusion_nets.simulation import simulate_pair

    found = []
    for seed in range(60):
        pair = simulate_pair(seed, ("CT", "PT", "NM")[seed % 3], is_head=bool(seed % 2))
        change = pair.lesion_image - pair.image
        for lesion in pair.lesions:
            own = np.abs(change * (pair.lesion_map == lesion.label))
            most = own.max((1, 2))
            source = int(most.argmax())
            core = own[source] > 0.5 * most[source]
            if most.min() > 0 or core.sum() < 12:
                continue  # in both, or too small to be outlined
            others = (pair.lesion_map > 0) & (pair.lesion_map != lesion.label)
            middle = np.unravel_index(own[source].argmax(), core.shape)
            with_it = np.where(others, pair.image, pair.lesion_image)
            without = np.where(pair.lesion_map == lesion.label, pair.image, with_it)
            images = [torch.from_numpy(image).double() for image in (with_it, without)]
            found.append((*images, torch.from_numpy(core).int(), pair.spacing, source, [0, *map(int, middle)]))
    return found


@pytest.mark.parametrize(
    ("fusion", "median", "most", "wrong"),
    [
        ("mean", 1e-9, 1e-9, 0),
        ("the anatomy", 1e-9, 1e-9, 0),
        ("the overlay", 1e-9, 1e-9, 0),
        ("maximum", 0.12, 0.45, 0.2),
    ],
)
def test_the_estimate_against_the_recovery_of_lesions_that_are_known(known, fusion, median, most, wrong):
    """Median and ninth decile of the error, and share on the wrong side of .25, of lesions that are to be seen."""
    fuse, errors, sides = FUSIONS[fusion], [], []
    for pair, without, core, spacing, source, middle in known:
        rings = region_rings(core, [spacing] * 2, inside=without.amax(0) > 0.05)
        if not region_contrast(pair, core, rings).cnr[0, source] >= 1:
            continue
        estimate = region_recovery(fuse(pair), pair, core, rings)[0, source]
        images = [fuse(pair), fuse(without), pair[source, None], without[source, None]]
        truth = contrast_recovery(*(image[None] for image in images), torch.tensor([middle]))[0]
        errors.append(float((estimate - truth).abs()))
        sides.append(bool((estimate < 0.25) != (truth < 0.25)))
    assert len(errors) > 30
    assert np.quantile(errors, 0.5) < median
    assert np.quantile(errors, 0.9) < most
    assert np.mean(sides) <= wrong
