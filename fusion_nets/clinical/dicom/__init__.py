"""DICOM: reading series, and writing objects that a PACS accepts."""

from fusion_nets.moved import tell_moved

from .deidentification import deidentified, deidentify
from .derived import derived_instances, derived_series
from .fused_study import FUSED_BY, fused_study, is_result, source_on_grid, study_objects
from .identity import derived_uid, fingerprint
from .new_series import new_series, new_study, place_slice, radiological, store_values, write_instances
from .presentation import PALETTES, palette_entries, presentation_state
from .registration_object import deformable_registration, spatial_registration
from .resampled import ResampledSeries
from .series import Series, check_pair, find_series, pick_series
from .volume import read_series
from .volumes import pick_volumes

__all__ = [
    "FUSED_BY",
    "PALETTES",
    "ResampledSeries",
    "Series",
    "check_pair",
    "deidentified",
    "deidentify",
    "derived_instances",
    "deformable_registration",
    "derived_series",
    "derived_uid",
    "find_series",
    "fingerprint",
    "fused_study",
    "is_result",
    "new_series",
    "new_study",
    "pick_series",
    "pick_volumes",
    "place_slice",
    "palette_entries",
    "presentation_state",
    "radiological",
    "read_series",
    "source_on_grid",
    "spatial_registration",
    "store_values",
    "study_objects",
    "write_instances",
]

tell_moved(__name__)
