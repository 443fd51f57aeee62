"""What memory and room on disks there is, before much of it is asked for."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from .slabs import scratch_folder

__all__ = ["available_addresses", "available_memory", "available_room", "total_memory"]

CGROUPS = Path("/sys/fs/cgroup")
"""Limits of containers, version 2 and, below ``memory``, version 1 (Linux, Documentation/admin-guide)."""


def available_memory() -> int:
    """Bytes of memory that this process may still take, of the machine and of its container; the largest where unknown.

    What a cache takes counts as there.
    """
    return min(available_addresses(), *_of_machine(), *_of_container())


def total_memory() -> int:
    """Bytes of memory of the machine, or of its container where that has less, whoever takes them now."""
    found = [most for most, _ in _limits()]
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=sys.maxsize)


def available_addresses() -> int:
    """Bytes of address space left to this process (``ulimit -v``), which volumes in files take, too."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            return max(most - taken, 0)
    return sys.maxsize


def available_room() -> int:
    """Bytes that large volumes may still take on the disk where they lie, :func:`fusion_nets.slabs.scratch_folder`."""
    return shutil.disk_usage(scratch_folder()).free


def _of_machine() -> list[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    return [total_memory()]  # where a system does not tell what is free


def _of_container() -> list[int]:
    return [left for _, left in _limits()]


def _limits() -> list[tuple[int, int]]:
    """What the container may take, and what is left of it, by each limit that there is."""
    found = []
    for folder in _cgroups():
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max", or of the other version
                most = int((folder / limit).read_text(encoding="ascii"))
                taken = int((folder / used).read_text(encoding="ascii"))
                statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
                figures = dict(zip(statistics[::2], statistics[1::2], strict=False))
                cached = int(figures.get("total_inactive_file", figures.get("inactive_file", "0")))
                found.append((most, max(most - taken + cached, 0)))
    return found


def _cgroups() -> list[Path]:
    """The folders of this process's groups and those above them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CGROUPS / controllers
            inside = root / path.lstrip("/")
            folders += [inside, *(above for above in inside.parents if above.is_relative_to(root))]
    return folders
