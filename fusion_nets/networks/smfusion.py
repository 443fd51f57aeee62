"""SMFusion: two Restormer encoders whose features are aligned with, and fused under, a text on each source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .restormer_parts import ChannelAttention, ChannelNorm, RestormerBlock
from .text_parts import SemanticInteraction, TextInjection, checked_mask

__all__ = ["SMFusion"]


class SMFusion(nn.Module):
    """Fuse an anatomical and an overlay slice under their descriptions (Xiang et al., "SMFusion", arXiv 2505.12251).

    Each source has an encoder of its own. At the deepest level :class:`SemanticInteraction` aligns its features with
    the words of its description and cross-modal attention merges both sources; at every level of the decoder
    :class:`TextInjection` modulates the merged features. The network predicts the departure from the pointwise maximum
    of the sources, and starts at none. A description may be missing: a learned "no description" word stands in for it.

    Args:
        widths: channels of each level, finest first.
        blocks: Restormer blocks of each level, in the encoders and in the decoder.
        heads: attention heads of each level.
        refinement_blocks: Restormer blocks behind the decoder.
        expansion: of the feed-forward networks.
        text_width: D, the width of a word's state in the text encoder.
        interaction_rounds: how often image and text look at each other.

    Raises:
        ValueError: if widths, blocks and heads do not name the same levels.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (2, 2, 4),
        heads: Sequence[int] = (1, 2, 4),
        refinement_blocks: int = 2,
        expansion: float = 2.66,
        text_width: int = 384,
        interaction_rounds: int = 2,
    ) -> None:
        super().__init__()
        if not len(widths) == len(blocks) == len(heads) >= 1:
            raise ValueError(f"widths {widths}, blocks {blocks} and heads {heads} must name the same levels")
        self.text_width = text_width
        self.stride = 2 ** (len(widths) - 1)
        deepest = widths[-1]
        self.anatomy_encoder = _Encoder(widths, blocks, heads, expansion)
        self.overlay_encoder = _Encoder(widths, blocks, heads, expansion)
        self.anatomy_interaction = SemanticInteraction(deepest, text_width, heads[-1], interaction_rounds)
        self.overlay_interaction = SemanticInteraction(deepest, text_width, heads[-1], interaction_rounds)
        self.bottom = _Bottom(deepest, blocks[-1], heads[-1], expansion)
        self.decoder = nn.ModuleList(
            _DecoderLevel(widths[i], widths[i + 1], 2 * deepest, blocks[i], heads[i], expansion)
            for i in reversed(range(len(widths) - 1))
        )
        self.refinement = _blocks(widths[0], refinement_blocks, heads[0], expansion)
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, image: torch.Tensor, text: torch.Tensor | None = None, text_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fuse a batch of pairs.

        Args:
            image: (B, 2, H, W) in [0, 1], anatomy first; any H and W.
            text: (B, 2, L, D), the word states of both descriptions; None for no descriptions.
            text_mask: (B, 2, L), true (or not 0) where there is a word; a source with none counts as not described.
                None: all are words.

        Returns:
            (B, 1, H, W) in [0, 1], the fused luminance.

        Raises:
            ValueError: if the image has not two channels, or text or mask another shape.
        """
        if image.ndim != 4 or image.shape[1] != 2:
            raise ValueError(f"expected (B, 2, H, W), got {list(image.shape)}")
        batch, _, height, width = image.shape
        if text is None:
            text = torch.zeros([batch, 2, 0, self.text_width], dtype=image.dtype, device=image.device)
        text_mask = checked_mask(image, text, text_mask, self.text_width)

        padded = F.pad(image, [0, -width % self.stride, 0, -height % self.stride], mode="replicate")
        anatomy = self.anatomy_encoder(padded[:, :1])
        overlay = self.overlay_encoder(padded[:, 1:])
        deep_anatomy, anatomy_meaning = self.anatomy_interaction(anatomy[-1], text[:, 0], text_mask[:, 0])
        deep_overlay, overlay_meaning = self.overlay_interaction(overlay[-1], text[:, 1], text_mask[:, 1])
        meaning = torch.cat([anatomy_meaning, overlay_meaning], dim=1)

        fused = self.bottom(deep_anatomy, deep_overlay, meaning)
        for i, level in enumerate(self.decoder):
            fused = level(fused, anatomy[-2 - i], overlay[-2 - i], meaning)
        departure = self.head(self.refinement(fused))[..., :height, :width]
        return (image.amax(dim=1, keepdim=True) + departure).clamp(0, 1)


class _Encoder(nn.Module):
    """Features of one source at every level."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], heads: Sequence[int], expansion: float) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(1, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(_blocks(*level, expansion) for level in zip(widths, blocks, heads, strict=True))
        self.downsamplings = nn.ModuleList(
            nn.Identity() if i == 0 else _halve(widths[i - 1], widths[i]) for i in range(len(widths))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 1, H, W) -> one (B, C, h, w) a level, finest first."""
        x = self.embedding(x)
        features: list[torch.Tensor] = []
        for down, level in zip(self.downsamplings, self.levels):  # noqa: B905 (TorchScript knows no strict)
            x = down(x)
            if not self.training:  # a third faster on a processor, but several times slower backwards
                x = x.contiguous(memory_format=torch.channels_last)
            x = level(x)
            features.append(x)
        return features


class _Bottom(nn.Module):
    """The decoder's deepest level: each source looks at the other, both are merged and modulated by the text."""

    def __init__(self, width: int, blocks: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.anatomy_norm = ChannelNorm(width)
        self.overlay_norm = ChannelNorm(width)
        self.anatomy_attention = ChannelAttention(width, heads)
        self.overlay_attention = ChannelAttention(width, heads)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.injection = TextInjection(2 * width, width)
        self.blocks = _blocks(width, blocks, heads, expansion)

    def forward(self, anatomy: torch.Tensor, overlay: torch.Tensor, meaning: torch.Tensor) -> torch.Tensor:
        """Two (B, C, h, w) and the text vectors (B, 2 C) -> (B, C, h, w)."""
        a, o = self.anatomy_norm(anatomy), self.overlay_norm(overlay)
        anatomy = anatomy + self.anatomy_attention(a, o)
        overlay = overlay + self.overlay_attention(o, a)
        return self.blocks(self.injection(self.merge(torch.cat([anatomy, overlay], dim=1)), meaning))


class _DecoderLevel(nn.Module):
    """One level up: the coarser result joined by both sources' features of this level, modulated by the text."""

    def __init__(
        self, width: int, coarse_width: int, meaning_width: int, blocks: int, heads: int, expansion: float
    ) -> None:
        super().__init__()
        self.upsampling = _double(coarse_width, width)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.injection = TextInjection(meaning_width, width)
        self.reduction = nn.Conv2d(2 * width, width, 1)
        self.blocks = _blocks(width, blocks, heads, expansion)

    def forward(
        self, coarse: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor, meaning: torch.Tensor
    ) -> torch.Tensor:
        """(B, C', h / 2, w / 2), two (B, C, h, w) and the text vectors -> (B, C, h, w)."""
        skip = self.injection(self.merge(torch.cat([anatomy, overlay], dim=1)), meaning)
        return self.blocks(self.reduction(torch.cat([self.upsampling(coarse), skip], dim=1)))


def _blocks(width: int, count: int, heads: int, expansion: float) -> nn.Sequential:
    return nn.Sequential(*(RestormerBlock(width, heads, expansion) for _ in range(count)))


def _halve(width: int, coarse_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, coarse_width // 4, 3, padding=1, bias=False), nn.PixelUnshuffle(2))


def _double(width: int, fine_width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, fine_width * 4, 3, padding=1, bias=False), nn.PixelShuffle(2))
