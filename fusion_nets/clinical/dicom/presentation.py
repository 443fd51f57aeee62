"""Show an overlay on an anatomy from the originals: a presentation state, no pixels copied."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fusion_nets import __version__
from fusion_nets.quiet import silence

from ..errors import check_window
from .derived import this_equipment
from .frames import frames_of
from .identity import derived_uid
from .new_series import new_instance
from .sources import body_part, common_study, own_moment, referenced_series
from .units import measure_of

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["PALETTES", "palette_entries", "presentation_state"]

PALETTES = {
    "hot_iron": "hotiron.dcm",
    "pet": "pet.dcm",
    "hot_metal_blue": "hotmetalblue.dcm",
    "pet_20_step": "pet20step.dcm",
}
"""The well-known colour palettes for uptake (PS3.6 annex B.1), and where pydicom keeps them."""


class Shown(NamedTuple):
    """How a presentation state shows a series.

    Attributes:
        series: its instances; pixels are not needed.
        window: values shown as first and last colour of the palette.
        palette: one of :data:`PALETTES`; None is grey.
        registration: made by :func:`spatial_registration`, where it does not lie where its coordinates say.
    """

    series: Sequence[Dataset]
    window: tuple[float, float] | None
    palette: str | None
    registration: Dataset | None


def presentation_state(
    anatomy: Sequence[Dataset],
    overlay: Sequence[Dataset],
    *,
    anatomy_window: tuple[float, float] | None,
    overlay_window: tuple[float, float] | None,
    palette: str | None = "hot_iron",
    opacity: float = 0.5,
    registration: Dataset | None = None,
    description: str = "Overlay on anatomy",
    number: int | None = None,
    others: Sequence[Shown] = (),
) -> Dataset:
    """An Advanced Blending Presentation State (PS3.3 A.33.7) in the anatomy's study.

    Each series passes through its own rescale, then a window, then a palette; the overlay is laid over the anatomy on
    the anatomy's geometry. Of several overlays, all and the anatomy are laid on each other with equal weights (PS3.3
    C.11.34, blending mode EQUAL), which for one is half an opacity. Highdicom writes it. It asks for images of one
    study and one frame of reference, as the standard does not where a registration tells how the frames relate, so it
    is given stand-ins for the images, and what it wrote of them is set right.

    Args:
        anatomy: the instances of the anatomy; pixels are not needed.
        overlay: the instances of the overlay.
        anatomy_window: values shown black and white, in the units :func:`read_series` gives (HU, SUV, as stored); None
            for colours.
        overlay_window: values shown as first and last colour of the palette.
        palette: of a grey overlay, one of :data:`PALETTES`; None is grey.
        opacity: of the overlay, 0 to 1; of several it is not used.
        registration: made by :func:`spatial_registration`, where the overlay does not lie where its coordinates say.
        description: of the state and its series.
        number: of the series; by default made of the anatomy's, 304 of 3.
        others: further overlays.

    Returns:
        The instance, for :func:`write_instances`. The same settings of the same images are the same object.

    Raises:
        ValueError: for an unknown palette, a window or opacity out of range, a grey series without a window, or series
            of different frames of reference without a registration.
    """
    from highdicom.pr import (
        AdvancedBlending,
        AdvancedBlendingPresentationState,
        BlendingDisplay,
        BlendingDisplayInput,
        SoftcopyVOILUTTransformation,
    )

    overlays = [Shown(overlay, overlay_window, palette, registration), *others]
    for one in overlays:
        if one.palette is not None and one.palette not in PALETTES:
            raise ValueError(f"palette is {one.palette!r}; accepted are {', '.join(PALETTES)}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity:g}; 0 to 1 is accepted")
    first, frame = anatomy[0], anatomy[0].get("FrameOfReferenceUID")
    for one in overlays:
        if one.registration is None and not (frame and frame == one.series[0].get("FrameOfReferenceUID")):
            raise ValueError("anatomy and overlay have no common frame of reference; a registration is needed")
    images = [*anatomy, *(image for one in overlays for image in one.series)]
    uid = derived_uid(
        *("presentation", *(image.SOPInstanceUID for image in images), anatomy_window, overlay_window),
        *(palette, opacity, registration and registration.SOPInstanceUID, description, number, __version__),
        *(
            said
            for one in others
            for said in (one.window, one.palette, one.registration and one.registration.SOPInstanceUID)
        ),
    )
    stand_ins: list[Dataset] = []
    inputs: list[Any] = []
    with silence(("highdicom",), below=logging.WARNING):  # below that it names the images
        for series, window, colours, _ in (Shown(anatomy, anatomy_window, None, None), *overlays):
            alike = [_stand_in(image, first) for image in series]
            grey = series[0].SamplesPerPixel == 1
            how: dict[str, Any] = {"palette_color_lut_transformation": _palette(colours)}
            if grey:
                low, high = _rescaled_window(series, window)
                voi = SoftcopyVOILUTTransformation((low + high) / 2, high - low, voi_lut_function="LINEAR_EXACT")
                how["voi_lut_transformations"] = [voi]
            inputs.append(AdvancedBlending(alike, len(inputs) + 1, **how))
            if not grey:  # which the highdicom for pydicom 2 cannot be told before
                del inputs[-1].PaletteColorLookupTableSequence
            inputs[-1].GeometryForDisplay = "TRUE" if series is anatomy else "FALSE"
            stand_ins += alike
        if others:
            blend = BlendingDisplay("EQUAL", [BlendingDisplayInput(n + 1) for n in range(len(inputs))])
        else:
            blend = BlendingDisplay(
                "FOREGROUND", [BlendingDisplayInput(2), BlendingDisplayInput(1)], relative_opacity=float(opacity)
            )
        state = AdvancedBlendingPresentationState(
            stand_ins,
            inputs,
            [blend],
            series_instance_uid=derived_uid("series", uid),
            series_number=number or int(first.get("SeriesNumber") or 0) * 100 + 4,
            sop_instance_uid=uid,
            instance_number=1,
            manufacturer="fusion-nets",
            manufacturer_model_name="fusion-nets",
            software_versions=__version__,
            device_serial_number="0",
            content_label="FUSION",
            content_description=description,
            series_description=description,
        )
    state.update(common_study(first))
    state.file_meta = new_instance(state.SOPClassUID, uid).file_meta
    for moment in ("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"):
        state.pop(moment, None)  # the same input gives the same bytes
    state.PresentationCreationDate, state.PresentationCreationTime = own_moment(first)
    state.FrameOfReferenceUID, state.PositionReferenceIndicator = frame, ""
    body_part(state, first)
    registrations: dict[str, Dataset] = {}
    for item, one in zip(inputs[1:], overlays, strict=True):
        item.StudyInstanceUID = one.series[0].StudyInstanceUID
        if one.registration is not None:
            registrations[one.registration.SOPInstanceUID] = one.registration
            item.ReferencedSpatialRegistrationSequence = [_hierarchy(one.registration)]
    del state.ReferencedSeriesSequence
    referenced_series(state, [*images, *registrations.values()])
    equipment: Any = this_equipment()
    state.ContributingEquipmentSequence = [equipment]
    return state


def _stand_in(image: Dataset, first: Dataset) -> Dataset:
    """An image of the first one's patient, study and frame of reference, that brings no rescale of its own along."""
    from pydicom import Dataset

    alike = common_study(Dataset())  # without values, some of which are checked more strictly than real ones bear
    alike.StudyInstanceUID = first.StudyInstanceUID
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel"):
        alike[keyword] = image[keyword]
    alike.FrameOfReferenceUID = first.get("FrameOfReferenceUID", "")
    alike.SharedFunctionalGroupsSequence = [Dataset()]  # looked into where the class is a multi-frame one
    return alike


def _rescaled_window(images: Sequence[Dataset], window: tuple[float, float] | None) -> tuple[float, float]:
    """A window in the units of the image as one in the values that slope and intercept give, which DICOM means."""
    low, high = check_window(window or ())
    frames = frames_of([(f"image {number}", image) for number, image in enumerate(images, start=1)])
    factor = measure_of(frames, str(images[0].get("Modality") or ""), "presentation state").factor
    return low / factor, high / factor


def _palette(name: str | None) -> Any:
    """A palette's tables of 8 bit, or those of grey; highdicom for pydicom 2 makes tables of 16 bit only."""
    from highdicom import PaletteColorLUT, PaletteColorLUTTransformation

    file: Any = _palette_file(name) if name else {}
    colours = ("Red", "Green", "Blue")
    red, green, blue = (PaletteColorLUT(0, np.arange(256, dtype=np.uint16), colour) for colour in colours)
    palette = PaletteColorLUTTransformation(red, green, blue, file.SOPInstanceUID if name else None)
    for colour in colours:
        table = f"{colour}PaletteColorLookupTable"
        setattr(palette, f"{table}Descriptor", file.get(f"{table}Descriptor", [256, 0, 8]))
        setattr(palette, f"{table}Data", file.get(f"{table}Data", bytes(range(256))))
    return palette


def _palette_file(name: str) -> Dataset:
    from pydicom import dcmread
    from pydicom.data import get_palette_files

    return dcmread(get_palette_files(PALETTES[name])[0])


def _hierarchy(instance: Dataset) -> Dataset:
    """A reference by study, series and instance (PS3.3 C.17.2.1)."""
    from pydicom import Dataset

    study, series, item = Dataset(), Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = instance.SeriesInstanceUID, [item]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = instance.StudyInstanceUID, [series]
    return study


def palette_entries(name: str) -> np.ndarray:
    """The colours of one of :data:`PALETTES`, (256, 3) uint8: red, green, blue."""
    file = _palette_file(name)
    channels = (file[f"{channel}PaletteColorLookupTableData"].value for channel in ("Red", "Green", "Blue"))
    return np.stack([np.frombuffer(channel, dtype=np.uint8) for channel in channels], axis=-1)
