"""Fusion losses and the medical semantic loss."""

from .image_losses import DMFNetLoss, FusionLoss, MetricLoss
from .semantic import ContrastiveLoss, SemanticLoss, SMFusionLoss

__all__ = ["ContrastiveLoss", "DMFNetLoss", "FusionLoss", "MetricLoss", "SMFusionLoss", "SemanticLoss"]
