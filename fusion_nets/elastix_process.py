"""Elastix beside this process, in one that loads a tenth of the ITK that it would take here, and holds nothing up."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Placed", "begin", "find_transforms", "leave"]

IDLE = 30.0
"""Seconds after which the process ends that nothing more is asked of: it holds 280 MiB. For a list of small
pairs it stays; a large one takes longer than the next start."""

_WORKER = Path(__file__).with_name("elastix_worker.py")

ParameterMap = Mapping[str, Sequence[str]]


class Placed(NamedTuple):
    """An image where ITK has it.

    Attributes:
        values: (Z, Y, X), float32 or uint8.
        spacing: (3,) of x, y, z in mm.
        origin: (3,), of the first voxel's centre in the LPS world, in mm.
        direction: (3, 3), directions of the axes as columns.
    """

    values: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray


class _Worker:
    """The process, if there is one, and who may speak with it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.is_used = False
        self.lock = threading.RLock()
        self.ending: threading.Timer | None = None

    def started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = [sys.executable, str(_WORKER)]
            self.process = subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL)
            self.is_used = False
        return self.process

    def rests(self) -> None:
        """It has answered."""
        self.ending = threading.Timer(IDLE, self.end)
        self.ending.daemon = True
        self.ending.start()

    def works(self) -> None:
        """It is asked."""
        self.is_used = True
        if self.ending:
            self.ending.cancel()

    def end(self) -> int | None:
        with self.lock:
            return self._end()

    def _end(self) -> int | None:
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        _close(process)
        return process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    """This process' ends of the pipes; what may wait in a buffer is for nobody."""
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        for stream in (process.stdin, process.stdout):
            if stream:
                os.dup2(nothing.fileno(), stream.fileno())
                stream.close()


_worker = _Worker()


def _forget() -> None:
    """What a forked process inherits is its parent's: it has a worker of its own, once it needs one."""
    global _worker
    inherited, _worker = _worker.process, _Worker()
    if inherited:
        _close(inherited)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _worker.end())


def begin() -> None:
    """Start the process that is needed soon; where it cannot be, :func:`find_transforms` says so."""
    with _worker.lock, suppress(OSError):
        _worker.started()


def leave() -> None:
    """End the process that was started and is not needed after all; one that was of use stays for the next."""
    with _worker.lock:
        if not _worker.is_used:
            _worker.end()


def find_transforms(
    fixed: Placed, moving: Placed, mask: Placed, maps: Sequence[ParameterMap]
) -> list[dict[str, list[str]]]:
    """What elastix finds that maps the fixed image's points to the moving image's.

    Args:
        fixed: the fixed image.
        moving: the moving image.
        mask: where the fixed image counts.
        maps: elastix' parameters of each transform, one after another.

    Returns:
        The parameter map of each transform.

    Raises:
        RuntimeError: if elastix gives up, or its process could not be started or ended.
    """
    images = [fixed, moving, mask]
    placed = [
        {"size": one.values.shape, "kind": one.values.dtype.str}
        | {key: np.asarray(getattr(one, key)).tolist() for key in Placed._fields[1:]}
        for one in images
    ]
    asked = json.dumps({"images": placed, "maps": [{key: list(values) for key, values in one.items()} for one in maps]})
    with _worker.lock:
        try:
            process = _worker.started()
            _worker.works()
            assert process.stdin
            assert process.stdout
            process.stdin.write(asked.encode() + b"\n")
            for one in images:
                process.stdin.write(np.ascontiguousarray(one.values).data)
            process.stdin.flush()
            answer = process.stdout.readline()
            _worker.rests()
        except OSError as error:
            code = _worker.end()
            raise RuntimeError(f"elastix' process: {error.strerror or error}; it ended with {code}") from error
        except BaseException:
            _worker.end()  # in the middle of a request nothing more can be asked of it
            raise
        if not answer:
            raise RuntimeError(f"elastix' process ended with {_worker.end()}")
    told = json.loads(answer)
    if "error" in told:
        raise RuntimeError(told["error"])
    found: list[dict[str, list[str]]] = told["maps"]
    return found
