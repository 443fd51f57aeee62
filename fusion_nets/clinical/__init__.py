"""Reading and writing studies, and the sample study to try things on."""

from .checkerboard import write_checkerboard
from .converting import UNITS, convert_image
from .datalist import (
    AANLIB_PAIRS,
    MODALITY_NAMES,
    aanlib_pairs,
    balanced_weights,
    load_pairs,
    single_images,
    single_sources,
    with_texts,
)
from .errors import ImageError
from .foreground import foreground
from .geometry import check_same_grid, is_picture
from .montage import write_montage
from .reading import ITK_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES, read_image
from .registration import (
    Registration,
    RegistrationError,
    RegistrationMode,
    read_transform,
    register,
    similarity,
    write_transform,
)
from .resampling import resample_onto
from .sample import write_sample_study
from .whole_files import file_sha256, remove_partials, whole_file, whole_folder
from .writing import OUTPUT_SUFFIXES, write_image, write_slices

__all__ = [
    "AANLIB_PAIRS",
    "ITK_SUFFIXES",
    "ImageError",
    "MODALITY_NAMES",
    "NIFTI_SUFFIXES",
    "OUTPUT_SUFFIXES",
    "RASTER_SUFFIXES",
    "Registration",
    "RegistrationError",
    "RegistrationMode",
    "UNITS",
    "aanlib_pairs",
    "balanced_weights",
    "check_same_grid",
    "convert_image",
    "file_sha256",
    "foreground",
    "is_picture",
    "load_pairs",
    "read_image",
    "read_transform",
    "register",
    "remove_partials",
    "resample_onto",
    "similarity",
    "single_images",
    "single_sources",
    "whole_file",
    "whole_folder",
    "with_texts",
    "write_checkerboard",
    "write_image",
    "write_montage",
    "write_sample_study",
    "write_transform",
    "write_slices",
]
