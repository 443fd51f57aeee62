"""How a description enters SMFusion: aligned with the image, and injected where features are fused."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["SemanticInteraction", "TextInjection", "checked_mask"]


class SemanticInteraction(nn.Module):
    """Semantic interaction alignment: the pixels of a feature map and the words of a text look at each other.

    In every round pixels query words, then words query pixels (multi-head cross-attention with residual); the
    attention-weighted sum over the words is the linear map from text space into image space. Cost grows linearly with
    pixels and with words. Xiang et al., "SMFusion", arXiv 2505.12251, section on semantic interaction alignment.

    Args:
        width: channels of the feature map.
        text_width: D, the width of a word's state.
        heads: of the attention; divides the width.
        rounds: how often.
    """

    def __init__(self, width: int, text_width: int, heads: int, rounds: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(text_width, width)
        self.no_description = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.rounds = nn.ModuleList(_Round(width, heads) for _ in range(rounds))
        self.meaning_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Align.

        Args:
            x: (B, C, h, w).
            text: (B, L, D).
            mask: (B, L), true where there is a word; where there is none in a row, the learned "no description" word.

        Returns:
            The aligned features (B, C, h, w) and one aligned text vector each, (B, C).
        """
        batch, width, height, columns = x.shape
        pixels = x.flatten(2).transpose(1, 2)
        words = torch.cat([self.no_description.expand(batch, 1, width), self.embedding(text)], dim=1)
        # a sum, because ONNX takes any() of no words for true
        present = torch.cat([mask.sum(dim=1, keepdim=True) == 0, mask], dim=1)
        for step in self.rounds:
            pixels, words = step(pixels, words, present)
        weight = present.unsqueeze(-1).to(words.dtype)
        meaning = (words * weight).sum(dim=1) / weight.sum(dim=1)
        return pixels.transpose(1, 2).reshape(batch, width, height, columns), self.meaning_norm(meaning)


class _Round(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pixel_norm = nn.LayerNorm(width)
        self.word_norm = nn.LayerNorm(width)
        self.seen_norm = nn.LayerNorm(width)
        self.to_pixels = _CrossAttention(width, heads)
        self.to_words = _CrossAttention(width, heads)

    def forward(
        self, pixels: torch.Tensor, words: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        words_seen = self.word_norm(words)
        pixels = pixels + self.to_pixels(self.pixel_norm(pixels), words_seen, present)
        words = words + self.to_words(words_seen, self.seen_norm(pixels), None)
        return pixels, words


class _CrossAttention(nn.Module):
    """torch's ``MultiheadAttention`` makes the whole (pixels x words) matrix when it is masked; this does not."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        """(B, N, C) looks at (B, M, C), of which ``present`` (B, M) counts."""
        query = self._split(self.query(x))
        key, value = self.key_value(context).chunk(2, dim=-1)
        mask = None if present is None else present[:, None, None, :]
        seen = F.scaled_dot_product_attention(query, self._split(key), self._split(value), attn_mask=mask)
        return self.out(seen.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class TextInjection(nn.Module):
    """Scale and shift every channel of a feature map by what the texts say; at first, by nothing.

    Args:
        meaning_width: width of the text vectors of both sources together.
        width: channels of the feature map.
    """

    def __init__(self, meaning_width: int, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(meaning_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: torch.Tensor, meaning: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and (B, M) -> (B, C, h, w)."""
        scale, shift = self.modulation(meaning)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


def checked_mask(
    image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor | None, text_width: int
) -> torch.Tensor:
    """The mask (B, S, L), boolean, of the texts (B, S, L, D) on the sources of a batch; all true where none is given.

    Raises:
        ValueError: if text or mask have another shape.
    """
    batch, sources = image.shape[:2]
    if text.ndim != 4 or text.shape[0] != batch or text.shape[1] != sources or text.shape[3] != text_width:
        raise ValueError(f"expected text of ({batch}, {sources}, L, {text_width}), got {list(text.shape)}")
    if text_mask is None:
        text_mask = torch.ones([batch, sources, text.shape[2]], dtype=torch.bool, device=text.device)
    if text_mask.shape != text.shape[:3]:
        raise ValueError(f"expected text_mask of {list(text.shape[:3])}, got {list(text_mask.shape)}")
    return text_mask.to(torch.bool)
