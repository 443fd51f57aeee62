import pytest
import torch

from fusion_nets.networks import TextGrounding, TextGuidedUNet
from fusion_nets.networks.text_guided_unet import emphasised

GROUNDING = {"text_width": 12, "widths": (8, 16), "place_width": 8}


def disc(radius, size=64):
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (torch.hypot(rows - size / 2, columns - size / 2) <= radius).float()[None, None]


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = TextGuidedUNet(8, 2, grounding=GROUNDING).eval()
    torch.nn.init.normal_(network.fusion.head.weight, std=0.05)
    torch.nn.init.constant_(network.grounding.head.bias, 1.0)  # finds much
    return network


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return 0.2 + 0.5 * torch.rand(2, 2, 33, 40), torch.randn(2, 2, 5, 12), torch.ones(2, 2, 5, dtype=torch.bool)


@torch.no_grad()
def test_a_text_changes_its_own_source_alone(network, batch):
    image, text, mask = batch
    plain = network(image)
    assert torch.equal(plain, network.fusion(image))
    assert (network(image, text, mask) - plain).abs().max() > 1e-2
    assert torch.equal(network(image, text, mask), network(image, text))
    assert torch.equal(network(image, text, torch.zeros_like(mask)), plain)
    assert torch.equal(network(image, text[:, :, :0]), plain)
    only_overlay = mask.clone()
    only_overlay[:, 0] = False
    given = network(image, text, only_overlay)
    other = network(image, torch.cat([torch.randn(2, 1, 5, 12), text[:, 1:]], dim=1), only_overlay)
    torch.testing.assert_close(given, other)


@torch.no_grad()
def test_where_nothing_is_found_nothing_changes(network, batch):
    torch.nn.init.constant_(network.grounding.head.bias, -9.0)
    image, text, mask = batch
    assert torch.equal(network(image, text, mask), network(image))


@torch.no_grad()
def test_what_is_not_sure_enough_is_not_found():
    torch.manual_seed(0)
    image, text, mask = torch.rand(1, 1, 40, 41), torch.randn(1, 3, 12), torch.ones(1, 3, dtype=torch.bool)
    grounding = TextGrounding(**GROUNDING, threshold=0.5).eval()
    torch.nn.init.zeros_(grounding.head.bias)
    sure, found = torch.sigmoid(grounding(image, text, mask)), grounding.find(image, text, mask)
    assert (sure < 0.5).any()
    assert (sure > 0.5).any()
    torch.testing.assert_close(found, ((sure - 0.5) / 0.5).clamp_min(0))


@pytest.mark.parametrize("radius", [2, 7, 14])
@pytest.mark.parametrize("sign", [1, -1])
def test_emphasis_raises_the_contrast_of_a_disc(radius, sign):
    where = disc(radius)
    image = 0.4 + sign * 0.1 * where
    raised = emphasised(image, where, 0.5)
    inside = raised[where > 0]
    torch.testing.assert_close(inside - 0.4, torch.full_like(inside, sign * 0.15), atol=2e-3, rtol=0)
    assert torch.equal(raised[where == 0], image[where == 0])


def test_emphasis_keeps_to_the_range_and_a_flat_image_as_it_is():
    where = disc(5)
    assert emphasised(0.9 * where, where, 1.0).max() == 1
    flat = torch.full((1, 1, 64, 64), 0.3)
    torch.testing.assert_close(emphasised(flat, torch.rand(1, 1, 64, 64), 1.0), flat)
    torch.testing.assert_close(emphasised(flat, torch.ones(1, 1, 64, 64), 0.5).max(), torch.tensor(0.45))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": torch.rand(1, 1, 16, 16)}, r"\[1, 1, 16, 16\]"),
        ({"text": torch.rand(1, 2, 5, 11)}, r"\[1, 2, 5, 11\]"),
        ({"text": torch.rand(1, 2, 5, 12), "text_mask": torch.ones(1, 2, 4)}, r"\[1, 2, 4\]"),
    ],
)
def test_wrong_shapes_are_named(network, given, said):
    with pytest.raises(ValueError, match=said):
        network(**{"image": torch.rand(1, 2, 16, 16), **given})


def test_threshold_is_checked():
    with pytest.raises(ValueError, match="threshold is 1"):
        TextGrounding(threshold=1)
