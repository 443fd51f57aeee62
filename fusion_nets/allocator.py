"""Memory that is taken again at once is not given back in between; that of slabs is, always."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["give_back", "keep_pages"]

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Of glibc's mallopt(3)."""
USUAL = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}
KEEPING = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}

BLOCK = 2**21
"""Bytes of what is given back when it is freed; the parts of a slab are larger."""

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


@cache
def give_back() -> None:
    """Let glibc give back each block of 2 MiB and more as soon as it is freed, from now on.

    By itself it comes to keep what is smaller than 32 MiB, and cuts small blocks from it. The next slab then does not
    fit, and by chance memory grows by as much as the volume that is gone through. With another C library nothing is
    done.
    """
    library = _glibc()
    if library is not None:
        _set(library, {MMAP_THRESHOLD: BLOCK})


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
