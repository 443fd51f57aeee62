"""A command that is stopped leaves no half-written file, and its sources as they were."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fusion_nets.clinical import read_image
from fusion_nets.clinical.dicom import read_series
from fusion_nets.clinical.dicom.series import pick_series

HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HF_HUB_OFFLINE": "1"}


def digests(*folders):
    files = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(study, out):
    command = ["fuse", "--anatomy", study["mri"], "--overlay", study["pet"], "--output_dir", out, "--name", "case"]
    command += ["--method", "smfusion", "--register", "none", "--format", "png,nifti,dicom"]
    return subprocess.Popen(
        [sys.executable, "-m", "fusion_nets.cli", *map(str, command)],
        env=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(process, out, name):
    """Until something of this name is there, or is being written."""
    while process.poll() is None and not any(name in path.name for path in out.glob("*")):
        time.sleep(0.002)


def assert_whole(out):
    for path in out.rglob("*"):
        assert "partial" not in path.name
    for path in out.glob("case_fused.*"):
        if path.suffix != ".json":
            read_image(path)
    if (out / "case_dicom").exists():
        read_series(pick_series(out / "case_dicom"))


def test_told_to_end(dicom_study, tmp_path):
    sources = digests(dicom_study["mri"], dicom_study["pet"])
    process = start(dicom_study, tmp_path / "out")
    wait_for(process, tmp_path / "out", "case_dicom")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert (tmp_path / "out").is_dir()
    assert_whole(tmp_path / "out")
    assert digests(dicom_study["mri"], dicom_study["pet"]) == sources


def test_killed_and_started_again(dicom_study, tmp_path):
    sources = digests(dicom_study["mri"], dicom_study["pet"])
    process = start(dicom_study, tmp_path / "out")
    wait_for(process, tmp_path / "out", "partial")
    process.kill()
    process.communicate()
    again = start(dicom_study, tmp_path / "out")
    said = again.communicate(timeout=120)[0].decode()
    assert again.returncode == 0, said
    assert_whole(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"case_fused.nii.gz", "case_dicom", "case_fused_slices", "case_montage.png"} <= names
    assert digests(dicom_study["mri"], dicom_study["pet"]) == sources
