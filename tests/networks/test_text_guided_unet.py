import pytest
import torch

from fusion_nets.networks import TextGrounding, TextGuidedUNet
from fusion_nets.networks.text_grounding import _mirrored
from fusion_nets.networks.text_guided_unet import emphasised

GROUNDING = {"text_width": 12, "widths": (8, 16), "said_width": 8}


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
def test_the_surest_pixel_says_whether_a_finding_is_there():
    torch.manual_seed(0)
    image, text, mask = torch.rand(1, 1, 40, 41), torch.randn(1, 2, 12), torch.ones(1, 2, dtype=torch.bool)
    grounding = TextGrounding(**GROUNDING).eval()
    alone = [grounding(image, text[:, which : which + 1], mask[:, :1]) for which in range(2)]
    torch.testing.assert_close(grounding(image, text, mask), torch.maximum(*alone))
    surest = sorted(torch.sigmoid(one[:, 0].max()).item() for one in alone)
    for threshold, there in ((0.0, 2), (sum(surest) / 2, 1), (surest[1] + 1e-3, 0)):
        grounding.threshold = threshold
        found = [grounding.find(image, text[:, which : which + 1], mask[:, :1]) for which in range(2)]
        assert sum(bool(one.any()) for one in found) == there
        torch.testing.assert_close(grounding.find(image, text, mask), torch.maximum(*found))
    grounding.threshold = 0.0
    sure = torch.sigmoid(alone[0][:, :1] + 20)
    grounding.head.bias += 20
    there = grounding.find(image, text[:, :1], mask[:, :1])
    assert there.max() == 1
    torch.testing.assert_close(there, (5 * sure / sure.max() - 3).clamp(0, 1))
    grounding.threshold = 0.5
    assert grounding.find(image, text, mask).any()
    assert not grounding.find(image, text, torch.zeros_like(mask)).any()


@torch.no_grad()
def test_a_finding_whose_tone_is_not_said_may_be_either():
    torch.manual_seed(0)
    image, text, mask = torch.rand(2, 1, 40, 41), torch.randn(2, 1, 12), torch.ones(2, 1, dtype=torch.bool)
    grounding = TextGrounding(**GROUNDING).eval()
    grounding.said[0].weight[:, 0] = 0  # the tone says nothing else
    sure = {}
    for tone in (1.0, 0.0, -1.0):
        text[:, :, 0] = tone
        sure[tone] = grounding(image, text, mask)
    assert (sure[1.0] - sure[-1.0]).abs().max() > 1e-3
    assert (sure[0.0] >= torch.maximum(sure[1.0], sure[-1.0]) - 1e-5).all()
    wider = torch.logaddexp(sure[1.0], sure[-1.0])  # of either, of each size
    assert (sure[0.0] <= wider + 1e-5).all()


@torch.no_grad()
@pytest.mark.parametrize("columns", [64, 65, 70])
def test_the_other_side_is_mirrored_about_the_middle_of_the_head(columns):
    image = torch.zeros(1, 1, 16, columns)
    image[..., 20:52] = torch.linspace(0.2, 0.9, 32)
    expected = torch.zeros_like(image)
    expected[..., 20:52] = torch.linspace(0.9, 0.2, 32)
    torch.testing.assert_close(_mirrored(image), expected, atol=3e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("times", [2, 3])
def test_a_finer_grid_is_searched_as_the_one_that_was_learnt_from(times):
    torch.manual_seed(0)
    image, text, mask = torch.rand(2, 1, 96, 300), torch.randn(2, 2, 12), torch.ones(2, 2) > 0
    grounding = TextGrounding(**GROUNDING, threshold=0.0).eval()
    torch.nn.init.constant_(grounding.head.bias, 1.0)
    found = grounding.find(image, text, mask)
    finer = image.repeat_interleave(times, 2).repeat_interleave(times, 3)
    expected = torch.nn.functional.interpolate(found, size=finer.shape[2:], mode="bilinear", align_corners=False)
    assert expected.amax() > 0.5
    torch.testing.assert_close(grounding.find(finer, text, mask), expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 1200), (385, 2)])
def test_a_long_strip_is_searched(size):
    grounding = TextGrounding(**GROUNDING, threshold=0.0).eval()
    found = grounding.find(torch.rand(1, 1, *size), torch.randn(1, 1, 12), torch.ones(1, 1) > 0)
    assert found.shape == (1, 1, *size)
    assert torch.isfinite(found).all()


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
    with pytest.raises(ValueError, match=r"widths are \[16\]"):
        TextGrounding(widths=[16])
