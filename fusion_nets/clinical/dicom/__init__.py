"""DICOM: reading series, and writing objects that a PACS accepts."""

from .derived import derived_series
from .identity import derived_uid, fingerprint
from .new_series import new_series, new_study, place_slice, radiological, store_values, write_instances
from .series import Series, check_pair, find_series, pick_series
from .volume import read_series

__all__ = [
    "Series",
    "check_pair",
    "derived_series",
    "derived_uid",
    "find_series",
    "fingerprint",
    "new_series",
    "new_study",
    "pick_series",
    "place_slice",
    "radiological",
    "read_series",
    "store_values",
    "write_instances",
]
