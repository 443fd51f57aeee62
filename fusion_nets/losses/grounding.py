"""The loss of phrase grounding: what a text names is found, and nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .image_losses import plain

__all__ = ["GroundingLoss"]

_SUREST = 20
"""Pixels of an image of which nothing is named, whose certainty is penalised."""
_NEAR = 7
"""Pixels around what is named, in which another is not taken for a wrong one."""
_NEVER = -30.0
"""A logit that no softplus notices."""


class GroundingLoss(nn.Module):
    """Focal cross-entropy, the Dice loss of images of which something is named, and the surest pixels.

    Little of an image is named, and a text that names nothing there shall find nothing at all (Lin et al., focal loss,
    ICCV 2017; Milletari et al., V-Net, 3DV 2016). Whether something is found is the surest pixel's to say, so that the
    surest within what is named and the surest elsewhere are told apart by themselves, too.

    Args:
        rare: how much more a named pixel weighs.
        cross_entropy: weight of the cross-entropy.
        dice: weight of the Dice loss.
        nothing: weight of the surest pixels where nothing is named.
        surest: weight of the logistic loss of the surest pixel of what is named, and of that of all that is not near.
    """

    def __init__(
        self,
        rare: float = 6.0,
        cross_entropy: float = 20.0,
        dice: float = 1.0,
        nothing: float = 0.5,
        surest: float = 0.3,
    ) -> None:
        super().__init__()
        self.rare, self.surest = rare, surest
        self.weights = cross_entropy, dice, nothing

    def forward(self, pred: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, C, H, W), logits; each channel is one by itself.
            named: (B, C, H, W), 1 where something lies that is named, else 0.

        Returns:
            A scalar.
        """
        logits, named = (plain(maps).flatten(0, 1)[:, None] for maps in (pred, named))
        near = F.max_pool2d(named, 2 * _NEAR + 1, stride=1, padding=_NEAR).flatten(1) > 0
        logits, named = logits.flatten(1), named.flatten(1)
        sure, size = torch.sigmoid(logits), named.sum(dim=1)
        each = F.binary_cross_entropy_with_logits(
            logits, named, reduction="none", pos_weight=logits.new_tensor(self.rare)
        )
        entropy = (each * (sure - named).abs()).mean(dim=1)
        dice = 1 - (2 * (sure * named).sum(dim=1) + 1) / (sure.sum(dim=1) + size + 1)
        surest = sure.topk(min(_SUREST, sure.shape[1]), dim=1).values.mean(dim=1)
        terms = entropy, dice * (size > 0), surest * (size == 0)
        of_pixels = torch.stack([weight * term.mean() for weight, term in zip(self.weights, terms, strict=True)]).sum()
        within = logits.masked_fill(named == 0, _NEVER).amax(dim=1)[size > 0]
        elsewhere = logits.masked_fill(near, _NEVER).amax(dim=1)
        told_apart = F.softplus(-within).sum() / max(len(within), 1) + F.softplus(elsewhere).mean()
        return of_pixels + self.surest * told_apart
