"""What computes stays on the device of its input: on torch's "meta", which has no values but minds devices. No GPU.

Elementwise operations of tensors of two devices are refused there; a result that comes back to the CPU is seen, too.
FUSION_DEVICE names a real device instead (tests/gpu.py).
"""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.drawing import write_checkerboard
from fusion_nets.losses import DMFNetLoss, FusionLoss
from fusion_nets.networks import DMFNet, SMFusion
from fusion_nets.registration import foreground, register, resample_labels, resample_onto, similarity
from fusion_nets.registration.elastix import align
from fusion_nets.transforms import MergeChroma, MergeChromad, PaletteChroma, ScaleToDisplayRange, SplitLuminance
from fusion_nets.workflows import DescribedBatch, NoisyBatch, PairBatch, SlicewiseInferer

ELSEWHERE = torch.empty(0, device=os.environ.get("FUSION_DEVICE", "meta")).device


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """Which knows no meta device, and moves nothing."""
    if ELSEWHERE.type == "meta":
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def there(*shape):
    return torch.rand(shape, device=ELSEWHERE)


def test_two_devices_are_noticed():
    """Or no test here could fail."""
    with pytest.raises(RuntimeError, match="device"):
        there(2, 2) + torch.rand(2, 2)


@torch.no_grad()
@pytest.mark.parametrize("noise_pixels", [None, 64 * 64])
def test_dmfnet(noise_pixels):
    how = {} if noise_pixels is None else {"noise_pixels": noise_pixels}
    assert DMFNet(**how).to(ELSEWHERE).eval()(there(1, 2, 64, 64)).device == ELSEWHERE


@torch.no_grad()
@pytest.mark.parametrize("text", [True, False])
def test_smfusion_slice_by_slice(text):
    network = SMFusion().to(ELSEWHERE).eval()
    texts = {"text": there(1, 3, 2, 4, network.text_width)} if text else {}
    fused = SlicewiseInferer(2, slice_arguments=["text"])(there(1, 2, 33, 32, 3), network, **texts)
    assert (fused.device, fused.shape) == (ELSEWHERE, (1, 1, 33, 32, 3))


@pytest.mark.parametrize("loss", [FusionLoss, DMFNetLoss])
def test_losses(loss):
    assert loss()(there(2, 1, 40, 40), there(2, 2, 40, 40)).device == ELSEWHERE


def test_batches():
    batch = {"image": MetaTensor(torch.rand(2, 2, 40, 40)), "text": torch.rand(2, 2, 3, 4)}
    batch |= {"text_mask": torch.ones(2, 2, 3, dtype=torch.bool), "text_vector": torch.rand(2, 2, 4)}
    image, _, _, texts = DescribedBatch()(batch, ELSEWHERE)
    assert {part.device for part in (image, *texts.values(), *PairBatch()(batch, ELSEWHERE))} == {ELSEWHERE}
    for seed in (0, None):
        noisy, clean, (level,), _ = NoisyBatch(seed=seed)({"image": batch["image"][:, :1]}, ELSEWHERE)
        assert {noisy.device, clean.device, level.device} == {ELSEWHERE}


@pytest.mark.parametrize("palette", ["hot", "hot_iron", "pet_20_step"])
def test_colour(palette):
    assert PaletteChroma(palette)(there(1, 9, 8)).device == ELSEWHERE
    grey, chroma = SplitLuminance()(there(3, 9, 8))
    assert MergeChroma()(grey, chroma).device == ELSEWHERE
    assert ScaleToDisplayRange((0, 80))(there(1, 9, 8)).device == ELSEWHERE


def test_a_coloured_overlay():
    """As the bundles have it: the network's prediction elsewhere, what was loaded here."""
    fused = MergeChromad()({"pred": there(1, 9, 8), "overlay_chroma": torch.rand(3, 9, 8)})["fused"]
    assert (fused.device, fused.shape) == (ELSEWHERE, (3, 9, 8))


@pytest.fixture
def moved_away(monkeypatch):
    """Move images to where only `cpu()` brings their values back, as from a GPU: NumPy refuses them there."""
    values = {}
    cpu = torch.Tensor.cpu

    def back(tensor):
        return values[tuple(tensor.shape)] if tensor.device == ELSEWHERE else cpu(tensor)

    def away(image):
        values[tuple(image.shape)] = image
        return image.to(ELSEWHERE)

    if ELSEWHERE.type == "meta":
        monkeypatch.setattr(torch.Tensor, "cpu", back)
    return away


def heads():
    """A ball with two spots; and the same, inverted, on a grid of its own, 3 mm off."""
    places = np.stack(np.meshgrid(*(np.arange(n) * 4.0 for n in (26, 24, 22)), indexing="ij"))
    ball, *spots = (
        1 / (1 + np.exp((np.linalg.norm(places - np.reshape(middle, (3, 1, 1, 1)), axis=0) - radius) / 2))
        for middle, radius in (((50, 46, 42), 34), ((40, 50, 40), 8), ((62, 40, 50), 6))
    )
    values = torch.from_numpy(ball + spots[0] - 0.5 * spots[1]).float()[None]
    affine, other = np.diag([4.0, 4, 4, 1]), np.diag([4.0, 4, 4, 1])
    other[:3, 3] = 3.0, 0, 0
    overlay = (2 * (values > 0.2) - values)[..., :-1].contiguous()
    return MetaTensor(values, affine=affine), MetaTensor(overlay, affine=other)


def test_numpy_refuses_what_lies_elsewhere(moved_away):
    """Or no test below could fail."""
    image, _ = heads()
    away = moved_away(image)
    with pytest.raises(TypeError, match="device"):
        away.numpy()
    torch.testing.assert_close(away.cpu(), image, rtol=0, atol=0)


def test_registration(moved_away):
    anatomy, overlay = heads()
    here = register(anatomy, overlay, "rigid")
    away = register(moved_away(anatomy), moved_away(overlay), "rigid")
    np.testing.assert_array_equal(away.matrix, here.matrix)
    assert (away.before, away.after) == (here.before, here.after)
    assert here.after > here.before


def test_elastix(moved_away):
    anatomy, overlay = heads()
    content = anatomy[0].numpy() > 0.3
    how = content, anatomy.affine.numpy(), np.eye(4), np.array([50.0, 46, 42]), False
    here = align(anatomy, overlay, *how)
    np.testing.assert_array_equal(align(moved_away(anatomy), moved_away(overlay), *how), here)


def test_similarity(moved_away):
    anatomy, overlay = heads()
    content = foreground(anatomy)
    assert similarity(moved_away(anatomy), moved_away(overlay), content) == similarity(anatomy, overlay, content)


@pytest.mark.parametrize("spacing", [4.0, 9.0])
@pytest.mark.parametrize("resample", [resample_onto, resample_labels])
def test_resampling_comes_back_to_where_the_image_was(moved_away, resample, spacing):
    anatomy, overlay = heads()
    anatomy.affine = np.diag([spacing, 4, 4, 1])
    wanted = resample(overlay, anatomy)
    result = resample(moved_away(overlay), moved_away(anatomy))
    assert (result.device, result.shape, result.dtype) == (ELSEWHERE, wanted.shape, wanted.dtype)
    torch.testing.assert_close(result.affine, wanted.affine)


def test_checkerboard(moved_away, tmp_path):
    anatomy, _ = heads()
    here = write_checkerboard(tmp_path / "here.png", anatomy, anatomy)
    away = write_checkerboard(tmp_path / "away.png", moved_away(anatomy), moved_away(anatomy))
    assert away.read_bytes() == here.read_bytes()
