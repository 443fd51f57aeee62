import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion_nets.networks import DiffusionUNet, DMFNet, cosine_alpha_bar, linear_alpha_bar, load_released

TINY = {"width": 8, "norm_groups": 4, "head_width": 4}


@pytest.fixture(scope="module")
def published(released: tuple[Path, Path]) -> DMFNet:
    return DMFNet.load_released(*released).eval()


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, torch.Tensor]:
    with np.load(reference / "golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@torch.no_grad()
def test_fused_image_agrees_with_the_released_program(published, golden):
    image = (torch.cat([golden["mri"], golden["other"]], dim=1) + 1) / 2
    fused = published(image, golden["noise"].reshape(3, 2, 1, 96, 96), golden["noise_level"].reshape(3, 2, 1))
    assert golden["fused"].std() > 0.3
    torch.testing.assert_close(fused * 2 - 1, golden["fused"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_decoder_features_and_reconstruction_agree_with_the_released_program(published, golden, reference):
    level = golden["noise_level"][0, 0].reshape(1)
    noisy = level * golden["mri"] + torch.sqrt(1 - level**2) * golden["noise"][0, 0].reshape(1, 1, 96, 96)
    features = published.unet.features(noisy, level, list(range(15)))
    expected = json.loads((reference / "golden_features.json").read_text())
    for feature, shape, mean, std in zip(
        features, expected["feature_shapes"], expected["feature_mean"], expected["feature_std"], strict=True
    ):
        assert list(feature.shape) == shape
        assert feature.std().item() == pytest.approx(std, rel=1e-3)
        assert feature.mean().item() == pytest.approx(mean, rel=1e-3, abs=1e-3 * std)
    reconstruction = published.unet(noisy, level)
    torch.testing.assert_close(reconstruction, golden["reconstruction_first"], atol=1e-4, rtol=0)


def test_noise_levels_start_where_the_released_schedule_does(golden):
    ours = linear_alpha_bar(2000, 1e-6, 1e-2)[:25].sqrt()
    torch.testing.assert_close(ours, golden["sqrt_alphas_cumprod_prev_first25"].double(), atol=1e-9, rtol=0)


def test_sizes_of_the_published_network():
    network = DMFNet()
    assert sum(p.numel() for p in network.unet.parameters()) == 20_670_081
    assert sum(p.numel() for p in network.fusion.parameters()) == 3_026_640


def test_cosine_schedule_falls_and_is_clamped():
    alpha_bar = cosine_alpha_bar(2000)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert (1 - alpha_bar[1:] / alpha_bar[:-1]).max().item() == pytest.approx(0.999)
    assert alpha_bar[1000].item() == pytest.approx(0.494, abs=0.01)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 100), (129, 70)])
@torch.no_grad()
def test_any_size_of_32_or_more(size):
    network = DMFNet(**TINY).eval()
    image = torch.rand(2, 2, *size)
    fused = network(image)
    assert fused.shape == (2, 1, *size)
    assert 0 <= fused.min() <= fused.max() <= 1
    torch.testing.assert_close(fused, network(image), atol=0, rtol=0)


@torch.no_grad()
def test_a_result_depends_on_its_own_pair_alone():
    network = DMFNet(**TINY).eval()
    image = torch.rand(3, 2, 48, 48)
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_seed_decides_the_noise():
    image = torch.rand(1, 2, 64, 64)
    networks = [DMFNet(**TINY, seed=seed).eval() for seed in (0, 0, 1)]
    for other in networks[1:]:
        other.load_state_dict(networks[0].state_dict())
    first, same, other = (network(image) for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@torch.no_grad()
def test_training_noise_is_fresh_for_every_sample():
    network = DMFNet(**TINY).train()
    features = network.encode(torch.rand(1, 2, 64, 64).expand(2, -1, -1, -1))
    assert not torch.equal(features[0][:, :, 0], features[0][:, :, 1])


def test_only_the_fusion_network_is_trained():
    network = DMFNet(**TINY, dropout=0.9).train()
    assert not network.unet.training
    assert network.fusion.training
    network(torch.rand(1, 2, 64, 64)).mean().backward()
    assert all(p.grad is None for p in network.unet.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.fusion.parameters())


@torch.no_grad()
def test_features_given_are_the_features_used():
    network = DMFNet(**TINY).eval()
    image = torch.rand(2, 2, 40, 40)
    torch.testing.assert_close(network(image, features=network.encode(image)), network(image), atol=0, rtol=0)


@torch.no_grad()
def test_residual_network_with_a_silent_head_gives_the_maximum():
    network = DMFNet(**TINY, residual=True).eval()
    network.fusion.head[2].weight.zero_()
    network.fusion.head[2].bias.zero_()
    image = torch.rand(1, 2, 64, 64)
    torch.testing.assert_close(network(image), image.amax(1, keepdim=True))


@torch.no_grad()
def test_features_stop_where_nothing_more_is_needed():
    unet = DiffusionUNet(width=8, norm_groups=4).eval()
    called = []
    for number, block in enumerate(b for level in unet.decoder for b in level.blocks):
        block.register_forward_hook(lambda *_, number=number: called.append(14 - number))
    noisy, level = torch.rand(1, 1, 64, 64), torch.ones(1)
    chosen = unet.features(noisy, level, unet.feature_indices)
    assert unet.feature_indices == [2, 5, 8, 11, 14]
    assert sorted(called) == list(range(2, 15))
    everything = unet.features(noisy, level, list(range(15)))
    for index, feature in zip(unet.feature_indices, chosen, strict=True):
        torch.testing.assert_close(feature, everything[index])


@torch.no_grad()
def test_scripted_network_gives_the_same():
    network = DMFNet(**TINY, residual=True).eval()
    scripted = torch.jit.script(network)
    for size in ((64, 64), (40, 50)):
        image = torch.rand(1, 2, *size)
        torch.testing.assert_close(scripted(image), network(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 100)])
@torch.no_grad()
def test_noise_that_is_kept_is_the_noise_that_is_drawn(size):
    drawing, keeping = DMFNet(**TINY).eval(), DMFNet(**TINY, noise_pixels=64 * 100).eval()
    keeping.load_state_dict(drawing.state_dict())
    image = torch.rand(2, 2, *size)
    torch.testing.assert_close(keeping(image), drawing(image), atol=1e-6, rtol=0)
    level = torch.full((3, 2, 1), 0.99)
    torch.testing.assert_close(keeping(image, noise_level=level), drawing(image, noise_level=level), atol=1e-6, rtol=0)


@torch.no_grad()
def test_training_noise_is_fresh_where_some_is_kept():
    network = DMFNet(**TINY, noise_pixels=64 * 64).train()
    image = torch.rand(1, 2, 64, 64)
    assert not torch.equal(network.encode(image)[0], network.encode(image)[0])


@torch.no_grad()
def test_an_image_larger_than_the_noise_is_refused():
    network = DMFNet(**TINY, noise_pixels=64 * 64).eval()
    with pytest.raises(ValueError, match=r"noise_pixels=4096.* \[1, 2, 64, 65\]"):
        network(torch.rand(1, 2, 64, 65))


@torch.no_grad()
def test_a_trace_that_would_draw_other_noise_is_refused():
    image = torch.rand(1, 2, 64, 64)
    with pytest.raises(ValueError, match="noise_pixels"):
        torch.jit.trace(DMFNet(**TINY).eval(), image)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 64, 64), (1, 2, 31, 64), (1, 2, 64, 16)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(B, 2.*, H, W\)"):
        DMFNet(**TINY)(torch.rand(shape))


@pytest.mark.parametrize("arguments", [{"steps": ()}, {"steps": (0, 5)}, {"steps": (2001,)}, {"width": 10}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="|".join(arguments)):
        DMFNet(**{**TINY, **arguments})


def test_released_files_in_the_wrong_order_are_named(released):
    stage1, stage2 = released
    with pytest.raises(ValueError, match=r"stage2\.pt: .*'denoise_fn\.noise_level_mlp\.1\.weight'"):
        load_released(DMFNet(), stage2, stage1)


def test_a_released_file_of_another_width_is_named(released):
    with pytest.raises(ValueError, match=r"stage1\.pt: .*shape \["):
        load_released(DMFNet(width=64), *released)


def test_a_key_without_a_place_is_named(released, tmp_path):
    stage1, stage2 = released
    weights = torch.load(stage2, weights_only=True)
    torch.save({**weights, "decoder.10.extra.weight": torch.ones(1)}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"more\.pt: .*'decoder\.10\.extra\.weight'"):
        load_released(DMFNet(), stage1, tmp_path / "more.pt")


def test_a_file_that_runs_code_is_not_read(released, tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    torch.save({"denoise_fn.x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt"):
        load_released(DMFNet(), tmp_path / "evil.pt", released[1])


def test_a_failed_load_leaves_the_network_as_it_was(released):
    network = DMFNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"stage1\.pt"):
        load_released(network, released[0], released[0])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
