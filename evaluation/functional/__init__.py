"""The metrics as functions: batches of images in, one value per image out; and reports compared, pair by pair."""

from evaluation.functional._common import quantise
from evaluation.functional._mi import mutual_information
from evaluation.functional._qabf import qabf
from evaluation.functional._report import finding_precision, finding_recall, rouge_l, text_similarity
from evaluation.functional._ssim import ssim, ssim_single
from evaluation.functional._vif import vif, vif_single

__all__ = [
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
