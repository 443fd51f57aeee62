"""The memory that a study takes does not grow with its slices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

STUDIES = """
import json, sys, tempfile
from argparse import Namespace
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import large_study
from fusion_nets import slabs
from fusion_nets.clinical import nifti

slabs.LARGE = slabs.SLAB = nifti.SLICES_OF = 2**18  # with 16 slices a slab
given = Namespace(network="pass", method="dmfnet", format=["nifti", "png"], register="none")
held = []
for slices in (20, 60, 200):  # the first also takes what is imported on the way
    with tempfile.TemporaryDirectory() as folder:
        pair = large_study.make(Path(folder), 128, slices, "nifti")
        held.append(large_study.fuse(*map(str, pair), folder + "/out", given)["held"])
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
