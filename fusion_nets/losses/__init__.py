"""Fusion losses."""

from .fusion import DMFNetLoss, MetricLoss

__all__ = ["DMFNetLoss", "MetricLoss"]
