"""What computes stays on the device of its input: on torch's "meta", which has no values but minds devices. No GPU.

Elementwise operations of tensors of two devices are refused there; a result that comes back to the CPU is seen, too.
"""

from contextlib import nullcontext

import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.losses import DMFNetLoss, FusionLoss
from fusion_nets.networks import DMFNet, SMFusion
from fusion_nets.transforms import MergeChroma, MergeChromad, PaletteChroma, ScaleToDisplayRange, SplitLuminance
from fusion_nets.workflows import DescribedBatch, NoisyBatch, PairBatch, SlicewiseInferer

ELSEWHERE = torch.device("meta")


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """Which knows no meta device, and moves nothing."""
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


@pytest.mark.xfail(
    strict=True,
    raises=RuntimeError,
    reason="the chroma of a coloured overlay waits on the CPU for a prediction of the GPU",
)
def test_a_coloured_overlay():
    """As the bundles have it: the network's prediction elsewhere, what was loaded here."""
    assert MergeChromad()({"pred": there(1, 9, 8), "overlay_chroma": torch.rand(3, 9, 8)})["fused"].shape == (3, 9, 8)
