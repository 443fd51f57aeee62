"""Inference and evaluation by two processes, killed and started again, leave what one process leaves."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from .conftest import BUNDLES, SMFUSION

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
HERE = {
    **os.environ,
    "PYTHONPATH": str(BUNDLES.parent),
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
STOPS = {
    "imports": ["$import os", "$import signal", "$from pathlib import Path", "$from ignite.engine import Events"],
    "is_first": {"_target_": "fusion_nets.workflows.is_first_process"},
    "stopped": "$Path(@output_dir, 'stopped')",
    "stop": "$lambda: (@stopped.write_text(str(os.getpid())), os.kill(os.getpid(), signal.SIGSTOP))",
    "run": [
        "$@is_first and @evaluator.add_event_handler(Events.ITERATION_COMPLETED(once=2), @stop)",
        "$@evaluator.run()",
    ],
}
"""On top of multi_gpu_evaluate.json: the first process stands still when it has fused, not recorded, a second case."""


@pytest.fixture
def datalist(dataset_dir, tmp_path):
    """Five pairs, the third of them without an overlay."""
    pairs = [
        {
            "anatomy": str(dataset_dir / kind / f"MRI/{number}.png"),
            "overlay": str(dataset_dir / kind / kind.split("-")[0] / f"{number + 7 * (number == 2)}.png"),
            "name": f"case{number}",
        }
        for number, kind in enumerate(["CT-MRI", "PET-MRI", "SPECT-MRI", "CT-MRI"])
    ]
    pairs.append({**pairs[0], "overlay": pairs[3]["overlay"], "name": "case4"})
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(pairs))
    return str(path)


def command(bundle, configs, **options):
    files = str([str(config if os.path.isabs(config) else bundle.configs / config) for config in configs])
    words = [*TORCHRUN, "-m", "monai.bundle", "run", "--config_file", files]
    given = {
        "bundle_root": bundle.root,
        "network_def": bundle.network_def,
        "logging_file": bundle.configs / "logging.conf",
        **options,
    }
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    return words


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_killed_and_started_again_equals_one_process(datalist, tiny_weights, text_encoder, tmp_path):
    alone, both, stops = tmp_path / "alone", tmp_path / "both", tmp_path / "stops.json"
    configs = ["inference.json", "evaluate.json"]
    options = {"datalist": datalist, "describe": True, "text_encoder_model": text_encoder}
    with pytest.raises(SystemExit, match="1 of 5"):
        SMFUSION.fuse(tiny_weights, alone, configs, **options)

    configs.append("multi_gpu_evaluate.json")
    options |= {"weights": tiny_weights["smfusion"], "output_dir": both}
    stops.write_text(json.dumps(STOPS))
    words = command(SMFUSION, [*configs, stops], **options)
    with (tmp_path / "log").open("w+") as log:
        with subprocess.Popen(words, env=HERE, stdout=log, stderr=log) as process:
            awaited = both / "stopped", both / ".cases" / "case3.json"
            while process.poll() is None and not all(path.is_file() for path in awaited):
                time.sleep(0.05)
            assert process.poll() is None, (tmp_path / "log").read_text()
            os.kill(int((both / "stopped").read_text()), signal.SIGKILL)
        log.seek(0)
        assert process.returncode != 0, log.read()
    (both / "stopped").unlink()
    assert sorted(path.name for path in (both / ".cases").iterdir()) == ["case0.json", "case1.json", "case3.json"]
    assert not (both / "metrics.csv").exists()
    done = {path: time for path, time in changed(both).items() if "case4" not in path.name}

    again = subprocess.run(command(SMFUSION, configs, **options), env=HERE, capture_output=True, text=True)
    said = again.stdout + again.stderr
    assert again.returncode == 1, said
    assert said.count("1 of 5 pairs could not be fused") == 1
    assert said.count("case2: not fused: ") == 1
    assert "1 of 3 pairs were done before" in said
    assert "2 of 2 pairs were done before" in said  # the second process has nothing to do
    assert done.items() < changed(both).items()

    wanted = content(alone)
    assert {"metrics.csv", "Qabf_raw.csv", "Qabf_summary.csv", "descriptions.csv", ".cases/case4.json"} < wanted.keys()
    assert content(both) == wanted
