"""The commands in the documentation: found, and run as a newcomer would.

A fenced block of bash or Python is run in the order in which it stands in its page, in a folder that holds the bundles
as a checkout does, and nothing else. A comment above a block, which no reader sees, says what is different:

- ``<!-- run by: make test-label -->``: needs another environment, and is run there;
- ``<!-- run by: make test-travel -->``: is from a model card, whose commands that target runs;
- ``<!-- run by: .ci/run -->``: targets that are made there;
- ``<!-- run by: make test-slow -->``: changes the library, and is run by test_contributing.py on a copy of it, where
  ``<!-- into: FILE -->`` says which file it is added to;
- ``<!-- fails -->``: ends with an error, which the page shows.

A block of ``text`` directly below is what it prints, ``...`` being anything.
"""

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE, LABEL, TRAVEL, CI, SUITE = "make test-docs", "make test-label", "make test-travel", ".ci/run", "make test-slow"
LANGUAGES = ("bash", "python")

SLURM = {
    # a job's script, as many times as its array is long, on one host that stands for as many nodes as it asks for
    "sbatch": r"""
array=$(printf '%s\n' "$@" | sed -n 's/^--array=0-//p')
for script in "$@"; do :; done
nodes=$(sed -n 's/^#SBATCH .*--nodes=\([0-9]*\).*/\1/p' "$script")
for task in $(seq 0 "${array:-0}"); do
    SLURM_JOB_ID=$$ SLURM_NNODES=${nodes:-1} SLURM_JOB_NODELIST=localhost SLURM_CPUS_PER_TASK=1 \
        SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((${array:-0} + 1)) bash -eu "$script" || exit
done
""",
    "srun": r"""
for node in $(seq "$SLURM_NNODES"); do "$@" & jobs="$jobs $!"; done
for job in $jobs; do wait "$job" || exit; done
""",
    "scontrol": "echo localhost",
}
"""Stand-ins for Slurm's commands: the scripts of the pages are run where there is none."""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<words>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=ticks) *$", re.M | re.S
)
_MARKS = re.compile(r"((?:^<!-- [^\n]* -->\n\s*)*)\Z", re.M)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    indent: int
    marks: tuple[str, ...]
    prints: str | None

    @property
    def runner(self) -> str:
        named = [mark.removeprefix("run by: ") for mark in self.marks if mark.startswith("run by: ")]
        return named[0] if named else HERE

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """What a newcomer reads; the bundles' own cards are run by tests/bundles/travel.py."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    for number, fence in enumerate(found):
        after = found[number + 1] if number + 1 < len(found) else None
        shown = after is not None and after["words"] == "text" and not text[fence.end() : after.start()].strip()
        marks = _MARKS.search(text[: fence.start()])[1]
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=text.count("\n", 0, fence.start()) + 1,
            language=fence["words"].split(" ")[0],
            code=fence["code"],
            indent=len(fence["indent"]),
            marks=tuple(re.findall(r"<!-- (.*?) -->", marks)),
            prints=after["code"] if shown else None,
        )


class Newcomer:
    """Someone who types what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.names: dict[str, object] = {"__name__": "__main__"}
        shutil.copytree(
            ROOT / "bundles",
            self.folder / "bundles",
            ignore=shutil.ignore_patterns("eval", "logs", "bin", "__pycache__"),
        )
        (self.folder / ".venv").symlink_to(sys.prefix)
        programs = folder / "programs"
        programs.mkdir()
        for name, words in {
            "python": "",
            "fusion-nets": "-m fusion_nets.cli",
            "torchrun": "-m torch.distributed.run",
        }.items():
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            (programs / name).chmod(0o755)
        for name, script in SLURM.items():
            (programs / name).write_text(f"#!/bin/bash\n{script}")
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def does(self, block: Block) -> None:
        """Run one block; it must do what the page says."""
        said, code = self._bash(block.code) if block.language == "bash" else self._python(block)
        assert (code != 0) == ("fails" in block.marks), f"{block}: exit code {code}\n{block.code}\n{said[-6000:]}"
        if block.prints is not None:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert doctest.OutputChecker().check_output(block.prints, said, flags), (
                f"{block} shows\n{block.prints}\nand it is\n{said[-6000:]}"
            )

    def _bash(self, code: str) -> tuple[str, int]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout, done.returncode

    def _python(self, block: Block) -> tuple[str, int]:
        printed = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(block.code, str(block), "exec"), self.names)
        finally:
            os.chdir(before)
        return printed.getvalue(), 0
