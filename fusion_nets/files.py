"""Files that are there whole or not at all, and whether one is still the same."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SIGNATURE", "file_sha256", "remove_partials", "whole_file", "whole_folder"]

_HERE = f"{zlib.crc32(platform.node().encode()):08x}"
_PARTIAL = re.compile(rf"\.{_HERE}-(\d+)\.partial\..+")

_LONGEST = 255
"""Bytes that a name has at most, as most file systems have it."""

SIGNATURE = b"fusion-nets"
"""Stands in the first 1024 bytes of a file that may be replaced together with its folder."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a name beside the destination to write to, and rename it into place when the block ends well.

    The folder is made when it is missing; whatever goes wrong, no half-written file bears the destination's name, and
    what stood there before stays. The name keeps the destination's ending, from which writers tell the format. Only a
    process that is killed without notice leaves it behind, for :func:`remove_partials`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a folder beside the destination to write into, and rename it into place when the block ends well.

    Whatever goes wrong, no half-written folder bears the destination's name, and what stood there before stays.

    Args:
        path: the folder to be. One that is there is replaced if all files in it and its folders bear
            :data:`SIGNATURE`, which the DICOM objects and slices that this library writes do.

    Raises:
        ValueError: if there is a file of that name, or a folder with something else in it; nothing is changed then.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"{path}: is no folder; the name of a new folder is accepted")
    if path.is_dir() and not all(_is_ours(inside) for inside in path.rglob("*")):
        raise ValueError(f"{path}: holds what was not written by this library; a new folder is accepted")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _beside(path), _beside(path, "old.")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(partial, path)
        except BaseException:
            if old.exists():
                os.replace(old, path)
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, state: str = "") -> Path:
    """A name for what is to be renamed; of a name too long for more before it, the end, and a digest of all."""
    before, name = f".{_HERE}-{os.getpid()}.partial.{state}", os.fsencode(path.name)
    if len(before) + len(name) > _LONGEST:
        before += f"{zlib.crc32(name):08x}."
        return path.with_name(before + name[len(before) - _LONGEST :].decode(errors="ignore"))
    return path.with_name(before + path.name)


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return False
    if path.is_dir():
        return True
    with open(path, "rb") as file:
        return SIGNATURE in file.read(1024)


def remove_partials(folder: str | os.PathLike[str]) -> None:
    """Remove what processes of this machine that are no more were writing in a folder when they were killed."""
    if not os.path.isdir(folder):
        return
    for path in Path(folder).iterdir():
        partial = _PARTIAL.fullmatch(path.name)
        if partial and not _is_running(int(partial[1])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal; files of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
