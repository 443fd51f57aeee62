"""Several processes, on one machine or many, that share a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

__all__ = ["gathered", "is_first_process", "leave_process_group", "own_share"]


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
