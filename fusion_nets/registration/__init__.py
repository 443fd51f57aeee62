"""Registering one image to another, and bringing it onto the other's grid."""

from .bending import bending_of, bent
from .body_region import BodyRegion, body_region
from .foreground import foreground
from .mutual_information import similarity
from .order import percentile, ranked, selected
from .plausibility import LEAST_OVERLAP, check_overlap, shared_content
from .resampling import resample_labels, resample_onto
from .search import RegistrationMode, register
from .transform_files import Registration, RegistrationError, read_transform, write_transform
from .warp import Warp, WorldTransform

__all__ = [
    "LEAST_OVERLAP",
    "BodyRegion",
    "Registration",
    "RegistrationError",
    "RegistrationMode",
    "WorldTransform",
    "Warp",
    "bending_of",
    "bent",
    "body_region",
    "check_overlap",
    "foreground",
    "percentile",
    "ranked",
    "read_transform",
    "register",
    "resample_labels",
    "resample_onto",
    "selected",
    "shared_content",
    "similarity",
    "write_transform",
]
