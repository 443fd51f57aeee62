import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from fusion_nets.workflows import join_process_group, leave_process_group, own_device, processes

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


@pytest.mark.parametrize(
    ("gpus", "rank", "device"), [(0, 1, "cpu"), (1, 1, "cuda:0"), (2, 1, "cuda:1"), (2, 2, "cuda:0")]
)
def test_a_device_for_every_process(monkeypatch, gpus, rank, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert own_device() == torch.device(device)


@pytest.mark.parametrize(
    ("device", "asked", "backend"), [("cpu", None, "gloo"), ("cuda:1", None, "nccl"), ("cuda:1", "gloo", "gloo")]
)
def test_a_group_for_the_device(monkeypatch, device, asked, backend):
    joined, current = [], []
    monkeypatch.setattr(dist, "init_process_group", lambda *how, timeout: joined.append((*how, timeout)))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    join_process_group(device, asked, hours=2)
    assert joined == [(backend, timedelta(hours=2))]
    assert current == ([device] if device != "cpu" else [])


def test_a_group_is_joined_once(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    join_process_group("cpu")
    try:
        join_process_group("cpu")
        assert (dist.get_backend(), processes.is_first_process()) == ("gloo", True)
    finally:
        dist.destroy_process_group()
