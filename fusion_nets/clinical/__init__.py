"""Reading and writing studies, and the sample study to try things on."""

from .datalist import AANLIB_PAIRS, aanlib_pairs, balanced_weights, load_pairs, single_images, with_texts
from .errors import ImageError
from .montage import write_montage
from .reading import ITK_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES, read_image
from .sample import write_sample_study
from .whole_files import file_sha256, remove_partials, whole_file
from .writing import OUTPUT_SUFFIXES, write_image

__all__ = [
    "AANLIB_PAIRS",
    "ITK_SUFFIXES",
    "ImageError",
    "NIFTI_SUFFIXES",
    "OUTPUT_SUFFIXES",
    "RASTER_SUFFIXES",
    "aanlib_pairs",
    "balanced_weights",
    "file_sha256",
    "load_pairs",
    "read_image",
    "remove_partials",
    "single_images",
    "whole_file",
    "with_texts",
    "write_image",
    "write_montage",
    "write_sample_study",
]
