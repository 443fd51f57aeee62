"""Memory is kept between two slices, and given back when the last is done."""

import json
import subprocess
import sys

import pytest

from fusion_nets.allocator import _glibc, keep_pages

FAULTS = """
import json, resource
import numpy as np
from fusion_nets.allocator import keep_pages

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(6 * 2**20)  # 48 MiB, 12288 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found = [faults()]
with keep_pages():
    np.ones(6 * 2**20)
    found.append(faults())
    with keep_pages():
        pass
    found.append(faults())
found.append(faults())
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux" or _glibc() is None, reason="another C library")
def test_pages_are_taken_once():
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    before, inside, still, after = json.loads(done.stdout)
    assert max(inside, still) < 0.1 * min(before, after)


def test_what_fails_inside_is_told():
    with pytest.raises(ValueError, match="slice"), keep_pages():
        raise ValueError("slice")


CUT = """
import json
import numpy as np
from fusion_nets import allocator

def grown():
    "By how much the heap grows where small blocks are cut from what large ones leave."
    anon = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
    before, kept = anon(), []
    for _ in range(20):
        np.ones(2**20)  # 8 MiB
        kept += [np.ones(4096) for _ in range(2)]  # of 32 KiB each, which stay
    return anon() - before

np.ones(3 * 2**20)  # 24 MiB, by whose freeing glibc comes to keep less
found = [grown()]
allocator.give_back()
found.append(grown())
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux" or _glibc() is None, reason="another C library")
def test_no_block_of_a_slab_is_kept():
    done = subprocess.run([sys.executable, "-c", CUT], check=True, capture_output=True, text=True)
    by_itself, given_back = json.loads(done.stdout)
    assert by_itself > 8000  # at least one of them stays
    assert given_back < 4000
