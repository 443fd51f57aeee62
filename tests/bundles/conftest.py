import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fusion_nets.networks import DiffusionUNet, DMFNet

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TINY = {"width": 8, "norm_groups": 4}
TINY_DMFNET = {**TINY, "head_width": 4, "residual": True}


def blobs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A smooth 8-bit image of a bright shape on black."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.6
    waves = sum(np.sin((3 + 4 * rng.random()) * axis + 6 * rng.random()) for axis in axes)
    image = inside * (130 + 60 * waves)
    if len(shape) == 3:
        image = image[..., None] * rng.random(shape[2])
    return image.clip(0, 255).astype(np.uint8)


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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of tiny networks, random but for a head that is almost silent."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(DiffusionUNet(**TINY).state_dict(), folder / "unet.pt")
    network = DMFNet(**TINY_DMFNET)
    network.fusion.head[2].weight.data.mul_(0.01)
    torch.save(network.state_dict(), folder / "model.pt")
    return {"unet": str(folder / "unet.pt"), "model": str(folder / "model.pt")}
