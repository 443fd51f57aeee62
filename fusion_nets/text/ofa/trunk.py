"""The image trunk: the first three stages of a ResNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.resnet import ResNet, ResNetBottleneck

__all__ = ["ImageTrunk"]


class ImageTrunk(ResNet):
    """ResNet v1.5 of bottlenecks without its fourth stage: (B, 3, H, W) -> (B, 1024, H / 16, W / 16), rounded up.

    Args:
        depths: blocks of the three stages.

    Source: He et al., CVPR 2016, with the stride in the 3 x 3 convolution.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__(
            ResNetBottleneck,
            [*depths, 1],
            [64, 128, 256, 512],
            spatial_dims=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )
        del self.layer4, self.avgpool

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features of images."""
        features = self.maxpool(self.act(self.bn1(self.conv1(image))))
        return self.layer3(self.layer2(self.layer1(features)))
