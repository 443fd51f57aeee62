import ctypes
import os
import subprocess
import sys

import pytest

from fusion_nets import running


def test_a_process_keeps_its_beginning():
    began = running.beginning(os.getpid())
    assert began
    assert running.beginning(os.getpid()) == began
    assert running.beginning(1) is not None  # somebody else's, perhaps
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert running.beginning(ended.pid) is None
    assert running.beginning(2**62) is None


def test_without_proc(monkeypatch):
    """As on macOS: whether it runs can be told, not when it began."""

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert running.beginning(os.getpid()) == ""
    monkeypatch.delattr("os.readlink")
    assert running.place().strip() == ""


class Kernel:
    """What the functions of Windows' kernel32 do for one process, 7, and one of another user, 8."""

    def __init__(self, ended):
        self.ended = ended
        self.open = []
        self.OpenProcess = Function(self._open)

    def _open(self, access, inherit, process):
        assert (access, inherit) == (0x1000, False)
        if process == 7:
            self.open.append(70)
            return 70
        self.error = 5 if process == 8 else 87
        return None

    def GetExitCodeProcess(self, handle, code):
        assert handle.value == 70
        code._obj.value = 1 if self.ended else 259
        return 1

    def GetProcessTimes(self, handle, created, *others):
        created._obj.value = 133_000_000_000_000_000
        return 1

    def CloseHandle(self, handle):
        self.open.remove(handle.value)


class Function:
    def __init__(self, does):
        self.does = does

    def __call__(self, *arguments):
        return self.does(*arguments)


@pytest.mark.parametrize("ended", [False, True])
def test_no_signal_is_sent_on_windows(monkeypatch, ended):
    """Where `os.kill(process, 0)` is Ctrl-C for all that share its console."""
    kernel = Kernel(ended)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: kernel.error, raising=False)
    assert running.beginning(7) == (None if ended else "133000000000000000")
    assert running.beginning(8) == ""
    assert running.beginning(9) is None
    assert kernel.open == []
