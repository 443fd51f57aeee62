import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.data import MetaTensor
from safetensors.torch import load_file

from fusion_nets.datalists import load_pairs
from fusion_nets.text import GeneratedText

from .conftest import SMFUSION, causes

pytestmark = pytest.mark.slow

SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "resnet_type": "resnet14",
    "image_size": 32,
    "image_bucket_size": 2,
    "max_position_embeddings": 1024,
}
STOPS = "tests.bundles.test_training.StopAt"


@pytest.fixture
def chosen(dataset_dir, texts):
    """Arguments of a short run with a tiny network."""

    def arguments(output_dir, **others):
        return {
            "bundle_root": str(SMFUSION.root),
            "dataset_dir": str(dataset_dir),
            "texts": str(texts),
            "output_dir": str(output_dir),
            "logging_file": str(SMFUSION.configs / "logging.conf"),
            "sizes": SIZES,
            "generation": {"max_new_tokens": 8, "num_beams": 1},
            "max_epochs": 2,
            "epoch_iterations": 2,
            "batch_size": 2,
            "val_interval": 1,
            "workers": 0,
            **others,
        }

    return arguments


def train(arguments, *overlays):
    run(config_file=[str(SMFUSION.configs / name) for name in ("train_describer.json", *overlays)], **arguments)


def weights(folder):
    return load_file(folder / "describer" / "model.safetensors")


def test_the_folder_is_taken_by_the_generated_describer_and_by_training(chosen, tmp_path, dataset_dir):
    train(chosen(tmp_path / "one"))
    folder = tmp_path / "one" / "describer"
    names = {"model.safetensors", "config.json", "generation_config.json", "vocab.json", "merges.txt"}
    assert names <= {file.name for file in folder.iterdir()}
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]
    assert list((tmp_path / "one").glob("events.out.tfevents.*"))
    describer = GeneratedText(folder)
    assert describer.generation["max_new_tokens"] == 8
    image = MetaTensor(torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)))
    assert describer([image]) == describer([image])

    # what was learned is where the next one starts
    more = chosen(tmp_path / "two", checkpoint=str(folder), learning_rate=0.0, weight_decay=0.0)
    train({**more, "max_epochs": 1, "sizes": {"d_model": 8}})
    for name, value in weights(tmp_path / "one").items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(weights(tmp_path / "two")[name], value), name


def test_one_s_own_datalists_without_a_teacher(chosen, tmp_path, texts):
    pairs = load_pairs(texts)
    for name, some in (("train", pairs[1:4]), ("val", pairs[4:5])):
        (tmp_path / f"{name}.json").write_text(json.dumps(some))
    lists = {"datalist": str(tmp_path / "train.json"), "val_datalist": str(tmp_path / "val.json")}
    train(chosen(tmp_path, **lists, dataset_dir=None, texts=None, teacher=None, max_epochs=1))
    vocabulary = json.loads((tmp_path / "describer" / "vocab.json").read_text(encoding="utf-8"))
    assert list(vocabulary)[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert list(vocabulary)[-1] == "<mask>"


def test_on_simulation_alone(chosen, tmp_path):
    images = {"dataset_dir": None, "texts": None, "val_pairs": 3}
    train(chosen(tmp_path, **images, **{"describer#texts#simulated#length": 4}))
    words = "".join(json.loads((tmp_path / "describer" / "vocab.json").read_text(encoding="utf-8")))
    assert "across" in words
    assert "extent" not in words  # as measured texts have it
    image = MetaTensor(torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)))
    assert isinstance(GeneratedText(tmp_path / "describer")([image])[0], str)


def test_broken_off_and_started_again_equals_a_run_in_one_go(chosen, tmp_path):
    whole, broken = chosen(tmp_path / "whole"), chosen(tmp_path / "broken")
    train(whole)
    with pytest.raises(RuntimeError) as end:
        train({**broken, "+train#handlers": [{"_target_": STOPS, "iteration": 3}]})
    assert "the power is gone" in causes(end.value)
    train(broken)
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken"))
    assert other["trainer"]["iteration"] == 4
    for name, value in one["network"].items():
        assert torch.equal(other["network"][name], value), name
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "broken")[name], value), name


def test_two_processes(chosen, tmp_path):
    files = str([str(SMFUSION.configs / name) for name in ("train_describer.json", "multi_gpu_train.json")])
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += ["-m", "monai.bundle", "run", "--config_file", files]
    for name, value in chosen(tmp_path).items():
        words += [f"--{name}", str(value)]
    process = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr[-8000:]
    assert torch.load(tmp_path / "last.pt", weights_only=True)["trainer"]["iteration"] == 4
    assert np.all([torch.isfinite(value.float()).all() for value in weights(tmp_path).values()])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"texts": "none.json"}, "none.json: no such datalist of texts; `fusion-nets describe` writes one"),
        ({"texts": ""}, "texts are needed: a datalist with descriptions"),
        ({"dataset_dir": None}, "texts are given without the folder of the images"),
        (
            {"dataset_dir": None, "texts": None, "val_datalist": [{"anatomy": "a.png", "overlay": "b.png"}]},
            'a list is given of "val" and none of "train"',
        ),
        ({"datalist": [{"anatomy": "a.png", "overlay": "b.png"}]}, "no image has a text; `fusion-nets describe`"),
        (
            {"datalist": [{"anatomy": "a.nii", "overlay": "b.nii", "anatomy_text": ["a", "b"]}]},
            "a: anatomy_text is a list of texts; one text is accepted here",
        ),
        ({"checkpoint": "none"}, "none: no checkpoint folder"),
    ],
)
def test_what_training_misses_is_named(chosen, tmp_path, wrong, reason):
    with pytest.raises(RuntimeError) as end:
        train(chosen(tmp_path, **wrong))
    assert reason in causes(end.value)
    assert not (tmp_path / "describer").exists()
