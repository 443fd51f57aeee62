"""A network on a GPU as recorded work: launched at once, in place of hundreds of launches, one after another."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import nn

from .converted import Run

__all__ = ["RecordedRun"]

_PIXELS = 2**18
"""Of all that goes through the network together; with more, computing takes longer than launching."""

_KEPT = 4
"""Recordings, each of which holds what its network's feature maps take."""

_SEEN = 64
"""Sizes that are remembered to have come once."""


class _Recording(NamedTuple):
    graph: Any
    given: tuple[torch.Tensor, ...]
    result: torch.Tensor


class RecordedRun:
    """Run a function of images on CUDA, and from the second time that their sizes come, replay what it launched.

    The result is the function's own: the same kernels on the same weights (``torch.cuda.CUDAGraph``). It must depend on
    what it is given and on its weights alone, and on nothing that waits for the GPU; where it cannot be recorded, it is
    run as it is, with a warning. So is, without one, what is large or needs gradients, and all on other devices.

    Args:
        run: takes images (B, C, H, W), and other tensors, and gives one.
        part: whose weights it computes with; where they move to other memory, it is recorded anew.
    """

    def __init__(self, run: Run, part: nn.Module) -> None:
        self.run = run
        self.part = part
        self._is_possible = True
        self._seen: OrderedDict[object, None] = OrderedDict()
        self._recordings: OrderedDict[object, _Recording] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        """What ``run`` gives."""
        if not self._is_possible or not _is_small(given):
            return self.run(*given)
        place = next(self.part.parameters()).data_ptr()
        kind = (place, *((one.shape, one.dtype, one.device) for one in given))
        with self._lock:
            recording = self._found(kind, given)
            if recording is not None:
                for mine, one in zip(recording.given, given, strict=True):
                    mine.copy_(one)
                recording.graph.replay()
                return recording.result.clone()
        return self.run(*given)

    def _found(self, kind: object, given: tuple[torch.Tensor, ...]) -> _Recording | None:
        """The recording of images of a kind that has come before."""
        if kind in self._recordings:
            self._recordings.move_to_end(kind)
            return self._recordings[kind]
        if kind not in self._seen:
            self._seen[kind] = None
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            return None
        # one is replayed at a time, so that all work in the same memory
        pool = next((one.graph.pool() for one in self._recordings.values()), None)
        try:
            self._recordings[kind] = _recorded(self.run, given, pool)
        except Exception as error:
            self._is_possible = False
            self._recordings.clear()
            reason = " ".join(str(error).split())[:300]
            logging.getLogger(__name__).warning("a network is not recorded as a CUDA graph, and slower so: %s", reason)
            return None
        if len(self._recordings) > _KEPT:
            self._recordings.popitem(last=False)
        return self._recordings[kind]


def _is_small(given: tuple[torch.Tensor, ...]) -> bool:
    image = given[0]
    return (
        image.device.type == "cuda"
        and len(image) * image.shape[-2] * image.shape[-1] <= _PIXELS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(image.device.type)
        and torch.cuda.current_stream(image.device) == torch.cuda.default_stream(image.device)
    )


def _recorded(run: Run, given: tuple[torch.Tensor, ...], pool: Any) -> _Recording:
    """A graph of what ``run`` launches, and the tensors that it reads and writes."""
    device = given[0].device
    with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
        mine = tuple(one.detach().clone() for one in given)
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # libraries allocate what they work in, which a recording must not
            run(*mine)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool, aside, capture_error_mode="thread_local"):
            result = run(*mine)
        return _Recording(graph, mine, result)
