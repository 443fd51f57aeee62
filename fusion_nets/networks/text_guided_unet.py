"""Fusion that keeps more of what a text names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .fusion_unet import FusionUNet
from .text_grounding import TextGrounding, blurred
from .text_parts import checked_mask

__all__ = ["TextGuidedUNet"]


class TextGuidedUNet(nn.Module):
    """Fuse an anatomical slice and its overlays, with more contrast where a text on one names a finding that is there.

    :class:`TextGrounding` looks for what each text names in its own source; there, the source's contrast against its
    surroundings is raised by ``emphasis``, and :class:`FusionUNet` fuses what comes out. So a text that names nothing
    that is there changes nothing, and one that is wrong takes nothing away.

    Args:
        width: channels of the finest level of the fusing UNet.
        levels: its resolutions.
        emphasis: by which part the contrast of a named finding is raised.
        grounding: arguments of :class:`TextGrounding`.
    """

    def __init__(
        self, width: int = 48, levels: int = 3, emphasis: float = 0.5, grounding: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.fusion = FusionUNet(width, levels)
        self.grounding = TextGrounding(**(grounding or {}))
        self.text_width = self.grounding.text_width
        self.emphasis = emphasis

    @property
    def reach(self) -> int:
        """Pixels around what shows that its fused image depends on; where findings lie, the whole image says."""
        return self.fusion.reach

    @property
    def stride(self) -> int:
        """Pixels of the coarsest level's."""
        return self.fusion.stride

    def forward(
        self, image: torch.Tensor, text: torch.Tensor | None = None, text_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fuse a batch.

        Args:
            image: (B, S, H, W) in [0, 1], the anatomy and one or more overlays; any H and W.
            text: (B, S, L, D), the findings that the descriptions of all sources name, in figures; None for no
                descriptions.
            text_mask: (B, S, L), true (or not 0) where there is a finding; a source with none stays as it is.
                None: all are findings.

        Returns:
            (B, 1, H, W) in [0, 1], the fused luminance.

        Raises:
            ValueError: if the image has fewer than two channels, or text or mask another shape.
        """
        return self.fusion(self.emphasise(image, text, text_mask))

    def emphasise(
        self, image: torch.Tensor, text: torch.Tensor | None = None, text_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The sources as they are fused, with more contrast where a finding is: (B, S, H, W); as of :meth:`forward`.

        Each source is looked at by itself, so that it may be a single one, too. What is black stays black.
        """
        if image.ndim != 4:
            raise ValueError(f"expected (B, S, H, W), got {list(image.shape)}")
        if text is None:
            return image
        text_mask = checked_mask(image, text, text_mask, self.text_width)
        sources = image.flatten(0, 1)[:, None]
        named = self.grounding.find(sources, text.flatten(0, 1), text_mask.flatten(0, 1))
        return emphasised(sources, named, self.emphasis).reshape(image.shape)


def emphasised(image: torch.Tensor, where: torch.Tensor, emphasis: float, surroundings: float = 6.0) -> torch.Tensor:
    """Raise the contrast of a part of an image against its surroundings.

    Args:
        image: (B, 1, H, W) in [0, 1].
        where: (B, 1, H, W) from 0 to 1.
        emphasis: 0 leaves the image as it is, 1 doubles the contrast.
        surroundings: sigma in pixels of the Gaussian that says how near they are.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    outside = 1 - where
    # the mean of what is near and outside
    around = blurred(image * outside, surroundings) / blurred(outside, surroundings).clamp_min(1e-4)
    return (image + emphasis * where * (image - around)).clamp(0, 1)
