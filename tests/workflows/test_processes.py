import time

import pytest
import torch.distributed as dist

from fusion_nets.workflows import leave_process_group, processes

NAMES = ["one", "two", "three"]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares(monkeypatch, count):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: count)
    shares = []
    for rank in range(count):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        shares.append(list(processes.own_share(NAMES)))
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_group_is_left_and_its_threads_get_their_time():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    started = time.monotonic()
    leave_process_group(wait=0.2)
    assert not dist.is_initialized()
    assert time.monotonic() - started >= 0.2
    assert processes.is_first_process()
    assert processes.gathered("alone") == ["alone"]
