"""Memory is kept between two slices, and given back when the last is done."""

import resource
import sys

import pytest
import torch

from fusion_nets.allocator import _glibc, keep_pages


@pytest.mark.skipif(sys.platform != "linux" or _glibc() is None, reason="another C library")
def test_pages_are_taken_once():
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.ones(2**24)  # 64 MiB, 16384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_pages():
        torch.ones(2**24)
        assert faults() < 5000
        with keep_pages():
            pass
        assert faults() < 5000
    assert faults() > 100 * 4  # pages, or larger ones where the system has them


def test_what_fails_inside_is_told():
    with pytest.raises(ValueError, match="slice"), keep_pages():
        raise ValueError("slice")
