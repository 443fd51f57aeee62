"""A study to try things on: MRI, FDG-PET and CT of one simulated head.

The brain is the MNI ICBM 152 template (T1 and grey and white matter maps, 1 mm) that nilearn carries on disk; nothing
is downloaded. The template is skull-stripped, so the head around it is modelled: subarachnoid space, skull with diploe,
scalp, orbits and the air spaces of the skull base. Every image is then a property of the same tissue fractions:

    MRI   the template's own T1 signal in the brain, a T1 value per tissue around it; arbitrary units
    PET   an uptake per tissue, blur of the scanner, Poisson noise; standardized uptake value (SUV)
    CT    an attenuation per tissue, Gaussian noise; Hounsfield units (HU)

It is a demonstration, not anatomy: no vessels, no meninges, no jaw, and the brain is an average of 152 people.
"""

from __future__ import annotations

import functools
import gzip
import json
import operator
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fusion_nets.files import whole_file

from .head_model import Grid, model_head
from .sample_bids import write_dataset
from .sample_scans import ACTIVITY_PER_SUV, HEAD_IN_PET_CT, write_scans

__all__ = ["LESIONS", "TISSUES", "Grid", "Lesion", "Tissue", "write_sample_study"]

FIELD_OF_VIEW = ((-96, 96), (-130, 110), (-66, 106))
"""World box of the study in mm (left-right, back-front, feet-head): the head and a margin of air."""

PSF_FWHM = 6.0
"""Resolution of the PET image in mm (full width at half maximum of its point spread function)."""

FILTER_FWHM = 4.0
"""The part of it that the filter after reconstruction adds, in mm; it correlates the noise of neighbouring voxels."""

COUNTS_PER_ML_SUV = 1000.0
"""Noise-equivalent events per millilitre at an uptake of SUV 1; they leave 2 to 3 % of noise in grey matter."""

CT_NOISE = 3.0
"""Standard deviation of the CT noise in HU."""

MRI_SCALE = 1000.0
"""Stored MRI value of the brightest template voxel."""


@dataclass(frozen=True)
class Tissue:
    """What one tissue looks like: T1 signal (template scale, white matter 0.87), uptake (SUV), attenuation (HU)."""

    t1: float
    suv: float
    hu: float


# Uptake: grey to white 4 : 1 as in the 3-D brain phantom of Hoffman et al., IEEE Trans Nucl Sci 37:616 (1990), at the
# SUV of a resting adult an hour after injection. Attenuation: textbook values at 120 kV. Grey, white and csf take their
# T1 signal from the template itself; given here are its medians.
TISSUES: Mapping[str, Tissue] = {
    "air": Tissue(t1=0.0, suv=0.0, hu=-1000.0),
    "skin": Tissue(t1=0.50, suv=0.6, hu=40.0),
    "fat": Tissue(t1=1.00, suv=0.3, hu=-90.0),
    "muscle": Tissue(t1=0.45, suv=0.8, hu=55.0),
    "bone": Tissue(t1=0.05, suv=0.3, hu=1200.0),
    "diploe": Tissue(t1=0.45, suv=0.8, hu=700.0),
    "vitreous": Tissue(t1=0.18, suv=0.2, hu=8.0),
    "lens": Tissue(t1=0.45, suv=0.2, hu=90.0),
    "subarachnoid": Tissue(t1=0.25, suv=0.3, hu=5.0),
    "csf": Tissue(t1=0.27, suv=0.3, hu=5.0),
    "grey": Tissue(t1=0.65, suv=8.0, hu=37.0),
    "white": Tissue(t1=0.87, suv=2.0, hu=30.0),
}


@dataclass(frozen=True)
class Lesion:
    """A ball of other tissue. World coordinates in mm (RAS, MNI); a `None` leaves that image as it is."""

    name: str
    finding: str
    centre: tuple[float, float, float]
    diameter: float
    uptake_to_grey: float
    t1: float | None = None
    hu: float | None = None


LESIONS = (
    Lesion(
        name="hot",
        finding="FDG-avid mass of the right frontal white matter, dark on T1, slightly dense on CT (as a lymphoma)",
        centre=(28.0, 34.0, 12.0),
        diameter=14.0,
        uptake_to_grey=1.5,
        t1=0.62,
        hu=48.0,
    ),
    Lesion(
        name="cold",
        finding="hypometabolic left amygdala and hippocampal head, MRI and CT normal (as between seizures)",
        centre=(-26.0, -8.0, -20.0),
        diameter=14.0,
        uptake_to_grey=0.25,
    ),
)


def write_sample_study(
    output_dir: str | os.PathLike[str], seed: int = 0, spacing: float = 2.0, form: str = "nifti"
) -> dict[str, Path]:
    """Write the sample study: MRI, PET and CT, `study.json` and the datalist `pairs.json`.

    As NIfTI, the three volumes `mri.nii.gz`, `pet.nii.gz` and `ct.nii.gz` share one grid in MNI space (RAS, mm). As
    DICOM, they are the folders `mri`, `pet` and `ct` of one study on grids of their own, see
    :data:`fusion_nets.simulation.sample_scans.SCANS`. As a BIDS dataset, they are those of ``sub-01``, PET in Bq/ml and
    with a sidecar; the JSON files lie in ``sourcedata``. The same seed gives the same bytes.

    Args:
        output_dir: folder to write into; made when missing. Files of these names are replaced.
        seed: seeds the noise of PET and CT; a whole number, 0 or more.
        spacing: edge of the cubic voxels in mm, from 1 (the template's own) to 4; of the smallest voxels in DICOM.
        form: "nifti", "dicom" or "bids".

    Returns:
        The files written, by the keys "mri", "pet", "ct", "study" and "pairs".

    Raises:
        ValueError: `seed` or `spacing` is out of range.
        ModuleNotFoundError: the extra `fusion-nets[sample]` is not installed.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if not 1 <= spacing <= 4:
        raise ValueError(f"spacing is {spacing:g} mm; it must lie between 1 and 4 mm")
    if form not in ("nifti", "dicom", "bids"):
        raise ValueError(f"form is {form!r}; accepted are nifti, dicom and bids")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)

    grid = Grid.covering(FIELD_OF_VIEW, spacing)
    t1, tissues = model_head(grid)
    pet_rng, ct_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    activity = insert_lesions(mix(tissues, "suv"), grid, {x: x.uptake_to_grey * TISSUES["grey"].suv for x in LESIONS})
    volumes = {
        "mri": (simulate_mri(t1, tissues, grid), "T1-weighted MRI (MNI152), a.u."),
        "pet": (simulate_pet(activity, grid, pet_rng), f"Simulated FDG-PET, SUV, seed {seed}"),
        "ct": (simulate_ct(tissues, grid, ct_rng), f"Simulated CT, HU, seed {seed}"),
    }
    if form == "dicom":
        files = write_scans(folder, {name: volume for name, (volume, _) in volumes.items()}, grid.affine, seed)
    elif form == "bids":
        volumes["pet"] = (volumes["pet"][0] * np.float32(ACTIVITY_PER_SUV), f"Simulated FDG-PET, Bq/ml, seed {seed}")
        files = write_dataset(folder, {name: _nifti(volume, grid, said) for name, (volume, said) in volumes.items()})
        folder = folder / "sourcedata"
    else:
        files = {name: folder / f"{name}.nii.gz" for name in volumes}
        for name, (volume, description) in volumes.items():
            _write(files[name], _nifti(volume, grid, description))
    names = {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in files.items()}
    files |= {"study": folder / "study.json", "pairs": folder / "pairs.json"}
    described = _describe(grid, seed, names)
    if form == "dicom":
        described["grid"]["of"] = "the model; each scan has voxels of its own"
        described["head_in_pet_ct"] = HEAD_IN_PET_CT.tolist()
    if form == "bids":
        described["files"][names["pet"]]["units"] = "Bq/ml"
    _write(files["study"], _json(described))
    _write(files["pairs"], _json(_pairs(names)))
    return files


def simulate_mri(t1: np.ndarray, tissues: Mapping[str, np.ndarray], grid: Grid) -> np.ndarray:
    """T1-weighted signal: the template in the brain, a value per tissue around it.

    Args:
        t1: signal of the brain, 0 to 1, and 0 outside it.
        tissues: fraction of each voxel that a tissue fills.
        grid: the voxels both are given on.

    Returns:
        Signal in arbitrary units, int16; exactly 0 in air.
    """
    around = mix({name: part for name, part in tissues.items() if name not in ("csf", "grey", "white")}, "t1")
    signal = insert_lesions(t1 + around, grid, {x: x.t1 for x in LESIONS})
    return np.rint(signal * MRI_SCALE).astype(np.int16)


def simulate_pet(
    activity: np.ndarray,
    grid: Grid,
    rng: np.random.Generator | None,
    fwhm: float = PSF_FWHM,
    filter_fwhm: float = FILTER_FWHM,
    counts: float = COUNTS_PER_ML_SUV,
) -> np.ndarray:
    """What a scanner makes of an activity (SUV): blur of the detectors, Poisson noise, filter of the reconstruction.

    Both blurs are Gaussian, with sigma = FWHM / (2 sqrt(2 ln 2)); their variances add up to that of the image.

    Args:
        activity: true uptake in SUV.
        grid: the voxels it is given on.
        rng: source of the noise; `None` leaves the image free of noise.
        fwhm: full width at half maximum of the whole point spread function in mm.
        filter_fwhm: the filter's part of it.
        counts: expected events per millilitre at SUV 1.

    Returns:
        Measured uptake in SUV, float32.
    """
    from scipy import ndimage

    def blur(image: np.ndarray, width: float) -> np.ndarray:
        return ndimage.gaussian_filter(image, width / (2 * np.sqrt(2 * np.log(2))) / grid.spacing, mode="nearest")

    measured = blur(activity, np.sqrt(fwhm**2 - filter_fwhm**2))
    if rng is not None:
        events_per_suv = counts * grid.spacing**3 / 1000
        measured = rng.poisson(measured * events_per_suv) / events_per_suv
    return blur(measured, filter_fwhm).astype(np.float32)


def simulate_ct(tissues: Mapping[str, np.ndarray], grid: Grid, rng: np.random.Generator | None) -> np.ndarray:
    """Attenuation in HU, int16: a value per tissue, Gaussian noise (none where `rng` is `None`), -1024 at least."""
    attenuation = insert_lesions(mix(tissues, "hu"), grid, {x: x.hu for x in LESIONS})
    if rng is not None:
        attenuation = attenuation + rng.normal(0, CT_NOISE, grid.shape)
    return np.rint(np.clip(attenuation, -1024, None)).astype(np.int16)


def mix(tissues: Mapping[str, np.ndarray], quantity: str) -> np.ndarray:
    """Linear partial volume: each voxel the sum of its tissues' `quantity` (a field of `Tissue`), by fraction."""
    return functools.reduce(operator.add, (part * getattr(TISSUES[name], quantity) for name, part in tissues.items()))


def insert_lesions(image: np.ndarray, grid: Grid, values: Mapping[Lesion, float | None]) -> np.ndarray:
    """The image with every lesion that has a value painted over it."""
    for lesion, value in values.items():
        if value is not None:
            inside = grid.ball(lesion.centre, [lesion.diameter / 2] * 3)
            image = image + inside * (value - image)
    return image


def _describe(grid: Grid, seed: int, names: Mapping[str, str]) -> dict[str, Any]:
    """Contents of `study.json`."""
    return {
        "description": "Simulated MRI, FDG-PET and CT of one head. No patient.",
        "seed": seed,
        "grid": {
            "space": "MNI152 (ICBM 2009a nonlinear symmetric), world coordinates RAS in mm",
            "shape": grid.shape,
            "spacing_mm": grid.spacing,
            "affine": grid.affine.tolist(),
        },
        "files": {
            names["mri"]: {
                "modality": "MR",
                "units": "arbitrary",
                "description": "T1-weighted template in the brain, modelled skull, scalp and orbits; background 0.",
            },
            names["pet"]: {
                "modality": "PT",
                "units": "SUV",
                "tracer": "FDG",
                "description": "Uptake by tissue, scanner blur, Poisson noise.",
                "psf_fwhm_mm": PSF_FWHM,
                "of_which_filter_fwhm_mm": FILTER_FWHM,
                "counts_per_ml_at_suv_1": COUNTS_PER_ML_SUV,
            },
            names["ct"]: {
                "modality": "CT",
                "units": "HU",
                "description": "Attenuation by tissue, Gaussian noise.",
                "noise_sd_hu": CT_NOISE,
            },
        },
        "tissues": {name: asdict(tissue) for name, tissue in TISSUES.items()},
        "lesions": [
            {
                "name": lesion.name,
                "finding": lesion.finding,
                "centre_mm": lesion.centre,
                "diameter_mm": lesion.diameter,
                "uptake_to_grey": lesion.uptake_to_grey,
                "suv": lesion.uptake_to_grey * TISSUES["grey"].suv,
                "t1": lesion.t1,
                "hu": lesion.hu,
            }
            for lesion in LESIONS
        ],
        "sources": [
            "Template: MNI ICBM 152 as carried by nilearn; Fonov et al., NeuroImage 54:313 (2011); "
            "copyright McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University.",
            "Grey : white uptake 4 : 1: Hoffman et al., IEEE Trans Nucl Sci 37:616 (1990).",
        ],
    }


def _pairs(names: Mapping[str, str]) -> list[dict[str, str]]:
    """Contents of `pairs.json`: a datalist, paths relative to its folder."""
    return [{"anatomy": names["mri"], "overlay": names[name], "name": f"mri_{name}"} for name in ("pet", "ct")]


def _nifti(volume: np.ndarray, grid: Grid, description: str) -> bytes:
    """A compressed NIfTI-1 file; nibabel's own `.nii.gz` would carry the time of writing."""
    image = nib.Nifti1Image(volume, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    image.set_sform(grid.affine, code="mni")
    image.set_qform(grid.affine, code="mni")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
