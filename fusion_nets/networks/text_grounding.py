"""Where in an image the words of a text point to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .text_parts import SemanticInteraction, TextInjection

__all__ = ["TextGrounding"]


class TextGrounding(nn.Module):
    """Find what a text names in an image: a UNet whose deepest pixels and the words of the text look at each other.

    Phrase grounding, trained on simulation, where the truth is known. A finding is found by what it is (bright or dark,
    how large) and by where it is said to lie, which the network knows from the place of each pixel in the picture.
    Where nothing that is there is named, nothing is found.

    Args:
        text_width: D, the width of a word's state in the text encoder.
        widths: channels of each level; the finest has half of the image's size.
        heads: attention heads between pixels and words.
        interaction_rounds: how often pixels and words look at each other.
        threshold: what is less sure than this is not found at all.

    Raises:
        ValueError: for a threshold outside 0 to 1.
    """

    def __init__(
        self,
        text_width: int = 384,
        widths: Sequence[int] = (24, 48, 96, 96),
        heads: int = 4,
        interaction_rounds: int = 2,
        threshold: float = 0.2,
    ) -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}; 0 to below 1 is accepted")
        self.threshold = threshold
        self.stride = 2 ** len(widths)
        deepest = widths[-1]
        # the image, and how it differs from its surroundings, four pixels as one; row, column, distance to the middle
        inputs = [2 * 4 + 3, *widths[:-1]]
        self.encoder = nn.ModuleList(_block(before, after) for before, after in zip(inputs, widths, strict=True))
        self.interaction = SemanticInteraction(deepest, text_width, heads, interaction_rounds)
        self.decoder = nn.ModuleList(
            _block(widths[level] + widths[level + 1], widths[level]) for level in reversed(range(len(widths) - 1))
        )
        self.injections = nn.ModuleList(
            TextInjection(deepest, widths[level]) for level in reversed(range(len(widths) - 1))
        )
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.constant_(self.head.bias, -4.0)  # little of an image is named

    def find(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Where what is named lies: (B, 1, H, W) from 0 to 1, 0 where this is not sure. As of :meth:`forward`."""
        sure = torch.sigmoid(self.forward(image, text, text_mask).float())
        found = ((sure - self.threshold) / (1 - self.threshold)).clamp_min(0)
        return found * (text_mask.sum(dim=1) > 0).to(found.dtype)[:, None, None, None]

    def forward(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Look for what is named.

        Args:
            image: (B, 1, H, W) in [0, 1].
            text: (B, L, D), the word states of a description of each.
            text_mask: (B, L), true where there is a word; without words nothing is found.

        Returns:
            (B, 1, H, W), how sure it is, as logits.
        """
        height, width = image.shape[2:]
        padded = F.pad(image, [0, -width % self.stride, 0, -height % self.stride], mode="replicate")
        around = F.avg_pool2d(padded, 15, 1, 7, count_include_pad=False)
        x = F.pixel_unshuffle(torch.cat([padded, 4 * (padded - around)], dim=1), 2)
        x = torch.cat([x, _places(x)], dim=1)
        features: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.avg_pool2d(x, 2))
            features.append(x)
        x, meaning = self.interaction(x, text, text_mask)
        step = len(features) - 1
        for block, injection in zip(self.decoder, self.injections):  # noqa: B905 (TorchScript knows no strict)
            step -= 1
            coarse = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = injection(block(torch.cat([features[step], coarse], dim=1)), meaning)
        found = F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return found[..., :height, :width]


def _places(x: torch.Tensor) -> torch.Tensor:
    """(B, 3, h, w): row and column from -1 to 1, and the distance to the middle."""
    batch, height, width = x.shape[0], x.shape[2], x.shape[3]
    rows = (2 * torch.arange(height, dtype=x.dtype, device=x.device) + 1) / height - 1
    columns = (2 * torch.arange(width, dtype=x.dtype, device=x.device) + 1) / width - 1
    rows = rows[None, None, :, None].expand(batch, 1, height, width)
    columns = columns[None, None, None, :].expand(batch, 1, height, width)
    return torch.cat([rows, columns, (rows.square() + columns.square()).sqrt()], dim=1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )
