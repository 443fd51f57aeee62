"""The medical semantic loss, and the contrastive loss its critic is trained by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .image_losses import plain

__all__ = ["ContrastiveLoss", "SMFusionLoss", "SemanticLoss"]


class SemanticLoss(nn.Module):
    """How far the fused image is from what is said of its sources (Xiang et al., SMFusion, medical semantic loss).

    The sum over both sources of ``w * (1 - cos(critic(fused), text(source)))``, where w, between 0 and 1, is the
    cosine by which the critic ties the source itself to its own text: what the critic does not see in the source it
    shall not ask of the fused image.

    Args:
        critic: frozen here; has ``image_features`` (B, 1, H, W) -> (B, E) and ``text_features`` (B, D) -> (B, E), such
            as :class:`fusion_nets.networks.ImageTextCritic` or :class:`fusion_nets.text.PretrainedCritic`.
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic: Any = critic.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SemanticLoss:
        """The critic stays in evaluation mode."""
        super().train(mode)
        self.critic.eval()
        return self

    def forward(self, pred: torch.Tensor, image: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, 1, H, W) in [0, 1].
            image: (B, 2, H, W) in [0, 1], the sources.
            vector: (B, 2, D), the pooled text vectors; a zero vector stands for no text, which weighs nothing.

        Returns:
            A scalar, 0 to 4.
        """
        fused, sources = plain(pred), plain(image)
        seen = self.critic.image_features(fused)
        loss = seen.new_zeros(len(seen))
        for source in range(2):
            with torch.no_grad():
                said = self.critic.text_features(vector[:, source])
                own = F.cosine_similarity(self.critic.image_features(sources[:, source : source + 1]), said)
                weight = own.clamp_min(0) * vector[:, source].any(dim=1)
            loss = loss + weight * (1 - F.cosine_similarity(seen, said))
        return loss.mean()


class SMFusionLoss(nn.Module):
    """A fusion loss and the semantic loss together.

    Args:
        fusion: takes (pred, target), such as :class:`LesionLoss`.
        semantic: the semantic loss; None for none.
        weight: of the semantic loss.
    """

    def __init__(self, fusion: nn.Module, semantic: SemanticLoss | None = None, weight: float = 1.0) -> None:
        super().__init__()
        self.fusion = fusion
        self.semantic = semantic
        self.weight = weight

    def forward(self, pred: torch.Tensor, target: Mapping[str, Any]) -> torch.Tensor:
        """Loss of a batch.

        Args:
            pred: (B, 1, H, W) in [0, 1].
            target: "image" (B, 2, H, W) in [0, 1] and "vector" (D, 2, E), as
                :class:`fusion_nets.workflows.LesionBatch` gives them: what is said of the last D pairs, which show
                lesions where any do. Without "vector", nothing is said, and the semantic loss is 0.

        Returns:
            A scalar.
        """
        loss = self.fusion(pred, target)
        if self.semantic is None or "vector" not in target:
            return loss
        described = len(target["vector"])
        said = self.semantic(pred[-described:], target["image"][-described:], target["vector"])
        return loss + self.weight * said


class ContrastiveLoss(nn.Module):
    """Symmetric contrastive loss: every image shall find its own text in the batch, and every text its image.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, figure 3.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled cosines (B, B), images by texts in the same order -> a scalar. The target is not looked at."""
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
