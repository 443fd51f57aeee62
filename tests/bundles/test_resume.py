"""What an option changes in a result, it changes in what the result is known by; and nothing else does.

Every option of the inference configurations stands in one of the two lists. A new one fails the test until somebody
has decided whether a case that was done without it is still done.
"""

import inspect
import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from bids_sets import dataset
from ignite.engine import Engine
from monai.bundle import ConfigParser
from PIL import Image

from fusion_nets.networks import DMFNet, TextGuidedUNet
from fusion_nets.networks.text_grounding import TextGrounding
from fusion_nets.workflows import SlicewiseInferer
from fusion_nets.workflows.user_values import set_values

from .conftest import DMFNET, EVERY, SMFUSION, TINY_GROUNDING, blobs

pytestmark = pytest.mark.slow

EVALUATE, LESIONS = "evaluate.json", "lesions.json"
CONFIGS = {
    DMFNET: [["inference.json"], ["inference.json", EVALUATE], ["inference.json", LESIONS]],
    SMFUSION: [["inference.json"], ["inference.json", EVALUATE], ["inference.json", LESIONS]],
}

WITHOUT_EFFECT = {
    # where and how
    "bundle_root": "elsewhere",
    "device": "cpu:0",
    "output_dir": "elsewhere",
    "text_cache": "elsewhere",
    "progress": True,
    "resume": False,
    "slices_at_once": 4,
    # which cases, not what comes of one
    "datalist": "pairs.json",
    "participant_label": "01",
    "session_label": ["1"],
    "anatomy_suffix": "T1w",
    "overlay_suffix": "pet",
    "dataset_dir": "./set",
    "section": "val",
    # told when all is done
    "key_metric": {},
    "additional_metrics": {},
}

WITH_EFFECT = {
    "anatomy": "other.png",
    "anatomy_modality": "CT",
    "anatomy_series_uid": "1.2",
    "anatomy_text": "Bright region, left.",
    "anatomy_volume": "2",
    "anatomy_window": [0, 100],
    "amp": True,
    "bids_dir": "bids",  # whose results have other names
    "deidentify": True,
    "describe": True,
    "describe_per": "slice",
    "engine": "onnxruntime",
    "keep_anatomy": 0.3,
    "keep_bone": 0.5,
    "least_overlap": 0.5,
    "lesions_in_a_pair": 4,
    "makes": ["faint"],
    "output_format": ["nrrd"],
    "overlay": "other.png",
    "overlay_modality": "PT",
    "overlay_palette": "none",
    "overlay_series_uid": "1.2",
    "overlay_text": "Dark region, right.",
    "overlay_volume": "2",
    "overlay_window": "bone",
    "precision": "bfloat16",
    "regions": "other.png",
    "register": "rigid",
    "register_fallback": True,
    "register_limits": 2.0,
    "save": "overlay",
    "seed": 1,
    "smallest": 40,
    "text_encoder_model": "some/model",
    "text_encoder_revision": "0" * 40,
    "texts": "texts.json",
    "transform": [[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    "weights": "other.pt",
}

FIRST = {
    **{f"{name}_label": {"bids_dir": "bids"} for name in ("participant", "session")},
    **{f"{name}_suffix": {"bids_dir": "bids"} for name in ("anatomy", "overlay")},
    "describe_per": {"describe": True},
    "text_encoder_revision": {"text_encoder_model": "some/model"},
    **{key: {"anatomy": None, "overlay": None, "dataset_dir": "set"} for key in ("dataset_dir", "section", "texts")},
}
"""Without which an option says nothing."""

_ENCODER = {"text_encoder_model", "text_encoder_revision"}
UNUSED = {"inference.json": _ENCODER, EVALUATE: set(), LESIONS: {"deidentify", *_ENCODER}}
"""What a configuration does not look at."""

NETWORKS = {
    DMFNET: (DMFNet, {"width": 8, "multipliers": (1, 1), "norm_groups": 4, "steps": [10], "detail_width": 8}),
    SMFUSION: (TextGuidedUNet, {"width": 8, "levels": 2, "grounding": TINY_GROUNDING}),
}
ARGUMENTS = {
    DMFNET: {
        "width": 12,
        "multipliers": (1, 2),
        "blocks": 1,
        "norm_groups": 2,
        "dropout": 0.1,
        "steps": [20],
        "schedule_steps": 1000,
        "beta_start": 2e-6,
        "beta_end": 2e-2,
        "head_width": 8,
        "residual": True,
        "detail_width": 4,
        "feature_reduction": 4,
        "seed": 1,
        "noise_pixels": 4096,
    },
    SMFUSION: {"width": 12, "levels": 3, "emphasis": 0.25, "grounding": {**TINY_GROUNDING, "threshold": 0.5}},
}
GROUNDING = {"text_width": 31, "widths": [8, 8], "said_width": 9, "threshold": 0.5}
INFERER = {"sw_batch_size": 2, "amp": True, "slice_arguments": ["text"], "progress": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures of a pair and others, weights and others, a datalist and texts."""
    rng = np.random.default_rng(0)
    for name in ("anatomy", "overlay", "other"):
        Image.fromarray(blobs(rng, 48, 48)).save(tmp_path / f"{name}.png")
    pair = {"anatomy": "anatomy.png", "overlay": "overlay.png", "name": "anatomy"}
    (tmp_path / "pairs.json").write_text(json.dumps([pair]))
    for key in ("MRI", "PET"):
        (tmp_path / "set" / "PET-MRI" / key).mkdir(parents=True)
        Image.fromarray(blobs(rng, 48, 48)).save(tmp_path / "set" / "PET-MRI" / key / "1.png")
    (tmp_path / "set" / "splits.json").write_text(json.dumps({"PET-MRI": {"test": ["1.png"], "val": ["1.png"]}}))
    (tmp_path / "texts.json").write_text(json.dumps([{**pair, "name": "PET-MRI_1", "anatomy_text": "Bright region."}]))
    dataset(tmp_path / "bids", "sub-01_ses-1_T1w", "sub-01_ses-1_pet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(bundle, name, seed):
    torch.manual_seed(seed)
    network, arguments = NETWORKS[bundle]
    torch.save(network(**arguments).state_dict(), name)
    return name


def read(bundle, configs, overrides=None):
    parser = ConfigParser()
    parser.read_config([str(bundle.configs / name) for name in configs])
    network, arguments = NETWORKS[bundle]
    parser["network_def"] = {"_target_": f"fusion_nets.networks.{network.__name__}", **deepcopy(arguments)}
    parser["device"] = "$torch.device('cpu')"
    for name, value in (overrides or {}).items():
        parser[name] = value
    return parser


def made_by(parser, options=None, loads=True):
    """What the case is known by when a run of the configuration begins."""
    options = dict(options or {})
    pair = {} if {"datalist", "bids_dir"} & set(options) else {"anatomy": "anatomy.png", "overlay": "overlay.png"}
    set_values(parser, {"weights": "weights.pt", **pair, **options})
    torch.manual_seed(0)
    loader = parser.get_parsed_content("handlers#0")
    records = parser.get_parsed_content("records")
    if loads:
        loader(Engine(lambda engine, batch: None))
    (name,) = records.pairs
    return records._made_by(name)


def options_of(bundle, configs):
    """What can be set from the command line: values, and what is computed of such."""
    parser = ConfigParser()
    parser.read_config([str(bundle.configs / name) for name in configs])
    known = parser.get()
    return {name for name, value in known.items() if not isinstance(value, dict) and name not in STRUCTURE}


STRUCTURE = {"imports", "initialize", "network", "settings", "handlers", "overlays", "sources", "run"}
"""Of a configuration, which no option is."""


@EVERY
@pytest.mark.parametrize("number", range(3), ids=["inference", "evaluate", "lesions"])
def test_every_option(bundle, number, folder):
    configs = CONFIGS[bundle][number]
    weights(bundle, "weights.pt", 0)
    weights(bundle, "other.pt", 1)
    found = options_of(bundle, configs)
    undecided = found - {*WITHOUT_EFFECT, *WITH_EFFECT}
    assert not undecided, f"does a case stay done when {undecided} change?"
    for name in sorted(found):
        first = FIRST.get(name, {})
        loads = name != "device"  # nothing can be loaded onto this one
        before = made_by(read(bundle, configs), first, loads)
        changed = {**WITHOUT_EFFECT, **WITH_EFFECT}[name]
        after = made_by(read(bundle, configs), {**first, name: changed}, loads)
        assert (after != before) == (name in {*WITH_EFFECT} - UNUSED[configs[-1]]), name


@EVERY
def test_every_argument_of_the_network(bundle, folder):
    weights(bundle, "weights.pt", 0)
    network, _ = NETWORKS[bundle]
    assert set(ARGUMENTS[bundle]) == set(inspect.signature(network).parameters)
    nested = (
        [{"network_def#grounding#" + name: value} for name, value in GROUNDING.items()] if bundle is SMFUSION else []
    )
    assert set(GROUNDING) == set(inspect.signature(TextGrounding).parameters)
    for change in [{f"network_def#{name}": value} for name, value in ARGUMENTS[bundle].items()] + nested:
        plain = {"network_def#detail_width": 0, "network_def#feature_reduction": 1}
        first = plain if "head_width" in str(change) else {}
        before = made_by(read(bundle, ["inference.json"], first), loads=False)
        assert made_by(read(bundle, ["inference.json"], {**first, **change}), loads=False) != before, change
    assert made_by(read(bundle, ["inference.json"]), loads=False) == made_by(
        read(bundle, ["inference.json"]), loads=False
    )


@EVERY
def test_every_argument_of_the_inferer(bundle, folder):
    weights(bundle, "weights.pt", 0)
    assert set(INFERER) == set(inspect.signature(SlicewiseInferer).parameters)
    before = made_by(read(bundle, ["inference.json"]))
    for name, value in INFERER.items():
        after = made_by(read(bundle, ["inference.json"], {f"inferer#{name}": value}))
        assert (after != before) == (name not in ("sw_batch_size", "progress")), name


def leaves(config, path):
    """What stands in a part of a configuration, and where, without what is said elsewhere."""
    if isinstance(config, dict):
        inside = {key: value for key, value in config.items() if key not in ("_target_", "_disabled_")}.items()
    elif isinstance(config, list):
        inside = enumerate(config)
    elif isinstance(config, str) and config.startswith(("@", "$")):
        return
    else:
        yield path, config
        return
    for key, value in inside:
        yield from leaves(value, f"{path}#{key}")


OTHERWISE = {"NibabelReader": "ITKReader"}


@EVERY
def test_every_word_of_the_transforms_and_metrics(bundle, folder):
    weights(bundle, "weights.pt", 0)
    configs, options = ["inference.json", EVALUATE], {"keep_bone": 0.5, "keep_anatomy": 0.3}
    options |= {"describe": True} if bundle is SMFUSION else {}
    before, parser = made_by(read(bundle, configs), options), read(bundle, configs)
    found = [
        leaf
        for part in ("preprocessing", "postprocessing", "metrics", "made_by")
        for leaf in leaves(parser[part], part)
    ]
    assert len(found) > 20
    for path, value in found:
        other = (not value) if isinstance(value, bool) else OTHERWISE.get(value, f"{value}_")
        assert made_by(read(bundle, configs, {path: other}), options) != before, path


@EVERY
def test_a_transform_left_out_or_put_in(bundle, folder):
    weights(bundle, "weights.pt", 0)
    before = made_by(read(bundle, ["inference.json"]))
    for path in ("preprocessing#transforms#1", "postprocessing#transforms#2#transforms#1"):
        assert made_by(read(bundle, ["inference.json"], {f"{path}#_disabled_": True})) != before, path
    factors = [f"$lambda image: image * {factor}" for factor in (1, 1, 2)]
    steps = [[{"_target_": "Lambdad", "keys": "pred", "func": factor}] for factor in factors]
    one, same, other = (
        made_by(read(bundle, ["inference.json"], {"postprocessing#transforms": step})) for step in steps
    )
    assert one == same != other
