"""DICOM: reading series, and writing objects that a PACS accepts."""

from .derived import derived_series
from .identity import derived_uid, fingerprint
from .new_series import new_series, new_study, place_slice, radiological, store_values, write_instances

__all__ = [
    "derived_series",
    "derived_uid",
    "fingerprint",
    "new_series",
    "new_study",
    "place_slice",
    "radiological",
    "store_values",
    "write_instances",
]
