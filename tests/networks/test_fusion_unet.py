import pytest
import torch

from fusion_nets.networks import DMFNet, FusionUNet, TextGuidedUNet

TINY = {"width": 8, "norm_groups": 4, "steps": (10,), "detail_width": 8}


def stirred(network, seed=0):
    """All weights are those of the seed, and what starts at zero is random, too; no biases."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.named_parameters():
        if any(part in name for part in ("head.", "guides.", "score.", "above.")):
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


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 96)])
@torch.no_grad()
def test_features_of_smaller_sources(size):
    """They are those of means of blocks, and what guides lies where it did; noise is every other pixel's."""
    torch.manual_seed(0)
    whole, reduced = (stirred(DMFNet(**TINY, feature_reduction=by)) for by in (1, 2))
    reduced.load_state_dict(whole.state_dict())
    image, noise, level = pairs(*size), torch.randn(1, 2, 1, *size), torch.full((1, 2, 1), 0.99)
    fused, unguided = reduced(image, noise, level), whole.detail(image)
    assert fused.shape == unguided.shape
    assert (fused - unguided).abs().max() > 1e-3
    if size[0] < 64:
        return
    edge = torch.nn.functional.pad(image, [0, 0, 0, 1], mode="replicate")
    smaller = edge.unflatten(3, (-1, 2)).mean(4).unflatten(2, (-1, 2)).mean(3)
    guides = whole.fusion.fused([level[:, :2] for level in whole.encode(smaller, noise[..., ::2, ::2], level)])
    expected = whole.detail(
        image, [torch.nn.functional.interpolate(g, scale_factor=2, mode="bilinear") for g in guides]
    )
    torch.testing.assert_close(fused, expected, atol=3e-3, rtol=0)


def test_what_is_refused():
    with pytest.raises(ValueError, match="levels is 1"):
        FusionUNet(8, 1, [4, 4])
    with pytest.raises(ValueError, match=r"\[1, 1, 8, 8\]"):
        FusionUNet(8)(torch.rand(1, 1, 8, 8))
    for how in ({"feature_reduction": 0}, {"feature_reduction": 2, "detail_width": 0}):
        with pytest.raises(ValueError, match="feature_reduction is"):
            DMFNet(**{**TINY, **how})
    with pytest.raises(ValueError, match="without detail_width"):
        DMFNet(**{**TINY, "detail_width": 0})(torch.rand(1, 3, 32, 32))


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
    trained = {name: p for name, p in network.detail.named_parameters() if not name.startswith("attention")}
    assert all(p.grad.any() for name, p in trained.items() if name.endswith("weight"))
    assert network.fusion.levels[-1].aggregate[0].weight.grad.any()
    assert all(p.grad is None for p in network.unet.parameters())


NETWORKS = {
    "FusionUNet": lambda: FusionUNet(8),
    "DMFNet": lambda: DMFNet(**TINY),
    "TextGuidedUNet": lambda: TextGuidedUNet(8, grounding={"widths": (8, 16), "said_width": 8}),
}


def several(overlays, size=(33, 40)):
    return 0.3 + 0.4 * torch.rand(2, 1 + overlays, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_overlays_in_another_order_give_the_same(name):
    network, image = stirred(NETWORKS[name]()).double(), several(3).double()
    fused = network(image)
    assert fused.shape == (2, 1, 33, 40)
    torch.testing.assert_close(network(image[:, [0, 3, 1, 2]]), fused, atol=1e-5, rtol=0)
    assert (network(image[:, [1, 0, 2, 3]]) - fused).abs().max() > 1e-4
    for left_out in (1, 2, 3):
        fewer = network(image[:, [i for i in range(4) if i != left_out]])
        assert (fewer - fused).abs().max() > 1e-4
    torch.testing.assert_close(network(image[1:]), fused[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_an_overlay_given_again_adds_nothing(name):
    network, image = stirred(NETWORKS[name]()).double(), several(1).double()
    torch.testing.assert_close(network(image[:, [0, 1, 1, 1]]), network(image), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_attention_has_no_part_in_a_pair():
    network, image = stirred(FusionUNet(8)), several(1)
    fused = network(image)
    torch.nn.init.normal_(network.attention[0].score.weight)
    assert torch.equal(network(image), fused)


def test_the_attention_learns_from_several_overlays():
    network = stirred(FusionUNet(8)).train()
    network(several(2)).square().mean().backward()
    assert all(p.grad.any() for p in network.attention.parameters() if p.ndim > 1)


@torch.no_grad()
def test_texts_of_several_overlays_change_each_its_own():
    network, image = stirred(NETWORKS["TextGuidedUNet"]()), several(2)
    torch.nn.init.constant_(network.grounding.head.bias, 1.0)
    text = torch.randn(2, 3, 4, network.text_width)
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    assert torch.equal(network.emphasise(image, text, mask), image)
    mask[:, 2] = True
    changed = (network.emphasise(image, text, mask) - image).abs().amax((0, 2, 3)) > 1e-3
    assert changed.tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"\(2, 3, L"):
        network(image, text[:, :2])
