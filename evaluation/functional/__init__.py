"""The metrics as functions: batches of images in, one value per image out; and descriptions compared, pair by pair."""

from evaluation.functional._helpers import quantise
from evaluation.functional.agreement import correlation, mean_squared_error, psnr, scd
from evaluation.functional.contrast import average_gradient, spatial_frequency, standard_deviation
from evaluation.functional.description import finding_precision, finding_recall, rouge_l, text_similarity
from evaluation.functional.edges import nabf, qabf
from evaluation.functional.flicker import flicker
from evaluation.functional.fmi import fmi
from evaluation.functional.information import (
    entropy,
    mutual_information,
    normalised_mutual_information,
    parzen_mutual_information,
)
from evaluation.functional.ssim import ms_ssim, ssim, ssim_3d, ssim_single
from evaluation.functional.table import FUSION_METRICS, FusionMetric, fusion_metrics
from evaluation.functional.vif import vif, vif_single

__all__ = [
    "FUSION_METRICS",
    "FusionMetric",
    "average_gradient",
    "correlation",
    "entropy",
    "finding_precision",
    "finding_recall",
    "flicker",
    "fmi",
    "fusion_metrics",
    "mean_squared_error",
    "ms_ssim",
    "mutual_information",
    "nabf",
    "normalised_mutual_information",
    "parzen_mutual_information",
    "psnr",
    "qabf",
    "quantise",
    "rouge_l",
    "scd",
    "spatial_frequency",
    "ssim",
    "ssim_3d",
    "ssim_single",
    "standard_deviation",
    "text_similarity",
    "vif",
    "vif_single",
]
