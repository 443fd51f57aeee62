"""Volumes of any length: gone through slab by slab, and kept in a file where they are large."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from .allocator import give_back
from .files import RoomError

__all__ = [
    "extremes",
    "filtered",
    "in_file",
    "is_large",
    "kept",
    "places",
    "release",
    "scratch_folder",
    "slabs",
    "slabwise",
    "some_places",
    "zeros",
]

LARGE = 2**23
"""Voxels from which a volume lies in a file: a float32 takes 32 MiB of memory else, and a study has some twenty."""

SLAB = 2**21
"""Voxels that are worked on at once, whole slices and at least one."""

PIECE = 2**18
"""Voxels that are worked on at once of a slab, whole slices and at least one: what is made on the way stays in a
processor's cache."""

LISTED = 2**19
"""Voxels whose indices are listed at once: each takes 24 bytes, and what is made of it as many again."""

_MAPPED: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def is_large(shape: Sequence[int]) -> bool:
    """Whether a volume (C, H, W, D) or (H, W, D) lies in a file; whatever the number of its channels."""
    return len(shape) > 2 and math.prod(int(n) for n in shape[-3:]) >= LARGE and (len(shape) > 3 or shape[0] > 3)


def zeros(shape: Sequence[int], dtype: np.dtype | type = np.float32) -> np.ndarray:
    """An array of zeros, a large volume in a file without a name that is gone with the array.

    Slices of a large one, along the last axis, lie one after another in the file, so that a slab is a part of it. The
    file's room is taken at once: what does not fit is refused here, not where it is written to.

    Raises:
        RoomError: if there is no room for the file; it names the folder, see :func:`scratch_folder`.
    """
    shape = tuple(int(n) for n in shape)
    if not is_large(shape):
        return np.zeros(shape, dtype=dtype)
    pages = _file(math.prod(shape) * np.dtype(dtype).itemsize)
    _MAPPED.add(pages)
    return np.moveaxis(np.ndarray((shape[-1], *shape[:-1]), dtype, pages), 0, -1)


def _file(size: int) -> mmap.mmap:
    give_back()
    folder = scratch_folder()
    with tempfile.TemporaryFile(dir=folder, prefix=".fusion-nets-") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # not on macOS
                file.truncate(size)
        except OSError as error:
            raise RoomError(
                f"{folder}: no room for a volume of {size / 2**30:.1f} GiB; another folder by TMPDIR is accepted"
            ) from error
        return mmap.mmap(file.fileno(), size)


def in_file(path: Path, shape: Sequence[int], offset: int = 0) -> np.ndarray:
    """The float32 of a volume (H, W, D) in a file that is there and stays, the first axis running fastest.

    Args:
        path: of a file of the right size.
        shape: of the volume.
        offset: bytes before the first value.
    """
    with open(path, "r+b") as file:
        pages = mmap.mmap(file.fileno(), 0)
    _MAPPED.add(pages)
    return np.ndarray(tuple(shape), "<f4", pages, offset, order="F")


def scratch_folder() -> Path:
    """Where large volumes lie: the folder for temporary files, ``TMPDIR``; ``/var/tmp`` where that is memory itself."""
    folder = Path(tempfile.gettempdir())
    if "TMPDIR" not in os.environ and _is_memory(folder) and os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return folder


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the last axis of a volume, one after another; an image of one slice is a part.

    After each part of a large volume its pages are let go of, see :func:`release`.
    """
    if not is_large(shape):
        yield slice(None)
        return
    for part in _parts(shape):
        yield part
        release()


def _parts(shape: Sequence[int]) -> Iterator[slice]:
    return _cut(slice(0, int(shape[-1])), shape, SLAB)


def _cut(part: slice, shape: Sequence[int], voxels: int) -> Iterator[slice]:
    each = max(1, voxels // max(1, math.prod(int(n) for n in shape[-3:-1])))
    for start in range(part.start, part.stop, each):
        yield slice(start, min(start + each, part.stop))


def release() -> None:
    """Give back the memory that the volumes in files take; what is needed again is read from there."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    for pages in list(_MAPPED):
        with suppress(ValueError, OSError):  # closed meanwhile
            pages.madvise(mmap.MADV_DONTNEED)


def places(mask: np.ndarray, every: int = 1) -> Iterator[np.ndarray]:
    """Indices (N, ndim) of what is true in a mask, ``np.argwhere(mask)[::every]`` in parts, one after another."""
    each, seen = max(1, LISTED // max(1, math.prod(mask.shape[1:]))), 0
    for start in range(0, len(mask), each):
        index = np.argwhere(mask[start : start + each])
        index[:, 0] += start
        yield index[-seen % every :: every]
        seen += len(index)


def some_places(mask: np.ndarray, most: int) -> np.ndarray:
    """Indices (N, ndim) of what is true in a mask: all, or at most so many, evenly spread."""
    count = np.count_nonzero(mask)
    every = max(-(-count // most), 1)
    made, done = np.empty((-(-count // every), mask.ndim), dtype=np.intp), 0
    for part in places(mask, every):
        made[done : done + len(part)] = part
        done += len(part)
    return made


def filtered(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray, reach: int) -> np.ndarray:
    """What a filter makes of an image (H, W[, D]), slab by slab: it may take many times the memory of its result.

    Args:
        function: an array in, one of the same size and type out.
        array: the image; one of a single slice is given as it is.
        reach: slices beside a slab on which its result depends.
    """
    if array.ndim < 3:
        return function(array)
    made = zeros(array.shape, array.dtype)
    for part in _parts(array.shape):
        first = max(part.start - reach, 0)
        found = function(array[..., first : part.stop + reach])
        made[..., part] = found[..., part.start - first : part.stop - first]
        if is_large(array.shape):
            release()
    return made


def extremes(image: torch.Tensor) -> tuple[float, float]:
    """The least and the greatest value of an image; both NaN where one is.

    torch copies a volume of which it looks for them, unless its last axis runs fastest.
    """
    plain = image.as_subclass(torch.Tensor)
    low, high = torch.stack([torch.stack(plain[..., part].aminmax()) for part in slabs(plain.shape)]).unbind(1)
    return low.min().item(), high.max().item()


def slabwise(function: Callable[..., torch.Tensor], *images: torch.Tensor) -> torch.Tensor:
    """What a function makes of images voxel by voxel, of large volumes slab by slab, with the metadata of the first.

    Args:
        function: tensors (C, H, W[, D]) in, one of the same size out, for which each slice is one by itself.
        images: of one size but for channels; small ones, and those on a GPU or with gradients, are given as they are.
    """
    if not is_large(images[0].shape) or any(image.device.type != "cpu" or image.requires_grad for image in images):
        return function(*images)
    plain = [image.as_subclass(torch.Tensor) for image in images]
    made: torch.Tensor | None = None
    for part in slabs(plain[0].shape):
        for piece in _cut(part, plain[0].shape, PIECE):
            done = function(*(image[..., piece] for image in plain))
            if made is None:
                kind = torch.empty(0, dtype=done.dtype).numpy().dtype
                made = torch.from_numpy(zeros((*done.shape[:-1], plain[0].shape[-1]), kind))
            made[..., piece] = done
    assert made is not None  # a large volume has slices
    first = images[0]
    return MetaTensor(made, meta=dict(first.meta)) if isinstance(first, MetaTensor) else made


def kept(array: np.ndarray) -> np.ndarray:
    """The array as float32: contiguous, or a large volume in a file, where it may be already."""
    if not is_large(array.shape):
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype == np.float32 and _is_mapped(array) and min(array.strides) > 0:
        return array
    copy = zeros(array.shape)
    for part in slabs(array.shape):
        copy[..., part] = array[..., part]
    return copy


def _is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def _is_memory(folder: Path) -> bool:
    """Whether a folder lies in a file system that is memory (Linux)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return False
    folder = folder.resolve()
    inside = [(len(mount[1]), mount[2]) for mount in mounts if folder.is_relative_to(mount[1])]
    return bool(inside) and max(inside)[1] in ("tmpfs", "ramfs")
