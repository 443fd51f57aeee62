"""Series made of a head that is known at every point, and what dcm2niix makes of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.clinical.dicom import new_series, new_study, write_instances

STUDY = {"patient_name": "Roe^Jane", "patient_id": "PID4711", "date": "20260105", "description": "Phantom"}


def head(points):
    """Values of a smooth head, from -1000 in air, at points (..., 3) in RAS, mm."""
    x, y, z = np.moveaxis(np.asarray(points, dtype=float), -1, 0)
    inside = 1 / (1 + np.exp((np.sqrt((x / 50) ** 2 + (y / 60) ** 2 + (z / 45) ** 2) - 1) * 8))
    lesion = np.exp(-((x - 15) ** 2 + (y + 10) ** 2 + (z - 8) ** 2) / 300)
    return -1000 + 1040 * inside + 300 * lesion + inside * (x + 2 * y + 3 * z) / 10


def head_on(affine, shape):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return head(nib.affines.apply_affine(affine, grid))


def axial(shape=(40, 44, 12), spacing=(3.0, 2.8, 6.0), turn=(0.0, 0.0, 0.0)):
    """Affine (RAS) of slices in a radiologist's view, turned by these angles (degrees)."""
    rotation = nib.eulerangles.euler2mat(*np.radians(turn[::-1]))
    matrix = rotation @ np.diag([-spacing[0], -spacing[1], spacing[2]])
    return nib.affines.from_matvec(matrix, -matrix @ (np.asarray(shape) - 1) / 2)


def sagittal(shape=(44, 40, 12), spacing=(2.8, 3.0, 6.0)):
    """Columns to the back, rows to the feet, slices from left to right."""
    matrix = np.array([[0, 0, -1], [-1, 0, 0], [0, -1, 0]]) @ np.diag(spacing)
    return nib.affines.from_matvec(matrix, -matrix @ (np.asarray(shape) - 1) / 2)


def instances(modality="CT", affine=None, shape=(40, 44, 12), number=1, units=None, values=None, **how):
    """A classic series of the head."""
    affine = axial(shape) if affine is None else affine
    values = np.rint(head_on(affine, shape)) if values is None else values
    units = units or {"CT": "HU", "PT": "Bq/ml"}.get(modality, "stored")
    values = values + 1000 if modality == "MR" else (values + 1000) * 7.3 if modality == "PT" else values
    image = MetaTensor(
        torch.from_numpy(np.float32(values[None])), affine=torch.from_numpy(affine), meta={"units": units}
    )
    series = new_series(image, modality, new_study("phantom", number, **STUDY), number, **how)
    return series


def tilted(degrees, shape=(40, 44, 12), spacing=(3.0, 2.8, 6.0)):
    """CT slices of a gantry that is tilted about the x axis: planes tilted, table moved along z."""
    angle = np.radians(degrees)
    affine = axial(shape, spacing)
    shear = np.eye(4)
    shear[2, 1] = np.tan(angle)  # a plane rises with y; what the table moves between planes stays along z
    shear[:3, 1] *= np.cos(angle)
    sheared = shear @ affine
    straight = affine.copy()
    straight[2, 2] = spacing[2]
    series = instances("CT", straight, shape, values=np.rint(head_on(sheared, shape)))
    to_lps = np.diag([-1, -1, 1, 1]) @ sheared
    axes = to_lps[:3, :2] / np.linalg.norm(to_lps[:3, :2], axis=0)
    for k, instance in enumerate(series):
        instance.ImageOrientationPatient = [f"{value:.10g}" for value in axes.T.ravel()]
        instance.ImagePositionPatient = [f"{value:.10g}" for value in (to_lps @ [0, 0, k, 1])[:3]]
        instance.PixelSpacing = [f"{np.linalg.norm(to_lps[:3, n]):.10g}" for n in (1, 0)]
        instance.GantryDetectorTilt = f"{degrees}"
        del instance.SliceLocation
    return series


def save(folder, series):
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_instances(folder, series)
    return Path(folder)


def dcm2niix(folder, out):
    """All images that dcm2niix makes of a folder, by name."""
    program = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs dcm2niix: pip install dcm2niix")
    out.mkdir()
    command = [program, "-f", "image", "-z", "n", "-b", "n", "-o", str(out), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    images = {path.stem: nib.load(path) for path in sorted(out.glob("*.nii"))}
    assert images, result.stdout
    return images


def canonical(image):
    """A nibabel image turned to RAS, whatever the order and direction of its voxel axes."""
    if isinstance(image, MetaTensor):
        image = nib.Nifti1Image(image[0].numpy(), image.affine.numpy())
    return nib.as_closest_canonical(image)


def assert_same_image(mine, theirs, scale=1.0):
    """Affines within 1e-3 mm, values within 1e-4 of them, after flips."""
    mine, theirs = canonical(mine), canonical(theirs)
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-3)
    expected = theirs.get_fdata()
    np.testing.assert_allclose(mine.get_fdata() * scale, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
