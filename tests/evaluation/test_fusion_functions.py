import json
import math

import numpy as np
import plain_metrics
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import SSIMMetric
from PIL import Image

from evaluation import functional
from evaluation.functional import mutual_information, qabf, quantise, ssim, ssim_single, vif, vif_single

METRICS = [mutual_information, ssim, qabf, vif]
LOSSES = [ssim, qabf, vif]
GOLDEN = {"MI": mutual_information, "SSIM": ssim, "Qabf": qabf, "VIF": vif}


def name_of(function):
    return function.__name__


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def triple(batch=1, side=48, seed=0, dtype=torch.float64):
    """A fused image and two sources that share some of its structure."""
    anatomy, overlay, own = noise(3, batch, 1, side, side, seed=seed, dtype=dtype)
    return 0.5 * anatomy + 0.3 * overlay + 0.2 * own, anatomy, overlay


# --- agreement with published definitions


def luminance(path):
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    return np.rint(rgb @ [299, 587, 114] / 1000)


@pytest.fixture(scope="module")
def golden(shared):
    """Every golden case: its values and its images in grey levels, (3, N, 1, H, W), fused first."""
    cases = json.loads((shared / "reference" / "metrics" / "golden.json").read_text())
    images = []
    for case in cases:
        pair, name = case["pair"], case["name"]
        folder = shared / "data" / "aanlib" / pair
        anatomy = luminance(folder / "MRI" / name)
        overlay = luminance(folder / pair.removesuffix("-MRI") / name)
        fused = {
            "published": lambda: luminance(
                (shared / "data" / "published" / "dmfnet" / pair / name).with_suffix(".jpg")  # noqa: B023
            ),
            "maximum": lambda: np.maximum(anatomy, overlay),  # noqa: B023
            "average": lambda: np.rint((anatomy + overlay) / 2),  # noqa: B023
        }[case["fused"]]()
        images.append(np.stack([fused, anatomy, overlay]))
    return [case["metrics"] for case in cases], torch.tensor(np.stack(images, axis=1))[:, :, None]


@pytest.mark.parametrize("metric", GOLDEN)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_golden_values(golden, metric, dtype, tolerance):
    expected, images = golden
    got = torch.cat([GOLDEN[metric](*part) for part in (images.to(dtype) / 255).split(2, dim=1)])
    assert got.dtype == dtype
    np.testing.assert_allclose(got, [values[metric] for values in expected], rtol=0, atol=tolerance)


def test_golden_values_of_each_source(golden):
    expected, (fused, anatomy, overlay) = golden[0], golden[1].float()
    got = torch.stack([vif_single(anatomy, fused, 255), vif_single(overlay, fused, 255)], dim=1)
    np.testing.assert_allclose(got, [[v["VIF_anatomy"], v["VIF_overlay"]] for v in expected], rtol=0, atol=1e-4)


def levels(kind, side, seed=0):
    """Images of whole grey levels that a metric may stumble over."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (side, side)).astype(float)
    if kind == "black":
        return np.zeros((side, side))
    if kind == "grey":
        return np.full((side, side), 77.0)
    if kind == "white":
        return np.full((side, side), 255.0)
    if kind == "binary":
        return np.where(image > 127, 255.0, 0.0)
    if kind == "faint":
        return 100 + image % 2
    if kind == "step":
        return np.where(np.arange(side) < side // 2, 0.0, 255.0) * np.ones((side, 1))
    if kind == "dot":
        dot = np.zeros((side, side))
        dot[side // 2, side // 2] = 255
        return dot
    return image


KINDS = ["noise", "black", "grey", "white", "binary", "faint", "step", "dot"]


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_plain_program(metric, kind):
    plain = getattr(plain_metrics, metric.__name__)
    images = []
    for other in KINDS:
        fused, anatomy, overlay = levels("noise", 45, 1), levels(kind, 45, 2), levels(other, 45, 3)
        images += [[fused, anatomy, overlay], [anatomy, fused, overlay], [anatomy, anatomy, overlay]]
    expected = [plain(*three) for three in images]
    batch = torch.tensor(np.array(images)).transpose(0, 1)[:, :, None]
    np.testing.assert_allclose(metric(*batch, data_range=255), expected, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(metric(*batch.float(), data_range=255), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("metric", "shape"),
    [
        (mutual_information, (1, 1)),
        (mutual_information, (2, 5)),
        (qabf, (1, 1)),
        (qabf, (1, 4)),
        (ssim, (7, 7)),
        (ssim, (7, 12)),
        (vif, (41, 41)),
        (vif, (41, 64)),
    ],
)
def test_smallest_and_oblong_images(metric, shape):
    images = np.random.default_rng(3).integers(0, 256, (3, *shape)).astype(float)
    plain = getattr(plain_metrics, metric.__name__)
    got = metric(*torch.tensor(images)[:, None, None], data_range=255)
    assert got.item() == pytest.approx(plain(*images), rel=1e-9, abs=1e-9)


def test_ssim_is_monais_where_their_definitions_meet():
    # MONAI divides by n where ours divides by n - 1: the same, but for a constant that k2 can carry
    fused, anatomy, overlay = triple(batch=3)
    same = SSIMMetric(2, kernel_type="uniform", win_size=7, k2=0.03 * math.sqrt(48 / 49))
    expected = same(fused, anatomy) + same(fused, overlay)
    torch.testing.assert_close(ssim(fused, anatomy, overlay), expected[:, 0].double(), rtol=0, atol=1e-5)


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
    torch.testing.assert_close(vif_single(anatomy, fused) + vif_single(overlay, fused), vif(fused, anatomy, overlay))
    assert not torch.allclose(vif_single(anatomy, fused), vif_single(fused, anatomy), rtol=1e-3)


def test_contrast_enhancement_exceeds_one():
    image = 0.25 + 0.5 * noise(1, 1, 48, 48)
    assert vif_single(image, 2 * image - 0.5).item() > 1.0 > vif_single(image, 0.5 * image + 0.25).item()


def test_information_rounds_to_the_nearest_level_and_clips():
    whole = torch.tensor([[[[0.0, 2, 2, 255]]]])
    given = torch.tensor([[[[-7.0, 1.5, 2.5, 300.0]]]])
    expected = mutual_information(whole, whole, whole, data_range=255)
    assert expected.item() == pytest.approx(2 * (0.5 * math.log(4) + 0.5 * math.log(2)))
    assert mutual_information(given, whole, whole, data_range=255).item() == expected.item()


def test_quantise():
    values = torch.tensor([-0.1, 0.0, 0.5 / 255, 1.5 / 255, 0.2, 1.0, 1.2, torch.nan], dtype=torch.float64)
    expected = torch.tensor([0, 0, 0, 2, 51, 255, 255, torch.nan], dtype=torch.float64)
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
        vif_single(source, 0.7 * source), vif_single(source.double(), 0.7 * source.double()).float(), rtol=0, atol=1e-3
    )


# --- shapes, types, batches


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_any_split_of_a_batch_gives_the_same_bits(metric, dtype):
    images = triple(batch=7, side=64, dtype=dtype)
    whole = metric(*images)
    assert whole.shape == (7,)
    assert whole.unique().numel() == 7
    for size in (1, 2, 4):
        parts = [metric(*part) for part in zip(*(image.split(size) for image in images), strict=True)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_data_range_is_only_a_scale(metric):
    images = [quantise(image) for image in triple(batch=2)]
    expected = metric(*images, data_range=255)
    torch.testing.assert_close(metric(*(image / 255 for image in images)), expected)
    torch.testing.assert_close(metric(*(image.to(torch.uint8) for image in images), data_range=255), expected.float())


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(metric, dtype):
    images = [image.to(dtype) for image in triple(batch=2)]
    got = metric(*images)
    assert got.dtype == torch.float32
    assert torch.equal(got, metric(*(image.float() for image in images)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric(*(image.float() for image in images)), got)


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_float64_wins_over_float32(metric):
    fused, anatomy, overlay = triple()
    got = metric(fused, anatomy.float(), overlay.float())
    assert got.dtype == torch.float64
    assert torch.equal(got, metric(fused, anatomy.float().double(), overlay.float().double()))


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_plain_tensors_come_out(metric):
    images = triple(dtype=torch.float32)
    got = metric(*(MetaTensor(image) for image in images))
    assert type(got) is torch.Tensor
    assert torch.equal(got, metric(*images))


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["fused", "anatomy", "overlay"])
def test_a_nan_shows_in_its_image_only(metric, place):
    images = triple(batch=2, dtype=torch.float32)
    expected = metric(*images)[1]
    images[place][0, 0, 20, 20] = torch.nan
    got = metric(*images)
    assert got[0].isnan()
    assert got[1] == expected


@pytest.mark.parametrize("metric", METRICS, ids=name_of)
def test_wrong_input_is_refused(metric):
    good = torch.zeros(2, 1, 48, 48)
    with pytest.raises(TypeError, match="ndarray"):
        metric(good, good.numpy(), good)
    with pytest.raises(ValueError, match="differ in shape"):
        metric(good, good[:1], good)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        metric(*[good.expand(2, 3, 48, 48)] * 3)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        metric(good[0], good[0], good[0])
    for data_range in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="data_range"):
            metric(good, good, good, data_range)


@pytest.mark.parametrize(("metric", "smallest"), [(ssim, 7), (ssim_single, 7), (vif, 41), (vif_single, 41)])
def test_images_smaller_than_the_window_are_refused(metric, smallest):
    count = 2 if "single" in metric.__name__ else 3
    assert metric(*[torch.zeros(1, 1, smallest, smallest)] * count).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {smallest} x {smallest} pixels, got 90 x {smallest - 1}"):
        metric(*[torch.zeros(1, 1, 90, smallest - 1)] * count)


def test_public_names():
    assert sorted(functional.__all__) == functional.__all__
    assert all(callable(getattr(functional, name)) for name in functional.__all__)


# --- as training losses


@pytest.mark.parametrize(("metric", "side"), [(ssim, 10), (qabf, 8)], ids=["ssim", "qabf"])
def test_gradient(metric, side):
    fused, anatomy, overlay = triple(batch=2, side=side)
    assert torch.autograd.gradcheck(lambda x: metric(x, anatomy, overlay), fused.requires_grad_())


def test_gradient_of_vif():
    # 41 x 41 pixels at least: random directions instead of every pixel
    fused, anatomy, overlay = triple(side=41)
    assert torch.autograd.gradcheck(lambda x: vif(x, anatomy, overlay), fused.requires_grad_(), fast_mode=True)


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


@pytest.mark.parametrize("metric", LOSSES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_and_gradients_are_finite_everywhere(metric, dtype):
    images = crops(dtype)
    names = [(f, a, o) for f in images for a in images for o in ("black", "noise", "faint")]
    fused, anatomy, overlay = (torch.stack([images[n[i]] for n in names])[:, None] for i in range(3))
    fused.requires_grad_()
    value = metric(fused, anatomy, overlay)
    value.sum().backward()
    assert [n for n, v in zip(names, value, strict=True) if not v.isfinite()] == []
    assert [n for n, g in zip(names, fused.grad, strict=True) if not g.isfinite().all()] == []
    # no single pixel of a crop may outweigh a whole image: clipping would then throw away all else
    assert [n for n, g in zip(names, fused.grad, strict=True) if g.abs().max() > 10] == []
    moves = {n: g.abs().max().item() for n, g in zip(names, fused.grad, strict=True)}
    assert moves["other", "half", "noise"] > 1e-4


@pytest.mark.parametrize("metric", LOSSES, ids=name_of)
def test_ascent_improves(metric):
    """Following the gradient raises the metric: its sign and scale serve training."""
    _, anatomy, overlay = triple(dtype=torch.float32)
    fused = ((anatomy + overlay) / 2 * 0.5 + 0.2).requires_grad_()
    before = metric(fused, anatomy, overlay)
    (slope,) = torch.autograd.grad(before.sum(), fused)
    after = metric(fused + 1e-3 * slope / slope.abs().max(), anatomy, overlay)
    assert after.item() > before.item()


@pytest.mark.parametrize("metric", LOSSES, ids=name_of)
def test_gradient_reaches_half_precision_networks(metric):
    fused, anatomy, overlay = triple(dtype=torch.float32)
    half = fused.to(torch.bfloat16).requires_grad_()
    metric(half, anatomy, overlay).sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.isfinite().all()
    assert half.grad.abs().max() > 0
