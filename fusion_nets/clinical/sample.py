"""A study to try things on: MRI, FDG-PET and CT of one simulated head, on one grid.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .whole_files import whole_file

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


@dataclass(frozen=True)
class Grid:
    """Isotropic voxels along the world axes (RAS); `spacing` in mm."""

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @classmethod
    def covering(cls, box: Sequence[tuple[float, float]], spacing: float) -> Grid:
        """The grid whose voxels fill the world box (mm)."""
        x, y, z = (round((high - low) / spacing) for low, high in box)
        i, j, k = (low + spacing / 2 for low, _ in box)
        return cls((x, y, z), spacing, (i, j, k))

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world mm."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    def axes(self) -> list[np.ndarray]:
        """World coordinates x, y, z in mm, each broadcastable against an image of this grid."""
        steps = np.ogrid[tuple(slice(n) for n in self.shape)]
        return [start + self.spacing * step for start, step in zip(self.origin, steps, strict=True)]

    def ball(self, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
        """Fraction of each voxel inside the ellipsoid, its rim one voxel wide."""
        unit = sum(((a - c) / r) ** 2 for a, c, r in zip(self.axes(), centre, radii, strict=True))
        return self.soft((1 - np.sqrt(unit)) * min(radii))

    def soft(self, depth: np.ndarray) -> np.ndarray:
        """Fraction of each voxel inside a surface, from the depth of its centre below the surface (mm)."""
        return np.clip(0.5 + depth / self.spacing, 0, 1)


def write_sample_study(output_dir: str | os.PathLike[str], seed: int = 0, spacing: float = 2.0) -> dict[str, Path]:
    """Write the sample study: `mri.nii.gz`, `pet.nii.gz`, `ct.nii.gz`, `study.json` and the datalist `pairs.json`.

    The three volumes share one grid in MNI space (RAS, mm). The same seed gives the same bytes.

    Args:
        output_dir: folder to write into; made when missing. Files of these names are replaced.
        seed: seeds the noise of PET and CT; a whole number, 0 or more.
        spacing: edge of the cubic voxels in mm, from 1 (the template's own) to 4.

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
    files = {name: folder / f"{name}.nii.gz" for name in volumes} | {
        "study": folder / "study.json",
        "pairs": folder / "pairs.json",
    }
    for name, (volume, description) in volumes.items():
        _write(files[name], _nifti(volume, grid, description))
    _write(files["study"], _json(_describe(grid, seed)))
    _write(files["pairs"], _json(_pairs()))
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


def model_head(grid: Grid) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The template on the grid, and a head around it.

    Returns:
        T1 signal of the brain (template scale 0 to 1, 0 outside it), and the fraction of each voxel that every one of
        `TISSUES` fills; the fractions of a voxel add up to 1.
    """
    t1, brain, grey, white = _template(grid)
    x, y, z = grid.axes()
    # Inner surface of the skull: the brain, its fissures closed, and 2 mm of subarachnoid space. Height above it in mm.
    height = _distance(_closed(brain > 0.5, 14.0, grid), grid) - 2.0
    # Skull of 4 to 8 mm, tables of 2 mm around the diploe; thin at the temples and under the front of the brain.
    temple = x**2 / (x**2 + (y + 16) ** 2 + (z - 10) ** 2)
    base = np.clip((y + 40) / 40, 0, 1) * np.clip((-10 - z) / 20, 0, 1)
    thickness = np.maximum(8 - 2.5 * temple - 3 * base, 4)
    # Scalp of 6 mm, face and neck below, hollows of the temples filled by muscle. Depth below the skin in mm.
    depth = -_distance((height < thickness + 6) | _within_hulls(grid, FACE), grid)

    tissues = {"air": np.ones(grid.shape, dtype=np.float32)}

    def paint(name: str, part: np.ndarray) -> None:
        part = part.astype(np.float32)
        for below in tissues.values():
            below *= 1 - part
        tissues[name] = tissues[name] + part if name in tissues else part

    paint("skin", grid.soft(depth))
    paint("fat", grid.soft(depth - 2))
    paint("muscle", grid.soft(depth - 5))
    for name, part in _parts(grid, FACE_PARTS):
        paint(name, part * grid.soft(depth - 1.5))
    paint("bone", grid.soft(thickness - height))
    paint("diploe", grid.soft(thickness - 2 - height))
    paint("bone", grid.soft(2 - height))
    paint("subarachnoid", grid.soft(-height))
    for name, part in _parts(grid, BASE_PARTS):
        paint(name, part)
    paint("csf", brain)
    tissues["csf"] = np.maximum(tissues["csf"] - grey - white, 0)
    return t1, tissues | {"grey": grey, "white": white}


# Where things lie in MNI space (mm); x is mirrored. Corners of convex bodies: face with neck, and nose.
FACE = (
    ((0, 86, 5), (40, 74, 5), (64, 50, 5), (78, 20, 5), (82, -20, 5), (74, -60, 5), (38, -104, 5), (16, -117, 5),
     (16, -116, -22), (38, -100, -30), (72, -56, -34), (78, -16, -48), (78, -12, -90), (66, 44, -46), (64, 40, -90),
     (42, 76, -62), (40, 74, -90), (36, 77, -44), (0, 85, -40), (0, 84, -90), (56, -62, -90), (0, -92, -90)),
    ((0, 87, -36), (0, 108, -68), (15, 82, -56), (17, 80, -90), (0, 104, -90)),
)  # fmt: skip

Part = tuple[str, tuple[float, float, float], tuple[float, float, float]]
# Ellipsoids (tissue, centre, radii), painted one over the other: orbits and nose under the skin, ...
FACE_PARTS: tuple[Part, ...] = (
    ("bone", (31, 50, -42), (20, 22, 19)),
    ("fat", (32, 54, -42), (18, 26, 17)),
    ("muscle", (28, 44, -42), (2.5, 18, 2.5)),
    ("vitreous", (33, 62, -42), (12, 12, 12)),
    ("lens", (33, 70.5, -42), (4.5, 2.5, 4.5)),
    ("bone", (0, 56, -52), (15, 30, 26)),
    ("air", (6, 56, -50), (5, 26, 26)),
    ("bone", (27, 50, -74), (16, 19, 17)),
    ("air", (27, 50, -74), (14, 17, 15)),
    ("bone", (0, -100, -18), (14, 10, 18)),
)
# ... and the bone of the skull base with its air cells, which gives way to brain.
BASE_PARTS: tuple[Part, ...] = (
    ("bone", (0, 12, -48), (15, 22, 12)),
    ("diploe", (0, 0, -48), (11, 9, 9)),
    ("air", (0, 20, -46), (10, 10, 8)),
    ("bone", (38, -28, -40), (24, 9, 9)),
    ("air", (54, -36, -46), (7, 8, 9)),
)


def _parts(grid: Grid, parts: Sequence[Part]) -> Iterator[tuple[str, np.ndarray]]:
    """Tissue and voxel fractions of the ellipsoids, each on both sides."""
    for name, (x, y, z), radii in parts:
        for side in (-1, 1) if x else (1,):
            yield name, grid.ball((side * x, y, z), radii)


def _template(grid: Grid) -> tuple[np.ndarray, ...]:
    """T1 signal, brain, grey and white matter of the MNI152 template on the grid, all from 0 to 1."""
    try:
        from nilearn import datasets
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing; install it with: pip install fusion-nets[sample]"
        ) from error
    image = datasets.load_mni152_template(resolution=1)
    t1 = np.asarray(image.dataobj, dtype=np.float32)
    brain = (t1 > 0).astype(np.float32)
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32) * brain
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    to_template = np.linalg.inv(image.affine) @ grid.affine
    # Voxels wider than the template's average over their width (Gaussian of that FWHM), not pick single points.
    sigma = np.sqrt(grid.spacing**2 - 1) / (2 * np.sqrt(2 * np.log(2)))

    def resample(volume: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(volume, sigma, truncate=3) if sigma else volume
        return ndimage.affine_transform(smooth, np.diag(to_template)[:3], to_template[:3, 3], grid.shape, order=1)

    return tuple(resample(volume) for volume in (t1, brain, grey, white))


def _distance(inside: np.ndarray, grid: Grid) -> np.ndarray:
    """Signed distance to the surface of a mask in mm, positive outside, rounded off over 2 mm."""
    from scipy import ndimage

    outwards, inwards = (ndimage.distance_transform_edt(mask, grid.spacing) for mask in (~inside, inside))
    return ndimage.gaussian_filter(outwards - inwards, 2.0 / grid.spacing, mode="nearest")


def _closed(inside: np.ndarray, radius: float, grid: Grid) -> np.ndarray:
    """The mask with every gap filled that a ball of the radius (mm) does not enter."""
    from scipy import ndimage

    grown = ndimage.distance_transform_edt(~inside, grid.spacing) <= radius
    return ndimage.distance_transform_edt(grown, grid.spacing) > radius


def _within_hulls(grid: Grid, bodies: Sequence[Sequence[tuple[float, float, float]]]) -> np.ndarray:
    """Mask of the convex hulls of the points (mm) and their mirror images."""
    from scipy.spatial import ConvexHull

    axes = grid.axes()
    inside = np.zeros(grid.shape, dtype=bool)
    for points in bodies:
        facets = ConvexHull([(side * x, y, z) for x, y, z in points for side in (-1, 1)]).equations
        body = np.ones(grid.shape, dtype=bool)
        for *normal, offset in np.unique(facets.round(9), axis=0):
            body &= sum(n * axis for n, axis in zip(normal, axes, strict=True)) + offset <= 0
        inside |= body
    return inside


def _describe(grid: Grid, seed: int) -> dict[str, Any]:
    """Contents of `study.json`."""
    return {
        "description": "Simulated MRI, FDG-PET and CT of one head, on one grid. No patient.",
        "seed": seed,
        "grid": {
            "space": "MNI152 (ICBM 2009a nonlinear symmetric), world coordinates RAS in mm",
            "shape": grid.shape,
            "spacing_mm": grid.spacing,
            "affine": grid.affine.tolist(),
        },
        "files": {
            "mri.nii.gz": {
                "modality": "MR",
                "units": "arbitrary",
                "description": "T1-weighted template in the brain, modelled skull, scalp and orbits; background 0.",
            },
            "pet.nii.gz": {
                "modality": "PT",
                "units": "SUV",
                "tracer": "FDG",
                "description": "Uptake by tissue, scanner blur, Poisson noise.",
                "psf_fwhm_mm": PSF_FWHM,
                "of_which_filter_fwhm_mm": FILTER_FWHM,
                "counts_per_ml_at_suv_1": COUNTS_PER_ML_SUV,
            },
            "ct.nii.gz": {
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


def _pairs() -> list[dict[str, str]]:
    """Contents of `pairs.json`: a datalist, paths relative to its folder."""
    return [{"anatomy": "mri.nii.gz", "overlay": f"{name}.nii.gz", "name": f"mri_{name}"} for name in ("pet", "ct")]


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
