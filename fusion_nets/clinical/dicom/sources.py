"""What a new object takes from the series it is made of: where their slices lie, whose they are, references to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, io_orientation

from fusion_nets.slabs import is_large, kept

from ..grids import RAS_TO_LPS
from .frames import frames_of, normal_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

__all__ = [
    "Plane",
    "body_part",
    "common_study",
    "copied",
    "grid_of",
    "lies_in",
    "on_grid",
    "own_moment",
    "planes_of",
    "referenced_series",
    "source_image",
    "touching",
]

SAME_VOXEL = 0.05
"""Grids are the same where no corner lies further apart, in voxels; a NIfTI header keeps a position to some 1e-4 mm."""


@dataclass(frozen=True)
class Plane:
    """Where one slice of a series lies.

    Attributes:
        instance: the instance that holds it.
        frame: number of its frame from 1, or None where the instance has only one.
        affine: (4, 4), from (column, row, mm along the normal) to RAS in mm; its axes are at right angles.
        size: columns and rows.
        is_whole: whether it is all of its instance, not a frame or a mosaic's tile.
    """

    instance: Dataset
    frame: int | None
    affine: np.ndarray
    size: tuple[int, int]
    is_whole: bool = True

    @property
    def depth(self) -> float:
        """Distance of the plane from the origin along its own normal, mm."""
        return float(self.affine[:3, 2] @ self.affine[:3, 3])


def planes_of(series: Sequence[Dataset]) -> list[Plane]:
    """The slices of a series with geometry, in order along the normal (row direction x column direction).

    Args:
        series: classic or multi-frame instances, pixels are not needed. Frames that do not say where they lie are left
            out.

    Raises:
        ImageError: if a number of the headers is damaged.
    """
    planes = []
    for frame in frames_of([(f"image {number}", header) for number, header in enumerate(series, start=1)]):
        position, orientation, spacing = frame.position, frame.orientation, frame.numbers("PixelSpacing", 2)
        if position is None or orientation is None or spacing is None:
            continue
        affine = np.eye(4)
        axes = orientation[0] * spacing[1], orientation[1] * spacing[0], normal_of(orientation), position
        affine[:3] = RAS_TO_LPS @ np.column_stack(axes)  # its own inverse
        number = frame.index + 1 if "NumberOfFrames" in frame.header else None
        is_whole = number is None and not frame.is_tile
        planes.append(Plane(frame.header, number, affine, frame.size[::-1], is_whole))
    if planes:
        normal = planes[0].affine[:3, 2]
        planes.sort(key=lambda plane: float(normal @ plane.affine[:3, 3]))
    return planes


def grid_of(planes: Sequence[Plane]) -> tuple[np.ndarray, tuple[int, int, int]] | None:
    """Affine (RAS) and (columns, rows, slices) of planes that make one grid with right angles, else None."""
    if not planes:
        return None
    first, count = planes[0], len(planes)
    affine = first.affine.copy()
    thickness = float(first.instance.get("SliceThickness") or 1)
    affine[:3, 2] *= thickness if count == 1 else (planes[-1].depth - first.depth) / (count - 1)
    size = first.size
    corners = np.array([(x, y, 0.0) for x in (0, size[0] - 1) for y in (0, size[1] - 1)])
    edge = np.linalg.norm(affine[:3, :3], axis=0)
    if not edge.all():
        return None
    for k, plane in enumerate(planes):
        if plane.size != size:
            return None
        apart = apply_affine(plane.affine, corners) - apply_affine(affine, corners + np.array([0, 0, k]))
        if np.abs(apart @ (affine[:3, :3] / edge) / edge).max() > SAME_VOXEL:
            return None
    return affine, (*size, count)


def on_grid(image: MetaTensor, affine: np.ndarray, shape: tuple[int, int, int]) -> MetaTensor | None:
    """An image on a grid whose voxels are its own in another order: axes exchanged and turned, no value changed.

    Args:
        image: (C, H, W[, D]) with its affine (RAS, mm).
        affine: of the grid.
        shape: of the grid.

    Returns:
        (C, *shape) with the grid's affine, or None if the image lies on another grid.
    """
    array = image.as_tensor()
    array = array if array.ndim == 4 else array[..., None]
    size = np.array(array.shape[1:])
    between = np.linalg.inv(affine) @ image.affine.cpu().numpy().astype(np.float64)
    turn = np.rint(between[:3, :3])
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return None
    exact = np.eye(4)
    exact[:3, :3] = turn
    exact[:3, 3] = np.where(turn.sum(axis=1) < 0, np.asarray(shape) - 1, 0)
    corners = np.array(list(product(*((0, n - 1) for n in size))), dtype=np.float64)
    apart = np.abs(apply_affine(between, corners) - apply_affine(exact, corners)).max()
    if tuple((np.abs(turn) @ size).astype(int)) != tuple(shape) or apart > SAME_VOXEL:
        return None
    turned = apply_orientation(np.moveaxis(array.cpu().numpy(), 0, -1), io_orientation(exact))
    turned = np.moveaxis(turned, -1, 0)
    is_kept = is_large(turned.shape) and turned.dtype == np.float32
    values = torch.from_numpy(kept(turned) if is_kept else np.ascontiguousarray(turned))
    meta = {
        key: value for key, value in image.meta.items() if key not in ("affine", "original_affine", "spatial_shape")
    }
    return MetaTensor(values, affine=torch.from_numpy(affine), meta=meta)


def lies_in(planes: Sequence[Plane], image: MetaTensor) -> bool:
    """Whether the centre of an image's first and last slice is among the planes of a series, or a slice beside them."""
    affine = image.affine.cpu().numpy().astype(np.float64)
    last = image.shape[3] - 1 if image.ndim == 4 else 0
    margin = float(np.linalg.norm(affine[:3, 2]))
    corners = []
    for plane in (planes[0], planes[-1]):
        size = plane.size[0] - 1, plane.size[1] - 1
        corners += [apply_affine(plane.affine, (x, y, 0)) for x in (0, size[0]) for y in (0, size[1])]
    axes = planes[0].affine[:3, :3] / np.linalg.norm(planes[0].affine[:3, :3], axis=0)
    box = np.array(corners) @ axes
    for k in (0, last):
        centre = apply_affine(affine, [(image.shape[1] - 1) / 2, (image.shape[2] - 1) / 2, k]) @ axes
        if not ((box.min(axis=0) - margin <= centre).all() and (centre <= box.max(axis=0) + margin).all()):
            return False
    return True


def touching(planes: Sequence[Plane], slab: np.ndarray) -> list[Plane]:
    """Those planes whose pixels go into an image slice by linear interpolation.

    Args:
        planes: of the source, in order.
        slab: (8, 3), the corners of the slice with its thickness, RAS in mm, in the source's world.
    """
    if len(planes) < 2:
        return list(planes)
    normal = planes[0].affine[:3, 2]
    depths = np.array([normal @ plane.affine[:3, 3] for plane in planes])
    reach = np.diff(depths).max()
    through = slab @ normal
    inside = (depths > through.min() - reach) & (depths < through.max() + reach)
    return [plane for plane, is_in in zip(planes, inside, strict=True) if is_in]


# Patient, clinical trial with its de-identification attributes, and patient study are whole groups; of the others
# those of the general study module (PS3.3 C.7.2.1), and what says that a study was de-identified or given other dates.
_STUDY = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingService",
    "ReferencedStudySequence",
    "ProcedureCodeSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "LongitudinalTemporalInformationModified",
    "RecognizableVisualFeatures",
    "TimezoneOffsetFromUTC",
)
_NEEDED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")


def common_study(source: Dataset) -> Dataset:
    """What all objects of a study share, as the source has it: patient, study, trial and de-identification."""
    from pydicom import Dataset

    study = Dataset()
    for element in source:
        if element.keyword in _STUDY or element.tag.group in (0x0010, 0x0012):
            study[element.tag] = copied(element)
    for keyword in (*_NEEDED, "AccessionNumber", "ReferringPhysicianName"):  # type 2: there, if empty
        if keyword not in study:
            setattr(study, keyword, "")
    return study


def copied(element: DataElement) -> DataElement:
    """An element on its own: pydicom 2 hangs its whole dataset onto that of a sequence, and stumbles copying both."""
    from copy import deepcopy

    from pydicom import DataElement

    return DataElement(element.tag, element.VR, deepcopy(element.value), already_converted=True)


def body_part(instance: Dataset, source: Dataset) -> None:
    """Say of a series which part and side of the body it shows, as far as the source knows (PS3.3 C.7.3.1).

    The side is asked for, if empty, where the part is not known, and not to be there where the part is unpaired.
    """
    for keyword in ("BodyPartExamined", "Laterality"):
        if source.get(keyword):
            setattr(instance, keyword, source[keyword].value)
    if "BodyPartExamined" not in instance and "Laterality" not in instance:
        instance.Laterality = ""


def own_moment(source: Dataset) -> tuple[str, str]:
    """Date and time of what is made from a study, where the standard insists on them: those of the study.

    Not when it was made, because the same input gives the same bytes; 1 January 1900 where the study tells no date.
    """
    return str(source.get("StudyDate") or "19000101"), str(source.get("StudyTime") or "000000")


def source_image(planes: Sequence[Plane], purpose: Dataset, spatial_locations_preserved: bool = False) -> list[Dataset]:
    """Items of the Source Image Sequence (PS3.3 C.12.4.1), one an instance, with the frames that are meant."""
    from pydicom import Dataset

    frames: dict[str, list[int]] = {}
    items: dict[str, Dataset] = {}
    for plane in planes:
        uid = str(plane.instance.SOPInstanceUID)
        item = items.setdefault(uid, Dataset())
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = plane.instance.SOPClassUID, uid
        item.PurposeOfReferenceCodeSequence = [purpose]
        if spatial_locations_preserved:
            item.SpatialLocationsPreserved = "YES"
        if plane.frame is not None:
            frames.setdefault(uid, []).append(plane.frame)
            item.ReferencedFrameNumber = sorted(frames[uid])
    return list(items.values())


def referenced_series(instance: Dataset, sources: Iterable[Dataset]) -> None:
    """Write the Common Instance Reference module (PS3.3 C.12.2): where the images that an instance refers to are."""
    from pydicom import Dataset

    studies: dict[str, dict[str, dict[str, Dataset]]] = {}
    for source in sources:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        series = studies.setdefault(str(source.StudyInstanceUID), {}).setdefault(str(source.SeriesInstanceUID), {})
        series[str(source.SOPInstanceUID)] = item
    others = []
    for study_uid, all_series in studies.items():
        items = []
        for series_uid, images in all_series.items():
            of_series = Dataset()
            of_series.SeriesInstanceUID, of_series.ReferencedInstanceSequence = series_uid, list(images.values())
            items.append(of_series)
        if study_uid == instance.StudyInstanceUID:
            instance.ReferencedSeriesSequence = items
        else:
            other = Dataset()
            other.StudyInstanceUID, other.ReferencedSeriesSequence = study_uid, items
            others.append(other)
    if others:
        instance.StudiesContainingOtherReferencedInstancesSequence = others
