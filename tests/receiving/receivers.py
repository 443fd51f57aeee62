"""Studies, archives and nodes for the tests of receiving: real processes on the loopback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from judges import program
from monai.data import MetaTensor

from fusion_nets.clinical.dicom import new_series, new_study, write_instances
from fusion_nets.receiving import Journal

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 400
"""Seconds that something may take on one busy core."""
SHAPE = (40, 36, 4)
MARK = "Wanderfalke"
"""In the name of every patient, to be found nowhere but in DICOM objects."""
RULE = {
    "name": "head",
    "anatomy": {"modality": "MR"},
    "overlay": {"modality": "PT"},
    "method": "smfusion",
    "options": {"register": "none"},
}


def tiny_series(modality, study=1, number=1, shape=SHAPE, patient=None, description=None, body_part=None):
    """A head of few voxels, its instances; all of one study number are of one study."""
    affine = np.diag([-4.0, -4.0, 8.0, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, grid), -1, 0)
    inside = 1 / (1 + np.exp((np.sqrt((x / 55) ** 2 + (y / 60) ** 2 + (z / 40) ** 2) - 1) * 8))
    spot = np.exp(-((x - (15 if modality == "MR" else -20)) ** 2 + (y + 10) ** 2 + z**2) / 200)
    values = np.rint(inside * (700 + 10 * number + x + 2 * y) + 500 * spot).astype(np.float32)
    units = {"CT": "HU", "PT": "Bq/ml"}.get(modality, "stored")
    image = MetaTensor(torch.from_numpy(values[None]), affine=torch.from_numpy(affine), meta={"units": units})
    patient = patient or f"{study}"
    made = new_study("receiving", study, patient_name=f"{MARK}^{patient}", patient_id=f"PID-{patient}", date="20260105")
    return new_series(image, modality, made, number, description or f"a {modality}", "2.25.1111")


def write(folder, *series):
    """Each instance as a file; the folder."""
    for number, instances in enumerate(series):
        write_instances(folder / str(number), instances)
    return folder


def tiny_study(folder, study=1, **how):
    return write(folder, tiny_series("MR", study, 1, **how), tiny_series("PT", study, 2, **how))


def send(port, *folders, title="SCANNER", called="FUSION", options=(), check=True):
    """By dcmtk's storescu; what it said."""
    files = [str(file) for folder in folders for file in sorted(Path(folder).rglob("*.dcm"))]
    command = [program("storescu", "apt-get install dcmtk"), "-R", "-v", "-aet", title, "-aec", called, *options]
    sent = subprocess.run([*command, "127.0.0.1", str(port), *files], capture_output=True, text=True)
    said = sent.stdout + sent.stderr
    assert not check or sent.returncode == 0, said
    return sent.returncode, said


def until(holds, what, seconds=PATIENCE, process=None):
    """What is waited for, when it is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        assert process is None or process.poll() is None, process.log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}\n{process.log.read_text() if process else ''}")


class Node:
    """`fusion-nets receive` in a process of its own."""

    def __init__(self, folder, *options, rules=(RULE,), to=None, allow=("SCANNER",), quiet=5, poll=None, port=0):
        folder.mkdir(exist_ok=True)
        self.folder, self.spool = folder, folder / "spool"
        (folder / "rules.json").write_text(json.dumps({"pairs": list(rules)}))
        command = ["receive", "--spool", self.spool, "--rules", folder / "rules.json", "--quiet", quiet]
        command += ["--to", to or "dicom://NOBODY@127.0.0.1:9", "--device", "cpu"]
        command += ["--poll", poll, "--poll_interval", 0.5] if poll else ["--port", port, "--allow", *allow]
        self.command = [sys.executable, "-m", "fusion_nets.cli", *map(str, (*command, *options))]
        self.log = folder / "log"
        self.process = None

    def start(self, *options):
        """Begin, or begin anew, with options beside those of all runs."""
        kept = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self.process = subprocess.Popen([*self.command, *map(str, options)], env=kept, stdout=log, stderr=log)
        return self

    @property
    def port(self):
        """Where it listens, as soon as it does."""
        return int(until(lambda: re.search(r"listens at 127.0.0.1:(\d+)", self.said()), "listening", process=self)[1])

    def said(self):
        """Since it was started last."""
        return self.log.read_bytes()[self.begins :].decode()

    def poll(self):
        return self.process.poll()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        return self.process.returncode if self.process else None

    def pairs(self):
        """The pairs by their records on disk."""
        return list(Journal(self.spool / "pairs").pairs.values())

    def wait(self, state, count=1, seconds=PATIENCE):
        """Until so many pairs are in a state; these pairs."""

        def there():
            found = [pair for pair in self.pairs() if pair.state == state]
            return found if len(found) >= count else None

        return until(there, f"{count} {state}", seconds, self)

    def objects(self):
        """How many lie in the spool as received."""
        return len(list((self.spool / "studies").rglob("[!.]*.dcm")))


class Archive:
    """dcmtk's storescp, which writes what it takes into a folder."""

    def __init__(self, folder, port):
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.address = f"dicom://ARCHIVE@127.0.0.1:{port}"

    def received(self):
        """How often each object came, by its UID."""
        return Counter(re.findall(r"storing DICOM file: \S*?\w+\.([\d.]+)$", self.log.read_text(), re.MULTILINE))


@contextmanager
def archive(folder, port, *options):
    """One that runs as long as the block."""
    folder.mkdir(exist_ok=True)
    there = Archive(folder, port)
    command = [program("storescp", "apt-get install dcmtk"), "-v", "+xa", "-aet", "ARCHIVE", "-od", str(folder)]
    with there.log.open("a") as log:
        process = subprocess.Popen([*command, *options, str(port)], stdout=log, stderr=log)
    try:
        yield there
    finally:
        process.kill()
        process.wait()
