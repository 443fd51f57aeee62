"""The UNet of DM-FNet's first stage: it reconstructs a clean image from a noisy one and the noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["DiffusionUNet"]


class DiffusionUNet(nn.Module):
    """UNet that predicts the clean image, its decoder features being what DM-FNet fuses.

    The architecture is SR3's (Saharia et al., "Image super-resolution via iterative refinement", appendix B) in the
    form DM-FNet uses it (He et al., IEEE TMM 2025, section III-B): a continuous noise level enters every residual
    block, skip connections come from every stage of the way down, and self-attention stands only in the middle.

    Args:
        channels: channels of the image, in and out.
        width: channels at full size.
        multipliers: width multiplier of each level, finest first; each level halves the size of the one before.
        blocks: residual blocks a level on the way down; the way up has one more.
        norm_groups: groups of each group normalisation.
        dropout: rate in the second half of each residual block.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 1, 1, 2),
        blocks: int = 2,
        norm_groups: int = 32,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        if any(w % norm_groups for w in widths):
            raise ValueError(f"every level's width must be a multiple of norm_groups={norm_groups}, got {widths}")
        self.stride = 2 ** (len(widths) - 1)
        # of each level's first decoder block, finest level first: what DM-FNet fuses
        self.feature_indices = [(blocks + 1) * (level + 1) - 1 for level in range(len(widths))]
        self.noise_embedding = NoiseEmbedding(width)

        def residual(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, width, norm_groups, dropout)

        skips: list[int] = []
        self.encoder = nn.ModuleList()
        current = width
        for level, level_width in enumerate(widths):
            entry: nn.Module = (
                nn.Conv2d(channels, width, 3, padding=1)
                if level == 0
                else nn.Conv2d(current, current, 3, stride=2, padding=1)
            )
            inputs = [current] + [level_width] * (blocks - 1)
            self.encoder.append(Level(entry, [residual(i, level_width) for i in inputs]))
            skips += [current] + [level_width] * blocks
            current = level_width

        self.middle_first = residual(current, current)
        self.attention = SelfAttention(current, norm_groups)
        self.middle_last = residual(current, current)

        self.decoder = nn.ModuleList()
        for level, level_width in reversed(list(enumerate(widths))):
            entry = nn.Identity() if level == len(widths) - 1 else UpsampleConv(current)
            stage = []
            for _ in range(blocks + 1):
                stage.append(residual(current + skips.pop(), level_width))
                current = level_width
            self.decoder.append(Level(entry, stage))
        self.head_norm = nn.GroupNorm(norm_groups, current)
        self.head = nn.Conv2d(current, channels, 3, padding=1)

    def forward(self, noisy: torch.Tensor, noise_level: torch.Tensor) -> torch.Tensor:
        """Reconstruct the clean image.

        Args:
            noisy: (B, channels, H, W), the image in [-1, 1] times g plus Gaussian noise times sqrt(1 - g^2); H and W
                multiples of 2 ** (levels - 1).
            noise_level: (B,), g in [0, 1].

        Returns:
            (B, channels, H, W), the predicted clean image, not clamped.
        """
        last = self.features(noisy, noise_level, [0])[0]
        return self.head(silu(self.head_norm(last)))

    def features(self, noisy: torch.Tensor, noise_level: torch.Tensor, indices: list[int]) -> list[torch.Tensor]:
        """Outputs of chosen residual blocks of the decoder; nothing behind the last of them is computed.

        Args:
            noisy: as for :meth:`forward`.
            noise_level: as for :meth:`forward`.
            indices: the blocks wanted, counted from the last one (0) back to the first.

        Returns:
            One tensor (B, C, h, w) an index, in the order of ``indices``.
        """
        embedding = self.noise_embedding(noise_level).to(noisy.dtype)
        skips: list[torch.Tensor] = []
        x = noisy
        for level in self.encoder:
            x = level.entry(x)
            skips.append(x)
            for block in level.blocks:
                x = block(x, embedding)
                skips.append(x)
        x = self.middle_first(x, embedding)
        x = self.middle_last(self.attention(x), embedding)

        remaining = len(skips)
        last = min(indices)
        found: dict[int, torch.Tensor] = {}
        for level in self.decoder:
            if remaining > last:
                x = level.entry(x)
            for block in level.blocks:
                if remaining > last:
                    x = block(torch.cat([x, skips.pop()], dim=1), embedding)
                    remaining -= 1
                    if remaining in indices:
                        found[remaining] = x
        return [found[i] for i in indices]


class Level(nn.Module):
    """One resolution of the UNet: what leads into it, and its residual blocks. A container, called part by part."""

    def __init__(self, entry: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.entry = entry
        self.blocks = nn.ModuleList(blocks)


class NoiseEmbedding(nn.Module):
    """Noise level (B,) to features (B, width): sinusoids of geometric frequencies, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)

    def forward(self, noise_level: torch.Tensor) -> torch.Tensor:
        angles = noise_level.reshape(-1, 1) * self.frequencies
        return self.project(F.silu(self.expand(torch.cat([angles.sin(), angles.cos()], dim=1))))


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions around the noise level, and the way past them."""

    def __init__(self, inputs: int, outputs: int, embedding: int, norm_groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.noise = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(norm_groups, outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = h + self.noise(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        return h + self.shortcut(x)


class SelfAttention(nn.Module):
    """Single-head self-attention over all pixels, with a residual connection."""

    def __init__(self, width: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, breadth = x.shape
        # one head as an axis of its own: exporters know no attention without it
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, 1, width, height * breadth).transpose(3, 4)
        attended = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.out(attended.transpose(2, 3).reshape(batch, width, height, breadth))


class UpsampleConv(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3 x 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def silu(x: torch.Tensor) -> torch.Tensor:
    """Swish of a tensor that nothing else reads: in place where no gradient is asked for."""
    return F.silu(x, inplace=not torch.is_grad_enabled())
