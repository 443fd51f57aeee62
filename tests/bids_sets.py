"""Small BIDS datasets, and the validator that judges them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SIDECAR = {
    "Units": "Bq/mL",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": 370,
    "InjectedRadioactivityUnits": "MBq",
    "BodyWeight": 70,
    "TimeZero": "13:00:00",
    "InjectionStart": -3600,
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
}


def dataset(folder, *names):
    """A dataset with an image, and of a PET a sidecar, for each name, such as "sub-01_ses-1_T1w"."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"Name": "Nobody", "BIDSVersion": "1.11.0", "DatasetDOI": "doi:10.5072/nobody"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    for number, name in enumerate(names):
        image(folder, name, seed=number)
    return folder


def image(folder, name, seed=0, shape=(48, 44, 8)):
    """A bright shape on black, where its name belongs."""
    parts, suffix = name.split("_"), name.split("_")[-1]
    kind = suffix if suffix in ("pet", "ct", "spect") else "anat"
    place = folder.joinpath(*[part for part in parts if part.startswith(("sub-", "ses-"))], kind)
    place.mkdir(parents=True, exist_ok=True)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    waves = 1000 + 500 * np.sin(5 * axes[0] + 3 * axes[1]) + 200 * np.random.default_rng(seed).random(shape)
    made = nib.Nifti1Image(((sum(axis**2 for axis in axes) < 1) * waves).astype(np.float32), np.diag([4, 4, 4, 1]))
    made.set_sform(made.affine, code=1)
    made.header.set_xyzt_units("mm")
    nib.save(made, place / f"{name}.nii.gz")
    if suffix == "pet":
        (place / f"{name}.json").write_text(json.dumps(SIDECAR))
    return place / f"{name}.nii.gz"


def complaints(folder):
    """What the validator of the schema calls an error in a dataset."""
    name = "bids-validator-deno"
    program = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"needs the validator of BIDS: pip install {name}")
    done = subprocess.run([program, str(folder), "--json"], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return sorted((issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error")


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
