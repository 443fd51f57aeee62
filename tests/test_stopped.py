"""A command that is stopped leaves no half-written file, and its sources as they were."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion_nets.clinical import read_image
from fusion_nets.clinical.dicom import read_series
from fusion_nets.clinical.dicom.series import pick_series

pytestmark = pytest.mark.slow

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


BUSY_WORKERS = """
import sys, time
import torch
from fusion_nets import cli, commands
from fusion_nets.files import whole_file

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        time.sleep(0.05 if index < 4 else 30)
        return index

def busy(arguments):
    with whole_file(arguments.output_dir + "/weights.pt") as partial:
        partial.write_text("half")
        for _ in torch.utils.data.DataLoader(Slow(), num_workers=2, batch_size=2):
            print("a batch", flush=True)

commands.sample = busy
sys.exit(cli.main(["sample", "--output_dir", sys.argv[1]]))
"""


def run_until(arguments, out, there, number, group=True):
    """The exit code and the lines of a process that is sent a signal, as a terminal does to all of its group."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not there():
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    (os.killpg if group else os.kill)(process.pid, number)
    errors = process.communicate(timeout=120)[1]
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert not [path for path in out.rglob("*") if "partial" in path.name]
    return process.returncode, lines


def one_line(command):
    return [f"fusion-nets {command}: interrupted; what was finished is there, and nothing half-written"]


def test_interrupted_while_fusing(dicom_study, tmp_path):
    sources, out = digests(dicom_study["mri"], dicom_study["pet"]), tmp_path / "out"
    arguments = ["-m", "fusion_nets", "fuse", "--anatomy", dicom_study["mri"], "--overlay", dicom_study["pet"]]
    arguments += ["--output_dir", out, "--name", "case", "--method", "smfusion", "--register", "none"]
    code, lines = run_until(
        [*arguments, "--format", "png,nifti,dicom"], out, lambda: any(out.glob("*case_montage*")), signal.SIGINT
    )
    assert (code, lines[-1:]) == (130, one_line("fuse"))  # after what is said of the images
    assert not any("Traceback" in line for line in lines)
    assert_whole(out)
    assert digests(dicom_study["mri"], dicom_study["pet"]) == sources


def test_interrupted_while_simulating(tmp_path):
    out = tmp_path / "out"
    arguments = ["-m", "fusion_nets", "simulate", "--output_dir", out, "--count", "500", "--shapes_share", "1"]
    code, lines = run_until(arguments, out, lambda: any(out.rglob("*.png")), signal.SIGINT)
    assert (code, lines) == (130, one_line("simulate"))


def test_interrupted_while_evaluating(tmp_path):
    out, pairs, rng = tmp_path / "out", [], np.random.default_rng(0)
    (tmp_path / "fused").mkdir()
    for number in range(60):
        for file in (f"{number}_a.png", f"{number}_b.png", f"fused/{number}_fused.png"):
            Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).save(tmp_path / file)
        pairs.append({"name": str(number), "anatomy": f"{number}_a.png", "overlay": f"{number}_b.png"})
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    arguments = ["-c", "import sys\nfrom fusion_nets import cli\nimport fusion_nets.workflows.evaluating as e\n"]
    arguments[1] += "measure = e._measure\ndef told(*a):\n    open(sys.argv[1], 'w').close()\n    return measure(*a)\n"
    arguments[1] += "e._measure = told\nsys.exit(cli.main(sys.argv[2:]))"
    arguments += [tmp_path / "begun", "evaluate", "--datalist", tmp_path / "pairs.json", "--output_dir", out]
    arguments += ["--method", f"copy={tmp_path / 'fused'}"]
    code, lines = run_until(arguments, out, (tmp_path / "begun").exists, signal.SIGINT)
    assert (code, lines) == (130, one_line("evaluate"))
    assert not out.exists()


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)])
def test_stopped_while_workers_load(tmp_path, number, group):
    code, lines = run_until(
        ["-c", BUSY_WORKERS, tmp_path], tmp_path, lambda: _loading(tmp_path), number, group
    )  # fmt: skip
    assert code == 128 + number
    assert lines == (one_line("sample") if number == signal.SIGINT else [])
    assert list(tmp_path.iterdir()) == []


def _loading(folder):
    if any(folder.glob(".*.partial.*")):
        time.sleep(1)  # until workers have begun
        return True
    return False
