"""Make a volume a DICOM series of its own: classic MR, CT or PET instances, or secondary captures, one a slice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from monai.data import MetaTensor
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from fusion_nets.files import SIGNATURE, whole_folder

from ..grids import RAS_TO_LPS, radiological_view
from ..quantities import SUV_TYPES
from .identity import derived_uid

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = [
    "MODULES",
    "SECONDARY_CAPTURE",
    "SOP_CLASSES",
    "captured",
    "new_instance",
    "new_series",
    "new_study",
    "place_slice",
    "radiological",
    "storage_of",
    "store_colours",
    "store_values",
    "write_file",
    "write_instances",
]

logger = logging.getLogger(__name__)

SOP_CLASSES = {
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
IMPLEMENTATION = derived_uid("fusion-nets")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MOST = np.iinfo(np.uint16).max


def new_study(
    *made_of: object, patient_name: str = "", patient_id: str = "", date: str = "", description: str = ""
) -> Dataset:
    """The attributes of patient and study that all instances of a study share.

    Args:
        made_of: what the study's UID is derived from, see :func:`derived_uid`.
        patient_name: as DICOM writes it, family name first, "^" between the parts.
        patient_id: identifier of the patient.
        date: YYYYMMDD, or "" where it is not known.
        description: of the study.
    """
    from pydicom import Dataset

    study = Dataset()
    study.PatientName, study.PatientID = patient_name, patient_id
    study.PatientBirthDate = study.PatientSex = ""
    study.StudyInstanceUID = derived_uid("study", *made_of)
    study.StudyDate, study.StudyTime = date, "120000" if date else ""
    study.ReferringPhysicianName = study.StudyID = study.AccessionNumber = ""
    if description:
        study.StudyDescription = description
    return study


def new_series(
    image: MetaTensor,
    modality: str,
    study: Dataset,
    number: int = 1,
    description: str = "",
    frame_of_reference_uid: str | None = None,
    details: Dataset | None = None,
) -> list[Dataset]:
    """A volume as instances of an original series.

    Args:
        image: (1 | 3, H, W[, D]) with its affine (RAS, mm), in HU for CT; for PET in SUV by body weight, or in what
            ``meta["units"]`` says: Bq/ml, SUVlbm, SUVibw, SUVbsa ...; colours from 0
            to ``meta["white"]``, by default 1. Slices lie along the last axis; rows and columns are turned to the view
            of a radiologist.
        modality: "MR", "CT" or "PT" give that modality's image object (PS3.3 A.4, A.3, A.21), any other and colours a
            secondary capture with geometry.
        study: patient and study, as :func:`new_study` makes them.
        number: of the series.
        description: of the series.
        frame_of_reference_uid: by default one of its own.
        details: attributes of every instance that take the place of what is written here, such as those of a scanner.

    Returns:
        The instances in the order of the slices, with file meta information, ready for :func:`write_instances`.

    Raises:
        ValueError: for another number of channels, or axes that are not at right angles, which DICOM cannot say.
    """
    array, affine = radiological(image)
    values = array.astype(np.float64)
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    series_uid = derived_uid("series", study.StudyInstanceUID, modality, number, description, affine.tolist(), digest)
    frame_uid = frame_of_reference_uid or derived_uid("frame of reference", series_uid)
    coloured = array.ndim == 4
    sop_class = SECONDARY_CAPTURE if coloured else SOP_CLASSES.get(modality, SECONDARY_CAPTURE)
    storage_of_all = None if modality == "PT" else _storage(values, modality)
    if storage_of_all and storage_of_all[0] > 1:
        logger.warning("whole numbers over %g levels are rounded to 65536, which DICOM has", np.ptp(values) + 1)
    instances = []
    for k in range(values.shape[2]):
        instance = new_instance(sop_class, derived_uid("instance", series_uid, k))
        instance.update(study)
        instance.Modality = modality
        instance.SeriesInstanceUID, instance.SeriesNumber = series_uid, number
        if description:
            instance.SeriesDescription = description
        instance.PatientPosition = "HFS"
        instance.InstanceNumber = k + 1
        instance.FrameOfReferenceUID, instance.PositionReferenceIndicator = frame_uid, ""
        place_slice(instance, affine, k)
        if coloured:
            colours = values[:, :, k] / image.meta.get("white", 1)
            store_colours(instance, np.rint(colours.clip(0, 1) * 255).astype(np.uint8))
            captured(instance)
        else:
            slope, intercept, signed = storage_of_all or _storage(values[:, :, k], modality)
            store_values(instance, values[:, :, k], slope, intercept, signed)
            MODULES.get(modality, MODULES["OT"])(instance, image, values.shape[2])
            if sop_class == SECONDARY_CAPTURE and image.meta.get("white") == 255:
                instance.BitsStored, instance.HighBit = 8, 7  # which says what is white
        if details is not None:
            instance.update(details)
        if "BodyPartExamined" not in instance:
            instance.setdefault("Laterality", "")  # asked for unless the body part is known to be unpaired
        instances.append(instance)
    return instances


def radiological(image: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
    """(columns, rows, slices[, 3]) of an image and their affine, turned to the view of a radiologist.

    That is the patient's right (or front, in a sagittal slice) on the left and front or head on top. The slices stay
    the slices; no value is interpolated.

    Raises:
        ValueError: if the axes are not at right angles, or the image has not one or three channels.
    """
    if image.ndim not in (3, 4) or image.shape[0] not in (1, 3):
        raise ValueError(f"expected (1 | 3, H, W[, D]) to write as DICOM, got {tuple(image.shape)}")
    array = image.as_tensor().detach().cpu().numpy()
    affine = image.affine.cpu().numpy().astype(np.float64)
    array = np.moveaxis(array if array.ndim == 4 else array[..., None], 0, -1)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise ValueError("the axes of the volume are not at right angles, which a DICOM series cannot say; resample it")
    turn = ornt_transform(io_orientation(affine), axcodes2ornt((*radiological_view(affine), aff2axcodes(affine)[2])))
    affine = affine @ inv_ornt_aff(turn, array.shape[:3])
    array = apply_orientation(array, turn)
    return (array[..., 0] if array.shape[3] == 1 else array), affine


def place_slice(instance: Dataset, affine: np.ndarray, k: int) -> None:
    """Write the image plane module (PS3.3 C.7.6.2) of slice k of a volume with this affine (RAS) and right angles."""
    # by hand: highdicom reads these attributes into an affine, and only its newer Volume writes them
    to_lps = RAS_TO_LPS @ affine[:3]
    spacing = np.linalg.norm(to_lps[:, :3], axis=0)
    row, column = (to_lps[:, :2] / spacing[:2]).T
    position = to_lps @ [0, 0, k, 1]
    instance.ImageOrientationPatient = _ds([*row, *column])
    instance.ImagePositionPatient = _ds(position)
    instance.PixelSpacing = _ds([spacing[1], spacing[0]])
    instance.SliceThickness = _ds([spacing[2]])[0]
    instance.SliceLocation = _ds([np.dot(position, np.cross(row, column))])[0]


def captured(instance: Dataset) -> None:
    """Make an instance with an image plane a secondary capture (PS3.3 A.8.1); its geometry is a standard extension.

    The patient orientation (C.7.6.1.1.1) says the same in letters, the nearest axis of the patient first.
    """
    instance.ImageType, instance.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
    letters = []
    for direction in np.asarray(instance.ImageOrientationPatient, dtype=np.float64).reshape(2, 3):
        order = [axis for axis in np.argsort(-np.abs(direction)) if abs(direction[axis]) > 1e-4]
        letters.append(
            "".join(("RL" if axis == 0 else "AP" if axis == 1 else "FH")[int(direction[axis] > 0)] for axis in order)
        )
    instance.PatientOrientation = letters


def store_values(instance: Dataset, values: np.ndarray, slope: float, intercept: float, signed: bool) -> None:
    """Write (columns, rows) as 16 bit pixels of an instance: value = slope * stored + intercept (PS3.3 C.11.1)."""
    slope_text, intercept_text = _ds([slope, intercept])
    kind = np.dtype("<i2" if signed else "<u2")
    limits = np.iinfo(kind)
    stored = np.rint((values - float(intercept_text)) / float(slope_text)).clip(limits.min, limits.max).astype(kind)
    instance.RescaleSlope, instance.RescaleIntercept = slope_text, intercept_text
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.Columns, instance.Rows = values.shape
    instance.BitsAllocated = instance.BitsStored = 16
    instance.HighBit, instance.PixelRepresentation = 15, int(signed)
    instance.PixelData = stored.T.tobytes()


def store_colours(instance: Dataset, colours: np.ndarray) -> None:
    """Write (columns, rows, 3) of 8 bit as RGB pixels of an instance (PS3.3 C.7.6.3)."""
    instance.SamplesPerPixel, instance.PhotometricInterpretation, instance.PlanarConfiguration = 3, "RGB", 0
    instance.Columns, instance.Rows = colours.shape[:2]
    instance.BitsAllocated = instance.BitsStored = 8
    instance.HighBit, instance.PixelRepresentation = 7, 0
    pixels = np.ascontiguousarray(colours.transpose(1, 0, 2)).tobytes()
    instance.PixelData = pixels + b"\0" * (len(pixels) % 2)


def write_instances(folder: str | Path, instances: Iterable[Dataset]) -> list[Path]:
    """Write instances as `IM0001.dcm` and so on, into a folder that appears when all are written.

    File meta information names this library (PS3.10 7.1), by which it knows a folder that it may replace.

    Raises:
        ValueError: if there is a folder with files by others in it.
        OSError: if the folder cannot be written.
    """
    names = []
    with whole_folder(folder) as partial:
        for number, instance in enumerate(instances, start=1):
            names.append(f"IM{number:04d}.dcm")
            write_file(partial / names[-1], instance)
    return [Path(folder) / name for name in names]


def write_file(file: str | Path | BinaryIO, dataset: Dataset) -> None:
    """Write a dataset as a whole file of PS3.10, by pydicom 2 and 3 alike, which call that by different names."""
    from pydicom import dcmwrite

    whole = "enforce_file_format" in signature(dcmwrite).parameters
    dcmwrite(file, dataset, **({"enforce_file_format": True} if whole else {"write_like_original": False}))


def new_instance(sop_class: str, uid: str) -> Dataset:
    """An object of a class, with file meta information and this library as its equipment."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    instance = Dataset()
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class, uid
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.ImplementationClassUID = UID(IMPLEMENTATION)
    instance.file_meta.ImplementationVersionName = SIGNATURE.decode()
    instance.Manufacturer, instance.ManufacturerModelName = "fusion-nets", "fusion-nets"
    return instance


def _storage(values: np.ndarray, modality: str) -> tuple[float, float, bool]:
    is_whole = bool((values == np.rint(values)).all())
    return storage_of(float(values.min()), float(values.max()), is_whole, modality)


def storage_of(low: float, high: float, is_whole: bool, modality: str) -> tuple[float, float, bool]:
    """Slope, intercept and sign that store whole numbers exactly if 16 bit can, and others as finely as they allow."""
    signs = {"CT": (True, False), "PT": (True,)}.get(modality, (False, True))
    if is_whole:
        for signed in signs:
            limits = np.iinfo(np.int16 if signed else np.uint16)
            if limits.min <= low and high <= limits.max:
                return 1.0, 0.0, signed
        if high - low <= _MOST and modality != "PT":
            return 1.0, low, False
    if signs[0]:  # PET allows no intercept (PS3.3 C.8.9.4)
        return max(-low, high) / np.iinfo(np.int16).max, 0.0, True
    return (high - low) / _MOST or 1.0, low, False


def _magnetic_resonance(instance: Dataset, image: MetaTensor, slices: int) -> None:
    """The type 1 and 2 attributes of the MR image module, PS3.3 C.8.3.1."""
    instance.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    instance.ScanningSequence, instance.SequenceVariant = "RM", "NONE"
    instance.ScanOptions = instance.MRAcquisitionType = ""
    instance.RepetitionTime = instance.EchoTime = instance.EchoTrainLength = None
    if (instance.RescaleSlope, instance.RescaleIntercept) == (1, 0):  # not part of the module, but what scanners do
        del instance.RescaleSlope, instance.RescaleIntercept


def _computed_tomography(instance: Dataset, image: MetaTensor, slices: int) -> None:
    """The type 1 and 2 attributes of the CT image module, PS3.3 C.8.2.1."""
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    instance.KVP = instance.AcquisitionNumber = None
    instance.RescaleType = "HU"


def _positron_emission(instance: Dataset, image: MetaTensor, slices: int) -> None:
    """The type 1 and 2 attributes of the PET series, isotope and image modules, PS3.3 C.8.9.1, C.8.9.2 and C.8.9.4."""
    instance.ImageType = ["ORIGINAL", "PRIMARY"]
    instance.SeriesDate = instance.AcquisitionDate = instance.StudyDate or "19700101"
    instance.SeriesTime = instance.AcquisitionTime = instance.StudyTime or "000000"
    units = str(image.meta.get("units"))
    if units == "Bq/ml":
        instance.Units = "BQML"
    else:
        instance.SUVType = SUV_TYPES.get(units, "BW")
        instance.Units = "CM2ML" if instance.SUVType == "BSA" else "GML"
    instance.CountsSource, instance.SeriesType = "EMISSION", ["STATIC", "IMAGE"]
    instance.NumberOfSlices, instance.ImageIndex = slices, instance.InstanceNumber
    instance.CorrectedImage = ""
    instance.DecayCorrection = "NONE"
    del instance.PatientPosition  # in whose place PET has codes
    instance.PatientOrientationCodeSequence = instance.PatientGantryRelationshipCodeSequence = []
    instance.CollimatorType = ""
    instance.FrameReferenceTime, instance.ActualFrameDuration = 0, None
    instance.RadiopharmaceuticalInformationSequence = []


def _secondary_capture(instance: Dataset, image: MetaTensor, slices: int) -> None:
    captured(instance)
    instance.RescaleType = "US"
    if (white := int(image.meta.get("white") or 0)) > 255:  # which 8 bit say themselves
        instance.WindowCenter, instance.WindowWidth = (white + 1) // 2, white + 1


MODULES = {
    "MR": _magnetic_resonance,
    "CT": _computed_tomography,
    "PT": _positron_emission,
    "OT": _secondary_capture,
}
"""What writes the attributes that an image of a modality needs; of all others as of OT."""


def _ds(values: Sequence[float] | np.ndarray) -> list[str]:
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value) + 0.0) for value in values]
