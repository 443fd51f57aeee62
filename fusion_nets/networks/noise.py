"""Torch's normal noise without torch's generator, for exported graphs, which have none."""

from __future__ import annotations

import math

import torch

__all__ = ["normal_from_uniform"]


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


def _box_muller(uniform: torch.Tensor) -> torch.Tensor:
    """(16 n,) -> (16 n,)."""
    first, second = uniform.reshape(-1, 2, 8).unbind(1)
    radius = torch.sqrt(-2 * torch.log(1 - first))
    angle = 2 * math.pi * second
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1).flatten()
