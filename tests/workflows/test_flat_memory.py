"""The memory that a study takes does not grow with its slices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

STUDIES = """
import json, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import large_study
from fusion_nets import slabs
from fusion_nets.clinical import nifti

slabs.LARGE = slabs.SLAB = nifti.SLICES_OF = 2**18  # with 16 slices a slab
held = []
for slices in (20, 60, 200):  # the first also takes what is imported on the way
    with tempfile.TemporaryDirectory() as folder:
        pair = large_study.make(Path(folder), 128, slices, "nifti")
        found = large_study.fuse(*map(str, pair), folder + "/out", "dmfnet", ["nifti", "png"], "pass", register="none")
        held.append(found["held"])
print(json.dumps(held))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_of_60_and_of_200_slices():
    """The 140 slices between them took some thirty copies of themselves, 9 MB each, when all lay in memory."""
    done = subprocess.run([sys.executable, "-c", STUDIES, str(BENCHMARKS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    _, fewer, more = json.loads(done.stdout.splitlines()[-1])
    assert more < 1.1 * fewer
    assert more - fewer < 5 * 128 * 128 * 140 * 4


TALL = """
import json, sys
import numpy as np
import torch
from monai.data import MetaTensor
sys.path.insert(0, sys.argv[1])
import large_study
from fusion_nets import slabs
from fusion_nets.transforms import CommonGrid, ScaleToDisplayRange

slabs.LARGE, slabs.SLAB = 2**19, 2**18


def tall(slices, spacing, **meta):
    "A cylinder of voxels as large as those by which overlap is measured."
    made = slabs.zeros((1, 64, 64, slices))
    x, y = np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij")
    plane = 1000 * (x**2 + y**2 < 0.9) - 1000 if "units" in meta else x
    for part in slabs.slabs(made.shape):
        made[..., part] = plane[None, ..., None]
    affine = np.diag([spacing, spacing, 3.0, 1.0])
    return MetaTensor(torch.from_numpy(made), affine=torch.from_numpy(affine), meta=meta)


held = []
for slices in (200, 500, 3000):  # the first also takes what is imported on the way
    peak = large_study.Peak()
    ct, pet = tall(slices, 3.0, units="HU", modality="CT"), tall(slices, 3.2, modality="PT")
    peak.start()
    ScaleToDisplayRange()(CommonGrid("none")(pet, ct))
    held.append(peak.most)
    slabs.release()
print(json.dumps(held))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_of_a_common_grid_of_500_and_of_3000_slices():
    """What of them is in the other's field of view took 60 bytes a voxel, whether all are alike another 4."""
    done = subprocess.run([sys.executable, "-c", TALL, str(BENCHMARKS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    _, fewer, more = json.loads(done.stdout.splitlines()[-1])
    assert more < 1.1 * fewer
    assert more - fewer < 2 * 64 * 64 * 2500
