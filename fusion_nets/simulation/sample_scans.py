"""The sample head as three scanners see it, as DICOM: an oblique MRI, and a PET/CT of the head in another position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor

from fusion_nets.clinical.dicom import derived_uid, new_series, new_study, write_instances
from fusion_nets.clinical.dicom.derived import code

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["HEAD_IN_PET_CT", "SCANS", "Scan", "pose", "scan", "write_scans"]


def pose(degrees: Sequence[float], millimetres: Sequence[float]) -> np.ndarray:
    """A rigid motion, (4, 4): turned about x, y and z by these angles in this order, then moved."""
    from scipy.spatial.transform import Rotation

    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = millimetres
    return motion


HEAD_IN_PET_CT = pose(degrees=(4.0, -3.0, 6.0), millimetres=(5.0, -8.0, 10.0))
"""Where a point of the head (RAS, mm, as the MRI has it) lies in the PET/CT scanner."""


@dataclass(frozen=True)
class Scan:
    """How a scanner samples the head: the size of its voxels as multiples of the model's, and where its grid lies."""

    modality: str
    description: str
    voxel: tuple[float, float, float]
    extent: tuple[float, float, float]
    centre: tuple[float, float, float]
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scanner: str = "MR"

    def grid(self, spacing: float) -> tuple[tuple[int, ...], np.ndarray]:
        """Size and affine (RAS) of the voxels; columns run to the patient's left, rows to the back, slices upwards."""
        size = np.asarray(self.voxel) * spacing
        shape = tuple(round(length / edge) for length, edge in zip(self.extent, size, strict=True))
        affine = np.diag([*(size * [-1, -1, 1]), 1.0])
        affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) - 1) / 2
        return shape, pose(self.tilt, self.centre) @ affine


SCANS = {
    "mri": Scan("MR", "T1w oblique", (1, 1, 2), (216, 252, 168), (0, -8, 22), tilt=(12.0, 0.0, 3.0)),
    "pet": Scan("PT", "FDG PET", (2, 2, 2), (252, 252, 186), (5, -18, 32), scanner="PET/CT"),
    "ct": Scan("CT", "CT head", (1, 1, 2), (240, 252, 186), (5, -18, 32), scanner="PET/CT"),
}
"""The axes of the MRI are tilted to the head's; those of PET and CT are their scanner's, where the head lies tilted."""


def scan(signal: np.ndarray, affine: np.ndarray, how: Scan, spacing: float) -> MetaTensor:
    """Sample a signal as a scan does: averaged over its voxels, the lowest value outside, MRI and CT in whole numbers.

    Args:
        signal: (X, Y, Z), in the head's own coordinates.
        affine: of the signal's voxels (RAS, mm), which are cubes of `spacing`.
        how: the scan.
        spacing: edge of the signal's voxels in mm.

    Returns:
        (1, columns, rows, slices), float32, in the units of the signal (PET: Bq/ml) and the scanner's coordinates.
    """
    from scipy import ndimage

    shape, grid = how.grid(spacing)
    head_to_scanner = HEAD_IN_PET_CT if how.scanner == "PET/CT" else np.eye(4)
    between = np.linalg.inv(head_to_scanner @ affine) @ grid
    width = np.sqrt(np.maximum(np.asarray(how.voxel) ** 2 - 1, 0) / 12)  # of a box, what interpolation leaves out
    smooth = ndimage.gaussian_filter(signal.astype(np.float32), width, mode="nearest")
    sampled = ndimage.affine_transform(smooth, between, output_shape=shape, order=1, cval=float(signal.min()))
    units = {"MR": "stored", "CT": "HU", "PT": "Bq/ml"}[how.modality]
    values = sampled if how.modality == "PT" else np.rint(sampled)
    return MetaTensor(torch.from_numpy(values[None]), affine=torch.from_numpy(grid), meta={"units": units})


def write_scans(folder: Path, signals: dict[str, np.ndarray], affine: np.ndarray, seed: int) -> dict[str, Path]:
    """Write the study: a folder of instances for each scan, by the keys of :data:`SCANS`.

    Args:
        folder: to write into.
        signals: "mri" (arbitrary units), "pet" (SUV) and "ct" (HU), (X, Y, Z), in the head's own coordinates.
        affine: of all three.
        seed: tells this study from others.
    """
    study = new_study(
        "sample",
        seed,
        affine.tolist(),
        patient_name="Sample^Head",
        patient_id="SAMPLE",
        date="20260105",
        description="Simulated head, no patient",
    )
    study.PatientSex, study.PatientWeight = "O", "70"
    spacing = float(np.linalg.norm(affine[:3, 0]))
    folders = {}
    for number, (name, how) in enumerate(SCANS.items(), start=1):
        signal = signals[name] * ACTIVITY_PER_SUV if how.modality == "PT" else signals[name]
        image = scan(signal, affine, how, spacing)
        frame = derived_uid("frame of reference", study.StudyInstanceUID, how.scanner)
        series = new_series(image, how.modality, study, number, how.description, frame, _details(how.modality))
        write_instances(folder / name, series)
        folders[name] = folder / name
    return folders


INJECTED_BQ, HALF_LIFE_S, UPTAKE_S, WEIGHT_G = 370e6, 6586.2, 3600.0, 70e3
ACTIVITY_PER_SUV = INJECTED_BQ * 2 ** (-UPTAKE_S / HALF_LIFE_S) / WEIGHT_G
"""Bq/ml at the start of the scan where the uptake is SUV 1 (by body weight)."""


def _details(modality: str) -> Dataset:
    """What the scanner says of itself."""
    from pydicom import Dataset
    from pydicom.sr.codedict import codes

    details = Dataset()
    details.BodyPartExamined = "HEAD"
    if modality == "MR":
        details.ScanningSequence, details.SequenceVariant, details.MRAcquisitionType = "GR", "SP", "3D"
        details.RepetitionTime, details.EchoTime, details.EchoTrainLength = "8.1", "3.7", 1
        details.MagneticFieldStrength, details.FlipAngle = "3", "8"
    elif modality == "CT":
        details.KVP, details.AcquisitionNumber = "120", 1
        details.WindowCenter, details.WindowWidth = "40", "80"
    else:
        details.DecayCorrection = "START"
        details.CorrectedImage = ["DECY", "ATTN", "SCAT", "RAN", "NORM"]
        details.ActualFrameDuration, details.DecayFactor = "600000", "1"
        details.SeriesTime = details.AcquisitionTime = "130000"
        tracer: Any = Dataset()
        tracer.Radiopharmaceutical = "Fluorodeoxyglucose"
        tracer.RadiopharmaceuticalStartTime = "120000"
        tracer.RadionuclideTotalDose = f"{INJECTED_BQ:.0f}"
        tracer.RadionuclideHalfLife = f"{HALF_LIFE_S}"
        tracer.RadionuclidePositronFraction = "0.967"
        tracer.RadionuclideCodeSequence = [code(codes.cid4020._18Fluorine)]
        details.RadiopharmaceuticalInformationSequence = [tracer]
    return details
