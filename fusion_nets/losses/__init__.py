"""Fusion losses and the medical semantic loss."""

from fusion_nets.moved import tell_moved

from .grounding import GroundingLoss
from .image_losses import DMFNetLoss, FusionLoss, MetricLoss
from .lesion_term import LesionLoss
from .semantic import ContrastiveLoss, SemanticLoss, SMFusionLoss

__all__ = [
    "ContrastiveLoss",
    "DMFNetLoss",
    "FusionLoss",
    "GroundingLoss",
    "LesionLoss",
    "MetricLoss",
    "SMFusionLoss",
    "SemanticLoss",
]

tell_moved(__name__)
