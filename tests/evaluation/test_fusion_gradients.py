"""The metrics as training losses: gradients right, finite, and of use."""

import pytest
import torch
from fusion_images import noise, triple

from evaluation.functional import (
    average_gradient,
    correlation,
    mean_squared_error,
    ms_ssim,
    parzen_mutual_information,
    qabf,
    scd,
    spatial_frequency,
    ssim,
    standard_deviation,
    vif,
)

# what each gives its gradient for, and on how large an image it is held against differences
LOSSES = {
    ssim: 10,
    qabf: 8,
    vif: 41,
    correlation: 8,
    scd: 8,
    mean_squared_error: 8,
    parzen_mutual_information: 8,
    spatial_frequency: 8,
    average_gradient: 8,
    standard_deviation: 8,
    ms_ssim: 176,
}
# on crops of 44 x 44; without the error in squared grey levels, whose gradient is as large as they are
BOUNDED = [metric for metric, side in LOSSES.items() if side <= 44 and metric is not mean_squared_error]
ALONE = (spatial_frequency, average_gradient, standard_deviation)


def name_of(function):
    return function.__name__


def of_fused(metric, anatomy, overlay):
    return metric if metric in ALONE else lambda fused: metric(fused, anatomy, overlay)


@pytest.mark.parametrize(("metric", "side"), LOSSES.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_gradient(metric, side):
    fused, anatomy, overlay = triple(batch=1 if side > 10 else 2, side=side)
    # random directions instead of every pixel where there are many
    assert torch.autograd.gradcheck(of_fused(metric, anatomy, overlay), fused.requires_grad_(), fast_mode=side > 10)


def crops(dtype):
    """What random crops of studies and a network's output can hold."""
    image, other = noise(2, 44, 44, dtype=dtype)
    edge = torch.zeros(44, 44, dtype=dtype)
    edge[:, 20:] = 0.8
    return {
        "black": torch.zeros(44, 44, dtype=dtype),
        "constant": torch.full((44, 44), 0.3, dtype=dtype),
        "white": torch.ones(44, 44, dtype=dtype),
        "noise": image,
        "other": other,
        "vanishing": image * 1e-22,
        "denormal": image * 1e-43,
        "nearly constant": 0.9 + 1e-6 * image,
        "faint": 0.4 + (image > 0.5) / 255,
        "edge": edge,
        "half": torch.where(edge > 0, image, 0.0),
        "rim": torch.where(edge > 0, 0.9 + 1e-6 * image, 0.0),
        "other rim": torch.where(edge > 0, 0.9 + 1e-6 * other, 0.0),
    }


@pytest.mark.parametrize("metric", BOUNDED, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients_are_finite_everywhere(metric, dtype):
    images = crops(dtype)
    names = [(f, a, o) for f in images for a in images for o in ("black", "noise", "faint")]
    fused, anatomy, overlay = (torch.stack([images[n[i]] for n in names])[:, None] for i in range(3))
    fused.requires_grad_()
    value = of_fused(metric, anatomy, overlay)(fused)
    value.sum().backward()
    assert [n for n, v in zip(names, value, strict=True) if not v.isfinite()] == []
    assert [n for n, g in zip(names, fused.grad, strict=True) if not g.isfinite().all()] == []
    # no single pixel of a crop may outweigh a whole image: clipping would then throw away all else
    assert [n for n, g in zip(names, fused.grad, strict=True) if g.abs().max() > 10] == []
    moves = {n: g.abs().max().item() for n, g in zip(names, fused.grad, strict=True)}
    assert moves["other", "half", "noise"] > 1e-4


@pytest.mark.parametrize(("metric", "side"), LOSSES.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_ascent_improves(metric, side):
    """Following the gradient raises the metric: its sign and scale serve training."""
    _, anatomy, overlay = triple(side=max(48, side), dtype=torch.float32)
    fused = ((anatomy + overlay) / 2 * 0.5 + 0.2).requires_grad_()
    measure = of_fused(metric, anatomy, overlay)
    before = measure(fused)
    (slope,) = torch.autograd.grad(before.sum(), fused)
    after = measure(fused + 1e-3 * slope / slope.abs().max())
    assert after.item() > before.item()


@pytest.mark.parametrize(("metric", "side"), LOSSES.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_gradient_reaches_half_precision_networks(metric, side):
    fused, anatomy, overlay = triple(side=max(48, side), dtype=torch.float32)
    half = fused.to(torch.bfloat16).requires_grad_()
    of_fused(metric, anatomy, overlay)(half).sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.isfinite().all()
    assert half.grad.abs().max() > 0
