"""Noise of a seed: as one step of a compiled graph, and for exported ones without torch's generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["normal_from_uniform", "seeded"]


def normal_from_uniform(uniform: torch.Tensor, count: int) -> torch.Tensor:
    """What ``torch.randn`` makes, on a processor, of the uniform numbers its generator gives.

    Sixteen at a time, eight pairs by Box and Muller; where the last sixteen are not whole, sixteen more numbers are
    taken for the end (``normal_fill`` of ATen/native/cpu/DistributionTemplates.h).

    Args:
        uniform: (N,) in [0, 1), as ``torch.rand`` gives them, N at least ``count`` + 16.
        count: of normal numbers, at least 16.

    Returns:
        (count,), equal to those of ``torch.randn`` but for rounding.
    """
    # arithmetic instead of a condition: an exported graph keeps one branch of those it was traced through
    last = count - 16 + (count % 16 + 15) // 16 * 16
    values = _box_muller(uniform[: (count + 15) // 16 * 16])
    return torch.cat([values[: count - 16], _box_muller(uniform[last : last + 16])])


# torch.compile breaks a graph at a generator, and keeps an operator of one's own whole
@torch.library.custom_op("fusion_nets::seeded", mutates_args=())
def seeded(
    image: torch.Tensor, seed: torch.Tensor, uniform: Sequence[int], normal: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What torch's generator for the processor draws of a seed, on whatever device the image lies.

    Args:
        image: says where.
        seed: (1,).
        uniform: size of the numbers that are drawn first, from 0 to 1.
        normal: size of those that are drawn then, standard normal.

    Returns:
        Both, float32.
    """
    generator = torch.Generator().manual_seed(int(seed))
    first = torch.rand(uniform, generator=generator)
    return first.to(image.device), torch.randn(normal, generator=generator).to(image.device)


@seeded.register_fake
def _(
    image: torch.Tensor, seed: torch.Tensor, uniform: Sequence[int], normal: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where there are no values: traces, and torch's device "meta"."""
    first, second = (torch.empty(size, dtype=torch.float32, device=image.device) for size in (uniform, normal))
    return first, second


def _box_muller(uniform: torch.Tensor) -> torch.Tensor:
    """(16 n,) -> (16 n,)."""
    first, second = uniform.reshape(-1, 2, 8).unbind(1)
    radius = torch.sqrt(-2 * torch.log(1 - first))
    angle = 2 * math.pi * second
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1).flatten()
