"""Write a fused image as a DICOM series of the study it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from fusion_nets import __version__
from fusion_nets.slabs import is_large, release, slabs, zeros

from .identity import derived_uid
from .new_series import SECONDARY_CAPTURE, SOP_CLASSES, captured, new_instance, place_slice, radiological, store_colours
from .sources import (
    Plane,
    body_part,
    common_study,
    copied,
    grid_of,
    lies_in,
    on_grid,
    planes_of,
    referenced_series,
    source_image,
    touching,
)

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.sr.coding import Code

__all__ = [
    "PLANE",
    "code",
    "copy_attributes",
    "derived_instances",
    "derived_series",
    "inherit_shortcomings",
    "nearest_planes",
    "placed",
    "source_equipment",
    "this_equipment",
]

WHITE = 65535
"""Stored value of 1, white."""

ALWAYS_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
"""Transfer syntaxes of JPEG that nothing passes through unchanged."""

# What the images of a slice share with the instance they are derived from, beside patient and study. Their acquisition
# stays the source's: when, of what body part, with what contrast medium.
_ACQUISITION = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "ImageLaterality",
    "AnatomicRegionSequence",
    "PatientPosition",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
)
PLANE = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
)
_SHORTCOMINGS = (
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
# The modality's own attributes of type 1 and 2 (PS3.3 C.8.3.1, C.8.2.1), and what stands for one that is missing.
_OF_MODALITY: dict[str, dict[str, object]] = {
    "MR": {
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "",
        "RepetitionTime": None,
        "EchoTime": None,
        "EchoTrainLength": None,
    },
    "CT": {"KVP": None, "AcquisitionNumber": None},
}


def derived_series(
    image: MetaTensor,
    anatomy: Sequence[Dataset],
    overlay: Sequence[Dataset] = (),
    *,
    method: str,
    description: str = "Fused",
    number: int | None = None,
    anatomy_to_overlay: np.ndarray | None = None,
    others: Sequence[tuple[Sequence[Dataset], np.ndarray]] = (),
) -> list[Dataset]:
    """A fused image as a series of the anatomy's study and frame of reference, one instance a slice.

    A grey image becomes what the anatomy is where that is a classic MR or CT image: it then hangs, scrolls, reformats
    and cross-references beside its source in any viewer. Stored values run from 0 to 65535 (white) with a window over
    all of them; they measure nothing, and Rescale Type US (unspecified) says so of CT. In every other case (a coloured
    image; an enhanced, PET or nuclear medicine anatomy, whose image objects promise a quantity or an acquisition that a
    fused image has not) it is a secondary capture. That object has no geometry of its own; the attributes of frame of
    reference and image plane are added as a standard extension (PS3.2), which viewers use where they find them.

    UIDs are derived from the sources', the settings and the pixels, and no time of writing is noted: the same result is
    the same objects, byte by byte, so that an archive recognises one it has.

    Args:
        image: (1 | 3, H, W[, D]) in [0, 1]; values beyond become black or white. Where its voxels are the anatomy's, in
            whatever order, each instance keeps the geometry of its source to the letter. Otherwise (an anatomy that was
            resampled because its gantry was tilted, say) its own affine is written, at right angles.
        anatomy: the instances of the anatomy, classic or multi-frame; pixels are not needed.
        overlay: the instances of what was fused with it.
        method: what made the image, such as "DM-FNet, CT window 40/80"; up to 800 ASCII characters.
        description: of the series.
        number: of the series; by default made of the anatomy's, 301 of 3 (302 of a coloured image).
        anatomy_to_overlay: (4, 4), RAS in mm, where a point of the anatomy was found in the overlay; by default where
            its coordinates say.
        others: further overlays, each with where a point of the anatomy was found in it.

    Returns:
        The instances in the order of the anatomy's slices, for :func:`write_instances`.

    Raises:
        ValueError: for values that are not finite, text that is not ASCII, an anatomy without geometry, an image that
            lies outside it, or axes that are not at right angles.
    """
    return list(
        derived_instances(
            image,
            anatomy,
            overlay,
            method=method,
            description=description,
            number=number,
            anatomy_to_overlay=anatomy_to_overlay,
            others=others,
        )
    )


def derived_instances(
    image: MetaTensor,
    anatomy: Sequence[Dataset],
    overlay: Sequence[Dataset] = (),
    *,
    method: str,
    description: str = "Fused",
    number: int | None = None,
    anatomy_to_overlay: np.ndarray | None = None,
    others: Sequence[tuple[Sequence[Dataset], np.ndarray]] = (),
) -> Iterator[Dataset]:
    """The instances of :func:`derived_series`, each made when it is asked for: of a long one not all fit in memory."""
    if not (method + description).isascii() or len(method) > 800 or len(description) > 64:
        raise ValueError("method and description must be ASCII, with up to 800 and 64 characters")
    if not all(torch.isfinite(image.as_tensor()[..., slab]).all() for slab in slabs(image.shape)):
        raise ValueError("the fused image holds NaN or infinity; only finite values can be written")
    planes = planes_of(anatomy)
    if not planes:
        raise ValueError("the anatomy's instances do not say where they lie (Image Position, Orientation, Spacing)")
    array, affine, kept = placed(image, planes)
    coloured = array.ndim == 4
    first = planes[0].instance
    sop_class = first.SOPClassUID if first.SOPClassUID in (SOP_CLASSES["MR"], SOP_CLASSES["CT"]) else SECONDARY_CAPTURE
    sop_class = SECONDARY_CAPTURE if coloured else sop_class
    number = number or int(first.get("SeriesNumber") or 0) * 100 + (2 if coloured else 1)
    stored = _stored(array)

    given = [(overlay, np.eye(4) if anatomy_to_overlay is None else anatomy_to_overlay), *others]
    overlays = [(series, np.asarray(between, dtype=np.float64)) for series, between in given]
    instances = [*anatomy, *(instance for series, _ in overlays for instance in series)]
    sources = [instance.SOPInstanceUID for instance in instances]
    settings = method, description, number, *(between.tolist() for _, between in overlays), __version__
    digest = _digest(stored)
    series_uid = derived_uid("fused", *sources, *settings, affine.tolist(), digest)
    overlay_planes = [(planes_of(series), between) for series, between in overlays]
    text = _derivation(method, [anatomy, *(series for series, _ in overlays)])
    source = code("SourceImageForImageProcessingOperation")
    equipment = [*source_equipment(first), this_equipment()]
    unlike = _unlike(instances)
    edges = np.array(list(product((-0.5, array.shape[0] - 0.5), (-0.5, array.shape[1] - 0.5), (-0.5, 0.5))))
    for k in range(array.shape[2]):
        slab = apply_affine(affine, edges + np.array([0, 0, k]))
        here = [planes[k]] if kept else nearest_planes(planes, slab)
        origin = here[0].instance
        instance = new_instance(sop_class, derived_uid("instance", series_uid, k))
        instance.update(common_study(first))
        copy_attributes(instance, origin, _ACQUISITION)
        instance.Modality = first.Modality if first.Modality in ("MR", "CT") else "OT"
        instance.SeriesInstanceUID, instance.SeriesNumber, instance.SeriesDescription = series_uid, number, description
        instance.InstanceNumber = k + 1
        instance.setdefault("PositionReferenceIndicator", "")
        if kept and here[0].is_whole:
            copy_attributes(instance, origin, PLANE)
        else:
            place_slice(instance, affine, k)
        if sop_class == SECONDARY_CAPTURE:
            captured(instance)
        else:
            instance.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if instance.Modality == "CT" else "OTHER"]
            instance.setdefault("PatientPosition", "")
            for keyword, missing in _OF_MODALITY[instance.Modality].items():
                setattr(instance, keyword, origin.get(keyword, missing))
        body_part(instance, first)
        _store(instance, stored[:, :, k])
        instance.DerivationDescription = text
        instance.DerivationCodeSequence = _derivation_codes(sum(bool(series) for series, _ in overlays))
        overlaid = [plane for lie, between in overlay_planes for plane in touching(lie, apply_affine(between, slab))]
        instance.SourceImageSequence = source_image(here, source, kept) + source_image(overlaid, source)
        referenced_series(instance, [plane.instance for plane in (*here, *overlaid)])
        instance.ContributingEquipmentSequence = deepcopy(equipment)
        inherit_shortcomings(instance, unlike)
        release()
        yield instance


def code(concept: Code | str) -> Dataset:
    """A concept, or the keyword of one in DICOM's own terms (PS3.16 D), as an item of a code sequence (PS3.3 8.8)."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    known = getattr(codes.DCM, concept) if isinstance(concept, str) else concept
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = known.value, known.scheme_designator, known.meaning
    return item


def this_equipment() -> Dataset:
    """This library as an item of the Contributing Equipment Sequence (PS3.3 C.12.1.1.5)."""
    from pydicom import Dataset

    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = "fusion-nets", "fusion-nets", __version__
    item.PurposeOfReferenceCodeSequence = [code("ProcessingEquipment")]
    return item


def source_equipment(source: Dataset) -> list[Dataset]:
    """The equipment of the anatomy, which gives way to this library's in the equipment module."""
    from pydicom import Dataset

    item = Dataset()
    names = ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber")
    copy_attributes(item, source, (*names, "SoftwareVersions"))
    if not item.get("Manufacturer"):
        return []
    item.PurposeOfReferenceCodeSequence = [code("AcquisitionEquipment")]
    return [item]


def placed(image: MetaTensor, planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray, bool]:
    """(columns, rows, slices[, 3]), its affine, and whether these are the voxels of the anatomy."""
    if image.ndim not in (3, 4) or image.shape[0] not in (1, 3):
        raise ValueError(f"expected (1 | 3, H, W[, D]) to write as DICOM, got {tuple(image.shape)}")
    grid = grid_of(planes)
    turned = on_grid(image, *grid) if grid else None
    if grid and turned is not None:
        array = np.moveaxis(turned.as_tensor().cpu().float().numpy(), 0, -1)
        return (array[..., 0] if array.shape[3] == 1 else array), grid[0], True
    array, affine = radiological(image)
    if not lies_in(planes, image):
        raise ValueError("the image lies outside the anatomy, whose frame of reference it would be given")
    return array.astype(np.float32, copy=False), affine, False


def _stored(array: np.ndarray) -> np.ndarray:
    """What stands for values (columns, rows, slices[, 3])."""
    values = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    white, kind = (255, np.uint8) if array.ndim == 4 else (WHITE, np.uint16)
    stored = zeros(values.shape, kind)
    for slab in slabs(values.shape):
        stored[..., slab] = np.rint(values[..., slab].clip(0, 1) * white)
    return np.moveaxis(stored, 0, -1) if array.ndim == 4 else stored[0]


def _digest(stored: np.ndarray) -> str:
    """SHA-256 of the values, column by column."""
    digest = hashlib.sha256()
    each = max(1, 2**24 // max(1, stored[0].size)) if is_large(stored.shape[:3]) else len(stored)
    for first in range(0, len(stored), each):
        digest.update(stored[first : first + each].tobytes())
        release()
    return digest.hexdigest()


def nearest_planes(planes: Sequence[Plane], slab: np.ndarray) -> list[Plane]:
    """The slices that an image slice on another grid was made of, the nearest first."""
    centre = slab.mean(axis=0)
    found = touching(planes, slab) or list(planes)
    return sorted(found, key=lambda plane: abs(plane.affine[:3, 2] @ (centre - plane.affine[:3, 3])))


def _store(instance: Dataset, stored: np.ndarray) -> None:
    if stored.ndim == 3:
        store_colours(instance, stored)
        return
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.Columns, instance.Rows = stored.shape
    instance.BitsAllocated = instance.BitsStored = 16
    instance.HighBit, instance.PixelRepresentation = 15, 0
    instance.PixelData = stored.T.astype("<u2").tobytes()
    instance.WindowCenter, instance.WindowWidth = (WHITE + 1) // 2, WHITE + 1  # PS3.3 C.11.2.1.2.1
    if instance.Modality != "MR":  # whose image module has no rescale
        instance.RescaleIntercept, instance.RescaleSlope, instance.RescaleType = 0, 1, "US"


def _derivation(method: str, sources: Sequence[Sequence[Dataset]]) -> str:
    first, *others = [str(series[0].get("Modality") or "image") for series in sources if series]
    told = f"{first} fused with {' and '.join(others)}" if others else first
    return f"{method}: {told}, fusion-nets {__version__}"


def _derivation_codes(overlays: int) -> list[Dataset]:
    """The steps by codes of PS3.16 CID 7203, which may be extended and has none for the fusion of two modalities."""
    from pydicom.sr.coding import Code

    fused = code(Code("FUSED", "99FUSIONNETS", "Fusion of images of two modalities"))
    if overlays > 1:
        fused = code(Code("FUSED_SEVERAL", "99FUSIONNETS", "Fusion of images of several modalities"))
    return [code("SpatialResampling"), fused] if overlays else [fused]


def inherit_shortcomings(instance: Dataset, sources: Sequence[Dataset]) -> None:
    """What pixels have been through they keep: text burned in, faces that can be recognised, lossy compression.

    One source is enough for it; that there was none of it takes all, and is not said where one of them is silent.
    """
    for keyword in _SHORTCOMINGS[:2]:
        said = {source.get(keyword) for source in sources}
        if "YES" in said or said == {"NO"}:
            setattr(instance, keyword, "YES" if "YES" in said else "NO")
        elif keyword in instance:  # of the study that it belongs to, which knows its own images alone
            delattr(instance, keyword)
    lossy = [source for source in sources if _is_lossy(source)]
    if lossy:  # of a derived image ratio and method hold the values of its sources, PS3.3 C.7.6.1.1.5
        instance.LossyImageCompression = "01"
        copy_attributes(instance, lossy[0], _SHORTCOMINGS[3:])
    elif {source.get("LossyImageCompression") for source in sources} == {"00"}:
        instance.LossyImageCompression = "00"


def _unlike(sources: Sequence[Dataset]) -> list[Dataset]:
    """Of sources that say the same of their shortcomings the first, so that not every slice asks every source."""
    found: dict[tuple[str, ...], Dataset] = {}
    for source in sources:
        said = [str(source.get(keyword)) for keyword in _SHORTCOMINGS]
        found.setdefault((*said, str(getattr(source, "file_meta", {}).get("TransferSyntaxUID"))), source)
    return list(found.values())


def _is_lossy(source: Dataset) -> bool:
    """By what it says, or by how it is encoded; JPEG 2000 and JPEG-LS of the syntaxes for both do not tell."""
    syntax = getattr(source, "file_meta", {}).get("TransferSyntaxUID")
    return source.get("LossyImageCompression") == "01" or syntax in ALWAYS_LOSSY


def copy_attributes(to: Dataset, source: Dataset, keywords: Sequence[str]) -> None:
    """Take those attributes that the source has."""
    for keyword in keywords:
        if keyword in source:
            to[keyword] = copied(source[keyword])
