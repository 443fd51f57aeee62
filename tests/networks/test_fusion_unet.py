import pytest
import torch

from fusion_nets.networks import DMFNet, FusionUNet

TINY = {"width": 8, "norm_groups": 4, "steps": (10,), "detail_width": 8}


def stirred(network, seed=0):
    """All weights are those of the seed, and what starts at zero is random, too; no biases."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        if "head." in name or "guides." in name:
            value.data.normal_(std=0.05, generator=generator)
        elif value.ndim > 1:
            value.data.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("bias"):
            value.data.zero_()
    return network.eval()


def pairs(*size, batch=2):
    return 0.3 + 0.4 * torch.rand(batch, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (8, 9), (33, 47)])
@torch.no_grad()
def test_untrained_it_gives_the_pointwise_maximum_at_any_size(levels, size):
    image = torch.rand(2, 2, *size)
    assert torch.equal(FusionUNet(8, levels)(image), image.amax(1, keepdim=True))


@torch.no_grad()
def test_padding_repeats_the_border_and_the_result_is_bounded():
    network, image = stirred(FusionUNet(8)), pairs(14, 15)
    padded = torch.nn.functional.pad(image, [0, 1, 0, 2], mode="replicate")
    torch.testing.assert_close(network(image), network(padded)[..., :14, :15], atol=1e-5, rtol=0)
    for far, bound in [(-5.0, 0), (5.0, 1)]:
        network.head.bias.fill_(far)
        assert (network(image) == bound).all()


@torch.no_grad()
def test_guides_say_nothing_at_first_and_something_when_trained():
    guides = [torch.randn(2, 5, 48, 48), torch.randn(2, 6, 24, 24)]  # of an image that was padded further
    network = FusionUNet(8, guide_widths=[5, 6])
    torch.nn.init.normal_(network.head.weight, std=0.05)
    image = pairs(33, 40)
    assert torch.equal(network(image, guides), network(image))
    stirred(network)
    assert (network(image, guides) - network(image)).abs().max() > 1e-3


def test_what_is_refused():
    with pytest.raises(ValueError, match="levels is 1"):
        FusionUNet(8, 1, [4, 4])
    with pytest.raises(ValueError, match=r"\[1, 3, 8, 8\]"):
        FusionUNet(8)(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("size", [(32, 32), (47, 33)])
@torch.no_grad()
def test_as_the_head_of_dm_fnet_it_is_guided_by_the_features(size):
    network, image = stirred(DMFNet(**TINY)), pairs(*size)
    fused = network(image)
    assert fused.shape == (2, 1, *size)
    assert torch.equal(network(image, features=network.encode(image)), fused)
    assert (network.detail(image) - fused).abs().max() > 1e-4
    assert not any(name.startswith("fusion.head") for name in network.state_dict())


def test_features_and_sources_both_learn():
    network = stirred(DMFNet(**TINY)).train()
    network(pairs(32, 32)).square().mean().backward()
    assert all(p.grad.any() for name, p in network.detail.named_parameters() if name.endswith("weight"))
    assert network.fusion.levels[-1].aggregate[0].weight.grad.any()
    assert all(p.grad is None for p in network.unet.parameters())
