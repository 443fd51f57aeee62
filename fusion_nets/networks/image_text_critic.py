"""The default image-text critic: small networks that take an image and a text vector into one space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ImageTextCritic"]


class ImageTextCritic(nn.Module):
    """Say how well an image fits a description: the cosine of ``image_features`` and ``text_features``.

    A critic for :class:`fusion_nets.losses.SemanticLoss`, trained by
    :class:`fusion_nets.losses.ContrastiveLoss` on images and their descriptions.

    Args:
        text_width: D, the width of the text encoder's pooled vector.
        feature_width: E, the width of the common space.
        widths: channels of the convolutions, each halving the image.
    """

    def __init__(
        self, text_width: int = 384, feature_width: int = 128, widths: Sequence[int] = (16, 32, 64, 128, 128)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((1, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        # where something lies is part of what a description says, so the last map keeps 4 x 4 places
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.image_projection = nn.Linear(16 * widths[-1], feature_width)
        self.text_projection = nn.Linear(text_width, feature_width)
        # the temperature of contrastive training, as its logarithm (Radford et al., CLIP, 2021, section 2.5)
        self.log_scale = nn.Parameter(torch.tensor(2.6593))

    def image_features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1], any size from 32 x 32 -> (B, E), of length 1."""
        maps = self.convolutions(image * 2 - 1)
        return F.normalize(self.image_projection(self.pool(maps).flatten(1)), dim=1)

    def text_features(self, vector: torch.Tensor) -> torch.Tensor:
        """Pooled text vectors (B, D) -> (B, E), of length 1."""
        return F.normalize(self.text_projection(vector), dim=1)

    def forward(self, image: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, H, W) and text vectors (T, D) -> scaled cosines (B, T), the logits of contrastive training."""
        cosine = self.image_features(image) @ self.text_features(vector).T
        return cosine * self.log_scale.exp().clamp(max=100.0)
