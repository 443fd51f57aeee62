import pytest
import torch
from monai.bundle import ConfigParser

from evaluation.functional import (
    average_gradient,
    correlation,
    parzen_mutual_information,
    qabf,
    scd,
    spatial_frequency,
    ssim,
    vif,
)
from fusion_nets.losses import DMFNetLoss, FusionLoss, MetricLoss

LOSSES = [DMFNetLoss(), FusionLoss(), MetricLoss(), MetricLoss(mi=0.5, cc=1.0, scd=1.0, sf=1.0, ag=1.0)]


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 2, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)


def test_published_loss_of_the_ideal_image_is_zero(image):
    same = image[:, :1].expand(-1, 2, -1, -1)
    assert DMFNetLoss()(image[:, :1], same).item() == pytest.approx(0, abs=1e-5)


def test_published_loss_is_the_weighted_sum_of_its_terms(image):
    fused = image.mean(1, keepdim=True)
    whole = DMFNetLoss()(fused, image)
    terms = [DMFNetLoss(*weights)(fused, image) for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(term > 0 for term in terms)
    torch.testing.assert_close(whole, 1.5 * terms[0] + terms[1] + 0.5 * terms[2])


def test_published_intensity_and_gradient_by_hand():
    image = torch.zeros(1, 2, 32, 32)
    image[:, 0, :, 16:] = 1
    fused = torch.zeros(1, 1, 32, 32)
    # half of the pixels are 2 (in [-1, 1]) too dark; the edge's response is 8 over two of 32 columns
    assert DMFNetLoss(1, 0, 0)(fused, image).item() == pytest.approx(1)
    assert DMFNetLoss(0, 1, 0)(fused, image).item() == pytest.approx(8 * 2 / 32)


def test_published_structure_follows_the_livelier_source(image):
    lively = torch.cat([image[:, :1], torch.full_like(image[:, :1], 0.5)], dim=1)
    only_structure = DMFNetLoss(0, 0, 1)
    assert only_structure(image[:, :1], lively).item() == pytest.approx(0, abs=1e-5)
    assert only_structure(lively[:, 1:], lively).item() > 0.5


def test_fusion_loss_of_the_ideal_image_is_zero(image):
    same = image[:, :1].expand(-1, 2, -1, -1)
    assert FusionLoss()(image[:, :1], same).item() == pytest.approx(0, abs=1e-5)


def test_fusion_loss_by_hand():
    image = torch.zeros(1, 2, 32, 32)
    image[:, 0, :, 16:] = 1
    image[:, 1] = 0.25
    brighter = image.amax(1, keepdim=True)
    dark = torch.zeros(1, 1, 32, 32)
    assert FusionLoss(1, 0, 0)(brighter, image).item() == 0
    assert FusionLoss(1, 0, 0)(dark, image).item() == pytest.approx((1 + 0.25) / 2)
    # the edge's response is 4 over two of 32 columns; in the maximum it is a quarter less
    assert FusionLoss(0, 1, 0)(dark, image).item() == pytest.approx(4 * 2 / 32, rel=1e-3)
    assert FusionLoss(0, 1, 0)(brighter, image).item() == pytest.approx(1 * 2 / 32, rel=1e-3)
    assert FusionLoss(0, 1, 0)(image[:, :1], image).item() == pytest.approx(0, abs=1e-6)


def test_fusion_loss_takes_the_magnitude_of_edges():
    """Along a diagonal ramp, both responses are alike, and their root of squares counts."""
    ramp = (torch.arange(32.0)[:, None] + torch.arange(32.0)) / 64
    image = torch.stack([ramp, torch.zeros(32, 32)])[None]
    inside = FusionLoss(0, 1, 0)(torch.zeros(1, 1, 32, 32), image).item()
    # 8 / 64 across and down; replicated borders, of which the response is half, lower the mean
    border = (8 / 64) * (4 * 31 / 32**2) * (2**0.5 - 1.25**0.5)
    assert inside == pytest.approx(8 / 64 * 2**0.5 - border, rel=0.01)


def test_fusion_loss_counts_the_structure_of_both_sources(image):
    fused = image.mean(1, keepdim=True)
    expected = 2 - ssim(fused, image[:, :1], image[:, 1:]).mean()
    torch.testing.assert_close(FusionLoss(0, 0, 1)(fused, image), expected)


def test_fusion_loss_is_the_weighted_sum_of_its_terms(image):
    fused = image.mean(1, keepdim=True)
    terms = [FusionLoss(*weights)(fused, image) for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(term > 0 for term in terms)
    torch.testing.assert_close(FusionLoss()(fused, image), terms[0] + terms[1] + 0.5 * terms[2])
    torch.testing.assert_close(FusionLoss()(fused, image.flip(1)), FusionLoss()(fused, image))


def test_metric_loss_is_what_the_metrics_say(image):
    fused = (image.mean(1, keepdim=True) * 255).round() / 255
    anatomy, overlay = image[:, :1], image[:, 1:]
    expected = (
        3 * (fused - image.amax(1, keepdim=True)).abs().mean()
        + 2 * (1 - qabf(fused, anatomy, overlay).mean())
        + (2 - vif(fused, anatomy, overlay).mean())
        + (2 - ssim(fused, anatomy, overlay).mean())
    )
    torch.testing.assert_close(MetricLoss()(fused, image), expected)


def test_metric_loss_of_every_metric(image):
    fused = (image.mean(1, keepdim=True) * 255).round() / 255
    anatomy, overlay = image[:, :1], image[:, 1:]
    metrics = {
        "mi": -parzen_mutual_information(fused, anatomy, overlay),
        "cc": 1 - correlation(fused, anatomy, overlay),
        "scd": 2 - scd(fused, anatomy, overlay),
        "sf": -spatial_frequency(fused) / 255,
        "ag": -average_gradient(fused) / 255,
    }
    none = dict.fromkeys(("qabf", "vif", "ssim", "intensity"), 0.0)
    for name, term in metrics.items():
        torch.testing.assert_close(MetricLoss(**none, **{name: 2.0})(fused, image), 2 * term.mean())
    every = MetricLoss(**dict.fromkeys(metrics, 1.0))(fused, image)
    torch.testing.assert_close(every, MetricLoss()(fused, image) + sum(term.mean() for term in metrics.values()))


@pytest.mark.parametrize("overlays", [2, 3])
def test_metric_loss_of_several_overlays_weighs_sums_as_of_two_sources(overlays):
    generator = torch.Generator().manual_seed(1)
    sources = torch.rand(2, 1 + overlays, 48, 48, generator=generator)
    fused = (sources.mean(1, keepdim=True) * 255).round() / 255
    anatomy, apart, count = sources[:, :1], list(sources[:, 1:].split(1, dim=1)), 1 + overlays
    metrics = {
        "qabf": 1 - qabf(fused, anatomy, apart),
        "vif": (count - vif(fused, anatomy, apart)) * 2 / count,
        "ssim": (count - ssim(fused, anatomy, apart)) * 2 / count,
        "mi": -parzen_mutual_information(fused, anatomy, apart) * 2 / count,
        "cc": 1 - correlation(fused, anatomy, apart),
        "sf": -spatial_frequency(fused) / 255,
    }
    none = dict.fromkeys(("qabf", "vif", "ssim", "intensity"), 0.0)
    for name, term in metrics.items():
        torch.testing.assert_close(MetricLoss(**{**none, name: 3.0})(fused, sources), 3 * term.mean())
    brightest = (fused - sources.amax(1, keepdim=True)).abs().mean()
    torch.testing.assert_close(MetricLoss(0, 0, 0, 2.0)(fused, sources), 2 * brightest)
    torch.testing.assert_close(
        MetricLoss()(fused, sources[:, [0, *range(overlays, 0, -1)]]), MetricLoss()(fused, sources)
    )


def test_metric_loss_of_the_same_source_twice_is_about_that_of_two(image):
    """Were sums not brought to two sources, a third would shift what edges weigh against them."""
    fused, loss = image[:, :1], MetricLoss(0, 1.0, 1.0, 0)
    same = image[:, :1]
    torch.testing.assert_close(loss(fused, torch.cat([same] * 4, 1)), loss(fused, torch.cat([same] * 2, 1)))


def test_metric_loss_of_several_overlays_refuses_what_is_defined_for_two():
    sources = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"SCD is defined for two sources.*got 3"):
        MetricLoss(scd=0.1)(sources.mean(1, keepdim=True), sources)


def test_metric_loss_from_a_bundle(image):
    configuration = {"loss": {"_target_": "fusion_nets.losses.MetricLoss", "cc": 1.0, "scd": 0.5, "mi": 0.1}}
    loss = ConfigParser(configuration).get_parsed_content("loss")
    fused = image.mean(1, keepdim=True).requires_grad_()
    loss(fused, image).backward()
    assert fused.grad.isfinite().all()
    assert fused.grad.abs().max() > 0


def test_metric_loss_sees_the_stored_image(image):
    fused = image.mean(1, keepdim=True)
    stored = (fused * 255).round() / 255
    torch.testing.assert_close(MetricLoss()(fused, image), MetricLoss()(stored, image))


@pytest.mark.parametrize("loss", LOSSES)
def test_following_the_gradient_lowers_the_loss(loss, image):
    fused = image.mean(1, keepdim=True).clone().requires_grad_()
    optimizer = torch.optim.Adam([fused], lr=0.01)
    first = loss(fused, image)
    for _ in range(10):
        optimizer.zero_grad()
        loss(fused, image).backward()
        assert fused.grad.isfinite().all()
        optimizer.step()
    assert loss(fused, image) < first - 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_background_alone_gives_finite_gradients(loss):
    fused = torch.zeros(1, 1, 64, 64, requires_grad=True)
    loss(fused, torch.zeros(1, 2, 64, 64)).backward()
    assert fused.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_predictions_are_measured_in_float32(loss, image):
    assert loss(image[:, :1].bfloat16(), image).dtype == torch.float32
