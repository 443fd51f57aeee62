"""Standardised uptake of PET: what one Bq/ml counts for, by the patient's weight, the dose and the clock."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fusion_nets.cautions import caution

from ..standardised import CLOCK_SKEW, LONGEST_UPTAKE, NoSuv, check_dose, check_half_life, per_becquerel
from .frames import Frame

__all__ = ["scan_start", "suv_factor"]

logger = logging.getLogger(__name__)

GE_SCAN_TIME = (0x0009, 0x100D)

LONGEST_OF_A_DAY = 5 * 3600.0
"""Half-life in s up to which a time of day says when the injection was: a day later, nothing is left to be seen."""


def suv_factor(frames: Sequence[Frame], where: str) -> float:
    """SUV by body weight for 1 Bq/ml: weight in g / dose that is left at the time the image is decay corrected to.

    Args:
        frames: of a PET series in Bq/ml.
        where: what warnings start with.

    Raises:
        NoSuv: naming the attribute that is missing, damaged or not plausible.
    """
    first = frames[0]
    corrections = first.get("CorrectedImage")
    if corrections is not None:
        for code in ("ATTN", "DECY"):
            if code not in corrections:
                raise NoSuv(f"CorrectedImage lacks {code}")
    tracers = first.get("RadiopharmaceuticalInformationSequence")
    if tracers is None or len(tracers) != 1:
        raise NoSuv(f"RadiopharmaceuticalInformationSequence has {len(tracers or [])} items, 1 is accepted")
    tracer = replace(first, groups=tracers[0])
    weight, dose = _positive(first, "PatientWeight"), _positive(tracer, "RadionuclideTotalDose")
    check_dose(weight, dose, "PatientWeight", "RadionuclideTotalDose")
    correction = str(first.get("DecayCorrection") or ("START" if first.get("DecayCorrectionDateTime") else "missing"))
    if correction == "ADMIN":
        return per_becquerel(weight, dose)
    if correction != "START":
        raise NoSuv(f"DecayCorrection is {correction}, START and ADMIN are accepted")
    half_life = _positive(tracer, "RadionuclideHalfLife")
    check_half_life(half_life, "RadionuclideHalfLife")
    uptake = _uptake_time(tracer, scan_start(frames, half_life), half_life, where)
    return per_becquerel(weight, dose, uptake, half_life)


def _positive(frame: Frame, keyword: str) -> float:
    value = frame.number(keyword)
    if value is None or value <= 0:
        raise NoSuv(f"{keyword} is {'missing' if value is None else 'not positive'}")
    return value


def _uptake_time(tracer: Frame, scan: datetime, half_life: float, where: str) -> float:
    """Seconds from the injection to the start of the scan; a few less than 0 where that started first."""
    skew = min(CLOCK_SKEW, half_life)
    told, time = tracer.get("RadiopharmaceuticalStartDateTime"), tracer.get("RadiopharmaceuticalStartTime")
    if told is not None:
        keyword = "RadiopharmaceuticalStartDateTime"
        injection = _moment(str(told), keyword, tracer)
        if time is not None:
            _check_clock(injection, scan, str(time), tracer, where)
        uptake = _seconds(injection, scan)
    elif time is None:
        raise NoSuv("RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime are missing")
    else:
        keyword = "RadiopharmaceuticalStartTime"
        if half_life > LONGEST_OF_A_DAY:
            raise NoSuv(f"{keyword} has no date, which counts for a half-life of {half_life / 3600:.3g} hours")
        uptake = _seconds(_moment(f"{scan:%Y%m%d}{time}", keyword, tracer), scan)
        uptake = (uptake + skew) % 86400 - skew  # of the day before if it is much later
    if not -skew <= uptake <= LONGEST_UPTAKE * half_life:
        raise NoSuv(f"{keyword} does not fit the time of the scan")
    if uptake < 0:
        caution(logger, where, "by %s, the injection was %.0f s after the start of the scan", keyword, -uptake)
    return uptake


def _check_clock(injection: datetime, scan: datetime, time: str, tracer: Frame, where: str) -> None:
    """Whether the injection's time of day, told a second time, is the same on the clock of the scanner."""
    clock = _moment(f"{injection:%Y%m%d}{time}", "RadiopharmaceuticalStartTime", tracer)
    apart = _seconds(injection, clock) % 86400
    if min(apart, 86400 - apart) < 60:
        return
    if injection.tzinfo is not None and scan.tzinfo is None:
        raise NoSuv("RadiopharmaceuticalStartDateTime has an offset from UTC, which the time of the scan lacks")
    words = "RadiopharmaceuticalStartTime is another than RadiopharmaceuticalStartDateTime says, which is taken"
    caution(logger, where, words)


def scan_start(frames: Sequence[Frame], half_life: float) -> datetime:
    """What START means: the series' time, unless the series was made of another later.

    Then it is what GE keeps in a private attribute, or it follows from the time at which each frame had its average
    count rate; failing that, it is when the first frame was acquired.
    """
    first = frames[0]
    if (told := first.get("DecayCorrectionDateTime")) is not None:
        return _moment(str(told), "DecayCorrectionDateTime", first)
    acquired = [_date_and_time(frame, "Acquisition") for frame in frames]
    known = [moment for moment in acquired if moment is not None]
    earliest = min(known, key=lambda moment: _seconds(known[0], moment)) if known else None
    series = _date_and_time(first, "Series")
    if series is not None and (earliest is None or _seconds(series, earliest) >= 0):
        return series
    told = first.private(GE_SCAN_TIME, "GEMS_PETD_01")
    if told is not None:
        return _moment(told.decode("ascii", "replace") if isinstance(told, bytes) else str(told), "GE scan time", first)
    if earliest is None:
        raise NoSuv("SeriesTime and AcquisitionTime are missing, or their dates")
    starts = []
    for frame, moment in zip(frames, acquired, strict=True):
        reference, duration = frame.number("FrameReferenceTime"), frame.number("ActualFrameDuration")
        if moment is None or not reference or not duration or min(reference, duration) <= 0:
            return _first_acquired(frames, earliest)
        decayed = math.log(2) / half_life * duration / 1000
        average = half_life / math.log(2) * math.log(decayed / -math.expm1(-decayed))
        starts.append(moment + timedelta(seconds=average - reference / 1000))
    return min(starts, key=lambda moment: _seconds(starts[0], moment))


def _first_acquired(frames: Sequence[Frame], earliest: datetime) -> datetime:
    number = frames[0].number("NumberOfSlices")
    kind = frames[0].get("SeriesType") or ""
    if (number and number > len(frames)) or "DYNAMIC" in kind or (frames[0].number("NumberOfTimeSlices") or 1) > 1:
        raise NoSuv("SeriesTime is later than AcquisitionTime, and what was acquired first may be missing")
    return earliest


def _date_and_time(frame: Frame, which: str) -> datetime | None:
    both = frame.get(f"{which}DateTime")
    if both is not None:
        return _moment(str(both), f"{which}DateTime", frame)
    date, time = frame.get(f"{which}Date"), frame.get(f"{which}Time")
    if date is None or time is None:
        return None
    return _moment(f"{str(date).replace('.', '')}{time}", f"{which}Time", frame)


def _seconds(earlier: datetime, later: datetime) -> float:
    """From one moment to another; where only one has an offset from UTC, both are on one clock."""
    if (earlier.tzinfo is None) != (later.tzinfo is None):
        earlier, later = earlier.replace(tzinfo=None), later.replace(tzinfo=None)
    return (later - earlier).total_seconds()


def _moment(text: str, keyword: str, frame: Frame) -> datetime:
    """A date time (PS3.5 section 6.2), with its own offset from UTC or the header's, if there is one.

    Raises:
        NoSuv: if it is damaged, or tells no more than the hour.
    """
    from pydicom.valuerep import DT

    text, here = text.replace(":", "").strip(), str(frame.get("TimezoneOffsetFromUTC") or "").strip()
    own = any(sign in text for sign in "+-")
    try:
        moment = DT(text if own or not here else text + here)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not text[:12].isdigit() or len(text) < 12:
        raise NoSuv(f"{keyword} is damaged")
    return datetime(*moment.timetuple()[:6], moment.microsecond, tzinfo=moment.tzinfo)
