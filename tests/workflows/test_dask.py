"""`fuse_pair` by a scheduler of tasks: a worker that is killed costs nothing but the pair that it was at."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fusion_nets.files
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.workflows import fuse_pair

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

NAMES = [f"case{number}" for number in range(5)]
VICTIM = "case2"


def fuse(folder, name):
    """As a user does, and tell of it; whose turn it is to be killed first is so while its result is renamed."""
    killed, replace = folder / "killed", os.replace

    def kill(source, target):
        if f"{VICTIM}_fused" in str(target):
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    if name == VICTIM and not killed.exists():
        fusion_nets.files.os.replace = kill
    sources = (folder / f"{name}_{key}.png" for key in ("anatomy", "overlay"))
    written = fuse_pair(*sources, folder / "fused" / name, method="smfusion", name=name, resume=True, progress=False)
    with open(folder / "told", "a") as told:
        told.write(f"{name} {written[0].stat().st_ino} {written[0].stat().st_mtime_ns}\n")
    return written


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        for key in ("anatomy", "overlay"):
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / f"{name}_{key}.png")
    return tmp_path


def test_a_worker_is_killed(pairs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{Path(__file__).resolve().parents[2]}")
    here = {"local_directory": str(pairs / "dask"), "dashboard_address": None}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **here) as cluster,
        distributed.Client(cluster) as client,
    ):
        futures = client.map(fuse, [pairs] * len(NAMES), NAMES, pure=False)
        absent = client.submit(fuse_pair, pairs / "none.png", pairs / "none.png", pairs / "absent", method="smfusion")
        written = client.gather(futures)
        with pytest.raises(ImageError, match=r"none\.png") as failed:
            absent.result()
        assert failed.value.reason is Reason.MISSING
    assert (pairs / "killed").exists()
    assert [[path.name for path in paths] for paths in written] == [[f"{name}_fused.png"] for name in NAMES]
    assert not [path for path in pairs.rglob("*") if "partial" in path.name]
    told = [line.split() for line in (pairs / "told").read_text().splitlines()]
    for name, (path,) in zip(NAMES, written, strict=True):
        # what a killed worker had done is asked for again, and not done again
        assert {(inode, time) for of, inode, time in told if of == name} == {
            (str(path.stat().st_ino), str(path.stat().st_mtime_ns))
        }
    sources = (pairs / f"{VICTIM}_{key}.png" for key in ("anatomy", "overlay"))
    (alone,) = fuse_pair(*sources, pairs / "alone", method="smfusion", name=VICTIM, progress=False)
    assert alone.read_bytes() == (pairs / "fused" / VICTIM / alone.name).read_bytes()
