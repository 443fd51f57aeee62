"""Outside programs that judge the DICOM objects written, and small series to write them from."""

import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydicom import Dataset, dcmread

from fusion_nets.clinical.dicom import new_series, new_study, write_instances

MR, CT, PT = "MR", "CT", "PT"


def program(name, install):
    """Its path; the test is skipped where it is missing.

    The system's comes before one beside Python: pynetdicom installs a storescu of its own.
    """
    beside = str(Path(sys.executable).parent)
    system = os.pathsep.join(folder for folder in os.get_exec_path() if folder != beside)
    found = shutil.which(name, path=system) or shutil.which(name, path=beside)
    if not found:
        pytest.skip(f"needs {name}: {install}")
    return found


ADVANCED_BLENDING = "1.2.840.10008.5.1.4.1.1.11.8"
BLIND = "Error - ReferencedSeriesSequence present but Instance does not reference Instances"


def dciodvfy_errors(path):
    """What dciodvfy (David Clunie's dicom3tools) calls an error in a file.

    One message is passed over, and only where it is wrong: the Debian version (2022) does not look into the Advanced
    Blending Sequence, and so holds that an Advanced Blending Presentation State refers to no instance and needs no
    Referenced Series Sequence. By PS3.3 C.11.33 each of its items refers to images, and by table A.33.7-1 the Common
    Instance Reference module (C.12.2) is mandatory, which asks for that sequence in an instance that refers to others.
    """
    judge = program("dciodvfy", "apt-get install dicom3tools")
    shown = subprocess.run([judge, str(path)], capture_output=True, text=True)
    lines = (shown.stdout + shown.stderr).splitlines()
    assert lines, "dciodvfy said nothing"
    errors = [line for line in lines if line.startswith(("Error", "Can't", "Abort")) or "rror -" in line]
    judged = dcmread(path)
    if judged.SOPClassUID == ADVANCED_BLENDING and all(
        item.ReferencedImageSequence for item in judged.AdvancedBlendingSequence
    ):
        errors = [line for line in errors if not line.startswith(BLIND)]
    return errors


def dcm2niix(folder, output):
    """The images that dcm2niix makes of a folder, with what it says of each."""
    convert = program("dcm2niix", "pip install dcm2niix")
    output.mkdir()
    subprocess.run([convert, "-z", "n", "-f", "%s_%p", "-o", str(output), str(folder)], check=True, capture_output=True)
    found = [(nib.load(path), json.loads(path.with_suffix(".json").read_text())) for path in output.glob("*.nii")]
    assert found, "dcm2niix made nothing"
    return found


def rotation(degrees):
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def affine_of(spacing, degrees=(0, 0, 0), origin=(40.0, 50.0, -30.0)):
    """Of (column, row, slice), RAS: columns to the patient's left, rows to the back, slices upwards, then turned."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ np.diag([-spacing[0], -spacing[1], spacing[2]])
    affine[:3, 3] = origin
    return affine


def image_of(values, affine, **meta):
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values)), affine=torch.from_numpy(affine), meta=meta)


def study():
    made = new_study("a test", patient_name="Marked^Name", patient_id="ID-7", date="20260203", description="Described")
    made.PatientBirthDate, made.PatientSex = "19700102", "F"
    return made


SIZES = {MR: ((20, 24, 7), (2.0, 2.5, 4.0), (12.0, 5.0, 3.0)), CT: ((22, 18, 9), (2.0, 2.0, 3.0), (0, 0, 0))}
SIZES[PT] = ((10, 12, 8), (4.5, 4.5, 4.0), (0, 0, 0))


def series_of(modality, frame="2.25.1111", number=3, details=None, seed=0, body_part=None):
    """A small series of noise over a slope: its instances and the image that they were made of."""
    if body_part:
        details = details or Dataset()
        details.BodyPartExamined = body_part
    shape, spacing, degrees = SIZES[modality]
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 900, (1, *shape)).astype(np.float32) + 10 * np.arange(shape[2], dtype=np.float32)
    if modality == CT:
        values -= 1000
    if modality == PT:
        values = values * 7.25
    image = image_of(values, affine_of(spacing, degrees), units={MR: "stored", CT: "HU", PT: "Bq/ml"}[modality])
    return new_series(image, modality, study(), number, f"a {modality}", frame, details), image


def enhanced(instances):
    """The geometry and identity of an enhanced multi-frame object with the slices of a classic series."""
    whole = deepcopy(instances[0])
    del whole.ImagePositionPatient, whole.ImageOrientationPatient, whole.PixelSpacing, whole.PixelData
    whole.SOPClassUID, whole.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.4.1", len(instances)
    shared, direction, pixel = Dataset(), Dataset(), Dataset()
    direction.ImageOrientationPatient = instances[0].ImageOrientationPatient
    pixel.PixelSpacing, pixel.SliceThickness = instances[0].PixelSpacing, instances[0].SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [direction], [pixel]
    whole.SharedFunctionalGroupsSequence, groups = [shared], []
    for instance in reversed(instances):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = instance.ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = groups
    return whole


def written(folder, instances):
    """The instances in files, read again."""
    return [dcmread(path) for path in write_instances(folder, instances)]
