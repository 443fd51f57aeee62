"""The metrics against published values, against a plain program, and against other libraries."""

import json
import math

import numpy as np
import plain_metrics
import pytest
import torch
from fusion_images import FUNCTIONS, KINDS, SMALLEST, levels, noise, taken
from monai.metrics import MultiScaleSSIMMetric, SSIMMetric
from PIL import Image
from skimage.measure import shannon_entropy
from skimage.metrics import mean_squared_error, normalized_mutual_information, peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_ssim
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from torchmetrics.functional import pearson_corrcoef
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim
from torchmetrics.functional.image import visual_information_fidelity as torchmetrics_vif

from evaluation import functional
from evaluation.functional import fusion_metrics, parzen_mutual_information, quantise, vif_single

# --- published values


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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-3)], ids=str)
def test_golden_values(golden, dtype, tolerance):
    expected, images = golden
    names = [name for name in expected[0] if name in FUNCTIONS]
    assert len(names) == 12
    got = fusion_metrics(*(images.to(dtype) / 255), names=names)
    for name in names:
        assert got[name].dtype == dtype
        np.testing.assert_allclose(got[name], [values[name] for values in expected], rtol=tolerance, err_msg=name)


def test_golden_values_of_each_source(golden):
    expected, (fused, anatomy, overlay) = golden[0], golden[1].float()
    got = torch.stack([vif_single(fused, anatomy, 255), vif_single(fused, overlay, 255)], dim=1)
    np.testing.assert_allclose(got, [[v["VIF_anatomy"], v["VIF_overlay"]] for v in expected], rtol=0, atol=1e-4)


# --- a plain program


# sides as small as shows what there is to see
SIDES = {"VIF": 45, "MS-SSIM": 177, "FMI": 9}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_agrees_with_the_plain_program(name):
    metric, side = FUNCTIONS[name], SIDES.get(name, 20)
    plain = getattr(plain_metrics, metric.__name__)
    kinds = ["noise", "black", "grey", "faint"] if name == "MS-SSIM" else KINDS
    images = []
    for kind in kinds:
        for other in {"noise": 1, kind: 1, "step": 1}:
            fused, anatomy, overlay = levels("noise", side, 1), levels(kind, side, 2), levels(other, side, 3)
            images += [[fused, anatomy, overlay], [anatomy, fused, overlay], [anatomy, anatomy, overlay]]
            images += [
                [np.rint((anatomy + overlay) / 2), anatomy, overlay],
                [np.maximum(fused, overlay), fused, overlay],
            ]
    expected = [plain(*taken(name, three)) for three in images]
    batch = taken(name, torch.tensor(np.array(images)).transpose(0, 1)[:, :, None])
    for scale in (1, 255):
        got = [metric(*(batch / 255 * scale).to(dtype), data_range=scale) for dtype in (torch.float64, torch.float32)]
        np.testing.assert_allclose(got[0], expected, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(got[1], expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_smallest_and_oblong_images(name):
    metric, side = FUNCTIONS[name], SMALLEST.get(name, 1)
    plain = getattr(plain_metrics, metric.__name__)
    for shape in ((side, side), (side, side + 4), (side + 1, side)):
        images = np.random.default_rng(3).integers(0, 256, (3, *shape)).astype(float)
        got = metric(*taken(name, torch.tensor(images)[:, None, None]), data_range=255)
        assert got.item() == pytest.approx(plain(*taken(name, images)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("bins", [4, 32])
def test_parzen_agrees_with_the_plain_program(bins):
    for kind in KINDS:
        images = np.stack([levels("noise", 16, 1), levels(kind, 16, 2), levels("step", 16, 3)])
        got = parzen_mutual_information(*torch.tensor(images)[:, None, None], data_range=255, bins=bins)
        expected = plain_metrics.parzen_mutual_information(*images, bins=bins)
        assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


# --- other libraries


@pytest.fixture(scope="module")
def images():
    """Three triples of 8-bit grey levels, (3, 3, 1, 192, 192), fused first; with smooth structure."""
    smooth = torch.nn.functional.interpolate(noise(2, 3, 12, 12), size=(192, 192), mode="bicubic")
    fine = noise(3, 3, 192, 192, seed=1)
    anatomy, overlay = smooth * 0.8 + 0.1 * fine[:2]
    return quantise(torch.stack([0.5 * anatomy + 0.4 * overlay + 0.1 * fine[2], anatomy, overlay]))[:, :, None]


def both(function, images):
    """The sum of a library's function over the sources, for each triple."""
    fused, anatomy, overlay = images
    return [float(function(f, a)) + float(function(f, b)) for f, a, b in zip(fused, anatomy, overlay, strict=True)]


def as_numpy(function):
    return lambda x, y: function(x[0].numpy(), y[0].numpy())


def test_ssim_of_scikit_image(images):
    expected = both(as_numpy(lambda x, y: skimage_ssim(x, y, data_range=255)), images)
    np.testing.assert_allclose(functional.ssim(*images, data_range=255), expected, rtol=1e-9)


def test_ssim_of_monai_and_torchmetrics(images):
    # both divide by n where ours divides by n - 1: the same, but for a constant that k2 can carry
    k2 = 0.03 * math.sqrt(48 / 49)
    monai = SSIMMetric(2, data_range=255, kernel_type="uniform", win_size=7, k2=k2)
    options = {"gaussian_kernel": False, "kernel_size": 7, "data_range": 255.0, "k2": k2}
    got = functional.ssim(*images, data_range=255)
    np.testing.assert_allclose(got, both(lambda x, y: monai(x[None], y[None]), images), rtol=1e-4)

    def inside(x, y):
        return torchmetrics_ssim(x[None], y[None], return_full_image=True, **options)[1][..., 3:-3, 3:-3].mean()

    np.testing.assert_allclose(got, both(inside, images), rtol=1e-6)


def test_ms_ssim_of_monai(images):
    got = functional.ms_ssim(*images, data_range=255)
    # torchmetrics has the mirrored border in its last scale, and is not the same
    monai = MultiScaleSSIMMetric(2, data_range=255, kernel_size=11, kernel_sigma=1.5)
    np.testing.assert_allclose(got, both(lambda x, y: monai(x[None], y[None]), images), rtol=1e-4)


def test_vif_of_torchmetrics(images):
    expected = both(lambda f, source: torchmetrics_vif(f[None], source[None]), images)
    np.testing.assert_allclose(functional.vif(*images, data_range=255), expected, rtol=1e-9)


def test_information_of_scikit_learn_and_scikit_image(images):
    flat = images.long().flatten(2)
    got = functional.mutual_information(*images, data_range=255)
    np.testing.assert_allclose(got, both(lambda x, y: mutual_info_score(x[0], y[0]), flat[:, :, None]), rtol=1e-9)
    normalised = functional.normalised_mutual_information(*images, data_range=255)
    expected = both(lambda x, y: normalized_mutual_info_score(x[0], y[0]), flat[:, :, None])
    np.testing.assert_allclose(normalised, expected, rtol=1e-9)
    # scikit-image has (H(x) + H(y)) / H(x, y) instead: 2 - 2 / that
    studholme = as_numpy(lambda x, y: 2 - 2 / normalized_mutual_information(x, y, bins=256))
    levels_of = [np.arange(256.0), np.arange(255.0, -1, -1)]  # every level, so that bins of 1 are levels
    x, y = (torch.tensor(z).repeat(4).reshape(1, 32, 32) for z in levels_of)
    pair = functional.normalised_mutual_information(x[None], y[None], y[None], 255)
    assert pair.item() == pytest.approx(2 * studholme(x, y), rel=1e-6)
    entropy = [shannon_entropy(image[0].numpy()) for image in images[0]]
    np.testing.assert_allclose(functional.entropy(images[0], 255), entropy, rtol=1e-9)


def test_errors_of_scikit_image(images):
    error = np.array(both(as_numpy(mean_squared_error), images)) / 2
    np.testing.assert_allclose(functional.mean_squared_error(*images, data_range=255), error, rtol=1e-12)
    # of two equal sources, the mean error is that of each
    fused, anatomy, _ = images
    expected = [
        peak_signal_noise_ratio(a[0].numpy(), f[0].numpy(), data_range=f.max().item())
        for f, a in zip(fused, anatomy, strict=True)
    ]
    np.testing.assert_allclose(functional.psnr(fused, anatomy, anatomy, 255), expected, rtol=1e-12)


def test_correlation_of_torchmetrics(images):
    fused, anatomy, overlay = images
    expected = np.array(both(lambda x, y: pearson_corrcoef(x.flatten(), y.flatten()), images)) / 2
    np.testing.assert_allclose(functional.correlation(*images, data_range=255), expected, rtol=1e-6)
    first = both(lambda x, y: pearson_corrcoef(x.flatten(), y.flatten()) / 2, [anatomy, *[fused - overlay] * 2])
    second = both(lambda x, y: pearson_corrcoef(x.flatten(), y.flatten()) / 2, [overlay, *[fused - anatomy] * 2])
    np.testing.assert_allclose(functional.scd(*images, data_range=255), np.add(first, second), rtol=1e-6)
