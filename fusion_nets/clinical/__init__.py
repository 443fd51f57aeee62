"""Clinical forms in and out: DICOM, NIfTI, NRRD/MHA, pictures."""

from fusion_nets.moved import tell_moved

from .converting import UNITS, convert_image
from .digest import source_sha256
from .errors import ImageError, Reason
from .grids import check_same_grid, is_picture
from .modalities import modality_code
from .reading import INPUT_SUFFIXES, ITK_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES, is_dicom, read_image
from .writing import OUTPUT_SUFFIXES, write_image, write_slice, write_slices, write_values

__all__ = [
    "INPUT_SUFFIXES",
    "ITK_SUFFIXES",
    "ImageError",
    "NIFTI_SUFFIXES",
    "OUTPUT_SUFFIXES",
    "RASTER_SUFFIXES",
    "Reason",
    "UNITS",
    "check_same_grid",
    "convert_image",
    "is_dicom",
    "is_picture",
    "modality_code",
    "read_image",
    "source_sha256",
    "write_image",
    "write_slice",
    "write_slices",
    "write_values",
]

tell_moved(__name__)
