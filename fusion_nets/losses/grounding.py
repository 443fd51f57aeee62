"""The loss of phrase grounding: what a text names is found, and nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .image_losses import plain

__all__ = ["GroundingLoss"]

_SUREST = 20
"""Pixels of an image of which nothing is named, whose certainty is penalised."""


class GroundingLoss(nn.Module):
    """Focal cross-entropy, the Dice loss of images of which something is named, and the surest pixels of the others.

    Little of an image is named, and a text that names nothing there shall find nothing at all (Lin et al., focal loss,
    ICCV 2017; Milletari et al., V-Net, 3DV 2016).

    Args:
        rare: how much more a named pixel weighs.
        cross_entropy: weight of the cross-entropy.
        dice: weight of the Dice loss.
        nothing: weight of the surest pixels where nothing is named.
    """

    def __init__(self, rare: float = 6.0, cross_entropy: float = 20.0, dice: float = 1.0, nothing: float = 0.5) -> None:
        super().__init__()
        self.rare = rare
        self.weights = cross_entropy, dice, nothing

    def forward(self, pred: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, 1, H, W), logits.
            named: (B, 1, H, W), 1 where something lies that is named, else 0.

        Returns:
            A scalar.
        """
        logits, named = plain(pred).flatten(1), plain(named).flatten(1)
        sure, size = torch.sigmoid(logits), named.sum(dim=1)
        each = F.binary_cross_entropy_with_logits(
            logits, named, reduction="none", pos_weight=logits.new_tensor(self.rare)
        )
        entropy = (each * (sure - named).abs()).mean(dim=1)
        dice = 1 - (2 * (sure * named).sum(dim=1) + 1) / (sure.sum(dim=1) + size + 1)
        surest = sure.topk(min(_SUREST, sure.shape[1]), dim=1).values.mean(dim=1)
        terms = entropy, dice * (size > 0), surest * (size == 0)
        return torch.stack([weight * term.mean() for weight, term in zip(self.weights, terms, strict=True)]).sum()
