"""Metrics of more than two sources: sums, means and weights over all of them, whatever the order of the overlays."""

import plain_metrics
import pytest
import torch
from fusion_images import FUNCTIONS, OF_FUSED_ALONE, SMALLEST, noise

import evaluation
from evaluation.functional import FUSION_METRICS, fusion_metrics, parzen_mutual_information, ssim_single, vif_single

OF_TWO = ("Nabf", "SCD")
OF_SOURCES = [name for name in FUNCTIONS if name not in OF_FUSED_ALONE]
OF_MANY = [name for name in OF_SOURCES if name not in OF_TWO]
MEANS = ("FMI", "MSE", "CC")


def study(count, side=48, batch=2, dtype=torch.float64):
    """A fused image and so many sources that share some of its structure."""
    own, *sources = noise(count + 1, batch, 1, side, side, seed=count, dtype=dtype)
    weights = [0.5, 0.2, 0.15, 0.1][:count]
    return sum(weight * source for weight, source in zip(weights, sources, strict=True)) + 0.05 * own, sources


def side_of(name):
    return max(48, SMALLEST.get(name, 1))


@pytest.mark.parametrize("name", OF_SOURCES)
def test_one_overlay_in_a_list_is_that_overlay(name):
    fused, (anatomy, overlay) = study(2, side_of(name), dtype=torch.float32)
    assert torch.equal(FUNCTIONS[name](fused, anatomy, [overlay]), FUNCTIONS[name](fused, anatomy, overlay))


@pytest.mark.parametrize("name", OF_SOURCES)
def test_two_sources_may_change_places(name):
    fused, (anatomy, overlay) = study(2, side_of(name))
    torch.testing.assert_close(FUNCTIONS[name](fused, overlay, anatomy), FUNCTIONS[name](fused, anatomy, overlay))


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("name", OF_MANY)
def test_overlays_may_change_places(name, count):
    fused, (anatomy, *overlays) = study(count, side_of(name))
    value = FUNCTIONS[name](fused, anatomy, overlays)
    assert value.isfinite().all()
    torch.testing.assert_close(FUNCTIONS[name](fused, anatomy, overlays[::-1]), value)
    torch.testing.assert_close(FUNCTIONS[name](fused, overlays[0], [*overlays[1:], anatomy]), value)


@pytest.mark.parametrize("name", OF_MANY)
def test_every_source_counts(name):
    fused, (anatomy, *overlays) = study(3, side_of(name))
    value = FUNCTIONS[name](fused, anatomy, overlays)
    for other in (FUNCTIONS[name](fused, anatomy, overlays[0]), FUNCTIONS[name](fused, overlays[0], overlays[1])):
        assert not torch.allclose(value, other, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in OF_MANY if name not in ("Qabf", "PSNR")])
def test_sums_and_means_are_over_all_sources(name):
    """Of two sources that are one, such a metric says what it says of that one, twice or once."""
    fused, sources = study(4, side_of(name))
    of_each = [FUNCTIONS[name](fused, source, source) / (1 if name in MEANS else 2) for source in sources]
    expected = sum(of_each) / (len(sources) if name in MEANS else 1)
    torch.testing.assert_close(FUNCTIONS[name](fused, sources[0], sources[1:]), expected)


def test_terms_add_up():
    fused, (anatomy, *overlays) = study(3)
    for whole, single in ((evaluation.ssim, ssim_single), (evaluation.vif, vif_single)):
        expected = sum(single(fused, source) for source in (anatomy, *overlays))
        torch.testing.assert_close(whole(fused, anatomy, overlays), expected)
    pairs = [parzen_mutual_information(fused, source, source) / 2 for source in (anatomy, *overlays)]
    torch.testing.assert_close(parzen_mutual_information(fused, anatomy, overlays), sum(pairs))


def test_edges_are_weighted_over_all_sources():
    """By the definition: of each pair of one source, its share of the edges of all."""
    fused, sources = study(3)
    strengths = [
        torch.tensor([plain_metrics._sobel(one[0].numpy() * 255)[0].sum() for one in source]) for source in sources
    ]
    kept = [evaluation.qabf(fused, source, source) for source in sources]
    expected = sum(q * g for q, g in zip(kept, strengths, strict=True)) / sum(strengths)
    torch.testing.assert_close(evaluation.qabf(fused, sources[0], sources[1:]), expected)


@pytest.mark.parametrize("name", OF_TWO)
def test_what_holds_two_sources_against_each_other_is_refused(name):
    fused, (anatomy, *overlays) = study(3)
    with pytest.raises(ValueError, match=rf"{name} is defined for two sources, .*; got 3"):
        FUNCTIONS[name](fused, anatomy, overlays)
    with pytest.raises(ValueError, match=rf"{name} is defined for two sources"):
        fusion_metrics(fused, anatomy, overlays, names=["MI", name])
    with pytest.raises(ValueError, match=rf"{name} is defined for two sources"):
        getattr(evaluation, f"Fusion{name}Metric")()(y_pred=fused, y=torch.cat([anatomy, *overlays], dim=1))


def test_all_in_one_call_are_those_that_are_defined():
    fused, (anatomy, *overlays) = study(3, side=176)
    got = fusion_metrics(fused, anatomy, overlays)
    assert list(got) == [name for name in FUNCTIONS if name not in OF_TWO]
    assert {name for name, metric in FUSION_METRICS.items() if metric.of_two} == set(OF_TWO)
    for name, values in got.items():
        images = (fused,) if name in OF_FUSED_ALONE else (fused, anatomy, overlays)
        assert torch.equal(values, FUNCTIONS[name](*images)), name


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in (*OF_TWO, "MS-SSIM")])
def test_metrics_take_every_channel_as_a_source(name):
    fused, sources = study(3, dtype=torch.float32)
    y = torch.stack([torch.cat(sources, dim=1), torch.cat(sources, dim=1).flip(0)], dim=-1)
    got = getattr(evaluation, f"Fusion{name}Metric")(quantise=False)(
        y_pred=torch.stack([fused, fused.flip(0)], dim=-1), y=y
    )
    images = () if name in OF_FUSED_ALONE else (sources[0], sources[1:])
    expected = FUNCTIONS[name](fused, *images)
    torch.testing.assert_close(got[:, 0], (expected + expected.flip(0)) / 2)


def test_what_is_no_source_is_refused():
    fused, (anatomy, *overlays) = study(3)
    with pytest.raises(ValueError, match="there is no overlay; one or several are accepted"):
        evaluation.ssim(fused, anatomy, [])
    with pytest.raises(ValueError, match="differ in shape"):
        evaluation.ssim(fused, anatomy, [overlays[0], overlays[1][:1]])
    with pytest.raises(ValueError, match="differ in shape"):
        # three channels are a colour, not three overlays
        evaluation.ssim(fused, anatomy, torch.cat(overlays, dim=1))
    with pytest.raises(TypeError, match="ndarray"):
        evaluation.ssim(fused, anatomy, [overlays[0], overlays[1].numpy()])
