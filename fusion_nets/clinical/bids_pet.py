"""What the values of PET measure by its sidecar (BIDS 1.11, Positron Emission Tomography), as DICOM's headers tell."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bids_names import bids_name, read_metadata, read_weight
from .errors import ImageError, Reason
from .quantities import SUV_TYPES
from .standardised import CLOCK_SKEW, LONGEST_UPTAKE, NoSuv, check_dose, check_half_life, per_becquerel

__all__ = ["frame_times", "pet_measure", "told_of"]

logger = logging.getLogger(__name__)

HALF_LIVES = {
    "C11": 1221.8,
    "N13": 597.9,
    "O15": 122.24,
    "F18": 6586.2,
    "Cu64": 45720.0,
    "Ga68": 4062.6,
    "Rb82": 75.45,
    "Zr89": 282276.0,
    "I124": 360806.0,
}
"""In s, of what is written as ``TracerRadionuclide``, as the headers of scanners have them."""

_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6}
CONCENTRATIONS = {
    **{f"{prefix}Bq/{volume}": times for prefix, times in _PREFIXES.items() for volume in ("ml", "cc", "cm3")},
    "BQMl": 1.0,
}
"""Bq/ml of ``Units``, a litre written small; the last is DICOM's BQML."""
DOSES = {"Bq": 1.0, "kBq": 1e3, "MBq": 1e6, "GBq": 1e9, "mCi": 3.7e7, "uCi": 3.7e4, "μCi": 3.7e4, "µCi": 3.7e4}
"""Bq of ``InjectedRadioactivityUnits``."""
STANDARDISED = {"g/ml": "SUV", "SUVbw": "SUV", **{name: name for name in SUV_TYPES}}

_USED = (
    *("Units", "InjectedRadioactivity", "InjectedRadioactivityUnits", "BodyWeight", "PatientWeight", "TimeZero"),
    *(
        "InjectionStart",
        "ImageDecayCorrected",
        "ImageDecayCorrectionTime",
        "TracerRadionuclide",
        "ModeOfAdministration",
    ),
    *("RadionuclideHalfLife", "AttenuationCorrection", "FrameTimesStart", "FrameDuration", "Modality"),
)
WEIGHTS_APART = 1.2
"""Times by which two weights of one person may differ: from one visit to another, not from one unit to another."""


def told_of(path: Path) -> list[Any]:
    """What is read beside an image whose name is one of BIDS, to know whether it changed; nothing of others."""
    name = bids_name(path)
    if name is None or name.modality != "PT":
        return []
    try:
        said = read_metadata(path)
        return [[key, repr(said[key])] for key in _USED if key in said] + [["weight", read_weight(path)]]
    except (ImageError, OSError, ValueError) as error:  # told of where the image is read
        return [str(error)]


def pet_measure(path: Path) -> tuple[str, float]:
    """The units of a PET image, and what its values are to be multiplied by for that.

    SUV by body weight where the sidecar tells all that it takes: ``Units`` (Bq/mL, kBq/mL), ``InjectedRadioactivity``
    and its units, ``BodyWeight`` (or ``PatientWeight``, as dcm2niix writes, or the column ``weight`` of
    ``participants.tsv``), ``InjectionStart``, ``ImageDecayCorrected``, ``ImageDecayCorrectionTime``, and
    ``TracerRadionuclide`` where time passes between the two. ``TimeZero``, from which all of them count, is the clock's
    and cancels out. What lacks something stays in Bq/ml, with a warning that names it.

    Args:
        path: of an image whose name is one of BIDS.

    Returns:
        ("SUV", factor), ("Bq/ml", factor) or ("stored", 1).

    Raises:
        ImageError: for a sidecar that cannot be read, or contradicts itself, the file or ``participants.tsv``.
    """
    said = read_metadata(path)
    if said.get("Modality") not in (None, "PT", "PET"):
        raise ImageError(Reason.KIND, f"{path}: its sidecar's Modality is not PT; the sidecar of a PET is accepted")
    units = said.get("Units")
    plain = re.sub(r"[lL]$", "l", units.strip()) if isinstance(units, str) else ""
    if plain in STANDARDISED:
        return STANDARDISED[plain], 1.0
    if plain not in CONCENTRATIONS:
        logger.warning(
            "%s: PET stays as stored, not SUV: Units is %s; Bq/mL, kBq/mL, MBq/mL and SUV are accepted",
            path, "missing" if units is None else "another",
        )  # fmt: skip
        return "stored", 1.0
    try:
        return "SUV", CONCENTRATIONS[plain] * _suv_factor(said, path)
    except NoSuv as reason:
        logger.warning("%s: PET stays in Bq/ml, not SUV: %s", path, reason)
        return "Bq/ml", CONCENTRATIONS[plain]


def frame_times(path: Path, count: int) -> tuple[list[float] | None, list[float] | None]:
    """When each of several frames of a dynamic PET starts, and how long it takes, in s; None of what is not told.

    Raises:
        ImageError: if the sidecar cannot be read, or has other than ``count`` numbers.
    """
    name = bids_name(path)
    if name is None or name.modality != "PT":
        return None, None
    said = read_metadata(path)
    return _numbers(said, "FrameTimesStart", count, path), _numbers(said, "FrameDuration", count, path)


def _suv_factor(said: Mapping[str, Any], path: Path) -> float:
    dose = _number(said, "InjectedRadioactivity", positive=True)
    prefix = said.get("InjectedRadioactivityUnits")
    if not isinstance(prefix, str) or prefix.strip() not in DOSES:
        raise NoSuv(f"InjectedRadioactivityUnits is {_lack(prefix)}; Bq, kBq, MBq, GBq, mCi and uCi are accepted")
    dose *= DOSES[prefix.strip()]
    weight, weight_name = _weight(said, path)
    check_dose(weight, dose, weight_name, "InjectedRadioactivity")
    if said.get("ModeOfAdministration") not in (None, "bolus"):
        raise NoSuv("ModeOfAdministration is not bolus: when the dose was given is not one moment")
    if str(said.get("AttenuationCorrection", "")).strip().lower() in ("none", "no", "n/a", "false"):
        raise NoSuv("AttenuationCorrection says that there was none")
    if said.get("ImageDecayCorrected") is not True:
        raise NoSuv(f"ImageDecayCorrected is {_lack(said.get('ImageDecayCorrected'))}; true is accepted")
    zero = said.get("TimeZero")
    if zero is not None and not (isinstance(zero, str) and re.fullmatch(r"\d{1,2}:[0-5]\d:[0-5]\d(\.\d+)?", zero)):
        raise NoSuv("TimeZero is no time of day, hh:mm:ss")
    injected, corrected = _number(said, "InjectionStart"), _number(said, "ImageDecayCorrectionTime")
    half_life = _half_life(said, path)
    if corrected == injected:
        return per_becquerel(weight, dose)
    if half_life is None:
        raise NoSuv(
            f"TracerRadionuclide is {_lack(said.get('TracerRadionuclide'))}; {', '.join(HALF_LIVES)}, or "
            "RadionuclideHalfLife, are accepted where ImageDecayCorrectionTime is not InjectionStart"
        )
    if not -min(CLOCK_SKEW, half_life) <= corrected - injected <= LONGEST_UPTAKE * half_life:
        raise NoSuv("ImageDecayCorrectionTime does not fit InjectionStart")
    return per_becquerel(weight, dose, corrected - injected, half_life)


def _weight(said: Mapping[str, Any], path: Path) -> tuple[float, str]:
    """In kg, and what tells it."""
    name = next((name for name in ("BodyWeight", "PatientWeight") if said.get(name) is not None), None)
    listed = read_weight(path)
    if name is None:
        if listed is None:
            raise NoSuv("BodyWeight is missing, and the column weight of participants.tsv in kg, too")
        return listed, "the weight of participants.tsv"
    weight = _number(said, name, positive=True)
    if listed is not None and not 1 / WEIGHTS_APART <= weight / listed <= WEIGHTS_APART:
        raise ImageError(
            Reason.DAMAGED,
            f"{path}: {name} of its sidecar and the weight of participants.tsv contradict each other; two that differ "
            "by less than a fifth are accepted",
        )
    return weight, name


def _half_life(said: Mapping[str, Any], path: Path) -> float | None:
    nuclide = said.get("TracerRadionuclide")
    known = HALF_LIVES.get(_nuclide(nuclide)) if isinstance(nuclide, str) else None
    if said.get("RadionuclideHalfLife") is None:
        return known
    told = _number(said, "RadionuclideHalfLife", positive=True)
    check_half_life(told, "RadionuclideHalfLife")
    if known is not None and not math.isclose(told, known, rel_tol=0.05):
        raise ImageError(
            Reason.DAMAGED,
            f"{path}: RadionuclideHalfLife and TracerRadionuclide of its sidecar contradict each other; the half-life "
            "of the nuclide in s is accepted",
        )
    return told


def _nuclide(text: str) -> str:
    """As :data:`HALF_LIVES` has it: of "[11C]", "18F", "F-18" or "^68^Gallium"."""
    letters, digits = "".join(re.findall(r"[A-Za-z]+", text)), "".join(re.findall(r"\d+", text))
    return f"{letters[:1].upper()}{letters[1:].lower()}{digits}"


def _numbers(said: Mapping[str, Any], key: str, count: int, path: Path) -> list[float] | None:
    values = said.get(key)
    if values is None:
        return None
    given = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if len(given) != count or not all(_is_number(value) for value in given):
        raise ImageError(
            Reason.DAMAGED,
            f"{path}: {key} of its sidecar is not {count} numbers; one for each of its volumes is accepted",
        )
    if key == "FrameDuration" and not all(value > 0 for value in given):
        raise ImageError(
            Reason.DAMAGED, f"{path}: FrameDuration of its sidecar is not above 0; seconds of each volume are accepted"
        )
    return [float(value) for value in given]


def _number(said: Mapping[str, Any], key: str, positive: bool = False) -> float:
    value: Any = said.get(key)
    if not _is_number(value):
        raise NoSuv(f"{key} is {'missing' if value is None else 'no number'}")
    if positive and value <= 0:
        raise NoSuv(f"{key} is not positive")
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _lack(value: object) -> str:
    return "missing" if value is None else "another"
