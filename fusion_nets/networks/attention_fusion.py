"""The fusion network of DM-FNet's second stage: step aggregation, attention fusion, multi-level merging."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["FusionDecoder"]


class FusionDecoder(nn.Module):
    """Fuse the UNet features of two sources from the coarsest level to the finest (DM-FNet, section III-C).

    Args:
        widths: channels of each level, finest first.
        steps: diffusion steps the features were taken at.
        head_width: channels between the two convolutions of the head; 0 for no head.
    """

    def __init__(self, widths: Sequence[int], steps: int = 3, head_width: int = 64) -> None:
        super().__init__()
        coarse_first = list(reversed(widths))
        following = [*coarse_first[1:], coarse_first[-1]]
        self.fused_widths = following[::-1]
        self.levels = nn.ModuleList(
            FusionLevel(width, after, steps, has_merge=index >= 2)
            for index, (width, after) in enumerate(zip(coarse_first, following, strict=True))
        )
        self.head = nn.Sequential()
        if head_width:
            self.head = nn.Sequential(
                nn.Conv2d(widths[0], head_width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(head_width, 1, 3, padding=1),
                nn.Tanh(),
            )

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Fuse.

        Args:
            features: one (steps, 2, B, C, h, w) a level, finest first.

        Returns:
            (B, 1, H, W) in [-1, 1].
        """
        return self.head(self.fused(features)[0])

    def fused(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of both sources one (B, C, h, w) a level, finest first, of ``fused_widths`` channels; before the head."""
        outputs: list[torch.Tensor] = []
        index = len(features)
        for level in self.levels:
            index -= 1
            outputs.append(level(features[index], outputs))
        outputs.reverse()
        return outputs


class FusionLevel(nn.Module):
    """One level: aggregate the steps of each source, fuse the sources, merge with the coarser levels."""

    def __init__(self, width: int, following: int, steps: int, has_merge: bool) -> None:
        super().__init__()
        self.aggregate = pointwise_then_3x3(steps * width, width)
        self.attention = AttentionFusion(width)
        self.merge = pointwise_then_3x3(width, width) if has_merge else nn.Identity()
        self.out = pointwise_then_3x3(width, following)

    def forward(self, features: torch.Tensor, coarser: list[torch.Tensor]) -> torch.Tensor:
        steps, sources, batch, width, height, breadth = features.shape
        stacked = features.permute(1, 2, 0, 3, 4, 5).reshape(sources * batch, steps * width, height, breadth)
        aggregated = self.aggregate(stacked)
        fused = self.attention(aggregated[:batch], aggregated[batch:])
        if len(coarser) > 0:
            fused = fused + upsample(coarser[-1])
        if len(coarser) > 1:
            fused = fused + upsample(self.merge(upsample(coarser[-2])))
        return self.out(fused)


class AttentionFusion(nn.Module):
    """Adaptive attention fusion: a gate from the sum of two features weighs one against the other.

    The gate is channel attention plus spatial attention, refined pixel by pixel with the sum itself.
    """

    def __init__(self, width: int, reduction: int = 8) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width // reduction, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // reduction, width, 1),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, padding_mode="reflect")
        self.pixel = nn.Conv2d(2 * width, width, 3, padding=1, padding_mode="reflect", groups=width)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        total = a + b
        pooled = torch.cat([total.mean(dim=1, keepdim=True), total.amax(dim=1, keepdim=True)], dim=1)
        # self.pixel of total and attention in turns, without making either: channels last would have to be moved
        of_total, of_attention = self.pixel.weight.split(1, dim=1)
        refined = F.conv2d(reflected(total), of_total, self.pixel.bias, groups=len(of_total))
        refined = refined + F.conv2d(reflected(self.spatial(pooled)), of_attention)
        refined = refined + self.channel(total) * of_attention.sum(dim=(1, 2, 3))[:, None, None]
        weight = total * torch.sigmoid(refined)
        return weight * a + (1 - weight) * b + total


def reflected(x: torch.Tensor) -> torch.Tensor:
    """With one pixel more on every side."""
    return F.pad(x, [1, 1, 1, 1], mode="reflect")


def pointwise_then_3x3(inputs: int, outputs: int) -> nn.Sequential:
    """1 x 1 convolution, ReLU, 3 x 3 convolution, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Twice the size, bilinear, corners aligned."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
