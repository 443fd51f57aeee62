"""What is measured of volumes as such: similarity in blocks, and flicker from slice to slice."""

import math
import sys

import pytest
import torch
from fusion_images import noise
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SimpleInferer
from monai.metrics import SSIMMetric
from skimage.metrics import structural_similarity

from evaluation import FusionFlicker, FusionFlickerMetric, FusionSSIM3D, FusionSSIM3DMetric
from evaluation.functional import _helpers, flicker, quantise, ssim_3d

SHAPE = (26, 24, 15)


def study(batch=2, shape=SHAPE, sources=2, seed=0, dtype=torch.float64):
    """Fused volumes and sources with structure, in [0, 1]."""
    coarse = noise(sources, batch, 6, 6, 4, seed=seed, dtype=dtype)
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    given = 0.8 * smooth + 0.2 * noise(sources, batch, *shape, seed=seed + 1, dtype=dtype)
    fused = (0.6 * given[0] + 0.4 * given[1:].mean(0)) ** 1.2
    return fused[:, None], [source[:, None] for source in given]


# --- similarity in blocks


@pytest.mark.parametrize(
    ("spacing", "sides", "sigmas"),
    [
        ((1, 1, 1), (11, 11, 11), (1.5, 1.5, 1.5)),
        ((0.5, 0.5, 2), (11, 11, 3), (1.5, 1.5, 0.375)),
        ((0.5, 1, 6), (11, 7, 1), (1.5, 0.75, 0.125)),
    ],
)
def test_blocks_are_those_of_monai(spacing, sides, sigmas):
    fused, (anatomy, overlay) = study()
    monai = SSIMMetric(3, data_range=1.0, win_size=sides, kernel_sigma=sigmas)
    expected = monai(fused, anatomy)[:, 0] + monai(fused, overlay)[:, 0]
    torch.testing.assert_close(ssim_3d(fused, anatomy, overlay, spacing=spacing).float(), expected, rtol=0, atol=2e-5)


def test_blocks_are_those_of_scikit_image():
    fused, (anatomy, overlay) = study(batch=1)
    options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = sum(
        structural_similarity(fused[0, 0].numpy(), source[0, 0].numpy(), **options) for source in (anatomy, overlay)
    )
    assert ssim_3d(fused, anatomy, overlay).item() == pytest.approx(expected, rel=1e-9)


def test_slabs_change_nothing(monkeypatch):
    fused, sources = study(shape=(12, 12, 40))
    whole = ssim_3d(fused, *sources)
    module = sys.modules[ssim_3d.__module__]
    monkeypatch.setattr(module, "_VOXELS", 1)
    for slices in (1, 7, 30):
        monkeypatch.setattr(module, "_SLICES", slices)
        torch.testing.assert_close(ssim_3d(fused, *sources), whole, rtol=1e-12, atol=0)


def test_slices_far_apart_are_seen_one_by_one():
    fused, (anatomy, overlay) = study(shape=(24, 24, 3))
    far = ssim_3d(fused, anatomy, overlay, spacing=(1, 1, 50))
    each = [
        ssim_3d(*(image[..., d : d + 1] for image in (fused, anatomy, overlay)), spacing=(1, 1, 50)) for d in range(3)
    ]
    torch.testing.assert_close(far, sum(each) / 3)
    with pytest.raises(ValueError, match="volumes of at least 11 x 11 x 11 voxels, got 24 x 24 x 3"):
        ssim_3d(fused, anatomy, overlay)


def test_copies_sums_and_gradients():
    fused, sources = study(sources=3)
    torch.testing.assert_close(ssim_3d(fused, fused, [fused] * 2), torch.full((2,), 3.0, dtype=torch.float64))
    alone = [ssim_3d(fused, source, source) / 2 for source in sources]
    torch.testing.assert_close(ssim_3d(fused, sources[0], sources[1:]), sum(alone))
    small, others = study(batch=1, shape=(12, 11, 4))
    assert torch.autograd.gradcheck(
        lambda image: ssim_3d(image, *others, spacing=(1, 1, 4)), small.requires_grad_(), fast_mode=True
    )


# --- flicker


def test_flicker_by_hand():
    anatomy, overlay = torch.zeros(2, 1, 1, 2, 2, 4)
    anatomy[..., 1:] = 0.2  # a step of 51 levels before the second slice, in all columns
    fused = anatomy.clone()
    assert flicker(fused, anatomy, overlay).item() == 0
    fused[..., 0, 0, 3] = 0.6  # 102 levels, once in 12 pairs of voxels
    fused[..., 1, 1, 1] = 0.3  # beyond the source's step by 25.5 levels, and 25.5 back
    fused[..., 1, 1, 0] = 0.0
    assert flicker(fused, anatomy, overlay).item() == pytest.approx((102 + 25.5 + 25.5) / 12)


def test_what_follows_its_sources_does_not_flicker():
    _, sources = study(sources=3)
    stacked = torch.stack(sources)
    for fused in (sources[0], sources[2], stacked.mean(0), stacked.amax(0), stacked.amin(0)):
        assert flicker(fused, sources[0], sources[1:]).max() < 1e-12


def test_what_changes_its_source_from_slice_to_slice_does():
    _, (anatomy, overlay) = study()
    odd = torch.arange(SHAPE[2]) % 2 == 1
    values = [
        flicker(torch.where(odd, share * overlay + (1 - share) * anatomy, anatomy), anatomy, overlay)
        for share in (0, 0.3, 1)
    ]
    assert (values[0] == 0).all()
    assert (values[1] > 0.1).all()
    assert (values[2] > 3 * values[1]).all()


def test_flicker_is_of_the_last_axis_alone():
    fused, (anatomy, overlay) = study()
    banded = fused + 0.1 * (torch.arange(SHAPE[0]) % 2)[:, None, None]
    within = flicker(banded, anatomy, overlay)
    across = flicker(*(image.movedim(2, 4) for image in (banded, anatomy, overlay)))
    assert (across > 4 * within).all()
    assert flicker(fused[..., :1], anatomy[..., :1], overlay[..., :1]).isnan().all()


# --- both


@pytest.mark.parametrize("function", [ssim_3d, flicker])
def test_values_depend_on_no_neighbour_in_the_batch(function):
    fused, (anatomy, *overlays) = study(batch=3, sources=3, dtype=torch.float32)
    whole = function(fused, anatomy, overlays)
    parts = [function(fused[i : i + 1], anatomy[i : i + 1], [o[i : i + 1] for o in overlays]) for i in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    torch.testing.assert_close(function(fused, anatomy, overlays[::-1]), whole)
    fused[1, 0, 0, 0, 0] = math.nan
    assert function(fused, anatomy, overlays).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("function", [ssim_3d, flicker])
def test_wrong_volumes_are_refused(function):
    fused, (anatomy, overlay) = study()
    with pytest.raises(ValueError, match=r"shape \(B, 1, H, W, D\), got \(2, 1, 26, 24\)"):
        function(*(image[..., 0] for image in (fused, anatomy, overlay)))
    with pytest.raises(ValueError, match="differ in shape"):
        function(fused, anatomy, overlay[..., 1:])
    with pytest.raises(ValueError, match="data_range"):
        function(fused * 255, anatomy, overlay)
    for spacing in ((1, 1), (1, 1, 0), (1, 1, math.nan)):
        with pytest.raises(ValueError, match="three positive numbers"):
            ssim_3d(fused, anatomy, overlay, spacing=spacing)


@pytest.mark.parametrize(("metric", "function"), [(FusionSSIM3DMetric, ssim_3d), (FusionFlickerMetric, flicker)])
def test_metrics_are_their_functions(metric, function):
    fused, sources = study(batch=3, sources=3, dtype=torch.float32)
    y = torch.cat(sources, dim=1)
    y[1] = 0.5  # no content
    levels = [quantise(image) for image in (fused, *y.split(1, dim=1))]
    expected = function(levels[0], levels[1], levels[2:], 255)
    meter = metric(get_not_nans=True)
    got = meter(y_pred=fused, y=y)
    assert got.shape == (3, 1)
    assert got[1].isnan()
    assert torch.equal(got[::2, 0], expected[::2])
    assert torch.equal(metric(quantise=False)(y_pred=fused, y=y)[0], function(fused, sources[0], sources[1:])[:1])
    listed = metric()(y_pred=[MetaTensor(one) for one in fused], y=[MetaTensor(one) for one in y])
    torch.testing.assert_close(listed, got, equal_nan=True)
    mean, count = meter.aggregate()
    assert count == 2
    assert mean.item() == pytest.approx(expected[::2].mean().item())
    with pytest.raises(ValueError, match=rf"{metric.__name__} expects y_pred, the fused volumes"):
        metric()(y_pred=fused[..., 0], y=y[..., 0])


def test_spacing_is_that_of_the_header():
    fused, sources = study(dtype=torch.float32)
    y = torch.cat(sources, dim=1)
    headers = [torch.diag(torch.tensor([*edges, 1.0])) for edges in ((1, 1, 4), (2, 2, 2))]
    expected = [
        FusionSSIM3DMetric(spacing=edges)(y_pred=fused[i : i + 1], y=y[i : i + 1])
        for i, edges in enumerate(((1, 1, 4), (1, 1, 1)))
    ]
    got = FusionSSIM3DMetric()(
        y_pred=list(fused), y=[MetaTensor(one, affine=affine) for one, affine in zip(y, headers, strict=True)]
    )
    assert torch.equal(got, torch.cat(expected))
    assert not torch.equal(got, FusionSSIM3DMetric()(y_pred=fused, y=y))


@pytest.mark.parametrize("decollate", [True, False], ids=["lists", "batches"])
def test_in_an_evaluator(decollate):
    _, sources = study(dtype=torch.float32)
    images = torch.cat(sources, dim=1)
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0]))

    class Mean(torch.nn.Module):
        def forward(self, image):
            return image.mean(1, keepdim=True)

    output = from_engine(["pred", "image"])
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(
            Dataset([{"image": MetaTensor(image, affine=affine), "label": torch.zeros(1)} for image in images]), 2
        ),
        network=Mean(),
        inferer=SimpleInferer(),
        key_val_metric={
            "blocks": FusionSSIM3D(output_transform=output),
            "cubes": FusionSSIM3D(output_transform=output, spacing=(1, 1, 1)),
            "flicker": FusionFlicker(output_transform=output),
        },
        decollate=decollate,
    )
    engine.run()
    levels = [quantise(image) for image in (Mean()(images), *images.split(1, dim=1))]
    blocks, cubes = (ssim_3d(*levels, 255, spacing).mean().item() for spacing in ((1, 1, 3), (1, 1, 1)))
    assert engine.state.metrics["blocks"] == pytest.approx(blocks, rel=1e-5)
    assert engine.state.metrics["cubes"] == pytest.approx(cubes, rel=1e-5)
    assert engine.state.metrics["flicker"] == pytest.approx(flicker(*levels, 255).mean().item(), abs=1e-6)


def test_volumes_are_measured_in_chunks(monkeypatch):
    monkeypatch.setattr(_helpers, "_CHUNK_CPU", 2 * math.prod(SHAPE))
    fused, sources = study(batch=3)
    whole = flicker(fused**3, *sources)
    assert len(whole) == 3
    monkeypatch.setattr(_helpers, "_CHUNK_CPU", 1)
    assert torch.equal(flicker(fused**3, *sources), whole)
