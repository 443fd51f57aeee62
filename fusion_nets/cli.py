"""The command line: `fusion-nets COMMAND ...`, or `python -m fusion_nets COMMAND ...`.

A command is one entry in `options.build_parser`, and one function of `commands`, which raises `ValueError`, `OSError`
or `ModuleNotFoundError` for what the user can mend; `main` makes one line of that and exit code 2.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, NoReturn

from . import commands
from .lean import lean_monai
from .options import build_parser

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 where the user is asked to mend something, 130 if interrupted.

    A command that is interrupted (Ctrl-C) or told to end (SIGTERM, 143) removes the file that it is writing.
    With ``--traceback``, or FUSION_NETS_TRACEBACK=1 in the environment, the Python traceback stands before the line.
    """
    with suppress(AttributeError):  # of what is no stream of text
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names that are no Unicode
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:
        arguments.parser.refuse(unknown)
    handlers: dict[signal.Signals, Any] = {signal.SIGTERM: _end, signal.SIGINT: partial(_interrupt, os.getpid())}
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if is_main}
    try:
        # a bundle of the user's own may name anything of MONAI, and so may a program that runs a command
        with nullcontext() if argv is not None or getattr(arguments, "bundle_root", None) else lean_monai():
            commands.check_options(arguments)
            if "device" in arguments:
                arguments.device = _device(arguments.device)
            arguments.run(arguments)
    except (KeyboardInterrupt, _Interrupted):
        return _say(arguments, "interrupted; what was finished is there, and nothing half-written", 128 + signal.SIGINT)
    except Exception as error:
        from .shortage import missing_memory

        reason = missing_memory(error)
        if not (reason or isinstance(error, (ValueError, OSError, ModuleNotFoundError))):
            raise
        return _say(arguments, reason if reason and not _says_more(error) else str(error), 2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class _Interrupted(SystemExit):
    """Ctrl-C: KeyboardInterrupt out of an `eval`, by which MONAI runs a configuration, makes Python kill itself."""


def _interrupt(owner: int, *_: object) -> NoReturn:
    if os.getpid() == owner:
        raise _Interrupted(128 + signal.SIGINT)
    raise KeyboardInterrupt  # which a worker of a data loader ends quietly by


def _end(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _says_more(error: Exception) -> bool:
    """Whether it tells not only of memory: one image of several, or one form of it."""
    return getattr(getattr(error, "reason", None), "name", "") in ("OUTPUT", "SEVERAL", "MEMORY")


def _say(arguments: argparse.Namespace, reason: str, code: int) -> int:
    if arguments.traceback or os.environ.get("FUSION_NETS_TRACEBACK", "") not in ("", "0"):
        traceback.print_exc()
    print(f"fusion-nets {arguments.command}: {' '.join(reason.split())}", file=sys.stderr)
    return code


def _device(name: str) -> str:
    """Where to compute, as torch names it.

    Raises:
        ValueError: for a device that is not there.
    """
    import torch

    there = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    accepted = ["auto", "cpu", *["cuda"][: len(there)], *there]
    if name not in accepted:
        raise ValueError(
            f"--device is {name!r}; CUDA can use {len(there)} here, so that accepted are {', '.join(accepted)}"
        )
    return (*there, "cpu")[0] if name == "auto" else name


if __name__ == "__main__":
    sys.exit(main())
