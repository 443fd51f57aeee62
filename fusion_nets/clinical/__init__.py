"""Reading and writing studies, and the sample study to try things on."""

from .datalist import AANLIB_PAIRS, aanlib_pairs, balanced_weights, single_images
from .montage import write_montage
from .reading import NIFTI_SUFFIXES, RASTER_SUFFIXES, ImageError, read_image
from .sample import write_sample_study

__all__ = [
    "AANLIB_PAIRS",
    "ImageError",
    "NIFTI_SUFFIXES",
    "RASTER_SUFFIXES",
    "aanlib_pairs",
    "balanced_weights",
    "read_image",
    "single_images",
    "write_montage",
    "write_sample_study",
]
