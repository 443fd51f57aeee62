"""Registering one image to another, and bringing it onto the other's grid."""

from .bending import bending_of, bent
from .body_region import BodyRegion, body_region
from .field_of_view import NEAR_BORDER, FieldOfView, field_of_view
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
    "NEAR_BORDER",
    "BodyRegion",
    "FieldOfView",
    "Registration",
    "RegistrationError",
    "RegistrationMode",
    "WorldTransform",
    "Warp",
    "bending_of",
    "bent",
    "body_region",
    "check_overlap",
    "field_of_view",
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
