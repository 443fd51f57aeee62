"""Files that are there whole or not at all, and whether one is still the same."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import platform
import re
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from fusion_nets import running

__all__ = ["SIGNATURE", "RoomError", "WriteError", "file_sha256", "remove_partials", "sync", "whole_file"]
__all__ += ["whole_folder"]

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_PARTIAL = re.compile(rf"\.{_HOST}-([0-9a-f]{{8}})-(\d{{1,10}})-([0-9a-f]{{8}})-\d+\.partial\..+")
"""Where a process runs, its number, when it began, and which of its files this is; see `_beside`."""

_BORN = time.time()
_NUMBERS = itertools.count()
_SWAPPING = threading.Lock()

_LONGEST = 255
"""Bytes that a name has at most, as most file systems have it."""

SIGNATURE = b"fusion-nets"
"""Stands in the first 1024 bytes of a file that may be replaced together with its folder."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EIO, errno.EROFS)


class RoomError(MemoryError):
    """A large volume for which there is no room on the disk where these lie, see :mod:`fusion_nets.slabs`."""


class WriteError(OSError):
    """A file that could not be written, because the system refused: the disk is full, damaged or read only.

    ``errno`` is the system's, ``filename`` what the file or folder would have been called.
    """

    @property
    def is_full(self) -> bool:
        """Whether nothing else can be written there either: no room, or no more that this user may take."""
        return self.errno in _NO_ROOM

    def __str__(self) -> str:
        """The message."""
        accepted = "with more room" if self.is_full else "that can be written"
        return f"{self.filename}: not written ({self.strerror}); a folder {accepted} is accepted"


@contextmanager
def whole_file(path: str | os.PathLike[str], durable: bool = False) -> Iterator[Path]:
    """Give a name beside the destination to write to, and rename it into place when the block ends well.

    The folder is made when it is missing; whatever goes wrong, no half-written file bears the destination's name, and
    what stood there before stays. The name keeps the destination's ending, from which writers tell the format. Only a
    process that is killed without notice leaves it behind, for :func:`remove_partials`.

    Args:
        path: of the file.
        durable: have file and folders on the disk when the block ends, so that a failure of power does not take them.

    Raises:
        WriteError: if there is no room for it, also where what writes it does not notice.
    """
    path = Path(path)
    partial = _beside(path)
    try:
        made = [folder for folder in path.parents if durable and not folder.is_dir()]
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _check_room(partial)
        if durable:
            sync(partial)
        os.replace(partial, path)
        for folder in (path.parent, *(folder.parent for folder in made)) if durable else ():
            sync(folder)
    except Exception as error:
        _raise_if_refused(error, path, partial)
        raise
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
        WriteError: if there is no room for it.
    """
    path = Path(path)
    with _SWAPPING:  # so that no other thread takes it away meanwhile
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise ValueError(f"{path}: is no folder; the name of a new folder is accepted")
        if path.is_dir() and not all(_is_ours(inside) for inside in path.rglob("*")):
            raise ValueError(f"{path}: holds what was not written by this library; a new folder is accepted")
    partial, old = _beside(path), _beside(path, "old.")
    try:
        partial.mkdir(parents=True)
        yield partial
        with _SWAPPING:  # of two threads that write the same folder, the later one's stays
            if path.exists():
                os.replace(path, old)
            try:
                os.replace(partial, path)
            except BaseException:
                if old.exists():
                    os.replace(old, path)
                raise
    except Exception as error:
        _raise_if_refused(error, path, partial)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: str | os.PathLike[str]) -> None:
    """Have a file's content, or the names in a folder, on the disk; of a folder where the system can (not Windows)."""
    if os.name == "nt" and os.path.isdir(path):
        return
    # Windows flushes only what it may write
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_room(partial: Path) -> None:
    """Raise if the file cannot grow by a byte.

    Writers in C, such as Pillow's of TIFF and ITK's of transforms, may not notice that a full disk took less than they
    gave, or that it took nothing.
    """
    if partial.is_file():
        with open(partial, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.write(b"\0")
            file.truncate(size)


def _raise_if_refused(error: Exception, path: Path, partial: Path) -> None:
    """Name the destination where the system refused to write, whatever a writer made of that."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno is not None):
        cause = cause.__cause__  # pydicom wraps a traceback around it
    if cause is None:
        try:
            _check_room(partial)
        except OSError as lack:
            cause = lack
    if isinstance(cause, OSError) and not isinstance(cause, WriteError) and cause.errno in (*_NO_ROOM, *_REFUSED):
        file = partial if cause.filename is None else Path(os.fsdecode(cause.filename))
        if file.is_relative_to(partial) or partial.is_relative_to(file):  # else another file, which was read
            raise WriteError(cause.errno, os.strerror(cause.errno), str(path)) from error


def _beside(path: Path, state: str = "") -> Path:
    """A name for what is to be renamed; of a name too long for more before it, the end, and a digest of all.

    No two of a process are alike, nor are those of two processes of the same number, one of which is no more: a
    container that starts again has its host name and its number, too.
    """
    process = os.getpid()
    before = f".{_HOST}-{_place()}-{process}-{_beginning(process)}-{next(_NUMBERS)}.partial.{state}"
    name = os.fsencode(path.name)
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
    """Remove what processes of this machine that are no more were writing in a folder when they were killed.

    Of the same host name under another kernel, or in another container, processes cannot be seen from here: what is
    older than this process is theirs of an earlier life, and is removed, too.
    """
    if not os.path.isdir(folder):
        return
    for path in Path(folder).iterdir():
        partial = _PARTIAL.fullmatch(path.name)
        if partial and _is_left(path, partial[1], int(partial[2]), partial[3]):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_left(path: Path, place: str, process: int, beginning: str) -> bool:
    if place == _place():
        began = running.beginning(process)
        return began is None or (began != "" and _digest(began) != beginning)
    try:
        return path.stat().st_mtime < _BORN
    except OSError:  # gone meanwhile
        return False


@cache
def _place() -> str:
    return _digest(running.place())


@cache
def _beginning(process: int) -> str:
    return _digest(running.beginning(process) or "")


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal; files of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
