"""All that a fusion adds to a study: the fused series, and how to show its sources on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor

from ..grids import corners
from .derived import derived_instances
from .mosaic import is_mosaic
from .presentation import PALETTES, presentation_state
from .registration_object import deformable_registration, spatial_registration
from .resampled import ON_GRID, ResampledSeries
from .series import Series

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["FUSED_BY", "fused_study", "is_result", "source_on_grid", "study_objects"]

FUSED_BY = "Fused by "
"""What the description of a fused series starts with, by which it is told from its sources."""

FOUND_BY = {
    **dict.fromkeys(("rigid", "affine", "deformable"), "ImageContentBasedAlignment"),
    "given": None,
}
"""What a registration was found by, of the modes that are one, see :class:`fusion_nets.registration.Registration`."""

PALETTE = "hot_iron"
"""Of a presentation state, where the overlay was fused in grey or in colours that DICOM has no name for."""


def fused_study(
    image: MetaTensor,
    anatomy: Series,
    overlay: Series | None,
    record: Mapping[str, Any],
    displacement: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Dataset]:
    """The objects that a fusion adds to the anatomy's study.

    Args:
        image: the fused image, (1 | 3, H, W[, D]) in [0, 1], on the anatomy's grid.
        anatomy: the series it was made of.
        overlay: the other; None where it was no DICOM series.
        record: how it was made, as :class:`fusion_nets.transforms.RecordChoicesd` writes it.
        displacement: of a registration that bends, as :func:`deformable_registration` takes it.

    Returns:
        The fused series, see :func:`derived_series`. Where both sources are series that were registered, the
        registration follows, and says by what it was found, see :func:`spatial_registration`. Where they were, or share
        a frame of reference, a presentation state follows that shows the overlay on the anatomy from the originals, see
        :func:`presentation_state`. Sources that were not registered and share no frame of reference get neither: that
        their coordinates agree was believed, and is known to nobody. One that bends gets no presentation state, which
        would show it unbent.

    Raises:
        ValueError: see these functions.
    """
    return list(study_objects(image, anatomy, overlay, record, displacement))


def study_objects(
    image: MetaTensor,
    anatomy: Series,
    overlay: Series | None,
    record: Mapping[str, Any],
    displacement: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[Dataset]:
    """The objects of :func:`fused_study`, each made when it is asked for: of a long series not all fit in memory."""
    told = record["record"]
    method = str(told.get("method", "fusion"))
    registration = told.get("registration", {})
    bends = "bending" in registration
    linear = registration["matrix_ras_mm"] if bends else record.get("transform")
    matrix = np.asarray(linear or np.eye(4), dtype=np.float64)
    overlays = () if overlay is None else overlay.datasets
    yield from derived_instances(
        image,
        anatomy.datasets,
        overlays,
        method=", ".join([method, *_windows(record)]),
        description=f"{FUSED_BY}{method}",
        anatomy_to_overlay=matrix,
    )
    if overlay is None or not overlay.frame_of_reference_uid or not anatomy.frame_of_reference_uid:
        return
    if bends:
        if displacement is None:
            raise ValueError("the record tells of a registration that bends; its displacement is needed")
        how, ends = FOUND_BY[registration["mode"]], corners(image)
        yield deformable_registration(anatomy.datasets, overlays, matrix, displacement, ends, how=how)
        return
    moved = _registration(anatomy, overlay, registration.get("mode"), matrix)
    if moved is not None:
        yield moved
    elif anatomy.frame_of_reference_uid != overlay.frame_of_reference_uid:
        return
    if any(is_mosaic(dataset) for dataset in (*anatomy.datasets, *overlays)):
        return  # a mosaic is no picture that another could be shown on
    palette = record.get("overlay_palette")
    yield presentation_state(
        anatomy.datasets,
        overlays,
        anatomy_window=_range(record, "anatomy"),
        overlay_window=_range(record, "overlay"),
        palette=palette if palette in PALETTES else PALETTE,
        registration=moved,
    )


def source_on_grid(
    image: MetaTensor,
    anatomy: Series,
    source: Series | None,
    registration: Mapping[str, Any] | None = None,
    self_contained: bool = False,
) -> ResampledSeries:
    """A source as it lies on the anatomy's grid, in its own units, as a series of its own modality.

    Args:
        image: (1 | 3, H, W[, D]) in its own units, on the anatomy's grid, as
            :func:`fusion_nets.registration.resample_onto` gives it.
        anatomy: the series whose grid it is.
        source: the series that the image was resampled from; None where it was none.
        registration: how it came there, as :meth:`fusion_nets.registration.Registration.as_dict` tells it. One that was
            made or given is referred to: the object that :func:`study_objects` yields. One that bends is said alone.
        self_contained: of PET, write SUV itself instead of Bq/ml with what SUV needs.
    """
    told = registration or {}
    matrix, mode = np.asarray(told.get("matrix_ras_mm", np.eye(4)), dtype=np.float64), told.get("mode")
    made = {"given": "registered by a transform made before"}.get(str(mode), f"registered ({mode})")
    outside = image.meta.get("outside")
    said = [made] if mode in FOUND_BY else []
    if outside is not None:
        said.append(f"{outside:g} {image.meta.get('units', '')}".strip() + " outside its field of view")
    return ResampledSeries(
        image,
        anatomy.datasets,
        () if source is None else source.datasets,
        how=", ".join(said),
        anatomy_to_source=matrix,
        registration=None if source is None or "bending" in told else _registration(anatomy, source, mode, matrix),
        self_contained=self_contained,
    )


def is_result(dataset: Dataset) -> bool:
    """Whether this library made an object of a pair: fused, or a source on the other's grid. It is no source itself."""
    said = str(dataset.get("SeriesDescription") or "")
    makers = {item.get("Manufacturer") for item in dataset.get("ContributingEquipmentSequence") or ()}
    return said.startswith(FUSED_BY) or (ON_GRID in said and "fusion-nets" in makers)


def _registration(anatomy: Series, overlay: Series, mode: str | None, matrix: np.ndarray) -> Dataset | None:
    """The registration that was used, where there was one and both series have a frame of reference."""
    if mode not in FOUND_BY or not (anatomy.frame_of_reference_uid and overlay.frame_of_reference_uid):
        return None
    return spatial_registration(anatomy.datasets, overlay.datasets, matrix, how=FOUND_BY[str(mode)])


def _range(record: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    window = record.get(f"{key}_window")
    return None if window is None else (float(window[0]), float(window[1]))


def _windows(record: Mapping[str, Any]) -> list[str]:
    found = []
    for key in ("anatomy", "overlay"):
        window, told = _range(record, key), record["record"].get(key, {})
        if window:
            found.append(f"{told.get('modality', key)} {window[0]:g} to {window[1]:g} {told.get('units', '')}".strip())
    return found
