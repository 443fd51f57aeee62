"""Fusion losses and the medical semantic loss."""

from fusion_nets.moved import tell_moved

from .image_losses import DMFNetLoss, FusionLoss, MetricLoss
from .semantic import ContrastiveLoss, SemanticLoss, SMFusionLoss

__all__ = ["ContrastiveLoss", "DMFNetLoss", "FusionLoss", "MetricLoss", "SMFusionLoss", "SemanticLoss"]

tell_moved(__name__)
