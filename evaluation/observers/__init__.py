"""What can still be seen: contrast recovery of lesions, and a model observer that looks for them."""

from evaluation.observers.cielab import cielab
from evaluation.observers.hotelling import (
    add_internal_noise,
    area_under_curve,
    channel_responses,
    dense_difference_of_gaussians,
    detectability,
    hotelling_scores,
    observer_area,
    subject_folds,
)
from evaluation.observers.insertion import (
    LESION_KINDS,
    LESION_MAKES,
    Lesion,
    LesionCase,
    LesionMake,
    draw_lesions,
    insert_lesions,
    lesion_cases,
    lesion_change,
    lesion_places,
)
from evaluation.observers.lesion_handlers import ContrastRecovery, LostLesions, ObserverArea, lesions_from_engine
from evaluation.observers.lesion_metrics import ContrastRecoveryMetric, LostLesionsMetric, ObserverAreaMetric
from evaluation.observers.recovery import contrast_recovery, lost, luminance, patches_at
from evaluation.observers.regions import (
    REGION_RING,
    RegionContrast,
    region_contrast,
    region_labels,
    region_recovery,
    region_rings,
    regions_lost,
)

__all__ = [
    "ContrastRecovery",
    "ContrastRecoveryMetric",
    "LESION_KINDS",
    "LESION_MAKES",
    "Lesion",
    "LesionCase",
    "LesionMake",
    "LostLesions",
    "LostLesionsMetric",
    "ObserverArea",
    "ObserverAreaMetric",
    "REGION_RING",
    "RegionContrast",
    "add_internal_noise",
    "area_under_curve",
    "channel_responses",
    "cielab",
    "contrast_recovery",
    "dense_difference_of_gaussians",
    "detectability",
    "draw_lesions",
    "hotelling_scores",
    "insert_lesions",
    "lesion_cases",
    "lesion_change",
    "lesion_places",
    "lesions_from_engine",
    "lost",
    "luminance",
    "observer_area",
    "patches_at",
    "region_contrast",
    "region_labels",
    "region_recovery",
    "region_rings",
    "regions_lost",
    "subject_folds",
]
