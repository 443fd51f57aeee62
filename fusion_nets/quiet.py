"""Words that tell a user nothing are left out: of MONAI as soon as this library is imported, others for a while.

Python's filters of warnings, levels of logs and settings of libraries belong to the whole process. Who changes one and
puts it back takes from another thread what that has set, or leaves behind what it found there. What is silent here is
so for one thread, by a variable of its context; what cannot be is changed by the first who needs it and put back by
the last.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Shared", "silence"]

# LoadImage makes every reader that MONAI has, whichever is asked for, and one of them complains twice of not having
# a decoder on the GPU, which nothing here asks for.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: ", UserWarning)

_is_silent: ContextVar[bool] = ContextVar("_is_silent", default=False)
_levels: ContextVar[dict[str, int]] = ContextVar("_levels", default={})  # noqa: B039  # which nothing changes


class _Here:
    """A pattern, as a filter of warnings has one, that fits every message where it is silent."""

    def match(self, text: str) -> bool:
        return _is_silent.get()


_filtered: dict[tuple[str, ...], int] = {}
"""How many loggers there were when these, and those below them, were given their filter."""

_FILTER: Any = ("ignore", _Here(), Warning, None, 0)


def _lets_pass(record: logging.LogRecord) -> bool:
    return all(
        record.levelno >= level
        for name, level in _levels.get().items()
        if record.name == name or record.name.startswith(f"{name}.")
    )


@contextmanager
def silence(loggers: Iterator[str] | tuple[str, ...] = (), below: int = logging.CRITICAL + 1) -> Iterator[None]:
    """Without warnings, and without what some loggers say, in this thread alone.

    Args:
        loggers: their names; those below them in the hierarchy are meant, too.
        below: the least level that they may still tell.
    """
    filters: Any = warnings.filters
    if (
        not filters or filters[0] is not _FILTER
    ):  # nobody else's may come first; where nothing is silent it fits nothing
        filters.insert(0, _FILTER)
    loggers, there = tuple(loggers), logging.root.manager.loggerDict
    if _filtered.get(loggers) != len(there):  # which only grows, and is long: not anew for each of a thousand files
        for logger in _known(loggers):
            logger.addFilter(_lets_pass)
        _filtered[loggers] = len(there)
    silent = _is_silent.set(True)
    levels = _levels.set({**_levels.get(), **dict.fromkeys(loggers, below)})
    try:
        yield
    finally:
        _levels.reset(levels)
        _is_silent.reset(silent)


def _known(names: tuple[str, ...]) -> Iterator[logging.Logger]:
    """The loggers of these names and those below them that there are, of which each has its own filters."""
    for name in names:
        yield logging.getLogger(name)
        for below in list(logging.root.manager.loggerDict):
            if below.startswith(f"{name}."):
                yield logging.getLogger(below)


class Shared:
    """A change of the whole process that several threads may need at a time.

    The first who enters makes it, and the last who leaves undoes it.

    Args:
        change: gives what makes and undoes it.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[Any]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        """Make the change, unless it is made."""
        with self._lock:
            if not self._inside:
                self._made = self._change()
                self._made.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        """Undo it, unless somebody else needs it still."""
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._made.__exit__(None, None, None)
