import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfile
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import download, run
from PIL import Image

from fusion_nets.networks import DiffusionUNet, DMFNet, ImageTextCritic, TextGuidedUNet

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TEXT_WIDTH = 16
TINY = {"width": 8, "norm_groups": 4}
TINY_DMFNET = {**TINY, "steps": [10], "detail_width": 8, "feature_reduction": 2}
TINY_GROUNDING = {"widths": [8, 16], "said_width": 8, "threshold": 0.0}
TINY_SMFUSION = {"width": 8, "levels": 2, "grounding": TINY_GROUNDING}
TINY_CRITIC = {"text_width": TEXT_WIDTH, "feature_width": 8, "widths": [8, 8]}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle, with a tiny network in place of its own."""

    name: str
    network: Callable[..., torch.nn.Module]
    tiny: dict[str, Any]

    @property
    def root(self) -> Path:
        return BUNDLES / self.name

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def network_def(self) -> dict[str, Any]:
        return {"_target_": f"fusion_nets.networks.{self.network.__name__}", **self.tiny}

    def fuse(self, weights, output_dir, configs=("inference.json",), **arguments):
        return run(
            config_file=[str(self.configs / name) for name in configs],
            bundle_root=str(self.root),
            weights=weights[self.name],
            output_dir=str(output_dir),
            **{"network_def": self.network_def, "logging_file": False, **arguments},
        )

    def loaded(self, weights) -> torch.nn.Module:
        network = self.network(**self.tiny).eval()
        network.load_state_dict(torch.load(weights[self.name], weights_only=True))
        return network

    def expected(self, weights, anatomy, overlay, *text) -> torch.Tensor:
        with torch.no_grad():
            return self.loaded(weights)(torch.stack([anatomy, overlay])[None], *text)[0, 0]


DMFNET = Bundle("dmfnet", DMFNet, TINY_DMFNET)
SMFUSION = Bundle("smfusion", TextGuidedUNet, TINY_SMFUSION)
EVERY = pytest.mark.parametrize("bundle", [DMFNET, SMFUSION], ids=lambda bundle: bundle.name)


def causes(error: BaseException | None) -> str:
    """What an error and those behind it say."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def blobs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A smooth 8-bit image of a bright shape on black."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.6
    waves = sum(np.sin((3 + 4 * rng.random()) * axis + 6 * rng.random()) for axis in axes)
    image = inside * (130 + 60 * waves)
    if len(shape) == 3:
        image = image[..., None] * rng.random(shape[2])
    return image.clip(0, 255).astype(np.uint8)


def picture(path: str | Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))) / 255


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up AANLIB folder of a few small pairs."""
    root = tmp_path_factory.mktemp("aanlib")
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(4)]
    splits = {}
    for pair in ("CT-MRI", "PET-MRI", "SPECT-MRI"):
        overlay = pair.split("-")[0]
        for modality in ("MRI", overlay):
            folder = root / pair / modality
            folder.mkdir(parents=True)
            for name in names:
                shape = (64, 64) if modality in ("MRI", "CT") else (64, 64, 3)
                Image.fromarray(blobs(rng, *shape)).save(folder / name)
        splits[pair] = {"train": names[:2], "val": names[2:3], "test": names[3:]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


def release(what: str, output_dir: Path, commit: str, repository: Path = BUNDLES.parent, **how) -> None:
    """What `make bundles` or `make wheel` makes of a commit."""
    command = [sys.executable, str(repository / ".ci" / "release.py"), what, "--commit", commit]
    subprocess.run([*command, "--output_dir", str(output_dir)], check=True, **how)


@pytest.fixture(scope="session")
def commit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A commit of the tracked files as they are now, on no branch; git's own index stays as it is."""
    if not (BUNDLES.parent / ".git").exists():
        pytest.skip("needs a clone of the repository: git clone")
    index = tmp_path_factory.mktemp("index") / "index"
    copyfile(BUNDLES.parent / git("rev-parse", "--git-path", "index"), index)
    git("add", "--update", GIT_INDEX_FILE=str(index))
    someone = {"NAME": "test", "EMAIL": "test@localhost"}
    identity = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in someone.items()}
    return git("commit-tree", git("write-tree", GIT_INDEX_FILE=str(index)), "-m", "working tree", **identity)


@pytest.fixture(scope="session")
def handed_out(commit: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both bundles as zip files, and the wheel."""
    folder = tmp_path_factory.mktemp("handed_out")
    for what in ("bundles", "wheel"):
        release(what, folder, commit)
    return folder


def git(*arguments: str, **variables: str) -> str:
    """What git says of this repository."""
    command = ["git", "-C", str(BUNDLES.parent), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="session")
def unpacked(handed_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both bundles, as MONAI downloads them from a server."""
    folder = tmp_path_factory.mktemp("unpacked")
    with served(handed_out) as address:
        for path in sorted(handed_out.glob("*.zip")):
            name = path.name.split("_v")[0]
            download(name=name, url=f"{address}/{path.name}", bundle_dir=str(folder), progress=False)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server that hands out the files of a folder, on this machine alone."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def texts(dataset_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist with a text on every image of the made-up folder but one."""
    path = tmp_path_factory.mktemp("texts") / "texts.json"
    pairs = []
    for kind in ("CT-MRI", "PET-MRI", "SPECT-MRI"):
        overlay = kind.split("-")[0]
        for number in range(4):
            files = {"anatomy": f"{kind}/MRI/{number}.png", "overlay": f"{kind}/{overlay}/{number}.png"}
            text = {
                "anatomy_text": f"MRI {number}. Bright region, left.",
                "overlay_text": f"{overlay} {number}. Dark region, right.",
            }
            pairs.append(
                {**{key: str(dataset_dir / file) for key, file in files.items()}, "name": f"{kind}_{number}", **text}
            )
    del pairs[0]["overlay_text"]
    path.write_text(json.dumps({"pairs": pairs}))
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of tiny networks, random but for heads that are almost silent."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    dmfnet, smfusion = DMFNet(**TINY_DMFNET), TextGuidedUNet(**TINY_SMFUSION)
    stir(dmfnet)
    stir(smfusion)
    networks = {
        "unet": DiffusionUNet(**TINY),
        "dmfnet": dmfnet,
        "critic": ImageTextCritic(**TINY_CRITIC),
        "grounding": smfusion.grounding,
        "smfusion": smfusion,
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    return {name: str(folder / f"{name}.pt") for name in networks}


def stir(network: torch.nn.Module) -> None:
    """Random values where a network begins with zeros, so that image, features and text all show in the result."""
    for name, value in network.named_parameters():
        if name.endswith("head.bias"):
            torch.nn.init.zeros_(value)
        elif "head." in name or "guides." in name:
            torch.nn.init.normal_(value, std=0.05)


def vocabulary(folder: Path):
    """A tokenizer that knows letters and digits."""
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","]
    words += [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for mark in ("", "##")]
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64), len(words)


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny text encoder."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer, size = vocabulary(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=size, hidden_size=TEXT_WIDTH, **shape)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny CLIP."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    tokenizer, size = vocabulary(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**shape, "vocab_size": size, "max_position_embeddings": 64, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**shape, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)).save_pretrained(folder)
    return str(folder)
