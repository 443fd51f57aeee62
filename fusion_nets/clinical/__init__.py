"""Reading and writing studies."""

from .datalist import AANLIB_PAIRS, aanlib_pairs, balanced_weights, single_images
from .reading import NIFTI_SUFFIXES, RASTER_SUFFIXES, ImageError, read_image

__all__ = [
    "AANLIB_PAIRS",
    "ImageError",
    "NIFTI_SUFFIXES",
    "RASTER_SUFFIXES",
    "aanlib_pairs",
    "balanced_weights",
    "read_image",
    "single_images",
]
