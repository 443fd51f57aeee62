import pytest
import torch

from fusion_nets.networks.noise import normal_from_uniform, seeded


@pytest.mark.parametrize("count", [16, 17, 31, 32, 33, 6 * 33 * 47, 6 * 64 * 64])
def test_uniform_numbers_become_what_torch_makes_of_them(count):
    """Behind six other numbers, as the noise level takes them from the same generator."""
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    level, expected = torch.rand(6, generator=first), torch.randn(count, generator=first)
    uniform = torch.rand(6 + count + 16, generator=second)
    assert torch.equal(uniform[:6], level)
    torch.testing.assert_close(normal_from_uniform(uniform[6:], count), expected, atol=2e-6, rtol=0)


def test_seeded_noise_is_that_of_a_generator():
    generator = torch.Generator().manual_seed(7)
    first, second = seeded(torch.zeros(1), torch.tensor([7]), [3, 2], [4, 5])
    assert torch.equal(first, torch.rand(3, 2, generator=generator))
    assert torch.equal(second, torch.randn(4, 5, generator=generator))
    nothing, second = seeded(torch.zeros(1), torch.tensor([7]), [0], [4, 5])
    assert nothing.shape == (0,)
    assert torch.equal(second, torch.randn(4, 5, generator=torch.Generator().manual_seed(7)))
    there = seeded(torch.zeros(1, device="meta"), torch.tensor([7]), [3, 2], [4, 5])
    assert [(one.device.type, tuple(one.shape)) for one in there] == [("meta", (3, 2)), ("meta", (4, 5))]


def test_seeded_noise_is_an_operator_that_torch_can_capture():
    for sizes in (([3, 2], [4, 5]), ([0], [2, 2])):
        torch.library.opcheck(seeded, (torch.zeros(1), torch.tensor([7]), *sizes))
