"""Disks without room, for tests: a real one, where this process may mount it, and a limit to a file's size."""

import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["DISKS", "page"]

page = resource.getpagesize()


@contextmanager
def tmpfs(folder: Path, room: int) -> Iterator[int]:
    """A disk mounted as `folder` that takes `room` bytes (in pages); the error that one more gives."""
    pages = -(-room // page)
    options = f"size={max(pages, 1) * page}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine gives no right to mount a disk")
    try:
        if not pages:
            (folder / "full").write_bytes(b"0" * page)
        yield errno.ENOSPC
    finally:
        (folder / "full").unlink(missing_ok=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def limit(folder: Path, room: int) -> Iterator[int]:
    """No file of this process may have more than `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


DISKS = {"full disk": tmpfs, "limit": limit}
