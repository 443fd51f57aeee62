"""What values may measure, by the names that ``meta["units"]`` has."""

from __future__ import annotations

__all__ = ["BODY_UPTAKE", "CT_WINDOWS", "MEASURED", "SUV_TYPES", "UPTAKE"]

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

CT_WINDOWS = {
    "brain": (0.0, 80.0),
    "subdural": (-25.0, 175.0),
    "bone": (-500.0, 1300.0),
    "soft_tissue": (-160.0, 240.0),
}
"""Low and high in HU, of widths and levels in common use: 80 and 40, 200 and 75, 1800 and 400, 400 and 40."""

BODY_UPTAKE = {"SUV": 7.0, "SUVibw": 7.0, "SUVlbm": 5.0, "SUVlbm(James128)": 5.0, "SUVlbm(Janma)": 5.0}
"""White of a PET of the body, where the urine in the bladder has many times what is looked for: a usual one for FDG by
body weight, in which the liver, at 2 to 3, is a middle grey; by lean body mass a quarter and more lower."""
