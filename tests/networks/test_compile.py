"""Networks compile into one graph, without a break; "eager" runs the graph as torch captured it."""

import pytest
import torch

from fusion_nets.networks import DMFNet, TextGuidedUNet

pytestmark = pytest.mark.slow

TINY = {"width": 8, "multipliers": [1, 1], "blocks": 1, "norm_groups": 4, "steps": [5, 10]}
GROUNDING = {"widths": [8, 16], "said_width": 8, "threshold": 0.0}


@pytest.fixture(autouse=True)
def afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(network):
    return torch.compile(network, fullgraph=True, backend="eager")


@torch.no_grad()
@pytest.mark.parametrize(
    "how", [{}, {"detail_width": 8}, {"detail_width": 8, "feature_reduction": 2}, {"noise_pixels": 32 * 32}], ids=str
)
def test_dmfnet(how):
    network, image = DMFNet(**TINY, **how).eval(), torch.rand(2, 2, 32, 32)
    level = torch.full((2, 2, 1), 0.99)
    for given in ({}, {"noise_level": level}, {"noise": torch.zeros(2, 2, 1, 32, 32)}):
        assert torch.equal(compiled(network)(image, **given), network(image, **given))


def test_dmfnet_in_training():
    """Noise is fresh there, in a compiled network, too; and the same for the same seed of torch."""
    network, image = DMFNet(**TINY, detail_width=8).train(), torch.rand(2, 2, 32, 32)
    for value in network.detail.parameters():
        torch.nn.init.normal_(value, std=0.1)
    made = []
    for run in (network, compiled(network)):
        torch.manual_seed(0)
        made.append([run(image) for _ in range(2)])
    torch.testing.assert_close(made[0], made[1])
    assert not torch.equal(*made[0])
    made[1][0].sum().backward()
    assert network.detail.head.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("text", [True, False])
def test_text_guided_unet(text):
    network, image = TextGuidedUNet(width=8, levels=2, grounding=GROUNDING).eval(), torch.rand(1, 2, 32, 40)
    text = (torch.rand(1, 2, 3, network.text_width), torch.ones(1, 2, 3, dtype=torch.bool)) if text else ()
    torch.testing.assert_close(compiled(network)(image, *text), network(image, *text), rtol=0, atol=1e-6)
