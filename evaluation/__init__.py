"""How good a fused image is: the field's metrics as functions, MONAI metrics and Ignite handlers."""

from evaluation.functional import (
    finding_precision,
    finding_recall,
    mutual_information,
    qabf,
    quantise,
    rouge_l,
    ssim,
    ssim_single,
    text_similarity,
    vif,
    vif_single,
)
from evaluation.handlers import FusionMI, FusionQabf, FusionSSIM, FusionVIF
from evaluation.metrics import FusionMIMetric, FusionQabfMetric, FusionSSIMMetric, FusionVIFMetric

__all__ = [
    "FusionMI",
    "FusionMIMetric",
    "FusionQabf",
    "FusionQabfMetric",
    "FusionSSIM",
    "FusionSSIMMetric",
    "FusionVIF",
    "FusionVIFMetric",
    "finding_precision",
    "finding_recall",
    "mutual_information",
    "qabf",
    "quantise",
    "rouge_l",
    "ssim",
    "ssim_single",
    "text_similarity",
    "vif",
    "vif_single",
]
