"""Registering one image to another, and bringing it onto the other's grid."""

from .foreground import foreground
from .resampling import resample_labels, resample_onto
from .search import (
    Registration,
    RegistrationError,
    RegistrationMode,
    read_transform,
    register,
    similarity,
    write_transform,
)

__all__ = [
    "Registration",
    "RegistrationError",
    "RegistrationMode",
    "foreground",
    "read_transform",
    "register",
    "resample_labels",
    "resample_onto",
    "similarity",
    "write_transform",
]
