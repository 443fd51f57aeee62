"""Read the two weight files that the authors of DM-FNet released."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

__all__ = ["load_released"]

Network = TypeVar("Network", bound=nn.Module)

_RESIDUAL = {
    "norm1": "block1.block.0",
    "conv1": "block1.block.3",
    "noise": "noise_func.noise_func.0",
    "norm2": "block2.block.0",
    "conv2": "block2.block.3",
    "shortcut": "res_conv",
}


def load_released(network: Network, stage1: str | os.PathLike[str], stage2: str | os.PathLike[str]) -> Network:
    """Load the authors' weights into a network of the published size, in place.

    Args:
        network: a :class:`fusion_nets.networks.DMFNet` with the default arguments.
        stage1: state dict of the diffusion wrapper; its UNet stands under ``denoise_fn.``, the rest is not needed.
        stage2: state dict of the fusion network.

    Returns:
        The network.

    Raises:
        ValueError: naming the file and the first key or shape in it that does not fit.
    """
    unet_names = dict(_unet_names(network))
    fusion_names = dict(_fusion_names(network))
    unet = _take(stage1, unet_names, network.unet.state_dict(), ignored=lambda name: not name.startswith("denoise_fn."))
    fusion = _take(stage2, fusion_names, network.fusion.state_dict(), ignored=lambda name: False)
    network.unet.load_state_dict(unet)
    network.fusion.load_state_dict(fusion)
    return network


def _unet_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of a module's name here and in the released file."""
    unet = network.unet
    yield "noise_embedding.expand", "denoise_fn.noise_level_mlp.1"
    yield "noise_embedding.project", "denoise_fn.noise_level_mlp.3"
    place = 0
    for level, stage in enumerate(unet.encoder):
        if level == 0:
            yield "encoder.0.entry", "denoise_fn.init_conv"
        else:
            yield f"encoder.{level}.entry", f"denoise_fn.downs.{place}.conv"
            place += 1
        for block in range(len(stage.blocks)):
            yield from _residual(f"encoder.{level}.blocks.{block}", f"denoise_fn.downs.{place}")
            place += 1
    yield from _residual("middle_first", "denoise_fn.mid.0")
    for part in ("norm", "qkv", "out"):
        yield f"attention.{part}", f"denoise_fn.mid.0.attn.{part}"
    yield from _residual("middle_last", "denoise_fn.mid.1")
    place = 0
    for level, stage in enumerate(unet.decoder):
        if level > 0:
            yield f"decoder.{level}.entry.conv", f"denoise_fn.ups.{place}.conv"
            place += 1
        for block in range(len(stage.blocks)):
            yield from _residual(f"decoder.{level}.blocks.{block}", f"denoise_fn.ups.{place}")
            place += 1
    yield "head_norm", "denoise_fn.final_conv.block.0"
    yield "head", "denoise_fn.final_conv.block.3"


def _residual(here: str, there: str) -> Iterator[tuple[str, str]]:
    for part, released in _RESIDUAL.items():
        yield f"{here}.{part}", f"{there}.res_block.{released}"


def _fusion_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    for level in range(len(network.fusion.levels)):
        aggregate, fuse = f"decoder.{2 * level}", f"decoder.{2 * level + 1}"
        for conv in (0, 2):
            yield f"levels.{level}.aggregate.{conv}", f"{aggregate}.block.{conv}"
            yield f"levels.{level}.merge.{conv}", f"{fuse}.block1.{conv}"
            yield f"levels.{level}.out.{conv}", f"{fuse}.block.{conv}"
        yield f"levels.{level}.attention.channel.1", f"{fuse}.att.ca.ca.0"
        yield f"levels.{level}.attention.channel.3", f"{fuse}.att.ca.ca.2"
        yield f"levels.{level}.attention.spatial", f"{fuse}.att.sa.sa"
        yield f"levels.{level}.attention.pixel", f"{fuse}.att.pa.pa2"
    yield "head.0", "rgb_decode2.conv"
    yield "head.2", "rgb_decode1.conv"


def _take(
    path: str | os.PathLike[str],
    names: Mapping[str, str],
    wanted: Mapping[str, torch.Tensor],
    ignored: Callable[[str], bool],
) -> dict[str, torch.Tensor]:
    """The wanted tensors out of a released file, under the names they have here."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path}: not a PyTorch state dict that can be read safely ({type(error).__name__})"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a state dict, found {type(found).__name__}")
    taken = {}
    for key, value in wanted.items():
        module, parameter = key.rsplit(".", 1)
        released = f"{names[module]}.{parameter}"
        if released not in found:
            raise ValueError(f"{path}: the key {released!r} is missing; is this the right file of DM-FNet's two?")
        tensor = found.pop(released)
        if not isinstance(tensor, torch.Tensor) or tensor.shape != value.shape:
            shape = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ValueError(f"{path}: {released!r} has shape {shape}, expected {list(value.shape)}")
        taken[key] = tensor
    extra = [key for key in found if not ignored(key)]
    if extra:
        raise ValueError(f"{path}: the key {extra[0]!r} has no place in this network")
    return taken
