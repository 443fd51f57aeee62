import pytest
import torch

from fusion_nets.networks.noise import normal_from_uniform


@pytest.mark.parametrize("count", [16, 17, 31, 32, 33, 6 * 33 * 47, 6 * 64 * 64])
def test_uniform_numbers_become_what_torch_makes_of_them(count):
    """Behind six other numbers, as the noise level takes them from the same generator."""
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    level, expected = torch.rand(6, generator=first), torch.randn(count, generator=first)
    uniform = torch.rand(6 + count + 16, generator=second)
    assert torch.equal(uniform[:6], level)
    torch.testing.assert_close(normal_from_uniform(uniform[6:], count), expected, atol=2e-6, rtol=0)
