"""What SMFusion is made of: Restormer blocks from MONAI's attention and feed-forward parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks.cablock import CABlock, FeedForward
from torch import nn

__all__ = ["ChannelAttention", "ChannelNorm", "GatedFeedForward", "RestormerBlock"]


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel, as Restormer has it.

    Nothing is averaged over pixels, so that a crop is normalised as the whole image is.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        centred = x - x.mean(dim=1, keepdim=True)
        scale = torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + self.eps)
        return centred * scale * self.weight + self.bias


class ChannelAttention(CABlock):
    """MONAI's ``CABlock`` that can also look at another image: queries from one, keys and values from the other.

    With one input it computes what ``CABlock`` does, in plain tensor operations that TorchScript can compile.

    Args:
        channels: of both inputs.
        heads: of the attention; divides the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(spatial_dims=2, dim=channels, num_heads=heads, bias=False)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, H, W) and, for cross-attention, a context of the same shape -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        query, key, value = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        if context is not None:
            _, key, value = self.qkv_dwconv(self.qkv(context)).chunk(3, dim=1)
        heads = [batch, self.num_heads, channels // self.num_heads, height * width]
        query = F.normalize(query.reshape(heads), dim=-1)
        key = F.normalize(key.reshape(heads), dim=-1)
        attention = (query @ key.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((attention @ value.reshape(heads)).reshape(batch, channels, height, width))


class GatedFeedForward(FeedForward):
    """MONAI's ``FeedForward``, in a form that TorchScript can compile (MONAI 1.6 casts to a type inside)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class RestormerBlock(nn.Module):
    """Channel attention, then a gated feed-forward network, each normalised and with a residual.

    Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, figure 2.

    Args:
        channels: in and out.
        heads: of the attention.
        expansion: of the feed-forward network's channels.
    """

    def __init__(self, channels: int, heads: int, expansion: float = 2.66) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(channels)
        self.attention = ChannelAttention(channels, heads)
        self.feed_forward_norm = ChannelNorm(channels)
        self.feed_forward = GatedFeedForward(spatial_dims=2, dim=channels, ffn_expansion_factor=expansion, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))
