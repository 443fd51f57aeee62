"""Fusion losses and the medical semantic loss."""

from .image_losses import DMFNetLoss, FusionLoss, MetricLoss
from .lesion_term import LesionLoss
from .semantic import ContrastiveLoss, SemanticLoss, SMFusionLoss

__all__ = ["ContrastiveLoss", "DMFNetLoss", "FusionLoss", "LesionLoss", "MetricLoss", "SMFusionLoss", "SemanticLoss"]
