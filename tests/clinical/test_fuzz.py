"""Damaged and hostile files are read or refused with a reason; nothing else happens (see fuzzing.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("itk")
FUZZING = Path(__file__).with_name("fuzzing.py")
ROOT = Path(__file__).resolve().parents[2]


COUNT = 2200


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of everything, in one process of its own: one that ends badly must not end the tests."""
    folder = tmp_path_factory.mktemp("fuzz") / "in"
    folder.mkdir()
    (folder / "bystander.dcm").write_bytes(b"as it was")
    run = subprocess.run(
        [sys.executable, str(FUZZING), str(folder), "0", str(COUNT)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, f"ended by {run.returncode}, see {folder.parent}: {run.stderr[-3000:]}"
    assert (folder / "bystander.dcm").read_bytes() == b"as it was"
    return json.loads(run.stdout.splitlines()[-1])


def test_whole_files_are_read(results):
    assert set(results["whole"]) == {"read"}


def test_mutated_files_are_read_or_refused(results):
    assert results["failed"] == [], results["failed"][0][-1]
    assert results["read"] + results["refused"] == COUNT
    assert min(results["read"], results["refused"]) > COUNT / 10  # mutations that neither spare nor destroy everything


def test_bombs_are_refused(results):
    assert len(results["bombs"]) == 19
    assert {bomb[2] for bomb in results["bombs"]} == {"refused"}, results["bombs"]


def test_nothing_is_written_and_little_memory_is_used(results):
    assert results["written"] == []
    # beyond what the libraries take, which is twice as much where torch has CUDA
    assert results["peak"] < 1.5e9, results["bombs"]
