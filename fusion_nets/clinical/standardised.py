"""Standardised uptake by body weight, whatever header tells weight, dose and time; and which numbers are plausible."""

from __future__ import annotations

__all__ = ["CLOCK_SKEW", "LONGEST_UPTAKE", "NoSuv", "check_dose", "check_half_life", "per_becquerel"]

WEIGHTS = (0.01, 500.0)
"""In kg, of a mouse and of the heaviest patient; more was written in grams."""
DOSES_PER_KG = (1e5, 3e9)
"""In Bq/kg, of what is injected; less was written in kBq or MBq, or its weight in grams."""
HALF_LIVES = (70.0, 3e6)
"""In s, of what is imaged: of rubidium-82, the shortest, and a month; what is outside was written in other units."""
LONGEST_UPTAKE = 10
"""Half-lives from injection to scan: a thousandth of the dose is left then, of which no image is made."""
CLOCK_SKEW = 300.0
"""Seconds by which an injection may come after the start of the scan: clocks differ, and dynamic scans start first."""


class NoSuv(Exception):
    """Which attribute keeps PET from being given as SUV."""


def check_dose(weight: float, dose: float, weight_name: str, dose_name: str) -> None:
    """Refuse a weight in kg, or a dose in Bq, that was written in other units.

    Raises:
        NoSuv: naming the attribute.
    """
    if not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise NoSuv(f"{weight_name} is not plausible in kg")
    if not DOSES_PER_KG[0] <= dose / weight <= DOSES_PER_KG[1]:
        raise NoSuv(f"{dose_name} is not plausible in Bq for {weight_name} in kg")


def check_half_life(half_life: float, name: str) -> None:
    """Refuse a half-life in s that was written in other units.

    Raises:
        NoSuv: naming the attribute.
    """
    if not HALF_LIVES[0] <= half_life <= HALF_LIVES[1]:
        raise NoSuv(f"{name} is not plausible in s")


def per_becquerel(weight: float, dose: float, uptake: float = 0.0, half_life: float = float("inf")) -> float:
    """SUV for 1 Bq/ml: weight in g / dose that is left at the time the image is decay corrected to.

    Args:
        weight: in kg.
        dose: in Bq, when it was injected.
        uptake: seconds from then to the time the image is decay corrected to.
        half_life: in s.

    Examples:
        >>> per_becquerel(70, 70e6), per_becquerel(70, 70e6, uptake=60, half_life=60)
        (0.001, 0.002)
    """
    return weight * 1000 / (dose * 2 ** (-uptake / half_life))
