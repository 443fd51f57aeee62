"""What values may measure, by the names that ``meta["units"]`` has."""

from __future__ import annotations

__all__ = ["MEASURED", "SUV_TYPES", "UPTAKE"]

SUV_TYPES = {
    "SUV": "BW",
    "SUVlbm": "LBM",
    "SUVlbm(James128)": "LBMJAMES128",
    "SUVlbm(Janma)": "LBMJANMA",
    "SUVibw": "IBW",
    "SUVbsa": "BSA",
}
"""Standardised uptake by what it is standardised by: body weight, lean body mass by several formulas, ideal weight or
body surface; DICOM's SUV Type (PS3.3 C.8.9.1) of each. One is not another: they differ by a fifth and more."""

UPTAKE = (*SUV_TYPES, "Bq/ml", "counts")
"""Of nuclear medicine."""

MEASURED = ("HU", *UPTAKE)
"""What is more than grey levels, so that its values stay what they are."""
