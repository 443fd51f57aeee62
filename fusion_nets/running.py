"""Which processes run, and when they began."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["beginning", "place"]


def place() -> str:
    """What tells the processes that can be seen from here from all others: the running kernel, and the container."""
    parts = []
    for look in (Path("/proc/sys/kernel/random/boot_id").read_text, lambda: os.readlink("/proc/self/ns/pid")):
        try:
            parts.append(look())
        except (OSError, AttributeError):  # neither Windows nor macOS has it
            parts.append("")
    return " ".join(parts)


def beginning(process: int) -> str | None:
    """When a process began, in the system's own measure; None if it is no more, empty where that cannot be told.

    By it a process is told from a later one of the same number.
    """
    if sys.platform == "win32":
        return _beginning_on_windows(process)  # where os.kill would end it, or send it Ctrl-C
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # somebody else's
        pass
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # not to be seen, or no Linux
        return ""
    return None if fields[0] in "ZX" else fields[19]  # proc_pid_stat(5): state, and starttime, less the first two


def _beginning_on_windows(process: int) -> str | None:
    """By a handle of the process, see Microsoft's pages of `OpenProcess` and `GetProcessTimes`."""
    import ctypes

    query_limited_information, access_denied, still_active = 0x1000, 5, 259
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(kernel.OpenProcess(query_limited_information, False, process))
    if not handle:
        return "" if ctypes.get_last_error() == access_denied else None  # type: ignore[attr-defined]
    try:
        code, times = ctypes.c_uint32(), [ctypes.c_uint64() for _ in range(4)]
        if kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value != still_active:
            return None
        return str(times[0].value) if kernel.GetProcessTimes(handle, *map(ctypes.byref, times)) else ""
    finally:
        kernel.CloseHandle(handle)
