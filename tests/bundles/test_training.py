import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from monai.bundle import ConfigParser, run

from .conftest import BUNDLES, TINY, TINY_DMFNET

CONFIGS = BUNDLES / "dmfnet" / "configs"
SHORT = {"crop_size": 48, "max_epochs": 2, "epoch_iterations": 2, "batch_size": 2, "val_interval": 1}


def arguments(dataset_dir, output_dir, stage, unet_weights=None):
    chosen = {
        "bundle_root": str(BUNDLES / "dmfnet"),
        "dataset_dir": str(dataset_dir),
        "output_dir": str(output_dir),
        "weights": str(output_dir / "weights.pt"),
        "logging_file": str(CONFIGS / "logging.conf"),
        **SHORT,
    }
    if stage == "diffusion":
        return {**chosen, "network_def": {"_target_": "fusion_nets.networks.DiffusionUNet", **TINY}}
    network = {"_target_": "fusion_nets.networks.DMFNet", **TINY_DMFNET}
    return {**chosen, "network_def": network, "unet_weights": unet_weights, "pool_size": 4}


def command(configs, chosen, *launcher):
    words = [*launcher, "-m", "monai.bundle", "run", "--config_file", str([str(CONFIGS / name) for name in configs])]
    for name, value in chosen.items():
        words += [f"--{name}", str(value)]
    return words


def test_both_stages_one_after_the_other(dataset_dir, tmp_path):
    first, second = tmp_path / "diffusion", tmp_path / "fusion"
    run(config_file=str(CONFIGS / "train_diffusion.json"), **arguments(dataset_dir, first, "diffusion"))
    unet = first / "weights.pt"
    run(config_file=str(CONFIGS / "train.json"), **arguments(dataset_dir, second, "fusion", str(unet)))
    stage1, stage2 = (torch.load(folder / "weights.pt", weights_only=True) for folder in (first, second))
    for name, value in stage1.items():
        assert torch.equal(stage2[f"unet.{name}"], value), name
    assert any(name.startswith("fusion.") for name in stage2)
    for folder in (first, second):
        assert list(folder.glob("events.out.tfevents.*"))
        assert torch.load(folder / "last.pt", weights_only=True)["trainer"]["iteration"] == 4


def test_the_published_configuration_takes_the_published_network_and_loss(dataset_dir, tmp_path, tiny_weights):
    chosen = arguments(dataset_dir, tmp_path, "fusion", tiny_weights["unet"])
    configs = [str(CONFIGS / name) for name in ("train.json", "published.json")]
    parser = ConfigParser()
    parser.read_config(configs)
    assert parser["network_def"] == {"_target_": "fusion_nets.networks.DMFNet"}
    run(config_file=configs, **chosen)
    assert (tmp_path / "weights.pt").is_file()


def test_killed_at_any_moment_and_started_again(dataset_dir, tmp_path, tiny_weights):
    chosen = {**arguments(dataset_dir, tmp_path, "fusion", tiny_weights["unet"]), "max_epochs": 300}
    words = command(["train.json"], chosen, sys.executable)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "last.pt").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    done = torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] // 2
    assert done >= 1
    again = subprocess.run(
        command(["train.json"], {**chosen, "max_epochs": done + 1}, sys.executable), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert f"epoch {done} of {done + 1} is done" in again.stderr
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] == 2 * (done + 1)


@pytest.mark.parametrize("stage", ["diffusion", "fusion"])
def test_two_processes(dataset_dir, tmp_path, tiny_weights, stage):
    configs = ["train_diffusion.json" if stage == "diffusion" else "train.json", "multi_gpu_train.json"]
    chosen = arguments(dataset_dir, tmp_path, stage, tiny_weights["unet"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = command(configs, chosen, *torchrun)
    process = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr[-2000:]
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] == 4
    assert process.stderr.count(f"saved {tmp_path / 'weights.pt'}") <= 2
