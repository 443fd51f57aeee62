"""What stored values mean: Hounsfield units of CT, standardised uptake of PET, and as stored for what has no unit."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .frames import Frame

if TYPE_CHECKING:
    from pydicom.valuerep import DT

__all__ = ["Measure", "measure_of"]

logger = logging.getLogger(__name__)

PHILIPS_SUV_FACTOR, PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x1000), (0x7053, 0x1009)
GE_SCAN_TIME = (0x0009, 0x100D)
UNITS_OF_CODES = {"Bq/ml": "BQML", "{SUVbw}g/ml": "GML", "g/ml{SUVbw}": "GML", "{counts}": "CNTS"}
LEAST_DOSE = 1e4
"""In Bq; less was written in MBq, which DICOM does not allow, or is no dose for a patient."""


@dataclass(frozen=True)
class Measure:
    """Value = slope * stored + intercept of each frame.

    Attributes:
        units: "HU", "SUV", "Bq/ml", "counts" or "stored".
        slopes: per frame.
        intercepts: per frame.
        factor: what rescaled values, and so the header's windows, were multiplied by (SUV).
    """

    units: str
    slopes: list[float]
    intercepts: list[float]
    factor: float = 1.0


class _NoSuv(Exception):
    """Which attribute keeps PET from being given as SUV."""


def measure_of(frames: Sequence[Frame], modality: str, where: str) -> Measure:
    """What the stored values of a series measure.

    CT is given in HU (PS3.3 C.8.2.1), PET as SUV by body weight (PS3.3 C.8.9) as the vendor-neutral pseudo-code of the
    Quantitative Imaging Biomarkers Alliance computes it, everything else as its slope and intercept say (C.11.1). PET
    of which the header does not say enough stays what it is, with a warning in the log that names the attribute.

    Args:
        frames: of the series.
        modality: as DICOM calls it.
        where: what messages start with.

    Raises:
        ImageError: if a number in the header is damaged.
    """
    rescaled = _rescaled(frames, modality)
    if modality == "CT":
        kinds = {str(frame.get("RescaleType") or "HU") for frame in frames}
        if kinds == {"HU"} and frames[0].get("RescaleSlope") is not None:
            return replace(rescaled, units="HU")
        logger.warning("%s: CT not in HU by RescaleType and RescaleSlope; its values are taken as stored", where)
    if modality == "PT":
        return _uptake(frames, rescaled, where)
    return rescaled


def _rescaled(frames: Sequence[Frame], modality: str) -> Measure:
    slopes, intercepts = [], []
    for frame in frames:
        slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
        if modality == "PT" and frame.get("Units") is None and frame.get("RealWorldValueSlope") is not None:
            slope, intercept = frame.number("RealWorldValueSlope"), frame.number("RealWorldValueIntercept")
        slopes.append(1.0 if slope is None else slope)
        intercepts.append(0.0 if intercept is None else intercept)
    return Measure("stored", slopes, intercepts)


def _uptake(frames: Sequence[Frame], rescaled: Measure, where: str) -> Measure:
    first = frames[0]
    units = str(first.get("Units") or _coded_units(first))
    if units == "GML":
        if (kind := str(first.get("SUVType") or "BW")) != "BW":
            logger.warning("%s: SUVType is %s; values are taken as they are, not by body weight", where, kind)
        return replace(rescaled, units="SUV")
    if units == "CNTS":
        factors = [_private_number(frame, PHILIPS_SUV_FACTOR, "Philips PET Private Group") for frame in frames]
        if all(factors):
            return _scaled(rescaled, [factor or 1.0 for factor in factors], "SUV")
        factors = [_private_number(frame, PHILIPS_ACTIVITY_FACTOR, "Philips PET Private Group") for frame in frames]
        if all(factors):
            rescaled, units = _scaled(rescaled, [factor or 1.0 for factor in factors], "Bq/ml"), "BQML"
    if units == "BQML":
        try:
            factor = _suv_factor(frames)
        except _NoSuv as reason:
            logger.warning("%s: PET stays in Bq/ml, not SUV: %s", where, reason)
            return replace(rescaled, units="Bq/ml")
        by_weight = _scaled(rescaled, [factor] * len(frames), "SUV")
        return replace(by_weight, factor=factor * rescaled.factor)
    logger.warning("%s: PET stays as stored, not SUV: Units is %s", where, units or "missing")
    return replace(rescaled, units="counts" if units in ("CNTS", "PROPCNTS", "PROPCPS", "CPS") else "stored")


def _scaled(measure: Measure, factors: list[float], units: str) -> Measure:
    slopes = [slope * factor for slope, factor in zip(measure.slopes, factors, strict=True)]
    intercepts = [intercept * factor for intercept, factor in zip(measure.intercepts, factors, strict=True)]
    return Measure(units, slopes, intercepts, factors[len(factors) // 2])


def _coded_units(frame: Frame) -> str:
    codes = frame.get("MeasurementUnitsCodeSequence")
    return UNITS_OF_CODES.get(str(codes[0].get("CodeValue")), "") if codes else ""


def _suv_factor(frames: Sequence[Frame]) -> float:
    """SUV for 1 Bq/ml: weight in g / dose that is left at the time the image is decay corrected to."""
    first = frames[0]
    corrections = first.get("CorrectedImage")
    if corrections is not None:
        for code in ("ATTN", "DECY"):
            if code not in corrections:
                raise _NoSuv(f"CorrectedImage lacks {code}")
    tracers = first.get("RadiopharmaceuticalInformationSequence")
    if tracers is None or len(tracers) != 1:
        raise _NoSuv(f"RadiopharmaceuticalInformationSequence has {len(tracers or [])} items, 1 is accepted")
    tracer = replace(first, groups=tracers[0])
    weight, dose = _positive(first, "PatientWeight"), _positive(tracer, "RadionuclideTotalDose")
    if dose < LEAST_DOSE:
        raise _NoSuv("RadionuclideTotalDose is not plausible in Bq")
    correction = str(first.get("DecayCorrection") or ("START" if first.get("DecayCorrectionDateTime") else "missing"))
    if correction == "ADMIN":
        return weight * 1000 / dose
    if correction != "START":
        raise _NoSuv(f"DecayCorrection is {correction}, START and ADMIN are accepted")
    half_life = _positive(tracer, "RadionuclideHalfLife")
    start = _scan_start(frames, half_life)
    uptake = (start - _injection(tracer, start)).total_seconds()
    if not 0 <= uptake <= 20 * half_life:
        raise _NoSuv(
            "RadiopharmaceuticalStartDateTime or RadiopharmaceuticalStartTime does not fit the time of the scan"
        )
    return weight * 1000 / (dose * 2 ** (-uptake / half_life))


def _positive(frame: Frame, keyword: str) -> float:
    value = frame.number(keyword)
    if value is None or value <= 0:
        raise _NoSuv(f"{keyword} is {'missing' if value is None else 'not positive'}")
    return value


def _scan_start(frames: Sequence[Frame], half_life: float) -> datetime:
    """What START means: the series' time, unless the series was made of another later.

    Then it is what GE keeps in a private attribute, or it follows from the time at which each frame had its average
    count rate; failing that, it is when the first frame was acquired.
    """
    first = frames[0]
    if (told := first.get("DecayCorrectionDateTime")) is not None:
        return _moment(str(told), "DecayCorrectionDateTime", first)
    acquired = [_date_and_time(frame, "Acquisition") for frame in frames]
    known = [moment for moment in acquired if moment is not None]
    series = _date_and_time(first, "Series")
    if series is not None and (not known or series <= min(known)):
        return series
    told = _private(first, GE_SCAN_TIME, "GEMS_PETD_01")
    if told is not None:
        return _moment(told.decode("ascii", "replace") if isinstance(told, bytes) else str(told), "GE scan time", first)
    if not known:
        raise _NoSuv("SeriesTime and AcquisitionTime are missing")
    starts = []
    for frame, moment in zip(frames, acquired, strict=True):
        reference, duration = frame.number("FrameReferenceTime"), frame.number("ActualFrameDuration")
        if moment is None or not reference or not duration or min(reference, duration) <= 0:
            return min(known)
        decayed = math.log(2) / half_life * duration / 1000
        average = half_life / math.log(2) * math.log(decayed / -math.expm1(-decayed))
        starts.append(moment + timedelta(seconds=average - reference / 1000))
    return min(starts)


def _injection(tracer: Frame, scan: datetime) -> datetime:
    told = tracer.get("RadiopharmaceuticalStartDateTime")
    if told is not None:
        return _moment(str(told), "RadiopharmaceuticalStartDateTime", tracer)
    time = tracer.get("RadiopharmaceuticalStartTime")
    if time is None:
        raise _NoSuv("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are missing")
    start = _moment(f"{scan:%Y%m%d}{time}", "RadiopharmaceuticalStartTime", tracer)
    return start - timedelta(days=1) if start > scan else start  # before midnight


def _date_and_time(frame: Frame, which: str) -> datetime | None:
    both = frame.get(f"{which}DateTime")
    if both is not None:
        return _moment(str(both), f"{which}DateTime", frame)
    date, time = frame.get(f"{which}Date"), frame.get(f"{which}Time")
    if date is None or time is None:
        return None
    return _moment(f"{date}{time}", f"{which}Time", frame)


def _moment(text: str, keyword: str, frame: Frame) -> datetime:
    """A date time (PS3.5 section 6.2) as on the clock of the scanner: an offset that differs from its own is undone."""
    from pydicom.valuerep import DT

    try:
        moment: DT | None = DT(text.replace(":", "").strip())
    except (ValueError, OverflowError):
        moment = None
    if moment is None or len(text.strip()) < 8:
        raise _NoSuv(f"{keyword} is damaged")
    plain = datetime(*moment.timetuple()[:6], moment.microsecond)
    offset, here = moment.utcoffset(), frame.get("TimezoneOffsetFromUTC")
    if offset is not None and here is not None:
        sign = -1 if str(here).startswith("-") else 1
        digits = str(here).strip("+- ")
        plain += sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:4])) - offset
    return plain


def _private(frame: Frame, tag: tuple[int, int], creator: str) -> object:
    """Value of a private attribute (PS3.5 section 7.8), in whichever block its creator has reserved."""
    for dataset in (frame.groups, frame.header):
        try:
            return dataset.private_block(tag[0], creator)[tag[1] & 0xFF].value
        except KeyError:
            continue
    return None


def _private_number(frame: Frame, tag: tuple[int, int], creator: str) -> float | None:
    value = _private(frame, tag, creator)
    try:
        number = float(value.decode() if isinstance(value, bytes) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
