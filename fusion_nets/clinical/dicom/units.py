"""What stored values mean: Hounsfield units of CT, standardised uptake of PET, and as stored for what has no unit."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusion_nets.cautions import caution

from ..quantities import SUV_TYPES
from ..standardised import NoSuv
from .frames import Frame
from .uptake import suv_factor

__all__ = ["Measure", "measure_of"]

logger = logging.getLogger(__name__)

PHILIPS_SUV_FACTOR, PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x1000), (0x7053, 0x1009)
UNITS_OF_CODES = {"Bq/ml": "BQML", "{counts}": "CNTS"}
CODED_SUV = re.compile(r"(?:g|cm2)/ml\{(SUV[^}]+)\}|\{(SUV[^}]+)\}(?:g|cm2)/ml")
"""By UCUM, in both orders that are in use (PS3.16 CID 85)."""


@dataclass(frozen=True)
class Measure:
    """Value = slope * stored + intercept of each frame.

    Attributes:
        units: one of :data:`~fusion_nets.clinical.quantities.MEASURED`, or "stored".
        slopes: per frame.
        intercepts: per frame.
        factor: what rescaled values, and so the header's windows, were multiplied by (SUV).
    """

    units: str
    slopes: list[float]
    intercepts: list[float]
    factor: float = 1.0


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
        tables = [frame.get("ModalityLUTSequence") for frame in frames]
        kinds = {
            str((table[0].get("ModalityLUTType") if table else frame.get("RescaleType")) or "HU")
            for frame, table in zip(frames, tables, strict=True)
        }
        if kinds == {"HU"} and (frames[0].get("RescaleSlope") is not None or tables[0]):
            return replace(rescaled, units="HU")
        caution(logger, where, "CT not in HU by RescaleType and RescaleSlope; its values are taken as stored")
    if modality == "PT":
        return _uptake(frames, rescaled, where)
    return rescaled


def _rescaled(frames: Sequence[Frame], modality: str) -> Measure:
    slopes, intercepts = [], []
    for frame in frames:
        slope, intercept = frame.number("RescaleSlope"), frame.number("RescaleIntercept")
        if modality == "PT" and frame.get("Units") is None and frame.get("RealWorldValueSlope") is not None:
            slope, intercept = frame.number("RealWorldValueSlope"), frame.number("RealWorldValueIntercept")
        if frame.get("ModalityLUTSequence"):  # in place of a slope, PS3.3 C.11.1
            slope = intercept = None
        slopes.append(1.0 if slope is None else slope)
        intercepts.append(0.0 if intercept is None else intercept)
    return Measure("stored", slopes, intercepts)


def _uptake(frames: Sequence[Frame], rescaled: Measure, where: str) -> Measure:
    first = frames[0]
    units = str(first.get("Units") or _coded_units(first))
    if units in ("GML", "CM2ML") or units in SUV_TYPES:
        return _standardised(first, units, rescaled, where)
    if units == "CNTS":
        factors = [_private_number(frame, PHILIPS_SUV_FACTOR, "Philips PET Private Group") for frame in frames]
        if all(factors):
            return _scaled(rescaled, [factor or 1.0 for factor in factors], "SUV")
        factors = [_private_number(frame, PHILIPS_ACTIVITY_FACTOR, "Philips PET Private Group") for frame in frames]
        if all(factors):
            rescaled, units = _scaled(rescaled, [factor or 1.0 for factor in factors], "Bq/ml"), "BQML"
    if units == "BQML":
        try:
            factor = suv_factor(frames, where)
        except NoSuv as reason:
            caution(logger, where, "PET stays in Bq/ml, not SUV: %s", reason)
            return replace(rescaled, units="Bq/ml")
        by_weight = _scaled(rescaled, [factor] * len(frames), "SUV")
        return replace(by_weight, factor=factor * rescaled.factor)
    caution(logger, where, "PET stays as stored, not SUV: Units is %s", units or "missing")
    return replace(rescaled, units="counts" if units in ("CNTS", "PROPCNTS", "PROPCPS", "CPS") else "stored")


def _scaled(measure: Measure, factors: list[float], units: str) -> Measure:
    slopes = [slope * factor for slope, factor in zip(measure.slopes, factors, strict=True)]
    intercepts = [intercept * factor for intercept, factor in zip(measure.intercepts, factors, strict=True)]
    return Measure(units, slopes, intercepts, factors[len(factors) // 2])


def _standardised(first: Frame, units: str, rescaled: Measure, where: str) -> Measure:
    """Uptake that the scanner has standardised already, by what it says (PS3.3 C.8.9.1)."""
    if units not in SUV_TYPES:
        kind = str(first.get("SUVType") or ("BSA" if units == "CM2ML" else "BW"))
        units = next((name for name, type_ in SUV_TYPES.items() if type_ == kind), f"of SUVType {kind}")
    if units not in SUV_TYPES:
        caution(logger, where, "PET stays as stored: Units is %s, %s", first.get("Units"), units)
        return rescaled
    if units != "SUV":
        caution(logger, where, "PET is in %s, which is not SUV by body weight", units)
    return replace(rescaled, units=units)


def _coded_units(frame: Frame) -> str:
    codes = frame.get("MeasurementUnitsCodeSequence")
    code = str(codes[0].get("CodeValue") or "") if codes else ""
    if suv := CODED_SUV.fullmatch(code.replace("mL", "ml")):
        kind = suv[1] or suv[2]
        return "SUV" if kind == "SUVbw" else kind
    return UNITS_OF_CODES.get(code.replace("mL", "ml"), code)


def _private_number(frame: Frame, tag: tuple[int, int], creator: str) -> float | None:
    value = frame.private(tag, creator)
    try:
        number = float(value.decode() if isinstance(value, bytes) else value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
