"""Where tokens and patches lie, and the biases that attention takes from it. Positions never enter the states."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["absolute_bias", "patch_buckets", "patch_positions", "relative_bias", "token_buckets"]


def token_buckets(query: torch.Tensor, key: torch.Tensor, bucket_size: int, longest: int) -> torch.Tensor:
    """Classes of the distances between tokens: exact within half of `bucket_size`, logarithmic beyond.

    Args:
        query: positions, (Q,).
        key: positions, (K,).
        bucket_size: classes on either side.
        longest: number of positions there are; the farthest distance has the last class.

    Returns:
        Indices from 0 to ``2 * bucket_size - 2``, (Q, K).

    Source: the buckets of He et al., DeBERTa, ICLR 2021.
    """
    distance = query[:, None] - key[None, :]
    exact = bucket_size // 2
    far = distance.abs().clamp(min=exact).float()
    logarithmic = exact + torch.ceil((far / exact).log() / math.log((longest - 1) / exact) * (exact - 1)).long()
    bucket = torch.where(distance.abs() <= exact, distance, distance.sign() * logarithmic)
    return bucket.clamp(1 - bucket_size, bucket_size - 1) + bucket_size - 1


def patch_positions(height: int, width: int, side: int, device: torch.device) -> torch.Tensor:
    """Positions of height x width patches, row by row, in the grid of `side` x `side`: (height * width,), from 1."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return (rows[:, None] * side + columns + 1).flatten()


def patch_buckets(height: int, width: int, side: int, device: torch.device) -> torch.Tensor:
    """Classes of the offsets between height x width patches, rows and columns apart: (N, N) with N = height * width."""
    index = torch.arange(height * width, device=device)
    rows, columns = index // width, index % width
    down, right = rows[:, None] - rows[None, :], columns[:, None] - columns[None, :]
    return (down + side - 1) * (2 * side - 1) + right + side - 1


def absolute_bias(
    query: torch.Tensor, key: torch.Tensor, query_linear: nn.Linear, key_linear: nn.Linear, heads: int
) -> torch.Tensor:
    """Bias between positions: their normalised embeddings, (B, Q, D) and (B, K, D), -> (B, heads, Q, K)."""
    queries = query_linear(query).unflatten(-1, (heads, -1)).transpose(1, 2)
    keys = key_linear(key).unflatten(-1, (heads, -1)).transpose(1, 2)
    return queries @ keys.transpose(2, 3) * (2 * queries.shape[-1]) ** -0.5


def relative_bias(table: nn.Module, buckets: torch.Tensor) -> torch.Tensor:
    """Bias by distance: a layer's table, (classes, heads), and (Q, K) classes -> (heads, Q, K)."""
    return table(buckets).movedim(-1, 0)
