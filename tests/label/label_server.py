"""A real MONAI Label server for the tests, on the loopback, with a home of its own."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from orthanc import free_port

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "make test-label (an environment of its own, bundles/monailabel/requirements.txt)"
STARTS_WITHIN = 180


def monailabel():
    """Its command, as an argument list for this Python; the test is skipped where it is missing."""
    if importlib.util.find_spec("monailabel") is None:
        pytest.skip(f"needs MONAI Label: {INSTALL}")
    return [sys.executable, "-m", "monailabel.main"]


@dataclass
class Server:
    """One that runs: its address, what it says, and the folder that it takes for home and for temporary files."""

    url: str
    log: Path
    home: Path
    process: subprocess.Popen

    @property
    def tmp(self):
        """The folder of its temporary files."""
        return self.home / "tmp"

    def log_tail(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait(self, seconds=STARTS_WITHIN):
        """Until it answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"MONAI Label ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                requests.get(f"{self.url}/info/", timeout=30).raise_for_status()
                return
            except requests.ConnectionError:
                time.sleep(0.5)
        pytest.fail(f"MONAI Label did not answer within {seconds} s:\n{self.log_tail()}")

    def stop(self, how=signal.SIGTERM):
        """End it and all that it started; `how=signal.SIGKILL` as a failure of power would."""
        for signalled in (how, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, signalled)
                self.process.wait(15)


def start(app: Path, studies: str, conf: Mapping[str, str], env: Mapping[str, str] | None, home: Path) -> Server:
    """Start it and wait until it answers.

    Args:
        app: folder of the app.
        studies: folder of images, or the address of a DICOMweb server.
        conf: what --conf says.
        env: variables over those of this process.
        home: an empty folder.
    """
    port = free_port()
    command = [*monailabel(), "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for key, value in conf.items():
        command += ["--conf", key, value]
    (home / "tmp").mkdir()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **own, **(env or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", home / "server.log", home, process)
    try:
        server.wait()
    except BaseException:
        server.stop()
        raise
    return server
