"""The metrics as functions: batches of images in, one value per image out."""

from evaluation.functional._common import quantise
from evaluation.functional._mi import mutual_information
from evaluation.functional._qabf import qabf
from evaluation.functional._ssim import ssim, ssim_single
from evaluation.functional._vif import vif, vif_single

__all__ = ["mutual_information", "qabf", "quantise", "ssim", "ssim_single", "vif", "vif_single"]
