"""The sample study as a BIDS dataset of one participant: T1w, FDG-PET in Bq/mL with its sidecar, and CT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion_nets.files import whole_file

from .sample_scans import INJECTED_BQ, UPTAKE_S, WEIGHT_G

__all__ = ["write_dataset"]

PLACES = {
    "mri": "sub-01/anat/sub-01_T1w.nii.gz",
    "pet": "sub-01/pet/sub-01_trc-FDG_pet.nii.gz",
    "ct": "sub-01/ct/sub-01_ct.nii.gz",
}
"""BIDS 1.11 has no name for CT: it is that of proposal 24, and stands in ``.bidsignore``."""

PET: Mapping[str, Any] = {
    "Manufacturer": "fusion-nets",
    "ManufacturersModelName": "simulated head, no patient",
    "Units": "Bq/mL",
    "BodyPart": "BRAIN",
    "TracerName": "FDG",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": INJECTED_BQ / 1e6,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": "n/a",
    "InjectedMassUnits": "n/a",
    "SpecificRadioactivity": "n/a",
    "SpecificRadioactivityUnits": "n/a",
    "ModeOfAdministration": "bolus",
    "TimeZero": "12:00:00",
    "InjectionStart": 0,
    "ScanStart": UPTAKE_S,
    "FrameTimesStart": [UPTAKE_S],
    "FrameDuration": [600],
    "AcquisitionMode": "static",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": UPTAKE_S,
    "ReconMethodName": "n/a",
    "ReconMethodParameterLabels": ["none"],
    "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0],
    "ReconFilterType": "Gaussian",
    "ReconFilterSize": 4,
    "AttenuationCorrection": "exact, of the simulated head",
}
"""What the simulated scanner says; its half-life is that of the nuclide."""


def write_dataset(folder: Path, images: Mapping[str, bytes]) -> dict[str, Path]:
    """Write the dataset.

    Args:
        folder: of the dataset.
        images: NIfTI files by the keys of :data:`PLACES`; of the PET in Bq/ml, as :data:`PET` says.

    Returns:
        Where they lie.
    """
    about = {
        "Name": "Simulated head, no patient",
        "BIDSVersion": "1.11.0",
        "DatasetType": "raw",
        "License": "CC0",
        "Authors": ["fusion-nets"],
    }
    weight = {"weight": {"Description": "of the body", "Units": "kg"}}
    texts = {
        "dataset_description.json": _json(about),
        "README": "The sample study of fusion-nets: MRI, FDG-PET and CT of one simulated head. No patient.\n",
        "participants.tsv": f"participant_id\tweight\nsub-01\t{WEIGHT_G / 1000:g}\n",
        "participants.json": _json(weight),
        ".bidsignore": "ct\n*_ct.nii.gz\n",
        PLACES["pet"].replace(".nii.gz", ".json"): _json(PET),
    }
    contents = {name: text.encode() for name, text in texts.items()}
    contents |= {PLACES[name]: content for name, content in images.items()}
    for name, content in contents.items():
        with whole_file(folder / name) as partial:
            partial.write_bytes(content)
    return {name: folder / place for name, place in PLACES.items()}


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
