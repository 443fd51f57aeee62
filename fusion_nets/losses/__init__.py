"""Fusion losses and the medical semantic loss."""

from .fusion import DMFNetLoss, FusionLoss, MetricLoss
from .semantic import ContrastiveLoss, SemanticLoss, SMFusionLoss

__all__ = ["ContrastiveLoss", "DMFNetLoss", "FusionLoss", "MetricLoss", "SMFusionLoss", "SemanticLoss"]
