"""What a command is at: at a terminal a bar over the whole with the time left, in a log a line for each stage.

What works says by :func:`stage` or :func:`stage_bar` what begins; nothing is shown but inside of :func:`shown_stages`.
Everything goes to the standard error: the standard output is for programs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["STAGES", "shown_stages", "stage", "stage_bar"]

STAGES = {"starting": 10, "reading": 10, "registration": 20, "resampling": 5, "fusing": 45, "writing": 10}
"""Stages in their order, and the share of the time in percent that each usually takes on a processor."""


class _Stages:
    def __init__(self, bar: tqdm, log: Any) -> None:
        self.bar = bar
        self.log = log
        self.name = ""
        self.began = 0.0

    def begin(self, name: str) -> None:
        if name == self.name:
            return
        self.end()
        self.name, self.began = name, time.monotonic()
        self.bar.set_description_str(name, refresh=False)
        self.reach(0)

    def end(self) -> None:
        # imports and configuration are no work of the user's
        if self.log is not None and self.name not in ("", "starting"):
            print(f"{self.name}: {time.monotonic() - self.began:.1f} s", file=self.log, flush=True)
        self.name = ""

    def reach(self, done: float) -> None:
        """Show that this share of the stage is done; the bar never goes back."""
        before = list(STAGES)[: list(STAGES).index(self.name)]
        place = sum(STAGES[name] for name in before) + done * STAGES[self.name]
        self.bar.update(max(0.0, place - self.bar.n))
        self.bar.refresh()


_SHOWN: ContextVar[_Stages | None] = ContextVar("stages", default=None)


@contextmanager
def shown_stages(stream: Any = None) -> Iterator[None]:
    """Show the stages of what is done inside, to the standard error.

    At a terminal it is a bar, with the time that is left as the shares of :data:`STAGES` tell it; messages that are
    logged meanwhile stand above it. Elsewhere it is a line for each stage when it has ended, with the seconds that it
    took. The stage in which something fails has no line.

    Examples:
        >>> with shown_stages(sys.stdout):
        ...     stage("reading")
        ...     with stage_bar(2, "fusing") as bar:
        ...         bar.update(2)
        reading: 0.0 s
        fusing: 0.0 s
    """
    stream = stream or sys.stderr
    log = None if stream.isatty() else stream
    how = {"bar_format": "{desc}: {percentage:.0f}%|{bar}| {elapsed}<{remaining}", "smoothing": 0, "leave": False}
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=100, file=stream, disable=log is not None, **how))
        if log is None:
            stack.enter_context(logging_redirect_tqdm())
        stages = _Stages(bar, log)
        token = _SHOWN.set(stages)
        try:
            stages.begin("starting")
            yield
            stages.end()
        finally:
            _SHOWN.reset(token)


def stage(name: str) -> None:
    """Say that a stage of :data:`STAGES` begins, and the one before ends."""
    stages = _SHOWN.get()
    if stages is not None:
        stages.begin(name)


class _StageBar:
    """What is used of a progress bar, as a part of the whole one."""

    def __init__(self, stages: _Stages, total: int) -> None:
        self.stages = stages
        self.total = total
        self.done = 0

    def __enter__(self) -> _StageBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        self.done += count
        self.stages.reach(self.done / max(self.total, 1))


def stage_bar(total: int, desc: str, unit: str = "it", disable: bool = False) -> Any:
    """A bar of a stage whose steps are counted: part of the whole where stages are shown, else one of its own.

    Args:
        total: how many steps there are.
        desc: name of the stage.
        unit: of a step.
        disable: show no bar of its own.

    Returns:
        What ``tqdm`` gives, of which ``update`` and the end of a ``with`` block may be used.
    """
    stages = _SHOWN.get()
    if stages is None:
        return tqdm(total=total, desc=desc, unit=unit, disable=disable)
    stages.begin(desc)
    return _StageBar(stages, total)
