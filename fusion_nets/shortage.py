"""Whether it was memory, or room on a disk, that was missing, whatever a library made of that."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from .files import RoomError, WriteError

__all__ = ["causes", "full_disk", "missing_memory"]

_WORDS = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_alloc|failed to allocate"
    r"|could not create a (primitive|memory)|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""Of torch and its oneDNN, on a processor and on a GPU, and of ITK, which raise a plain RuntimeError."""
_GPU = re.compile(r"CUDA|CUBLAS|CUDNN|HIP", re.IGNORECASE)
_ASKED = re.compile(r"tr(?:ied|ying) to allocate ([\d.]+ \w+)|unable to allocate ([\d.]+ \w+)", re.IGNORECASE)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came of, and so on, also where a traceback does not tell it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


def missing_memory(error: BaseException | None) -> str | None:
    """What to say where an error came of too little memory, on a processor or a GPU; else None."""
    for cause in causes(error):
        text = str(cause)
        if isinstance(cause, RoomError):
            return text
        named = type(cause).__name__ == "OutOfMemoryError"  # torch's
        if (
            isinstance(cause, MemoryError)
            or named
            or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
            or (isinstance(cause, RuntimeError) and _WORDS.search(text))
        ):
            asked = _ASKED.search(text)
            where = " of the GPU" if named or _GPU.search(text) else ""
            wanted = f" for {asked[1] or asked[2]}" if asked else ""
            return (
                f"the memory{where} is not enough{wanted}; fewer slices at once (slices_at_once), a smaller batch "
                "(batch_size) or images of a smaller size are accepted"
            )
    return None


def full_disk(error: BaseException | None) -> WriteError | None:
    """The error that says that a disk is full, if one came of that."""
    return next((cause for cause in causes(error) if isinstance(cause, WriteError) and cause.is_full), None)
