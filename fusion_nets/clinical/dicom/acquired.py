"""What an image that was resampled keeps of the acquisition of its source, so that its values mean what they meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusion_nets.quiet import silence

from ..quantities import SUV_TYPES
from ..standardised import NoSuv
from .frames import NUCLEAR_MEDICINE, frames_of
from .new_series import SOP_CLASSES
from .sources import copied
from .uptake import scan_start, suv_factor

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["acquired", "pet_units"]

_OF_ALL = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "AnatomicRegionSequence",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ImageLaterality",
    "TimezoneOffsetFromUTC",
)
# Of the modality's own modules (PS3.3 C.8.2.1, C.8.3.1, C.8.9.1 to C.8.9.4), but for what tells of the source's grid.
_OF_MODALITY = {
    "CT": ("KVP", "ScanOptions", "FilterType", "ConvolutionKernel", "ExposureTime", "XRayTubeCurrent", "Exposure"),
    "MR": (
        *("ScanningSequence", "SequenceVariant", "SequenceName", "ScanOptions", "MRAcquisitionType"),
        *("RepetitionTime", "EchoTime", "InversionTime", "EchoTrainLength", "EchoNumbers", "FlipAngle"),
        *("MagneticFieldStrength", "ImagingFrequency", "ImagedNucleus", "NumberOfAverages", "TriggerTime"),
    ),
    "PT": (
        *("SeriesDate", "SeriesTime", "CountsSource", "SeriesType", "CorrectedImage", "RandomsCorrectionMethod"),
        *("AttenuationCorrectionMethod", "ScatterCorrectionMethod", "DecayCorrection", "ReconstructionMethod"),
        *("ConvolutionKernel", "CollimatorType", "AcquisitionStartCondition", "AcquisitionTerminationCondition"),
        *("RadiopharmaceuticalInformationSequence", "InterventionDrugInformationSequence"),
        *("PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"),
        *("FrameReferenceTime", "ActualFrameDuration", "DecayFactor", "DoseCalibrationFactor"),
        *("ScatterFractionFactor", "DeadTimeFactor"),
    ),
    "NM": (
        *("CorrectedImage", "CountsAccumulated", "AcquisitionTerminationCondition", "NumberOfRotations"),
        *("EnergyWindowInformationSequence", "RadiopharmaceuticalInformationSequence", "RotationInformationSequence"),
        *("PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence", "TypeOfDetectorMotion"),
        *("InterventionDrugInformationSequence", "ReconstructionMethod", "ConvolutionKernel"),
    ),
}
_OF_PATIENT = ("PatientWeight", "PatientSize")
"""By which uptake is standardised: as they were when it was measured, not as another study has them."""


def acquired(modality: str, source: Dataset) -> Dataset:
    """How a source was acquired, as far as one image of the modality says it as another does."""
    from pydicom import Dataset

    same = {**SOP_CLASSES, "NM": NUCLEAR_MEDICINE}.get(modality) == source.get("SOPClassUID")
    kept = Dataset()
    for keyword in (*_OF_ALL, *_OF_PATIENT, *(_OF_MODALITY[modality] if same else ())):
        if keyword in source:
            kept[keyword] = copied(source[keyword])
    for tracer in kept.get("RadiopharmaceuticalInformationSequence") or ():
        tracer.setdefault("RadionuclideCodeSequence", [])  # which may be empty, but not be missing
    kind = list(kept.get("SeriesType") or ())
    if kind and kind[0] in ("DYNAMIC", "GATED"):  # one volume of which is neither
        kept.SeriesType = ["STATIC", *kind[1:]]
    return kept


def pet_units(units: str, source: Sequence[Dataset], self_contained: bool = False) -> tuple[Dataset, float]:
    """What values of PET are said to be, and what they are divided by before they are stored.

    SUV by body weight becomes Bq/ml again where the source was a PET image in Bq/ml: then weight, dose and times of its
    header, and the moment that decay was corrected to as the time of the series, give the same SUV to whoever computes
    it (PS3.3 C.8.9). That they do so here is tried; otherwise SUV is written, with its type (GML, BW).

    Args:
        units: of the values, as ``meta["units"]`` has them.
        source: headers of the PET series, or nothing.
        self_contained: write SUV itself, which needs nothing else of the header.

    Returns:
        Units, SUVType and, where it is not the source's, the time of the series; and the divisor.

    Raises:
        ValueError: for values of which it is not known what they measure.
    """
    from pydicom import Dataset

    said, first = Dataset(), source[0] if source and source[0].get("SOPClassUID") == SOP_CLASSES["PT"] else None
    units_of_source = "" if first is None else str(first.get("Units") or "")
    if units == "SUV" and units_of_source == "BQML" and not self_contained:
        found = _decay(source)
        if found is not None:
            return found
    if units in SUV_TYPES:
        said.SUVType = SUV_TYPES[units]
        said.Units = "CM2ML" if units == "SUVbsa" else "GML"
    elif units == "Bq/ml":
        said.Units = "BQML"
    elif units_of_source:
        said.Units = units_of_source
        if "SUVType" in source[0]:
            said.SUVType = source[0].SUVType
    else:
        raise ValueError("PET needs units, which the source does not tell; SUV and Bq/ml are accepted")
    return said, 1.0


def _decay(source: Sequence[Dataset]) -> tuple[Dataset, float] | None:
    """Bq/ml, when the series began, and the SUV of 1 Bq/ml; None where what is kept would not give the same."""
    from pydicom import Dataset

    said, where = Dataset(), "PET"
    said.Units = "BQML"
    with silence(("fusion_nets.clinical.dicom.uptake",), below=logging.ERROR):  # it was told when it was read
        try:
            frames = frames_of([(where, dataset) for dataset in source])
            factor = suv_factor(frames, where)
            if source[0].get("DecayCorrection") == "START":
                tracer = source[0].RadiopharmaceuticalInformationSequence[0]
                moment = scan_start(frames, float(tracer.RadionuclideHalfLife))
                said.SeriesDate, said.SeriesTime = f"{moment:%Y%m%d}", f"{moment:%H%M%S.%f}"
            headers = []
            for dataset in source:
                header = acquired("PT", dataset)
                header.update(said)
                headers.append((where, header))
            again = suv_factor(frames_of(headers), where)
        except NoSuv:
            return None
    return (said, factor) if abs(again / factor - 1) < 1e-9 else None
