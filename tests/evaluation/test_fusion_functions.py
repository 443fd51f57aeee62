import math

import numpy as np
import pytest
import torch
from fusion_images import FUNCTIONS, OF_FUSED_ALONE, SMALLEST, noise, taken, triple
from monai.data import MetaTensor

from evaluation import functional
from evaluation.functional import (
    FUSION_METRICS,
    _helpers,
    average_gradient,
    correlation,
    entropy,
    fmi,
    fusion_metrics,
    mean_squared_error,
    mutual_information,
    nabf,
    normalised_mutual_information,
    parzen_mutual_information,
    psnr,
    qabf,
    quantise,
    scd,
    spatial_frequency,
    ssim,
    ssim_single,
    standard_deviation,
    vif,
    vif_single,
)

every_metric = pytest.mark.parametrize("name", FUNCTIONS)


def images_of(name, **options):
    """What a metric takes, large enough for it."""
    return taken(name, triple(**{"side": max(48, SMALLEST.get(name, 1)), **options}))


# --- values known beforehand


def test_perfect_copies():
    image = quantise(noise(2, 1, 48, 48)) / 255
    torch.testing.assert_close(ssim(image, image, image), torch.full((2,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(vif(image, image, image), torch.full((2,), 2.0, dtype=torch.float64), rtol=0, atol=1e-6)
    best_edge = 0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert qabf(image, image, image).tolist() == pytest.approx([best_edge] * 2, rel=1e-3)
    entropies = [
        -sum(p * math.log(p) for p in np.unique(one, return_counts=True)[1] / one.numel()) for one in quantise(image)
    ]
    assert mutual_information(image, image, image).tolist() == pytest.approx([2 * e for e in entropies])


def test_terms_add_up():
    fused, anatomy, overlay = triple(batch=2)
    torch.testing.assert_close(ssim_single(fused, anatomy) + ssim_single(fused, overlay), ssim(fused, anatomy, overlay))
    torch.testing.assert_close(vif_single(fused, anatomy) + vif_single(fused, overlay), vif(fused, anatomy, overlay))
    assert not torch.allclose(vif_single(anatomy, fused), vif_single(fused, anatomy), rtol=1e-3)


def test_contrast_enhancement_exceeds_one():
    image = 0.25 + 0.5 * noise(1, 1, 48, 48)
    assert vif_single(2 * image - 0.5, image).item() > 1.0 > vif_single(0.5 * image + 0.25, image).item()


def test_information_rounds_to_the_nearest_level_and_clips():
    whole = torch.tensor([[[[0.0, 2, 2, 255]]]])
    given = torch.tensor([[[[-7.0, 1.5, 2.5, 300.0]]]])
    expected = mutual_information(whole, whole, whole, data_range=255)
    assert expected.item() == pytest.approx(2 * (0.5 * math.log(4) + 0.5 * math.log(2)))
    assert mutual_information(given, whole, whole, data_range=255).item() == expected.item()


def test_quantise():
    values = [-0.1, 0.0, 0.5 / 255, 1.5 / 255, 0.2, 1.0, 1.2, torch.nan, torch.inf, -torch.inf]
    values = torch.tensor(values, dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, 2, 51, 255, 255, *[torch.nan] * 3], dtype=torch.float64)
    torch.testing.assert_close(quantise(values), expected, equal_nan=True, rtol=0, atol=0)
    every = torch.arange(256, dtype=torch.uint8)
    assert quantise(every, data_range=255).tolist() == every.tolist()
    assert quantise((every / 255).half()).tolist() == every.tolist()


def test_sources_without_edges_or_variance():
    blank, image = torch.zeros(1, 1, 48, 48), noise(1, 1, 48, 48).float()
    assert qabf(image, blank, blank).item() == 0
    assert vif(image, blank, blank).item() == 2
    assert vif(blank, image, blank).item() == 1


def test_bright_plateaus_do_not_drown_vif_in_rounding():
    # beside black, so that squares stay large: their differences in float32 are noise, not variance
    source = torch.zeros(255, 1, 60, 60)
    source[..., 20:] = torch.arange(1, 256).view(-1, 1, 1, 1) / 255
    torch.testing.assert_close(
        vif_single(0.7 * source, source), vif_single(0.7 * source.double(), source.double()).float(), rtol=0, atol=1e-3
    )


def test_contrast_by_hand():
    # a ramp of 4 levels a pixel along rows: every step is 4, but none along columns
    ramp = (4.0 * torch.arange(5)).expand(1, 1, 3, 5)
    assert spatial_frequency(ramp, 255).item() == pytest.approx(4)
    assert average_gradient(ramp, 255).item() == pytest.approx(4 / math.sqrt(2))
    assert standard_deviation(ramp, 255).item() == pytest.approx(4 * math.sqrt(2))
    assert entropy(ramp, 255).item() == pytest.approx(math.log2(5))


def test_the_sum_of_two_sources_has_their_differences():
    anatomy, overlay = noise(2, 1, 1, 40, 40)
    assert scd(anatomy + overlay, anatomy, overlay).item() == pytest.approx(2)
    assert scd(anatomy, anatomy, anatomy).item() == 0
    assert correlation(anatomy, 1 - anatomy, 1 - anatomy).item() == pytest.approx(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rounding_noise_is_no_correlation(dtype):
    anatomy, overlay = noise(2, 1, 1, 40, 40, dtype=dtype) / 2
    constant = torch.full_like(anatomy, 0.3)
    assert correlation(constant, anatomy, overlay).item() == 0
    shifted, same = (scd(fused, anatomy, overlay).item() for fused in (overlay + 0.3, overlay))
    assert shifted == pytest.approx(same, rel=1e-5)
    assert standard_deviation(constant).item() == spatial_frequency(constant).item() == average_gradient(constant) == 0


def test_errors_at_their_ends():
    black, image = torch.zeros(1, 1, 8, 8), noise(1, 1, 8, 8)
    assert mean_squared_error(image, image, image).item() == 0
    assert psnr(image, image, image).item() == math.inf
    assert psnr(black, image, image).item() == -math.inf
    assert psnr(black, black, black).item() == math.inf


def test_inventions_count():
    """Noise on the fused image is invented detail; what the sources have is not."""
    coarse = torch.nn.functional.interpolate(noise(2, 1, 6, 6), size=(48, 48), mode="bicubic")
    anatomy, overlay = coarse[:1], coarse[1:]
    faithful = torch.maximum(anatomy, overlay)
    values = [nabf(faithful + share * noise(1, 1, 48, 48), anatomy, overlay).item() for share in (0, 0.05, 0.2)]
    assert values[0] < 0.01 < values[1] < values[2] < 1
    assert nabf(anatomy, anatomy, anatomy).item() == 0
    # on ground that is flat in both sources, all of it is invented
    flat = torch.zeros(1, 1, 48, 48)
    assert nabf(noise(1, 1, 48, 48), flat, flat).item() > 0.9


def test_features_of_a_copy_and_of_its_negative():
    image = quantise(noise(1, 1, 24, 24)) / 255
    assert fmi(image, image, image).item() == 1
    assert fmi(torch.full_like(image, 0.5), image, image).item() == 0
    # the opposite gradient is another distribution, but tells much of it
    assert 0.1 < fmi(1 - image, image, image).item() < 0.9


def test_normalised_information_of_a_copy():
    image, blank = noise(1, 1, 24, 24), torch.zeros(1, 1, 24, 24).double()
    assert normalised_mutual_information(image, image, image).item() == pytest.approx(2)
    assert normalised_mutual_information(image, image, blank).item() == pytest.approx(1)
    assert normalised_mutual_information(blank, blank, blank).item() == 0


# --- several at once


def test_one_call_is_the_single_functions():
    images = triple(batch=3, side=176, dtype=torch.float32)
    got = fusion_metrics(*images)
    assert list(got) == list(FUNCTIONS) == list(FUSION_METRICS)
    for name, values in got.items():
        assert torch.equal(values, FUNCTIONS[name](*taken(name, images))), name


def test_one_call_of_some():
    images = [image * 4 for image in triple(batch=2)]
    got = fusion_metrics(*images, names=("VIF", "EN"), data_range=4.0)
    assert list(got) == ["VIF", "EN"]
    assert torch.equal(got["EN"], entropy(images[0], 4.0))
    assert fusion_metrics(*images, names=[]) == {}
    with pytest.raises(ValueError, match=r"unknown metrics \['vif'\]; there are \['MI', "):
        fusion_metrics(*images, names=["MI", "vif"])
    with pytest.raises(ValueError, match="MS-SSIM needs images of at least 176 x 176 pixels, got 48 x 48"):
        fusion_metrics(*images)
    with pytest.raises(ValueError, match="differ in shape"):
        fusion_metrics(images[0], images[1], images[2][:1], names=["EN"])


def test_what_lower_is_better():
    assert [name for name, metric in FUSION_METRICS.items() if not metric.higher_is_better] == ["Nabf", "MSE"]
    coarse = torch.nn.functional.interpolate(noise(3, 1, 12, 12), size=(176, 176), mode="bicubic")
    anatomy, overlay, other = quantise(coarse)[:, None] / 255
    faint, noisy = 0.5 + 0.02 * other, noise(1, 1, 176, 176)
    for name in FUSION_METRICS.keys() - set(OF_FUSED_ALONE):
        worse = noisy if name == "Nabf" else faint
        good, bad = (FUNCTIONS[name](image, anatomy, overlay).item() for image in ((anatomy + overlay) / 2, worse))
        assert (good > bad) == FUSION_METRICS[name].higher_is_better, name


def test_images_are_measured_in_chunks(monkeypatch):
    monkeypatch.setattr(_helpers, "_CHUNK_CPU", 3 * 32 * 30)
    seen = []

    def spy(images):
        seen.append(images.grey.shape[0])
        return images.fused.sum((1, 2, 3))

    fused = noise(8, 1, 32, 30)
    (got,) = _helpers.measure_each([spy], fused, fused, fused, data_range=255.0)
    assert sorted(seen) == [2, 3, 3]
    torch.testing.assert_close(got, fused.sum((1, 2, 3)))
    seen.clear()
    _helpers.measure(spy, noise(2, 1, 90, 90), data_range=1.0)  # larger than a chunk
    assert seen == [1, 1]


# --- shapes, types, batches


@every_metric
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_any_split_of_a_batch_gives_the_same_bits(name, dtype):
    images, metric = images_of(name, batch=5, side=max(64, SMALLEST.get(name, 1)), dtype=dtype), FUNCTIONS[name]
    whole = metric(*images)
    assert whole.shape == (5,)
    assert whole.unique().numel() == 5
    for size in (1, 2, 4):
        parts = [metric(*part) for part in zip(*(image.split(size) for image in images), strict=True)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.slow
@every_metric
def test_threads_change_nothing(name):
    # larger than what torch gives to a single thread, and than a chunk
    images, threads = images_of(name, batch=3, side=192, dtype=torch.float32), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = FUNCTIONS[name](*images)
        torch.set_num_threads(2)
        parts = [FUNCTIONS[name](*(image[i : i + 1] for image in images)) for i in range(3)]
        together = FUNCTIONS[name](*images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(together, whole)


def test_threads_hand_errors_on_and_give_no_gradient(monkeypatch):
    monkeypatch.setattr(_helpers, "_CHUNK_CPU", 1)
    threads = torch.get_num_threads()

    def broken(images):
        raise RuntimeError("broken metric")

    try:
        torch.set_num_threads(2)
        images = [image.requires_grad_() for image in triple(batch=3, side=16)]
        with torch.no_grad(), pytest.raises(RuntimeError, match="broken metric"):
            _helpers.measure(broken, *images, data_range=1.0)
        assert torch.get_num_threads() == 2
        with torch.no_grad():
            assert not ssim(*images).requires_grad
        with torch.inference_mode():
            inferred = ssim(*triple(batch=3, side=16))
        torch.testing.assert_close(inferred, ssim(*images).detach(), rtol=0, atol=0)
        assert ssim(*images).requires_grad
    finally:
        torch.set_num_threads(threads)


@every_metric
def test_no_image_at_all(name):
    assert FUNCTIONS[name](*images_of(name, batch=0)).shape == (0,)


@every_metric
def test_data_range_is_only_a_scale(name):
    images, metric = [quantise(image) for image in images_of(name, batch=2)], FUNCTIONS[name]
    expected = metric(*images, data_range=255)
    torch.testing.assert_close(metric(*(image / 255 for image in images)), expected)
    torch.testing.assert_close(metric(*(image.to(torch.uint8) for image in images), data_range=255), expected.float())


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(name, dtype):
    images, metric = [image.to(dtype) for image in images_of(name, batch=2)], FUNCTIONS[name]
    got = metric(*images)
    assert got.dtype == torch.float32
    assert torch.equal(got, metric(*(image.float() for image in images)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric(*(image.float() for image in images)), got)


@every_metric
def test_float64_wins_over_float32(name):
    fused, *sources = images_of(name)
    got = FUNCTIONS[name](fused, *(source.float() for source in sources))
    assert got.dtype == torch.float64
    assert torch.equal(got, FUNCTIONS[name](fused, *(source.float().double() for source in sources)))


@every_metric
def test_plain_tensors_come_out(name):
    images, metric = images_of(name, dtype=torch.float32), FUNCTIONS[name]
    got = metric(*(MetaTensor(image) for image in images))
    assert type(got) is torch.Tensor
    assert torch.equal(got, metric(*images))


@every_metric
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows_in_its_image_only(name, value):
    expected = FUNCTIONS[name](*images_of(name, batch=3, dtype=torch.float32))
    for place in range(len(images_of(name))):
        images = images_of(name, batch=3, dtype=torch.float32)
        images[place][1, 0, 20, 20] = value
        got = FUNCTIONS[name](*images)
        assert got[1].isnan()
        assert torch.equal(got[::2], expected[::2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_in_one_call_of_all(value):
    """A broken source is none of the business of metrics that look at the fused image alone."""
    for place in range(3):
        images = triple(batch=2, side=176, dtype=torch.float32)
        expected = fusion_metrics(*images)
        images[place][0, 0, 0, 0] = value
        got = fusion_metrics(*images)
        for name, values in got.items():
            touched = place == 0 or name not in OF_FUSED_ALONE
            assert values.isnan().tolist() == [touched, False], name
            assert torch.equal(values[int(touched) :], expected[name][int(touched) :]), name


@every_metric
def test_wrong_input_is_refused(name):
    side, metric, sources = max(48, SMALLEST.get(name, 1)), FUNCTIONS[name], 0 if name in OF_FUSED_ALONE else 2
    good = torch.zeros(2, 1, side, side)
    with pytest.raises(TypeError, match="ndarray"):
        metric(good.numpy(), *[good] * sources)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        metric(*[good.expand(2, 3, side, side)] * (1 + sources))
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        metric(*[good[0]] * (1 + sources))
    if sources:
        with pytest.raises(ValueError, match="differ in shape"):
            metric(good, good[:1], good)
    for data_range in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="data_range"):
            metric(*[good] * (1 + sources), data_range)


def test_images_smaller_than_the_window_are_refused():
    smallest = {FUNCTIONS[name]: side for name, side in SMALLEST.items()} | {ssim_single: 7, vif_single: 41}
    for metric, side in smallest.items():
        count = 2 if "single" in metric.__name__ else 3
        assert metric(*[torch.zeros(1, 1, side, side)] * count).isfinite().all()
        with pytest.raises(ValueError, match=f"at least {side} x {side} pixels, got 190 x {side - 1}"):
            metric(*[torch.zeros(1, 1, 190, side - 1)] * count)


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="4 bins or more, got 3"):
        parzen_mutual_information(*triple(), bins=3)


def test_the_table_tells_what_a_metric_takes():
    assert {name: metric.function for name, metric in FUSION_METRICS.items()} == FUNCTIONS
    assert {name for name, metric in FUSION_METRICS.items() if metric.of_fused_alone} == set(OF_FUSED_ALONE)


def test_public_names():
    assert sorted(functional.__all__) == functional.__all__
    assert all(hasattr(functional, name) for name in functional.__all__)
