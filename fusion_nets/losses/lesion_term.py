"""The lesion term: what a source shows stays visible in the fused image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .image_losses import plain

__all__ = ["LesionLoss"]


class LesionLoss(nn.Module):
    """A loss of fused images, and a penalty for each lesion whose contrast they do not keep.

    Pairs are fused without and with lesions. The recovery r of a lesion is the regression of the change of the fused
    image on the change of its source, over the lesion's pixels (the contrast recovery of NEMA NU 2, for fusion). What
    it lacks to ``asked`` is penalised by ``relu(asked - r)``, squared, and what it lacks to ``faded``, likewise, by
    ``faded_weight`` more: it is the lesion lost wholly that harms. Lesions of the anatomy and of the overlay weigh
    alike, however many there are of each. One in both sources counts half for each; where the signs are opposite a
    grey image cannot keep both, and the overlay's is asked, ``asked_opposite`` of it.

    Args:
        fusion: the loss of the images without lesions, called with (pred, image).
        weight: of the penalty, averaged over lesions and added up over the sources.
        asked: the recovery of lesions of the anatomy, and of the overlays, above which nothing is penalised.
        faded: the recovery below which a lesion is nearly lost.
        faded_weight: how much more such a lesion weighs.
        asked_opposite: the same of an overlay's change where the anatomy's has the opposite sign.
        faintest: a change whose squares add up to less than this in a source is not asked for.
    """

    asked: torch.Tensor

    def __init__(
        self,
        fusion: nn.Module,
        weight: float = 3.0,
        asked: tuple[float, float] | list[float] = (0.85, 0.95),
        faded: float = 0.4,
        faded_weight: float = 4.0,
        asked_opposite: float = 0.5,
        faintest: float = 0.05,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.weight = weight
        self.register_buffer("asked", torch.tensor(asked), persistent=False)
        self.faded, self.faded_weight = faded, faded_weight
        self.asked_opposite = asked_opposite
        self.faintest = faintest

    def forward(self, pred: torch.Tensor, target: Mapping[str, Any]) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B + L, 1, H, W) in [0, 1], the fused pairs, and the first L of them again with lesions.
            target: "image", (B + L, S, H, W) in [0, 1], the sources of each, and "lesion_map", (L, 1, H, W), the
                number of the lesion that changes a pixel, from 1, or 0. Without a "lesion_map" no pair has lesions.

        Returns:
            A scalar.
        """
        fused, sources = plain(pred), plain(target["image"])
        count = len(target["lesion_map"]) if "lesion_map" in target else 0
        pairs = len(fused) - count
        loss = self.fusion(fused[:pairs], sources[:pairs])
        if not count or not self.weight:
            return loss
        return loss + self.weight * self.penalty(
            fused[pairs:] - fused[:count], sources[pairs:] - sources[:count], target["lesion_map"]
        )

    def penalty(self, change: torch.Tensor, source_change: torch.Tensor, lesion_map: torch.Tensor) -> torch.Tensor:
        """The mean shortfall of the recoveries, squared, a scalar.

        Args:
            change: (L, 1, H, W), what lesions change in the fused images.
            source_change: (L, S, H, W), what they change in the sources.
            lesion_map: (L, 1, H, W), as above.
        """
        labels = plain(lesion_map)[:, 0].long()
        recovered, energy, mass = [], [], []
        for label in range(1, int(labels.max()) + 1):
            here = (labels == label)[:, None]
            recovered.append((change * source_change * here).sum((2, 3)))
            energy.append((source_change.square() * here).sum((2, 3)))
            mass.append((source_change * here).sum((2, 3)))
        if not energy:
            return change.sum() * 0
        power, signed = torch.stack(energy, 1), torch.stack(mass, 1)
        recovery = torch.stack(recovered, 1) / power.clamp_min(1e-4)
        shown = (power > self.faintest).float()
        sources = shown.sum(2, keepdim=True).clamp_min(1)
        seen = signed * shown
        opposite = ((seen.amax(2, keepdim=True) > 0) & (seen.amin(2, keepdim=True) < 0)).float()
        overlays = shown.clone()
        overlays[..., 0] = 0
        weights = shown / sources * (1 - opposite) + overlays / overlays.sum(2, keepdim=True).clamp_min(1) * opposite
        wanted = torch.stack([self.asked[0], *[self.asked[1]] * (shown.shape[2] - 1)]).to(recovery)
        wanted = wanted + (self.asked_opposite - wanted) * opposite
        # a recovery far below 0 is worse than none, but must not outweigh all the others
        shortfall = (wanted - recovery).clamp(0, 3).square()
        shortfall = (shortfall + self.faded_weight * (self.faded - recovery).clamp(0, 3).square()) * weights
        return (shortfall.sum((0, 1)) / weights.sum((0, 1)).clamp_min(0.5)).mean()
