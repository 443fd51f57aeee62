"""Only what shows goes through the network, and the result is the same."""

import pytest
import torch

from fusion_nets.networks import FusionUNet, TextGuidedUNet
from fusion_nets.workflows import EngineNetwork, SlicewiseInferer, kept_network
from fusion_nets.workflows.shown import shown_box, shows

LEVEL = 1 / 255


def blobs(*size, seed=0):
    """A smooth pair that shows something everywhere, (1, 2, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 2, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True).clamp(0.05, 1)


def within(pair, height, width, row, column):
    """The pair in the black of a larger image."""
    image = torch.zeros(1, 2, height, width)
    image[..., row : row + pair.shape[2], column : column + pair.shape[3]] = pair
    return image


def test_a_slice_shows_where_any_source_is_not_black():
    slices = torch.zeros(4, 2, 5, 6)
    slices[1, 1, 4, 5] = 1e-3
    slices[2] = 0.5  # grey everywhere is not black
    slices[3, 0, 0, 0] = torch.nan
    assert shows(slices).tolist() == [False, True, True, True]


@pytest.mark.parametrize("stride", [4, 16])
@pytest.mark.parametrize("place", [(0, 0), (70, 101), (199, 239), (3, 200)])
def test_the_box_holds_what_shows_with_its_margin(place, stride):
    image = torch.zeros(1, 2, 203, 243, 3)
    image[0, 1, place[0], place[1], 2] = 1
    image[0, 0, place[0] : place[0] + 3, place[1] : place[1] + 3, 0] = 1
    box = shown_box(image, 30, stride)
    for side, at, size in zip(box, place, image.shape[2:], strict=False):
        assert side.start % stride == 0
        assert side.stop == size or side.stop % stride == 0
        assert side.start <= max(at - 30, 0)
        assert side.stop >= min(at + 3 + 30, size)
        assert side.stop - side.start >= 64


def test_no_box_where_nothing_is_saved():
    assert shown_box(torch.ones(1, 2, 100, 100), 30, 4) is None
    assert shown_box(torch.zeros(1, 2, 100, 100), 30, 4) is None


@torch.no_grad()
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_reach_is_what_a_pixel_depends_on(levels):
    torch.manual_seed(0)
    network = FusionUNet(4, levels).double().eval()
    torch.nn.init.normal_(network.head.weight)
    image = torch.full((1, 2, 160, 160), 0.5, dtype=torch.float64)
    changed = image.clone()
    changed[..., 80, 80] = 0.9
    apart = (network(changed) - network(image))[0, 0].abs() > 1e-15
    rows = torch.nonzero(apart.any(dim=1))[:, 0]
    assert 80 - rows[0] <= network.reach
    assert rows[-1] - 80 <= network.reach


@pytest.fixture(scope="module", params=["dmfnet", "smfusion"])
def shipped(request):
    kept = kept_network(request.param, engine="torch", precision="float32")
    return kept["network_def"], kept["network"]


@torch.no_grad()
def test_the_shipped_networks_fuse_the_same_in_the_box_and_black_outside(shipped):
    """Within one 8-bit level everywhere; what is black far from all that shows stays black."""
    network, fast = shipped
    image = within(blobs(61, 83), 203, 240, 90, 70)
    whole = network(image)
    fused = SlicewiseInferer()(image, fast)
    rows, columns = shown_box(image, fast.reach, fast.stride)
    assert (rows.stop - rows.start) * (columns.stop - columns.start) < 0.6 * 203 * 240
    assert (fused - whole).abs().max() <= LEVEL
    assert (fused - whole)[..., 90:151, 70:153].abs().max() <= LEVEL / 2
    outside = torch.ones(203, 240, dtype=torch.bool)
    outside[rows, columns] = False
    assert torch.all(fused[0, 0][outside] == 0)
    if isinstance(network, TextGuidedUNet):
        torch.testing.assert_close(fused[..., 90:151, 70:153], whole[..., 90:151, 70:153], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("shipped", ["dmfnet"], indirect=True)
def test_the_noise_is_that_of_the_place(shipped):
    """Not of the place in the box."""
    network, fast = shipped
    image = within(blobs(80, 80), 200, 200, 64, 80)
    box = shown_box(image, fast.reach, fast.stride)
    noise, level = network.drawn(image)
    inside = network(image[..., box[0], box[1]], noise[..., box[0], box[1]], level)
    torch.testing.assert_close(fast(image, box=box)[..., box[0], box[1]], inside, atol=1e-6, rtol=0)
    with_other_noise = network(image[..., box[0], box[1]])
    assert (with_other_noise - inside).abs().max() > 1e-5


@torch.no_grad()
def test_findings_are_looked_for_in_the_whole_image():
    torch.manual_seed(0)
    how = {"text_width": 12, "widths": (8, 16), "said_width": 8, "threshold": 0.0}
    network = TextGuidedUNet(8, 3, grounding=how).double().eval()
    for name, value in network.named_parameters():
        if "head." in name:
            torch.nn.init.normal_(value, std=0.2)
    image = within(blobs(60, 60), 220, 220, 8, 150).double()
    text, mask = torch.randn(1, 2, 3, 12).double(), torch.tensor([[[True, True, False], [False, False, False]]])
    expected = network(image, text, mask)
    assert (expected - network(image)).abs().max() > 0.01
    fused = SlicewiseInferer()(image, EngineNetwork(network, "cpu", "torch", "float32"), text=text, text_mask=mask)
    torch.testing.assert_close(fused[..., 8:68, 150:210], expected[..., 8:68, 150:210], atol=1e-9, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("together", [1, 3, "auto"])
def test_black_slices_do_not_go_through_the_network(together):
    torch.manual_seed(0)
    network = FusionCounted(TextGuidedUNet(8, 3).eval())
    torch.nn.init.constant_(network.network.fusion.head.bias, 0.1)  # it would make black grey
    volume = torch.zeros(1, 2, 72, 90, 6)
    for k in (1, 2, 4):
        volume[..., k] = within(blobs(30, 40, seed=k), 72, 90, 20, 30)
    fused = SlicewiseInferer(together, slice_arguments=["text"])(volume, network.fast)
    assert network.slices == 3
    assert [bool(fused[..., k].any()) for k in range(6)] == [False, True, True, False, True, False]
    for k in (1, 2, 4):
        expected = network.network(volume[..., k])
        torch.testing.assert_close(fused[..., 20:50, 30:70, k], expected[..., 20:50, 30:70], atol=1e-6, rtol=0)
    assert not SlicewiseInferer(together)(torch.zeros(1, 2, 72, 90, 3), network.fast).any()
    assert not SlicewiseInferer(together)(torch.zeros(1, 2, 72, 90), network.fast).any()
    assert network.slices == 6  # of these three for what was expected


class FusionCounted:
    """Counts the slices that a network fuses."""

    def __init__(self, network):
        self.network, self.slices = network, 0
        self.fast = EngineNetwork(network, "cpu", "torch", "float32")
        network.fusion.register_forward_hook(self.count)

    def count(self, module, given, fused):
        self.slices += len(fused)
