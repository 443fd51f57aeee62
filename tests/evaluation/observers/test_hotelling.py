import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from skimage.color import rgb2lab
from sklearn.metrics import roc_auc_score

from evaluation.observers import (
    add_internal_noise,
    area_under_curve,
    channel_responses,
    cielab,
    dense_difference_of_gaussians,
    detectability,
    hotelling_scores,
    observer_area,
    subject_folds,
)

SIDE, SIGMA = 33, 0.2


@pytest.fixture(scope="module")
def white_noise():
    """Patches of white noise with a known signal and without, and the detectability that channels leave of it."""
    generator = torch.Generator().manual_seed(0)
    absent, present = SIGMA * torch.randn(2, 1500, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    offset = torch.arange(SIDE) - SIDE // 2
    signal = 0.05 * torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 3.0**2)).double()
    channels = dense_difference_of_gaussians(SIDE)
    flat = channels.flatten(1)
    response = flat @ signal.flatten()
    best = (response @ torch.linalg.solve(SIGMA**2 * flat @ flat.T, response)).sqrt().item()
    return present + signal, absent, best


def test_reaches_what_is_known_of_white_noise(white_noise):
    present, absent, best = white_noise
    subjects = [i // 3 for i in range(len(present))]
    responses = [channel_responses(patches, dense_difference_of_gaussians(SIDE)) for patches in (present, absent)]
    scores = hotelling_scores(*responses, subject_folds(subjects))
    assert 1 < best < 2
    assert detectability(*scores).item() == pytest.approx(best, abs=0.08)
    area = observer_area(present, absent, subjects)
    assert area.item() == pytest.approx(norm.cdf(best / math.sqrt(2)), abs=0.015)
    assert area == area_under_curve(*scores)
    # internal noise as strong as the images' own costs the root of 2
    noisy = observer_area(present, absent, subjects, generator=torch.Generator().manual_seed(1), level=SIGMA)
    assert noisy.item() == pytest.approx(norm.cdf(best / 2), abs=0.02)


def test_agrees_with_the_observer_of_mar_eval(white_noise):
    """Its channelised Hotelling observer (IEC 60601-2-44, annex GG), trained on one half and tested on the other."""
    mareval = pytest.importorskip("mareval")
    present, absent, _ = white_noise
    channels = dense_difference_of_gaussians(SIDE)
    bank = channels.flatten(1).T.numpy()
    seen = [mareval.apply_channels(patches.flatten(1).numpy(), bank) for patches in (present, absent)]
    half = len(present) // 2
    template = mareval.cho_template(*(responses[:half] for responses in seen), lambda_reg=0.0)
    theirs = [mareval.cho_decision_values(responses[half:], template) for responses in seen]
    area = mareval.compute_auc(np.concatenate(theirs), [1] * half + [0] * half)

    folds = torch.arange(len(present)) // half
    responses = [channel_responses(patches, channels) for patches in (present, absent)]
    np.testing.assert_allclose(responses[0], seen[0], rtol=1e-9, atol=1e-12)
    ours = [scores[half:] for scores in hotelling_scores(*responses, folds)]
    assert area_under_curve(*ours).item() == pytest.approx(area, abs=1e-3)
    # the templates differ by a factor at most
    for mine, other in zip(ours, theirs, strict=True):
        assert np.corrcoef(mine, other)[0, 1] > 0.9999


def test_channels_pass_rings():
    channels = dense_difference_of_gaussians(49)
    frequency = torch.fft.fftfreq(49).double()
    rho = torch.hypot(frequency[:, None], frequency)
    passed = torch.fft.fft2(torch.fft.ifftshift(channels, dim=(1, 2))).real
    assert passed[:, 0, 0].abs().max() < 1e-9  # grey alone says nothing
    peaks = rho.flatten()[passed.flatten(1).argmax(1)]
    assert (peaks.diff() >= 0).all()
    assert torch.equal(channels, channels.flip(1)) or torch.allclose(channels, channels.flip(1), atol=1e-12)
    assert dense_difference_of_gaussians(5, dtype=torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match="odd side"):
        dense_difference_of_gaussians(48)


def test_two_planes_see_what_either_shows(white_noise):
    present, absent, _ = white_noise
    subjects = list(range(len(present)))
    alone = observer_area(present, absent, subjects)
    beside = observer_area(torch.cat([absent.flip(0), present], 1), torch.cat([present.flip(0), absent], 1), subjects)
    assert beside > alone + 0.05  # the other plane has the lesion in the other class


def test_no_subject_judges_itself(white_noise):
    """Half of the subjects have dark lesions, the others bright ones: trained on the others, an observer errs."""
    absent = white_noise[1][:400]
    subjects = [f"{i % 40:02}" for i in range(400)]
    signal = 4 * (white_noise[0].mean(0) - white_noise[1].mean(0))
    sign = torch.tensor([1.0 if int(subject) % 2 else -1.0 for subject in subjects]).double()[:, None, None, None]
    assert observer_area(absent + sign * signal, absent.flip(0), subjects, folds=2) < 0.1
    assert observer_area(absent + sign.abs() * signal, absent.flip(0), subjects, folds=2) > 0.9
    assert subject_folds(["s10", "s2", "s10", "s1"], 2).tolist() == [1, 0, 1, 0]


def test_too_few_to_train_on():
    patches = torch.rand(4, 1, 9, 9)
    with pytest.raises(ValueError, match="two or more of each"):
        observer_area(patches, patches, ["one"] * 4)
    with pytest.raises(ValueError, match=r"\(N, P, S, S\)"):
        observer_area(patches[:, 0], patches[:, 0], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="4 and 4 patches have"):
        observer_area(patches, patches, [1, 2])
    with pytest.raises(ValueError, match="differ in their sides"):
        channel_responses(patches, dense_difference_of_gaussians(7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_area_of_scikit_learn(dtype):
    generator = torch.Generator().manual_seed(0)
    present, absent = torch.randint(0, 9, (2, 50), generator=generator).to(dtype)
    absent = absent[:37]
    expected = roc_auc_score([1] * 50 + [0] * 37, torch.cat([present + 1, absent]))
    assert area_under_curve(present + 1, absent).item() == pytest.approx(expected, abs=1e-12)
    assert area_under_curve(present.fill_(torch.nan), absent).isnan()
    with pytest.raises(ValueError, match="both kinds, got 0 and 37"):
        area_under_curve(present[:0], absent)


def test_a_patch_that_is_not_finite_leaves_no_area():
    patches = torch.rand(20, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    broken = patches.clone()
    broken[3, 0, 4, 4] = torch.inf
    channels = dense_difference_of_gaussians(9, 2)
    assert observer_area(broken, patches, list(range(20)), channels=channels).isnan()


def test_cielab_of_scikit_image():
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0, :, :2] = torch.tensor([0, 1 / 255]).double()[None, :, None]
    expected = np.moveaxis(rgb2lab(np.moveaxis(images.numpy(), 1, -1)), -1, 1)
    np.testing.assert_allclose(cielab(images), expected, atol=0.06)  # a matrix of four digits
    np.testing.assert_allclose(cielab(images.float()), cielab(images), atol=1e-3)
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    cielab(black).sum().backward()
    assert black.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"\(B, 3, ...\)"):
        cielab(images[:, :2])


def test_noise_is_that_of_its_generator():
    patches = torch.zeros(3, 1, 50, 50)
    first, again = (add_internal_noise(patches, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.std().item() == pytest.approx(1 / 255, rel=0.05)
