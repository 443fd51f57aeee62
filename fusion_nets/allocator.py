"""Memory that is taken again at once is not given back in between."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["keep_pages"]

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Of glibc's mallopt(3)."""
USUAL = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}
KEEPING = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}

_LOCK = threading.Lock()
_inside = 0


@contextmanager
def keep_pages() -> Iterator[None]:
    """Let glibc keep what is freed for what is asked for next, and give it back in the end.

    A network frees and asks for the same tensors at every slice. glibc takes those above 32 MiB from the system each
    time, which fills them with zeros page by page; that is up to half of the time. With another C library nothing is
    done.
    """
    global _inside
    library = _glibc()
    if library is None:
        yield
        return
    with _LOCK:
        _inside += 1
        _set(library, KEEPING)
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside:
                _set(library, USUAL)
                library.malloc_trim(0)


def _set(library: Any, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)


@cache
def _glibc() -> Any:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018
        library.mallopt, library.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):
        return None
    return library
