"""All that a fusion adds to a study: the fused series, and how to show its sources on each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from monai.data import MetaTensor

from fusion_nets.overlays import OVERLAYS, record_of

from ..grids import corners
from .derived import derived_instances
from .mosaic import is_mosaic
from .presentation import PALETTES, Shown, presentation_state
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

Displacement = Callable[[np.ndarray], np.ndarray]

_LIKE = {"ember": "hot_iron", "hot": "hot_iron", "cold": "hot_metal_blue", "green": "pet"}
"""Of DICOM's palettes, the one that stands for a palette of :class:`fusion_nets.transforms.PaletteChroma`."""

PALETTE = "hot_iron"
"""Of a presentation state, where the overlay was fused in grey or in colours that DICOM has no name for."""


def fused_study(
    image: MetaTensor,
    anatomy: Series,
    overlay: Series | None,
    record: Mapping[str, Any],
    displacement: Displacement | None = None,
    others: Sequence[tuple[Series | None, Displacement | None]] = (),
) -> list[Dataset]:
    """The objects that a fusion adds to the anatomy's study.

    Args:
        image: the fused image, (1 | 3, H, W[, D]) in [0, 1], on the anatomy's grid.
        anatomy: the series it was made of.
        overlay: the other; None where it was no DICOM series.
        record: how it was made, as :class:`fusion_nets.transforms.RecordChoicesd` writes it.
        displacement: of a registration that bends, as :func:`deformable_registration` takes it.
        others: further overlays, likewise.

    Returns:
        The fused series, see :func:`derived_series`. Where both sources are series that were registered, the
        registration follows, and says by what it was found, see :func:`spatial_registration`. Where they were, or share
        a frame of reference, a presentation state follows that shows the overlay on the anatomy from the originals, see
        :func:`presentation_state`. Sources that were not registered and share no frame of reference get neither: that
        their coordinates agree was believed, and is known to nobody. One that bends gets no presentation state, which
        would show it unbent. Several overlays have one registration with a frame for each that was registered, and one
        presentation state of those that can be shown so; each that bends has a registration of its own.

    Raises:
        ValueError: see these functions.
    """
    return list(study_objects(image, anatomy, overlay, record, displacement, others))


def study_objects(
    image: MetaTensor,
    anatomy: Series,
    overlay: Series | None,
    record: Mapping[str, Any],
    displacement: Displacement | None = None,
    others: Sequence[tuple[Series | None, Displacement | None]] = (),
) -> Iterator[Dataset]:
    """The objects of :func:`fused_study`, each made when it is asked for: of a long series not all fit in memory."""
    method = str(record["record"].get("method", "fusion"))
    given = zip(OVERLAYS, [(overlay, displacement), *others], strict=False)
    overlays = [_Overlay(key, series, record_of(record, key), displaced) for key, (series, displaced) in given]
    yield from derived_instances(
        image,
        anatomy.datasets,
        overlays[0].datasets,
        method=", ".join([method, *_windows(record, [one.key for one in overlays])]),
        description=f"{FUSED_BY}{method}",
        anatomy_to_overlay=overlays[0].matrix,
        others=[(one.datasets, one.matrix) for one in overlays[1:]],
    )
    frame = anatomy.frame_of_reference_uid
    placed = [one for one in overlays if frame and one.frame]
    for one in placed:
        if one.bends:
            if one.displacement is None:
                raise ValueError("the record tells of a registration that bends; its displacement is needed")
            ends = corners(image)
            yield deformable_registration(
                anatomy.datasets, one.datasets, one.matrix, one.displacement, ends, how=one.how
            )
    registration = _linear_registration(anatomy, [one.moved for one in overlays])
    if registration is not None:
        yield registration
    seen = [one for one in placed if one.is_moved or (one.frame == frame and not one.bends)]
    if not seen or any(map(is_mosaic, (*anatomy.datasets, *(dataset for one in seen for dataset in one.datasets)))):
        return  # a mosaic is no picture that another could be shown on
    states = [
        Shown(
            one.datasets,
            _range(one.record, "overlay"),
            one.palette(len(overlays)),
            registration if one.is_moved else None,
        )
        for one in seen
    ]
    yield presentation_state(
        anatomy.datasets,
        states[0].series,
        anatomy_window=_range(record, "anatomy"),
        overlay_window=states[0].window,
        palette=states[0].palette,
        registration=states[0].registration,
        others=states[1:],
    )


@dataclass(frozen=True)
class _Overlay:
    """An overlay, and what the record says of it alone."""

    key: str
    series: Series | None
    record: Mapping[str, Any]
    displacement: Displacement | None

    @property
    def datasets(self) -> Sequence[Dataset]:
        return () if self.series is None else self.series.datasets

    @property
    def frame(self) -> str | None:
        return None if self.series is None else self.series.frame_of_reference_uid

    @property
    def _registration(self) -> Mapping[str, Any]:
        return self.record["record"].get("registration", {})

    @property
    def bends(self) -> bool:
        return "bending" in self._registration

    @property
    def moved(self) -> _Moved:
        return _Moved(self.series, None if self.bends else self._registration.get("mode"), self.matrix)

    @property
    def is_moved(self) -> bool:
        return self.moved.mode in FOUND_BY

    @property
    def how(self) -> str | None:
        return FOUND_BY[self._registration["mode"]]

    @property
    def matrix(self) -> np.ndarray:
        linear = self._registration["matrix_ras_mm"] if self.bends else self.record.get("transform")
        return np.asarray(linear or np.eye(4), dtype=np.float64)

    def palette(self, overlays: int) -> str | None:
        """Of DICOM's palettes the one that comes nearest; of several overlays a grey one stays grey."""
        name = self.record.get("overlay_palette")
        if overlays == 1:
            return name if name in PALETTES else PALETTE
        return name if name in PALETTES else _LIKE.get(str(name))


def source_on_grid(
    image: MetaTensor,
    anatomy: Series,
    source: Series | None,
    registration: Mapping[str, Any] | None = None,
    self_contained: bool = False,
    others: Sequence[tuple[Series | None, Mapping[str, Any] | None]] = (),
    place: int = 0,
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
        others: the other overlays with their registrations, which are one object.
        place: of the source among the overlays, from 0; a second has a series number of its own.
    """
    told = registration or {}
    matrix, mode = np.asarray(told.get("matrix_ras_mm", np.eye(4)), dtype=np.float64), told.get("mode")
    moved = [_moved(*one) for one in (*others[:place], (source, told), *others[place:])]
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
        registration=_linear_registration(anatomy, moved) if moved[place].is_told(anatomy) else None,
        self_contained=self_contained,
        number=int(anatomy.datasets[0].get("SeriesNumber") or 0) * 100 + 7 + place if place else None,
    )


def is_result(dataset: Dataset) -> bool:
    """Whether this library made an object of a pair: fused, or a source on the other's grid. It is no source itself."""
    said = str(dataset.get("SeriesDescription") or "")
    makers = {item.get("Manufacturer") for item in dataset.get("ContributingEquipmentSequence") or ()}
    return said.startswith(FUSED_BY) or (ON_GRID in said and "fusion-nets" in makers)


class _Moved(NamedTuple):
    """A series, how its registration was made (None of one that bends), and its matrix."""

    series: Series | None
    mode: str | None
    matrix: np.ndarray

    def is_told(self, anatomy: Series) -> bool:
        """Whether there was one, and both series have a frame of reference."""
        frame = None if self.series is None else self.series.frame_of_reference_uid
        return bool(self.mode in FOUND_BY and frame and anatomy.frame_of_reference_uid)


def _moved(series: Series | None, registration: Mapping[str, Any] | None) -> _Moved:
    told = registration or {}
    mode = None if "bending" in told else told.get("mode")
    return _Moved(series, mode, np.asarray(told.get("matrix_ras_mm", np.eye(4)), dtype=np.float64))


def _linear_registration(anatomy: Series, overlays: Sequence[_Moved]) -> Dataset | None:
    """The one object of all registrations that were used and do not bend."""
    told = [
        (one.series.datasets, one.matrix, FOUND_BY[str(one.mode)])
        for one in overlays
        if one.series is not None and one.is_told(anatomy)
    ]
    if not told:
        return None
    (first, matrix, how), *others = told
    return spatial_registration(anatomy.datasets, first, matrix, how=how, others=others)


def _range(record: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    window = record.get(f"{key}_window")
    return None if window is None else (float(window[0]), float(window[1]))


def _windows(record: Mapping[str, Any], overlays: Sequence[str]) -> list[str]:
    found = []
    for key, one in (("anatomy", record), *((key, record_of(record, key)) for key in overlays)):
        name = "anatomy" if key == "anatomy" else "overlay"
        window, told = _range(one, name), one["record"].get(name, {})
        if window:
            found.append(f"{told.get('modality', key)} {window[0]:g} to {window[1]:g} {told.get('units', '')}".strip())
    return found
