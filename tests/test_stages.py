"""What a command is at: a line for each stage in a log, one bar at a terminal, nothing on the standard output."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fusion_nets.stages import STAGES, shown_stages, stage, stage_bar
from fusion_nets.workflows import SlicewiseInferer


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work():
    stage("reading")
    stage("registration")
    stage("resampling")
    SlicewiseInferer(2, progress=True)(torch.rand(1, 2, 8, 8, 5), lambda x: x[:, :1])
    stage("writing")


def test_a_log_has_a_line_for_each_stage(capsys):
    log = io.StringIO()
    with shown_stages(log):
        work()
    assert [line.partition(":")[0] for line in log.getvalue().splitlines()] == list(STAGES)[1:]
    assert all(re.fullmatch(r"\w+: \d+\.\d s", line) for line in log.getvalue().splitlines())
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_one_bar_that_never_goes_back(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    terminal = Terminal()
    with shown_stages(terminal):
        work()
    shown = re.findall(r"(\w+): +(\d+)%\|.*?\| (\d\d:\d\d)<(\d\d:\d\d|\?)", terminal.getvalue())
    percents = [int(percent) for _, percent, _, _ in shown]
    assert percents == sorted(percents)
    assert percents[-1] == 100 - STAGES["writing"]
    assert set(STAGES) == {name for name, *_ in shown}
    assert {45 + 18, 45 + 36} < set(percents)  # two of five slices, and four
    assert shown[-1][-1] != "?"  # the time that is left
    assert capsys.readouterr() == ("", "")


def test_two_images_are_read_in_one_stage():
    log = io.StringIO()
    with shown_stages(log):
        for _ in range(2):
            stage("reading")
    assert len(log.getvalue().splitlines()) == 1


def test_what_fails_has_no_line_and_the_next_command_starts_anew(capsys):
    log = io.StringIO()

    def fail():
        with shown_stages(log):
            stage("reading")
            stage("fusing")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert [line.partition(":")[0] for line in log.getvalue().splitlines()] == ["reading"]
    stage("reading")
    with stage_bar(3, "fusing") as bar:  # a bar of its own, as before
        bar.update(3)
    assert "3/3" in capsys.readouterr().err


def test_the_shares_are_of_a_whole():
    assert sum(STAGES.values()) == 100


@pytest.mark.slow
def test_standard_output_is_for_programs(tmp_path):
    for seed, name in enumerate(("mri", "ct")):
        values = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    words = ["--anatomy", tmp_path / "mri.png", "--overlay", tmp_path / "ct.png", "--output_dir", tmp_path / "out"]
    command = [sys.executable, "-m", "fusion_nets", "fuse", "--method", "smfusion", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/out/mri_fused.png\n"), done.stderr
    lines = [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith(" s")]
    assert lines == ["reading", "registration", "resampling", "fusing", "writing"]
