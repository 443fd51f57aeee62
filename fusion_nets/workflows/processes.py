"""Several processes, on one machine or many, that share a run, and how one ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from fusion_nets.shortage import full_disk, missing_memory

__all__ = [
    "end_in_one_line",
    "gathered",
    "is_first_process",
    "join_process_group",
    "leave_process_group",
    "own_device",
    "own_share",
]


def own_device() -> torch.device:
    """Where this process of those that ``torchrun`` started shall compute: a GPU of its own if there are enough."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


def join_process_group(device: torch.device | str, backend: str | None = None, hours: float | None = None) -> None:
    """Join the processes that ``torchrun`` started, and make a GPU the one that is meant where none is named.

    Args:
        device: where this process computes.
        backend: of ``torch.distributed``; by default the one for this device. Processes that exchange no tensors may
            share a GPU under "gloo".
        hours: how long one waits for another; by default as long as torch does, which is minutes.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        timeout = None if hours is None else timedelta(hours=hours)
        dist.init_process_group(backend or ("nccl" if on_gpu else "gloo"), timeout=timeout)


def own_share(pairs: Sequence[Any]) -> Sequence[Any]:
    """What this process does of a datalist: every n-th of n processes, so that none does what another does."""
    return pairs[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else pairs


def gathered(value: Any) -> list[Any]:
    """The values of all processes, when all have come here; that of this one where there is no other."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def is_first_process() -> bool:
    """Whether this process speaks for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


def leave_process_group(wait: float = 1.0) -> None:
    """Leave the process group when all have come here, and Python can end.

    A thread of gloo that has had no processor since its last collective still holds the tensor of it. Letting go of it
    while Python ends would abort the process (``terminate called without an active exception``,
    https://github.com/pytorch/pytorch/pull/179291), and under ``DistributedDataParallel`` these threads outlive
    ``destroy_process_group``.

    Args:
        wait: seconds that these threads are given.
    """
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(wait)


def end_in_one_line(error: BaseException) -> NoReturn:
    """End an engine's run: by one line, not a traceback, where memory or a disk is full.

    A handler of ``Events.EXCEPTION_RAISED``; of several, Ignite asks the one that was attached first.
    """
    lack = missing_memory(error) or full_disk(error)
    if lack and isinstance(error, Exception):
        raise SystemExit(str(lack)) from error
    raise error
