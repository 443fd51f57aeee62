"""Checkpoints of the OFA architecture, as its authors' program writes them, with a vocabulary of a few words."""

import json
from functools import cache
from pathlib import Path

import torch
from tokenizers import pre_tokenizers

from fusion_nets.text.ofa import OFAConfig, OFAForConditionalGeneration

MERGES = ("Ġ t", "h e", "Ġt he", "i n", "Ġ w", "a t", "h at", "Ġw hat", "Ġ b", "r i", "g h", "ri gh", "righ t")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = len(SPECIAL) + 256 + len(MERGES) + 1
"""Entries of vocab.json; with the added pieces the token table has 9,192 more."""
TINY = {
    "vocab_size": PIECES + 9192,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 64,
    "image_size": 48,
    "image_bucket_size": 6,
    "token_bucket_size": 8,
    "max_position_embeddings": 160,
}


def write_vocabulary(folder: Path, size: int = PIECES) -> None:
    """vocab.json and merges.txt of byte-level BPE; filled up to a size, "<mask>" last as in BART's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]
    words += [f"filler{i}" for i in range(size - len(words) - 1)]
    vocabulary = {word: index for index, word in enumerate([*words, "<mask>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, config: dict, tensors: dict[str, torch.Tensor]) -> Path:
    """A folder in the layout of the authors' program: no image processor, no generation defaults, index tables."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "ofa", "architectures": ["OFAModel"], "normformer": True, **config}
    (folder / "config.json").write_text(json.dumps(content))
    table = tensors["encoder.embed_tokens.weight"]
    tied = {f"decoder.{name}.weight": table for name in ("embed_tokens", "output_projection")}
    longest, grid = config["max_position_embeddings"], config["image_bucket_size"] ** 2 + 1
    computed = {
        f"{part}.{name}_rp_bucket": torch.zeros(size, size, dtype=torch.long)
        for part in ("encoder", "decoder")
        for name, size in (("token", longest), ("image", grid))
    }
    computed["decoder.image_position_idx"] = torch.zeros(1025, dtype=torch.long)
    torch.save({**tensors, **tied, **computed}, folder / "pytorch_model.bin")
    write_vocabulary(folder)
    return folder


@cache
def tiny_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the tiny network that are large enough for every input to tell."""
    torch.manual_seed(seed)
    network = OFAForConditionalGeneration(OFAConfig(**TINY))
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim == 1 and "bn" not in name and "downsample" not in name:
                value.add_(0.1 * torch.randn_like(value))
            elif value.ndim == 2:
                value.normal_(std=value.shape[1] ** -0.5)
    return network.state_dict()


def tiny_network(seed: int = 0, **other: object) -> OFAForConditionalGeneration:
    """The tiny network, in evaluation mode; other settings must not change its sizes."""
    with torch.device("meta"):
        network = OFAForConditionalGeneration(OFAConfig(**{**TINY, **other}))
    network.load_state_dict({name: value.clone() for name, value in tiny_weights(seed).items()}, assign=True)
    network.tie_weights()
    return network.eval()


def tiny_checkpoint(folder: Path, seed: int = 0, **other: object) -> Path:
    """The tiny network as its authors' program would have written it."""
    tied = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
    tensors = {
        name: value
        for name, value in tiny_weights(seed).items()
        if name not in tied and not name.endswith("num_batches_tracked")
    }
    return write_checkpoint(folder, {**TINY, **other}, tensors)
