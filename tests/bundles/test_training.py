import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, run
from monai.data import DataLoader
from PIL import Image

from evaluation.functional import FUSION_METRICS
from fusion_nets.networks import TextGuidedUNet
from fusion_nets.simulation import SimulatedSources
from fusion_nets.transforms import RandInsertLesionsd
from fusion_nets.workflows import SourcesBatch

from .conftest import DMFNET, SMFUSION, TINY, TINY_CRITIC, TINY_GROUNDING, blobs, causes

pytestmark = pytest.mark.slow

SHORT = {"crop_size": 48, "max_epochs": 2, "epoch_iterations": 2, "batch_size": 2, "val_interval": 1}
FIRST = {DMFNET: "train_diffusion.json", SMFUSION: "train_critic.json"}
CRITIC = {"_target_": "fusion_nets.networks.ImageTextCritic", **TINY_CRITIC}
GROUNDING = {"_target_": "fusion_nets.networks.TextGrounding", **TINY_GROUNDING}
FIRST_NETWORK = {DMFNET: {"_target_": "fusion_nets.networks.DiffusionUNet", **TINY}, SMFUSION: CRITIC}
SOURCES = "train_sources.json"
BOTH = pytest.mark.parametrize("bundle", FIRST, ids=lambda bundle: bundle.name)
STAGES = pytest.mark.parametrize(
    ("bundle", "config"),
    [(bundle, config) for bundle in FIRST for config in (FIRST[bundle], "train.json")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)


@pytest.fixture
def chosen(dataset_dir, texts, text_encoder, tiny_weights):
    """Arguments of a short run with tiny networks."""

    def arguments(bundle, config, output_dir, first_weights=None):
        short = {
            "bundle_root": str(bundle.root),
            "dataset_dir": str(dataset_dir),
            "output_dir": str(output_dir),
            "weights": str(output_dir / "weights.pt"),
            "logging_file": str(bundle.configs / "logging.conf"),
            **SHORT,
        }
        if bundle is SMFUSION:
            short |= {"texts": str(texts), "text_encoder_model": text_encoder}
        if config == FIRST[bundle]:
            return {**short, "network_def": FIRST_NETWORK[bundle]}
        if config == "train_grounding.json":
            pytest.importorskip("nilearn")  # it is on simulated heads alone
            for of_others in ("dataset_dir", "texts", "text_encoder_model"):
                del short[of_others]
            return {**short, "network_def": GROUNDING, "val_pairs": 4}
        short["network_def"] = bundle.network_def
        if config == SOURCES:
            pytest.importorskip("nilearn")  # likewise
            short |= {"dataset_dir": None} | ({"texts": None} if bundle is SMFUSION else {})
            return {**short, "initial_weights": first_weights or tiny_weights[bundle.name], "val_pairs": 2}
        if bundle is DMFNET:
            return {
                **short,
                "unet_weights": str(first_weights or tiny_weights["unet"]),
                "pool_size": 4,
                "fresh_pairs": 1,
            }
        weights = {"critic_weights": str(first_weights or tiny_weights["critic"])}
        return {**short, "critic": CRITIC, **weights, "grounding_weights": tiny_weights["grounding"]}

    return arguments


def stack(config):
    """What lies under a configuration, and it."""
    return ["train.json", config] if config == SOURCES else [config]


def train(bundle, configs, arguments):
    return run(config_file=[str(bundle.configs / name) for name in configs], **arguments)


def command(bundle, configs, arguments, *launcher):
    files = str([str(bundle.configs / name) for name in configs])
    words = [*launcher, "-m", "monai.bundle", "run", "--config_file", files]
    for name, value in arguments.items():
        words += [f"--{name}", str(value)]
    return words


class StopAt:
    """A handler that breaks a run off."""

    def __init__(self, iteration):
        self.iteration = iteration

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine):
        raise InterruptedError("the power is gone")


@BOTH
def test_one_stage_after_the_other(bundle, chosen, tmp_path):
    first, between, second = tmp_path / "first", tmp_path / "between", tmp_path / "second"
    train(bundle, [FIRST[bundle]], chosen(bundle, FIRST[bundle], first))
    last = chosen(bundle, "train.json", second, first / "weights.pt")
    if bundle is SMFUSION:
        train(bundle, ["train_grounding.json"], chosen(bundle, "train_grounding.json", between))
        last["grounding_weights"] = str(between / "weights.pt")
    train(bundle, ["train.json"], last)
    for folder in (first, second):
        assert list(folder.glob("events.out.tfevents.*"))
        assert torch.load(folder / "last.pt", weights_only=True)["trainer"]["iteration"] == 4
    stage1, stage2 = (torch.load(folder / "weights.pt", weights_only=True) for folder in (first, second))
    if bundle is DMFNET:
        assert stage2["detail.head.weight"].any()
        # the features reach it
        assert stage2["detail.guides.0.weight"].any()
        for name, value in stage1.items():
            assert torch.equal(stage2[f"unet.{name}"], value), name
    else:
        assert stage2["fusion.head.weight"].any()
        for name, value in torch.load(between / "weights.pt", weights_only=True).items():
            assert torch.equal(stage2[f"grounding.{name}"], value), name


@STAGES
def test_slices_of_several_sizes_smaller_than_the_crop(bundle, config, chosen, tmp_path):
    rng = np.random.default_rng(0)
    arguments = chosen(bundle, config, tmp_path)
    splits, pairs = {"PET-MRI": {"train": [], "val": []}}, []
    for number, size in enumerate([(44, 41), (64, 50), (42, 43), (52, 46)]):
        name, section = f"case_{number}", ("train", "val")[number % 2]
        splits["PET-MRI"][section].append(f"{name}.png")
        for modality in ("MRI", "PET"):
            folder = tmp_path / "set" / "PET-MRI" / modality
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(blobs(rng, *size)).save(folder / f"{name}.png")
        files = {
            key: f"set/PET-MRI/{modality}/{name}.png" for key, modality in (("anatomy", "MRI"), ("overlay", "PET"))
        }
        pairs.append({**files, "name": f"PET-MRI_{name}", "anatomy_text": "MRI.", "overlay_text": f"PET {number}."})
    (tmp_path / "set" / "splits.json").write_text(json.dumps(splits))
    (tmp_path / "texts.json").write_text(json.dumps(pairs))
    arguments |= {"dataset_dir": str(tmp_path / "set"), "max_epochs": 1, "monitoring": False}
    if bundle is SMFUSION:
        arguments["texts"] = str(tmp_path / "texts.json")
    train(bundle, [config], arguments)
    assert (tmp_path / "weights.pt").is_file()


@BOTH
def test_several_sources_teach_the_attention_alone(bundle, chosen, tiny_weights, tmp_path):
    train(bundle, stack(SOURCES), chosen(bundle, SOURCES, tmp_path))
    before, after = (
        torch.load(path, weights_only=True) for path in (tiny_weights[bundle.name], tmp_path / "weights.pt")
    )
    assert before.keys() == after.keys(), "all that inference loads"
    part = {DMFNET: "detail.attention.", SMFUSION: "fusion.attention."}[bundle]
    for name, value in before.items():
        assert torch.equal(after[name], value) != name.startswith(part), name
    first, last = (bundle.network(**bundle.tiny).eval() for _ in range(2))
    first.load_state_dict(before)
    last.load_state_dict(after)
    image = torch.rand(2, 4, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for overlay in (1, 2, 3):
            pair = image[:, [0, overlay]]
            assert torch.equal(first(pair), last(pair)), "to the bit"
        assert not torch.equal(first(image), last(image))


@BOTH
def test_images_that_a_training_has_no_use_for_are_refused(bundle, chosen, tmp_path, dataset_dir, texts):
    own = {"dataset_dir": str(dataset_dir)} | ({"texts": str(texts)} if bundle is SMFUSION else {})
    with pytest.raises((RuntimeError, SystemExit)) as end:
        train(bundle, stack(SOURCES), {**chosen(bundle, SOURCES, tmp_path), **own})
    assert f"{' and '.join(own)}: this training learns from simulated images alone" in causes(end.value)
    assert not (tmp_path / "weights.pt").exists()


def test_several_sources_are_learnt(chosen, tmp_path):
    """The shipped network, had it not learnt them yet; on sets that it does not train on."""
    start = torch.load(SMFUSION.root / "models" / "model.pt", weights_only=True)
    forgotten = {name: value * ("attention" not in name) for name, value in start.items()}
    torch.save(forgotten, tmp_path / "start.pt")
    arguments = chosen(SMFUSION, SOURCES, tmp_path, str(tmp_path / "start.pt"))
    del arguments["network_def"]
    train(SMFUSION, stack(SOURCES), {**arguments, "max_epochs": 1, "epoch_iterations": 30})
    sets = SimulatedSources(9, 8, 48, transform=RandInsertLesionsd("image"))
    torch.manual_seed(0)
    image, target = SourcesBatch()(next(iter(DataLoader(sets, batch_size=8))))
    parser = ConfigParser()
    parser.read_config([str(SMFUSION.configs / name) for name in stack(SOURCES)])
    network, loss, losses = TextGuidedUNet().eval(), parser.get_parsed_content("loss"), []
    for path in (tmp_path / "start.pt", tmp_path / "weights.pt", SMFUSION.root / "models" / "model.pt"):
        network.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            losses.append(loss(network(image), target).item())
    print(losses)
    untaught, taught, shipped = losses
    assert shipped < taught < untaught - 0.05


def test_the_published_configuration_takes_the_published_network_and_loss(chosen, tmp_path):
    configs = ["train.json", "published.json"]
    parser = ConfigParser()
    parser.read_config([str(DMFNET.configs / name) for name in configs])
    assert parser["network_def"] == {"_target_": "fusion_nets.networks.DMFNet"}
    train(DMFNET, configs, chosen(DMFNET, "train.json", tmp_path))
    assert (tmp_path / "weights.pt").is_file()


@pytest.mark.parametrize(
    ("bundle", "config"),
    [*STAGES.args[1], (SMFUSION, "train_grounding.json"), (DMFNET, SOURCES), (SMFUSION, SOURCES)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_broken_off_and_started_again_equals_a_run_in_one_go(bundle, config, chosen, tmp_path):
    whole, broken = (chosen(bundle, config, tmp_path / name) for name in ("whole", "broken"))
    train(bundle, stack(config), whole)
    stop = {"+train#handlers": [{"_target_": f"{__name__}.StopAt", "iteration": 3}]}
    with pytest.raises(RuntimeError) as end:
        train(bundle, stack(config), {**broken, **stop})
    assert "the power is gone" in causes(end.value)
    train(bundle, stack(config), broken)
    for file in ("weights.pt", "last.pt"):
        one, other = (torch.load(tmp_path / name / file, weights_only=True) for name in ("whole", "broken"))
        if file == "last.pt":
            assert other["trainer"]["iteration"] == 4
            one, other = one["network"], other["network"]
        for name, value in one.items():
            assert torch.equal(other[name], value), name


@BOTH
def test_killed_at_any_moment_and_started_again(bundle, chosen, tmp_path):
    long = {**chosen(bundle, "train.json", tmp_path), "max_epochs": 300}
    words = command(bundle, ["train.json"], long, sys.executable)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "last.pt").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
    done = torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] // 2
    assert done >= 1
    again = subprocess.run(
        command(bundle, ["train.json"], {**long, "max_epochs": done + 1}, sys.executable),
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert f"epoch {done} of {done + 1} is done" in again.stderr
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] == 2 * (done + 1)


AT_THE_END = {
    "outcome": {
        "network": "$@network_def.state_dict()",
        "metrics": "$@validate#evaluator.state.metrics",
        "loss": "$@train#trainer.state.output['loss'].item()",
    },
    "+run": ["$torch.save(@outcome, @output_dir + f'/rank{torch.distributed.get_rank()}.pt')"],
}
"""On top of multi_gpu_train.json: every process tells what it has come to."""


@pytest.mark.parametrize(
    ("bundle", "config"),
    [*STAGES.args[1], (SMFUSION, "train_grounding.json"), (DMFNET, SOURCES), (SMFUSION, SOURCES)],
)
def test_two_processes(bundle, config, chosen, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    (tmp_path / "end.json").write_text(json.dumps(AT_THE_END))
    configs = [*stack(config), "multi_gpu_train.json", tmp_path / "end.json"]
    words = command(bundle, configs, chosen(bundle, config, tmp_path), *torchrun)
    process = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr[-8000:]
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert saved["trainer"]["iteration"] == 4
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in first["network"].items():
        assert torch.equal(second["network"][name], value), name
        assert torch.equal(saved["network"][name], value), name
    assert first["metrics"] == second["metrics"]
    assert first["loss"] != second["loss"], "each has pairs of its own"
    # each validation that was better than those before it is saved once, not by both
    told = re.findall(rf"Best \w+ so far, \S+: saved {re.escape(str(tmp_path / 'weights.pt'))}", process.stderr)
    assert 1 <= len(told) <= 2
    assert len(set(told)) == len(told)


CROPS = {
    (DMFNET, "train_diffusion.json"): (32, 40, "multiples of 16.*, from 32"),
    (DMFNET, "train.json"): (41, 40, "whole numbers from 41"),
    (SMFUSION, "train.json"): (41, 40, "whole numbers from 41"),
    (SMFUSION, "train_critic.json"): (32, 31, "whole numbers from 32"),
    (SMFUSION, "train_grounding.json"): (32, 31, "whole numbers from 32"),
}
"""The smallest crop that a training can do with, one that it cannot, and what it says of that."""


def test_every_training_with_crops_says_which_it_takes():
    told = {(bundle, path.name) for bundle in FIRST for path in bundle.configs.glob("train*.json")
            if "crop_size" in json.loads(path.read_text())}  # fmt: skip
    assert told == CROPS.keys()
    assert FUSION_METRICS["VIF"].smallest == 41, "the largest of the windows in the loss"


@pytest.mark.parametrize(("bundle", "config"), CROPS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_crop_that_cannot_be_trained_on(bundle, config, chosen, tmp_path):
    least, less, accepted = CROPS[bundle, config]
    short = {**chosen(bundle, config, tmp_path), "max_epochs": 1, "epoch_iterations": 1}
    for refused in (less, 0, -64, least + 0.5, "large", True):
        with pytest.raises(SystemExit, match=rf"^crop_size is {re.escape(repr(refused))}; accepted are {accepted}$"):
            train(bundle, [config], {**short, "crop_size": refused})
    assert not (tmp_path / "last.pt").exists()
    train(bundle, [config], {**short, "crop_size": least})
    assert (tmp_path / "weights.pt").is_file()


def test_a_pretrained_critic(chosen, clip, tmp_path):
    arguments = chosen(SMFUSION, "train.json", tmp_path)
    del arguments["critic"], arguments["critic_weights"]
    arguments |= {"critic_model": clip, "max_epochs": 1, "epoch_iterations": 1}
    train(SMFUSION, ["train.json", "pretrained_critic.json"], arguments)
    assert (tmp_path / "weights.pt").is_file()
    encoders = [folder for folder in (tmp_path / "texts").iterdir() if folder.is_dir()]
    assert len(encoders) == 1, "the critic's; the network's texts are read without a model"
    with pytest.raises(RuntimeError) as end:
        train(SMFUSION, ["train.json", "pretrained_critic.json"], {**arguments, "critic_model": None})
    assert "name a model of CLIP type" in causes(end.value)


@pytest.mark.parametrize(
    ("bundle", "config", "missing", "reason"),
    [
        (DMFNET, "train.json", {"unet_weights": "none.pt"}, "none.pt: no such weights; configs/train_diffusion.json"),
        (SMFUSION, "train.json", {"critic_weights": "none.pt"}, "none.pt: no such weights; configs/train_critic.json"),
        (
            SMFUSION,
            "train.json",
            {"grounding_weights": "none.pt"},
            "none.pt: no such weights; configs/train_grounding.json",
        ),
        (
            SMFUSION,
            "train.json",
            {"texts": "none.json"},
            "none.json: no such datalist of texts; `fusion-nets describe`",
        ),
        (SMFUSION, "train_critic.json", {"texts": ""}, "texts are needed: a datalist with descriptions"),
        (SMFUSION, "train_critic.json", {"dataset_dir": "none"}, "none/splits.json: no such file"),
    ],
)
def test_what_training_misses_is_named(chosen, tmp_path, bundle, config, missing, reason):
    with pytest.raises(RuntimeError) as end:
        train(bundle, [config], {**chosen(bundle, config, tmp_path), **missing})
    assert reason in causes(end.value)
    assert not (tmp_path / "weights.pt").exists()
