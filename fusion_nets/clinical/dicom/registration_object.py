"""Write a registration as a DICOM object, which viewers need to lay one series over another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fusion_nets import __version__

from ..grids import RAS_TO_LPS
from .derived import code, this_equipment
from .identity import derived_uid
from .new_series import new_instance
from .sources import body_part, common_study, own_moment, referenced_series

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["deformable_registration", "spatial_registration"]

IMPORTED = "Imported from a file; by what it was found is not known"

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
DEFORMABLE_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.3"

GRID_SPACING = 5.0
"""Of the vectors of a deformation, in mm: splines of some 30 mm are straight between them to a few hundredths."""

MOST_VECTORS = 2e6


def spatial_registration(
    anatomy: Sequence[Dataset],
    overlay: Sequence[Dataset],
    anatomy_to_overlay: np.ndarray,
    *,
    how: str | None = "ImageContentBasedAlignment",
    description: str = "Registration",
    number: int | None = None,
    others: Sequence[tuple[Sequence[Dataset], np.ndarray, str | None]] = (),
) -> Dataset:
    """A linear registration as a Spatial Registration object (PS3.3 A.39.1, C.20.2) in the anatomy's study.

    The registered frame of reference is the anatomy's. The matrix of each series takes points from its own coordinates
    there, so the anatomy's is the identity and the overlay's the inverse of the one given here.

    Args:
        anatomy: the instances of the series that stayed where it was; pixels are not needed.
        overlay: the instances of the series that was brought onto it.
        anatomy_to_overlay: (4, 4), RAS in mm: where a point of the anatomy was found in the overlay.
        how: what it was found by, DICOM's keyword of one of PS3.16 CID 7100, such as "VisualAlignment" for one made by
            hand; None where that is not known, as of one from a file, which a comment says.
        description: of the series.
        number: of the series; by default made of the anatomy's, 303 of 3.
        others: further overlays, each with its matrix and what that was found by; all have their frame in this object.

    Returns:
        The instance, for :func:`write_instances`. The same registration is the same object.

    Raises:
        ValueError: if a series has no frame of reference, the matrix cannot be inverted, or for another keyword.
    """
    from pydicom import Dataset
    from pydicom.valuerep import format_number_as_ds

    moved = [
        (series, _checked(anatomy, series, matrix, way), way)
        for series, matrix, way in ((overlay, anatomy_to_overlay, how), *others)
    ]
    images = [*anatomy, *(image for series, _, _ in moved for image in series)]
    told = [value for _, matrix, way in moved for value in (matrix.tolist(), way)]
    instance_uid = derived_uid("registration", *(image.SOPInstanceUID for image in images), *told, description, number)
    instance = _begun(SPATIAL_REGISTRATION, instance_uid, anatomy[0], description, number)
    registrations = []
    ways = [(series, np.linalg.inv(_to_lps(matrix)), way) for series, matrix, way in moved]
    for series, to_anatomy, way in ((anatomy, np.eye(4), "FrameOfReferenceIdentity"), *ways):
        transformed, step, item = Dataset(), Dataset(), Dataset()
        transformed.FrameOfReferenceTransformationMatrix = [format_number_as_ds(x + 0.0) for x in to_anatomy.ravel()]
        transformed.FrameOfReferenceTransformationMatrixType = _kind(to_anatomy)
        step.MatrixSequence = [transformed]
        step.RegistrationTypeCodeSequence = [code(way)] if way else []
        if not way:
            step.FrameOfReferenceTransformationComment = IMPORTED
        item.FrameOfReferenceUID, item.MatrixRegistrationSequence = series[0].FrameOfReferenceUID, [step]
        item.ReferencedImageSequence = [_reference(image) for image in series]
        registrations.append(item)
    instance.RegistrationSequence = registrations
    referenced_series(instance, images)
    instance.ContributingEquipmentSequence = [this_equipment()]
    return instance


def _to_lps(matrix: np.ndarray) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = RAS_TO_LPS
    return turn @ matrix @ turn


def _kind(matrix: np.ndarray) -> str:
    """What the standard calls such a matrix, PS3.3 C.20.2.1.2."""
    axes = matrix[:3, :3].T @ matrix[:3, :3]
    if np.abs(axes - np.eye(3)).max() < 1e-5:
        return "RIGID"
    return "RIGID_SCALE" if np.abs(axes - np.diag(np.diag(axes))).max() < 1e-5 else "AFFINE"


def _reference(image: Dataset) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def deformable_registration(
    anatomy: Sequence[Dataset],
    overlay: Sequence[Dataset],
    anatomy_to_overlay: np.ndarray,
    displacement: Callable[[np.ndarray], np.ndarray],
    ends: np.ndarray,
    *,
    how: str | None = "ImageContentBasedAlignment",
    description: str = "Registration, deformable",
    number: int | None = None,
) -> Dataset:
    """A registration that bends as a Deformable Spatial Registration object (PS3.3 A.39.2, C.20.3).

    As the standard has it, a point of the anatomy, the registered frame of reference, is moved by the grid's vectors
    and then by the Post Deformation Matrix to where it lies in the overlay's.

    Args:
        anatomy: the instances of the series that stayed where it was; pixels are not needed.
        overlay: the instances of the series that was brought onto it.
        anatomy_to_overlay: (4, 4), RAS in mm: the linear part, which is done after the bending.
        displacement: by how much it moves points (N, 3) before that, both RAS in mm.
        ends: (N, 3), places that the grid has to hold, RAS in mm, such as the corners of the anatomy; its vectors lie
            5 mm apart, or further where they would be more than two million.
        how: as of :func:`spatial_registration`.
        description: of the series.
        number: of the series; by default made of the anatomy's, 303 of 3.

    Returns:
        The instance, for :func:`write_instances`. The same registration is the same object.

    Raises:
        ValueError: as of :func:`spatial_registration`.
    """
    from pydicom import Dataset
    from pydicom.valuerep import format_number_as_ds

    matrix = _checked(anatomy, overlay, anatomy_to_overlay, how)
    low, high = (np.asarray(ends) @ RAS_TO_LPS).min(axis=0), (np.asarray(ends) @ RAS_TO_LPS).max(axis=0)
    spacing = max(GRID_SPACING, (float(np.prod(high - low)) / MOST_VECTORS) ** (1 / 3))
    size = np.ceil((high - low) / spacing).astype(int) + 1
    vectors = np.empty((size[2], size[1], size[0], 3), dtype="<f4")
    y, x = np.meshgrid(*(low[a] + spacing * np.arange(size[a]) for a in (1, 0)), indexing="ij")
    for k in range(size[2]):
        plane = np.stack([x, y, np.full_like(x, low[2] + spacing * k)], axis=-1).reshape(-1, 3)
        vectors[k] = (displacement(plane @ RAS_TO_LPS) @ RAS_TO_LPS).reshape(size[1], size[0], 3)
    data = vectors.tobytes()
    uid = derived_uid(
        "deformable registration",
        *(image.SOPInstanceUID for image in (*anatomy, *overlay)),
        *(matrix.tolist(), hashlib.sha256(data).hexdigest(), how, description, number),
    )
    instance = _begun(DEFORMABLE_REGISTRATION, uid, anatomy[0], description, number)
    instance.Manufacturer = instance.ManufacturerModelName = "fusion-nets"  # C.7.5.2 asks for all four
    instance.SoftwareVersions, instance.DeviceSerialNumber = __version__, "0"
    grid, after, item = Dataset(), Dataset(), Dataset()
    grid.ImagePositionPatient = [format_number_as_ds(float(x)) for x in low]
    grid.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    grid.GridDimensions, grid.GridResolution = size.tolist(), [spacing] * 3
    grid.VectorGridData = data
    after.FrameOfReferenceTransformationMatrix = [format_number_as_ds(x + 0.0) for x in _to_lps(matrix).ravel()]
    after.FrameOfReferenceTransformationMatrixType = _kind(matrix)
    item.SourceFrameOfReferenceUID = overlay[0].FrameOfReferenceUID
    item.ReferencedImageSequence = [_reference(image) for image in overlay]
    item.RegistrationTypeCodeSequence = [code(how)] if how else []
    if not how:
        item.FrameOfReferenceTransformationComment = IMPORTED
    item.DeformableRegistrationGridSequence = [grid]
    item.PostDeformationMatrixRegistrationSequence = [after]
    instance.DeformableRegistrationSequence = [item]
    referenced_series(instance, [*anatomy, *overlay])
    instance.ContributingEquipmentSequence = [this_equipment()]
    return instance


def _checked(
    anatomy: Sequence[Dataset], overlay: Sequence[Dataset], anatomy_to_overlay: np.ndarray, how: str | None
) -> np.ndarray:
    from pydicom.sr.codedict import codes

    matrix = np.asarray(anatomy_to_overlay, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise ValueError("anatomy_to_overlay must be a (4, 4) matrix that can be inverted")
    if how is not None and how not in (known := codes.cid7100.dir()):
        raise ValueError(f"how is {how!r}; accepted are None and {', '.join(sorted(known))}")
    if not (anatomy[0].get("FrameOfReferenceUID") and overlay[0].get("FrameOfReferenceUID")):
        raise ValueError("a registration needs series with a Frame of Reference UID")
    return matrix


def _begun(sop_class: str, uid: str, first: Dataset, description: str, number: int | None) -> Dataset:
    """What both kinds have, in the anatomy's study and frame of reference."""
    instance = new_instance(sop_class, uid)
    instance.update(common_study(first))
    instance.Modality = "REG"
    instance.SeriesInstanceUID, instance.SeriesDescription = derived_uid("series", uid), description
    instance.SeriesNumber = number or int(first.get("SeriesNumber") or 0) * 100 + 3
    instance.InstanceNumber = 1
    body_part(instance, first)
    instance.FrameOfReferenceUID, instance.PositionReferenceIndicator = first.FrameOfReferenceUID, ""
    instance.ContentDate, instance.ContentTime = own_moment(first)
    instance.ContentLabel, instance.ContentDescription = "REGISTRATION", description
    return instance
