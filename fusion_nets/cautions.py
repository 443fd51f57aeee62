"""Warnings that are for whoever looks at the result, too: logged where they arise, and noted for its record.

A log is read by who runs a program, a page by who looks at an image, later and elsewhere. What is noted is noted in one
thread alone, by a variable of its context, and is the same whatever levels and filters the loggers have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["about", "caution", "noted", "noting"]

_MOST = 50

_NOTES: ContextVar[tuple[list[str], ...]] = ContextVar("notes", default=())
_ABOUT: ContextVar[str] = ContextVar("about", default="")


def caution(logger: logging.Logger, where: object, words: str, *values: object) -> None:
    """Warn in the log, and note it where notes are taken.

    Args:
        logger: of the module that warns.
        where: a file or a case, which the log names and the note does not: it may tell who the patient is.
        words: what is the matter, with places for the values as loggers have them.
        values: numbers, and nothing that tells who the patient is.
    """
    line = words % values if values else words
    logger.warning("%s: %s", where, line)
    notes, key = _NOTES.get(), _ABOUT.get()
    if notes:
        notes[-1].append(f"{key}: {line}" if key else line)


@contextmanager
def noting() -> Iterator[list[str]]:
    """Note what is warned of inside, in this thread.

    Examples:
        >>> logger = logging.getLogger("example")
        >>> with silence(("example",)), noting() as notes, about("overlay"):
        ...     caution(logger, "JANE.nii", "slices are %g mm apart", 4)
        >>> notes
        ['overlay: slices are 4 mm apart']
    """
    notes: list[str] = []
    token = _NOTES.set((*_NOTES.get(), notes))
    try:
        yield notes
    finally:
        _NOTES.reset(token)


@contextmanager
def about(key: object) -> Iterator[None]:
    """What is warned of inside is about one of several images, such as "anatomy"."""
    token = _ABOUT.set(str(key))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def noted() -> list[str]:
    """What was noted until now, by whoever takes notes around here: each line once, and no more than 50."""
    lines = list(dict.fromkeys(line for notes in _NOTES.get() for line in notes))
    more = len(lines) - _MOST
    return lines if more <= 0 else [*lines[:_MOST], f"{more} more warnings are in the log"]
