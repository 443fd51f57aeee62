"""What the MONAI model zoo asks of a bundle, as far as it can be checked offline, asked of what is handed out.

After the model zoo's CONTRIBUTING.md and the checks of its continuous integration (Project-MONAI/model-zoo, ci/); more
of metadata and shapes in test_bundle, of TorchScript and ONNX in test_export, of TensorRT in test_trt: `make zoo` does
all.
"""

import json
import re
import shlex
import shutil
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from monai.apps.utils import SUPPORTED_HASH_TYPES
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    create_workflow,
    download_large_files,
    scripts,
    verify_metadata,
    verify_net_in_out,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

from tests.locked import pins

from .conftest import BUNDLES, DMFNET, EVERY, SMFUSION, TINY_CRITIC, blobs
from .test_bundle import SCHEMA

ASKED_FOR = ["LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt"]
CUSTOMARY = ["configs/train.json", "configs/logging.conf", "docs/README.md", "docs/data_license.txt", "large_files.yml"]
CUSTOMARY += [f"configs/{name}.json" for name in ("evaluate", "inference_trt", "multi_gpu_train", "multi_gpu_evaluate")]
LARGEST = 25e6
"""Bytes of a file that the zoo takes into git."""

SECTIONS = ["Model Overview", "Data", "Training configuration", "Input and output", "Performance"]
SECTIONS += ["MONAI Bundle Commands", "Intended use and limits", "References", "License"]
INFERENCE_KEYS = ["bundle_root", "device", "network_def", "inferer", "output_dir"]
TRAINING_KEYS = ["bundle_root", "device", "dataset_dir", "output_dir", "val_interval"]
TRAINING_KEYS += [f"train#{key}" for key in ("trainer", "trainer#max_epochs", "dataset", "dataset#data", "handlers")]
TRAINING_KEYS += ["train#preprocessing", "train#inferer"]
TRAINING_KEYS += [f"validate#{key}" for key in ("evaluator", "handlers", "dataset", "dataset#data")]
TRAINING_KEYS += [f"validate#{key}" for key in ("preprocessing", "inferer", "key_metric")]
TRAININGS = [(DMFNET, "train_diffusion.json"), (DMFNET, "train.json")]
TRAININGS += [(SMFUSION, "train_critic.json"), (SMFUSION, "train.json"), (SMFUSION, "train_describer.json")]


def metadata_of(root):
    return json.loads((root / "configs" / "metadata.json").read_text())


def misplaced(root):
    """Large files that large_files.yml does not name, and entries of it that nobody could fetch and check."""
    listed = {
        entry.get("path"): entry for entry in yaml.safe_load((root / "large_files.yml").read_text())["large_files"]
    }
    files = [path for path in root.rglob("*") if path.is_file()]
    wrong = [
        name
        for path in files
        if path.stat().st_size > LARGEST and (name := path.relative_to(root).as_posix()) not in listed
    ]
    for path, entry in listed.items():
        known = set(entry) <= {"path", "url", "hash_val", "hash_type"}
        fetched = str(entry.get("url")).startswith("https://")
        checked = entry.get("hash_val") and entry.get("hash_type") in SUPPORTED_HASH_TYPES
        if not (known and fetched and checked) or Path(path).is_absolute() or ".." in Path(path).parts:
            wrong.append(path)
    return wrong


@EVERY
def test_layout(bundle, unpacked):
    root = unpacked / bundle.name
    for name in ASKED_FOR + CUSTOMARY:
        assert (root / name).is_file(), name
    assert (root / "LICENSE").read_text() == (BUNDLES.parent / "LICENSE").read_text()
    assert not list(root.rglob("*.py"))
    assert re.fullmatch("[a-z][a-z0-9_]*", bundle.name)


@EVERY
def test_what_the_zoo_runs_on_a_processor(bundle, unpacked, tmp_path):
    """Its verify_bundle.py, step by step: metadata, properties, shapes, and the shipped weights as TorchScript."""
    root = unpacked / bundle.name
    meta, config = str(root / "configs" / "metadata.json"), str(root / "configs" / "inference.json")
    of_network = {"net_id": "network_def", "meta_file": meta, "config_file": config, "bundle_root": str(root)}
    assert metadata_of(root)["schema"].endswith("/meta_schema_20240725.json")
    verify_metadata(meta_file=meta, filepath=SCHEMA, create_dir=False)
    logging = str(root / "configs" / "logging.conf")
    assert create_workflow(config_file=config, workflow_type="inference", meta_file=meta, logging_file=logging)
    verify_net_in_out(**of_network, device="cpu")
    exported = tmp_path / "verify_model.ts"
    ckpt_export(**of_network, filepath=str(exported), ckpt_file=str(root / "models" / "model.pt"))
    with torch.no_grad():
        assert torch.jit.load(exported)(torch.rand(1, 2, 64, 64)).shape == (1, 1, 64, 64)


@EVERY
def test_names_are_for_readers_of_a_list(bundle):
    """Of many models, without their descriptions: what it does, and to what."""
    metadata = metadata_of(bundle.root)
    for part in ("MRI", "CT", "PET", "SPECT", "fused"):
        assert part in metadata["name"]
    assert metadata["name"] in (bundle.root / "README.md").read_text()


@EVERY
def test_several_gpus_evaluate_as_they_infer(bundle):
    configs = [bundle.configs / f"multi_gpu_{name}.json" for name in ("inference", "evaluate")]
    assert configs[0].read_text() == configs[1].read_text()


@EVERY
def test_the_card_that_the_hub_reads(bundle, unpacked, tmp_path):
    """README.md with front matter in the bundle's folder, as it lies there or as MONAI's push_to_hf_hub makes it."""
    root = unpacked / bundle.name
    card = ModelCard.load(root / "README.md")
    told = card.data.to_dict()
    assert (told["license"], told["library_name"], told["pipeline_tag"]) == ("apache-2.0", "monai", "image-to-image")
    assert {"monai", "medical", "image-fusion"} <= set(told["tags"])
    assert "not for diagnosis" in card.text
    for link in re.findall(r"\]\(([^)#]+)\)", card.text):
        assert (root / link).is_file(), link
    shutil.copy(root / "LICENSE", tmp_path)
    shutil.copy(root / "docs" / "README.md", tmp_path)
    scripts._add_model_card_metadata(str(tmp_path / "README.md"))
    pushed = ModelCard.load(tmp_path / "README.md")
    assert pushed.data.license == "apache-2.0"
    assert pushed.text.lstrip().startswith("# ")  # one front matter, not a second one as text


@EVERY
def test_no_large_file_but_those_that_large_files_yml_names(bundle, unpacked):
    root = unpacked / bundle.name
    assert misplaced(root) == []
    download_large_files(bundle_path=str(root))


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({}, True),
        ({"path": "models/other.pt"}, True),
        ({"url": ""}, True),
        ({"url": "models/big.pt"}, True),
        ({"hash_val": ""}, True),
        ({"hash_type": "crc"}, True),
        (None, True),
        ({"url": "https://example.org/big.pt"}, False),
    ],
)
def test_a_large_file_is_found(tmp_path, entry, wrong):
    (tmp_path / "models").mkdir()
    with open(tmp_path / "models" / "big.pt", "wb") as file:
        file.truncate(26_000_000)
    whole = {"path": "models/big.pt", "hash_val": "0" * 64, "hash_type": "sha256", **(entry or {})}
    (tmp_path / "large_files.yml").write_text(yaml.safe_dump({"large_files": [] if entry is None else [whole]}))
    assert bool(misplaced(tmp_path)) == wrong


@EVERY
def test_version_and_changelog(bundle, unpacked):
    metadata = metadata_of(unpacked / bundle.name)
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert metadata["version"] == max(metadata["changelog"], key=Version), "the changelog ends with this version"


@EVERY
def test_versions_are_those_that_the_wheel_accepts(bundle, unpacked, handed_out):
    metadata = metadata_of(unpacked / bundle.name)
    (wheel,) = distributions(path=[str(path) for path in handed_out.glob("*.whl")])
    accepted = {requirement.name: requirement.specifier for requirement in map(Requirement, wheel.requires)}
    named = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    named |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    assert named.pop("fusion-nets") == wheel.version
    for name, version in named.items():
        assert version in accepted[name], f"{name} {version} is not {accepted[name]}"
    locked = pins(BUNDLES.parent / "constraints.txt", "3.11")
    assert named == {name: locked[canonicalize_name(name)] for name in named}


@EVERY
def test_monai_reads_the_metadata_as_they_are_written(bundle, unpacked):
    """It gives old names their new ones, and what stood there is lost."""
    path = unpacked / bundle.name / "configs" / "metadata.json"
    parser = ConfigParser({})
    parser.read_meta(str(path))
    parser.parse()
    assert parser["_meta_"] == json.loads(path.read_text())


@EVERY
def test_keys_of_the_inference(bundle, unpacked):
    parser = ConfigParser(ConfigParser.load_config_file(unpacked / bundle.name / "configs" / "inference.json"))
    assert [key for key in INFERENCE_KEYS if key not in parser] == []


@pytest.mark.parametrize(("bundle", "name"), TRAININGS)
def test_keys_of_a_training(bundle, name, unpacked):
    parser = ConfigParser(ConfigParser.load_config_file(unpacked / bundle.name / "configs" / name))
    assert [key for key in TRAINING_KEYS if key not in parser] == []
    validation = [h for h in parser["train#handlers"] if h["_target_"] == "ValidationHandler"]
    assert [handler["interval"] for handler in validation] == ["@val_interval"]


@EVERY
def test_nothing_tells_whose_machine_it_was_made_on(bundle, unpacked):
    for path in (unpacked / bundle.name).rglob("*"):
        if path.suffix in (".json", ".yml", ".md", ".txt", ".conf"):
            assert not re.search(r"/(home|root|Users|work|mnt|tmp)/", path.read_text()), path.name


@EVERY
def test_properties_of_an_inference_workflow(bundle, unpacked, tmp_path):
    for key in ("anatomy", "overlay"):
        Image.fromarray(blobs(np.random.default_rng(0), 32, 32)).save(tmp_path / f"{key}.png")
    pair = {key: str(tmp_path / f"{key}.png") for key in ("anatomy", "overlay")}
    assert missing(unpacked / bundle.name, "inference", pair) == []


@EVERY
def test_properties_of_a_training_workflow(bundle, unpacked, dataset_dir, texts, text_encoder, tmp_path):
    arguments = {"dataset_dir": str(dataset_dir), "output_dir": str(tmp_path), "network_def": bundle.network_def}
    if bundle is SMFUSION:
        arguments |= {"texts": str(texts), "text_encoder_model": text_encoder}
        arguments |= {"critic": {"_target_": "fusion_nets.networks.ImageTextCritic", **TINY_CRITIC}}
    assert missing(unpacked / bundle.name, "train", arguments) == []


def missing(root, workflow_type, arguments):
    """What MONAI's workflows want of a bundle and do not find."""
    config = root / "configs" / f"{workflow_type}.json"
    workflow = ConfigWorkflow(
        str(config), workflow_type=workflow_type, logging_file=False, bundle_root=str(root), **arguments
    )
    workflow.initialize()
    return workflow.check_properties()


@EVERY
def test_the_metrics_of_the_metadata_are_the_cards(bundle):
    card = (bundle.root / "docs" / "README.md").read_text()
    head, _, row = re.search(r"(?m)^\| \| (.+) \|\n(.+)\n\| \*\*this bundle\*\* \| (.+) \|$", card).groups()
    told = dict(zip(head.split(" | "), map(float, row.split(" | ")), strict=True))
    metrics = metadata_of(bundle.root)["eval_metrics"]
    assert metrics == {name: told[name] for name in metrics}


@EVERY
def test_sections_of_the_model_card(bundle, unpacked):
    card = (unpacked / bundle.name / "docs" / "README.md").read_text()
    headings = re.findall("(?m)^## (.*)$", card)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS


@EVERY
def test_the_model_card_needs_nothing_but_the_bundle(bundle, unpacked, handed_out):
    """Links lead into the bundle or the web, commands name configurations of the bundle and entries of theirs."""
    root = unpacked / bundle.name
    card = (root / "docs" / "README.md").read_text()
    for pattern in (f"{bundle.name}_v*.zip", "*.whl"):
        (path,) = handed_out.glob(pattern)
        assert path.name in card
    for link in re.findall(r"\]\(([^)#]+)\)", card):
        assert link.startswith("https://") or (root / "docs" / link).is_file(), link
    for anchor in re.findall(r"\]\(#(.*?)\)", card):
        headings = re.findall("(?m)^#+ (.*)$", card)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
    commands = [line for line in card.replace("\\\n", " ").splitlines() if "-m monai.bundle run " in line]
    assert len(commands) >= 5
    for command in commands:
        assert "bundles/" not in command
        words = shlex.split(command, comments=True)
        given = dict(pairwise(words))
        files = re.findall(r"[\w/]+\.json", given["--config_file"])
        parser = ConfigParser()
        parser.read_config([str(root / name) for name in files])
        for option in (word[2:] for word in words if word.startswith("--")):
            assert option in parser or option in ("config_file", "nproc_per_node"), f"{option}: {command}"
