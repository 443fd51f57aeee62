"""A small UNet that fuses two or more sources as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["FusionUNet", "SourceAttention", "in_pairs"]


class FusionUNet(nn.Module):
    """Fuse an anatomical slice and its overlays: the departure from their pointwise maximum, at first none.

    A plain UNet of two convolutions a level (Ronneberger et al., "U-Net", MICCAI 2015), averaged on the way down and
    interpolated on the way up. What other networks know of the pair may guide it: their feature maps are added to its
    own at the levels where they are as large, through 1 x 1 convolutions that start at zero (Zhang et al., ControlNet,
    ICCV 2023), so that a trained network goes on from what it can do without.

    Of several overlays each is encoded beside the anatomy by the same weights, and :class:`SourceAttention` makes one
    feature of theirs at every level: their order does not matter, and with one overlay it changes nothing.

    Args:
        width: channels of the finest level; each coarser one has twice as many.
        levels: resolutions, each half of the one before.
        guide_widths: channels of the guiding feature maps, finest first, at most one a level.

    Attributes:
        stride: pixels of the coarsest level's.
        reach: pixels around one that its result depends on.

    Raises:
        ValueError: for more guides than levels.
    """

    def __init__(self, width: int = 48, levels: int = 3, guide_widths: Sequence[int] = ()) -> None:
        super().__init__()
        if levels < 1 or len(guide_widths) > levels:
            raise ValueError(f"levels is {levels}; 1 or more, and no fewer than the {len(guide_widths)} guides")
        self.stride = 2 ** (levels - 1)
        # the way down (two convolutions a level, averaging between), the way up (interpolation, two convolutions), head
        self.reach = 2 * (2 * self.stride - 1) + (self.stride - 1) + 4 * (self.stride - 1) + 1
        widths = [width * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(
            _two_convolutions(before, after) for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.guides = nn.ModuleList(
            _at_first_zero(nn.Conv2d(guide, after, 1)) for guide, after in zip(guide_widths, widths, strict=False)
        )
        self.attention = nn.ModuleList(SourceAttention(each) for each in widths)
        self.decoder = nn.ModuleList(
            _two_convolutions(widths[level] + widths[level + 1], widths[level]) for level in reversed(range(levels - 1))
        )
        self.head = _at_first_zero(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, image: torch.Tensor, guides: list[torch.Tensor] | None = None) -> torch.Tensor:
        """Fuse a batch.

        Args:
            image: (B, 1 + K, H, W) in [0, 1], the anatomy and K overlays, one or more; any H and W.
            guides: feature maps (B * K, C, h, w), finest first, of the image's :func:`in_pairs`, which may be padded at
                its end; None for none.

        Returns:
            (B, 1, H, W) in [0, 1], the fused luminance.

        Raises:
            ValueError: if the image has fewer than two channels.
        """
        if image.ndim != 4 or image.shape[1] < 2:
            raise ValueError(f"expected (B, 2 or more, H, W), got {list(image.shape)}")
        height, width, overlays = image.shape[2], image.shape[3], image.shape[1] - 1
        image = F.pad(image, [0, -width % self.stride, 0, -height % self.stride], mode="replicate")
        brightest = image.amax(dim=1, keepdim=True)
        x = torch.cat([in_pairs(image), brightest.repeat_interleave(overlays, dim=0)], dim=1) * 2 - 1
        features: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.avg_pool2d(x, 2))
            features.append(x)
        if guides is not None:
            for level, project in enumerate(self.guides):
                own = features[level]
                features[level] = own + project(guides[level][..., : own.shape[2], : own.shape[3]])
        if overlays > 1:
            for level, attend in enumerate(self.attention):
                features[level] = attend(features[level], overlays)
        x = features[-1]
        for step, block in enumerate(self.decoder):
            coarse = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat([features[-2 - step], coarse], dim=1))
        return (brightest + self.head(x))[..., :height, :width].clamp(0, 1)


class SourceAttention(nn.Module):
    """Make one feature of those of several overlays: what each has, and what only one of them has.

    Every channel of every pixel is the mean of the sources, weighed by a softmax over them of what each has against
    their mean; to it comes a share of how much the largest lies above it. At first it is the plain mean. The same
    source given several times gives its own feature.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = _at_first_zero(nn.Conv2d(2 * channels, channels, 1))
        self.above = _at_first_zero(nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, features: torch.Tensor, sources: int) -> torch.Tensor:
        """(B * sources, C, h, w), those of a case after each other -> (B, C, h, w)."""
        apart = features.unflatten(0, [-1, sources])
        mean = apart.mean(dim=1, keepdim=True).expand_as(apart)
        weight = self.score(torch.cat([apart, mean], dim=2).flatten(0, 1)).view_as(apart).softmax(dim=1)
        merged = (weight * apart).sum(dim=1)
        return merged + self.above(apart.amax(dim=1) - merged)


def in_pairs(image: torch.Tensor) -> torch.Tensor:
    """Anatomy and K overlays (B, 1 + K, H, W) as pairs of the anatomy with each, (B * K, 2, H, W)."""
    overlays = image[:, 1:]
    return torch.stack([image[:, :1].expand_as(overlays), overlays], dim=2).flatten(0, 1)


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.1),
    )


def _at_first_zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
