"""A large slice goes through the network in tiles, and no seam is seen."""

import itertools

import pytest
import torch

from fusion_nets.networks import DMFNet, FusionUNet
from fusion_nets.workflows import EngineNetwork, SlicewiseInferer, engines, kept_network
from fusion_nets.workflows.shown import tiles

LEVEL = 1 / 255


def pair(height, width, seed=0):
    """Coarse blobs with fine grain, (1, 2, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 2, 9, 9, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return (blobs + 0.1 * torch.randn(1, 2, height, width, generator=generator)).clamp(0.02, 1)


@pytest.mark.parametrize("size", [(2048, 2048), (1024, 1500), (641, 641), (3000, 201), (100, 20000), (1001, 999)])
@pytest.mark.parametrize("start", [0, 16])
def test_tiles_are_the_box_with_their_margin_and_none_too_large(size, start):
    box = slice(start, start + size[0]), slice(2 * start, 2 * start + size[1])
    found = tiles(box, 30, 16, 400_000)
    assert len(found) > 1
    covered = torch.zeros(box[0].stop, box[1].stop)
    for tile, seen in found:
        covered[tile] += 1
        assert (seen[0].stop - seen[0].start) * (seen[1].stop - seen[1].start) <= 400_000
        for part, looked, side in zip(tile, seen, box, strict=True):
            assert looked.start % 16 == 0
            assert looked.stop == side.stop or looked.stop % 16 == 0
            assert looked.start <= max(part.start - 30, side.start)
            assert looked.stop >= min(part.stop + 30, side.stop)
            assert looked.start >= side.start
            assert looked.stop <= side.stop
    assert torch.all(covered[box] == 1)
    assert covered.sum() == size[0] * size[1]


def test_what_fits_is_one_tile_and_no_tile_is_tiny():
    box = slice(0, 512), slice(16, 528)
    assert tiles(box, 30, 16, 512 * 512) == [(box, box)]
    assert len(tiles(box, 30, 16, 1000)) == 4  # of 256 x 256


MOST = 130_000


@pytest.fixture
def no_memory(monkeypatch):
    """So little that an image of 560 x 600 needs four tiles; gives the tiles that are asked for."""
    asked = []
    monkeypatch.setattr(engines, "total_memory", lambda: 4 * MOST * engines._BYTES)
    monkeypatch.setattr(engines, "tiles", lambda *given: asked.append(tiles(*given)) or asked[-1])
    return asked


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("method", "most"), [("dmfnet", 1.0), ("smfusion", 0.01)])
def test_the_shipped_networks_leave_no_seam(method, most, no_memory):
    """Within one 8-bit level of the untiled image; twice the same."""
    network = kept_network(method, engine="torch", precision="float32")["network"]
    image = pair(560, 520)
    whole = network.network(image)
    tiled = SlicewiseInferer()(image, network)
    assert [len(some) for some in no_memory] == [4]
    assert (tiled - whole).abs().max() <= most * LEVEL
    assert torch.equal(SlicewiseInferer()(image, network), tiled)


@torch.no_grad()
def test_a_tile_needs_no_more_than_its_share(no_memory, monkeypatch):
    """Also of the box in which something shows, and of every slice of a volume."""
    torch.manual_seed(0)
    network = EngineNetwork(
        DMFNet(width=8, norm_groups=4, steps=(10,), detail_width=8).eval(), engine="torch", precision="float32"
    )
    sizes = []
    monkeypatch.setattr(network, "_prepare", lambda: lambda image, noise: sizes.append(image.shape) or image[:, :1])
    image = torch.zeros(1, 2, 900, 700, 2)
    image[:, :, 100:640, 190:700] = pair(540, 510)[..., None]
    fused = SlicewiseInferer()(image, network)
    assert torch.equal(fused, image[:, :1])
    assert len(sizes) == 2 * 4
    assert max(shape[2] * shape[3] for shape in sizes) <= MOST


@pytest.mark.slow
@torch.no_grad()
def test_a_network_whose_pixels_need_all_of_an_image_gets_it(no_memory):
    torch.manual_seed(0)
    network = DMFNet(width=8, norm_groups=4, head_width=4).eval()
    image = pair(530, 520)
    fused = EngineNetwork(network, engine="torch", precision="float32")(image)
    assert torch.equal(fused, network(image))
    assert not no_memory


@torch.no_grad()
def test_without_the_margin_there_is_a_seam():
    """What the margin is for: the network of one without it departs at the tiles' borders, and nowhere else."""
    torch.manual_seed(3)
    network = FusionUNet(8).eval()
    torch.nn.init.normal_(network.head.weight, std=0.05)
    image = pair(600, 560)
    whole = network(image)
    apart = {}
    for margin in (0, network.reach):
        tiled = torch.zeros_like(whole)
        for tile, seen in tiles((slice(0, 600), slice(0, 560)), margin, network.stride, MOST):
            inside = [slice(t.start - s.start, t.stop - s.start) for t, s in zip(tile, seen, strict=True)]
            tiled[..., tile[0], tile[1]] = network(image[..., seen[0], seen[1]])[..., inside[0], inside[1]]
        apart[margin] = (tiled - whole).abs()
    assert apart[0].max() > 5 * LEVEL
    assert apart[network.reach].max() < 1e-5
    rows = sorted({tile[0].start for tile, _ in tiles((slice(0, 600), slice(0, 560)), 0, 4, MOST)})[1:]
    near = torch.zeros(600, dtype=torch.bool)
    for row, offset in itertools.product(rows, range(-network.reach, network.reach)):
        near[row + offset] = True
    assert apart[0][0, 0, ~near, 100].max() < 1e-5
