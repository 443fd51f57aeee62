"""Where training of an OFA describer starts, and what it ends with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from tokenizers import ByteLevelBPETokenizer

from fusion_nets.text.screen import displayed

from .configuration import OFAConfig
from .modeling import OFAForConditionalGeneration
from .processing import OFAImageProcessor, OFAProcessor
from .tokenization import OFATokenizer

__all__ = ["LearningDescriber", "learn_tokenizer"]

_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
_MASK = "<mask>"


class LearningDescriber:
    """A network with its processor: those of a checkpoint folder, or new ones.

    Args:
        checkpoint: folder of an OFA checkpoint, such as BiomedGPT's, whose weights, tokenizer and pictures are taken.
            None starts anew.
        config: arguments of :class:`OFAConfig` that a checkpoint does not fix: dropout, drop path, label smoothing.
        texts: what the tokenizer of a new network is learned from.
        pieces: the most pieces that it may have.
        generation: how texts are generated, written into the checkpoint.
        sizes: of a new network, its other arguments but for the vocabulary; a checkpoint has its own.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: for one that is not whole, or if there is neither a checkpoint nor a text.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        config: Mapping[str, Any] | None = None,
        texts: Iterable[str] = (),
        pieces: int = 1000,
        generation: Mapping[str, Any] | None = None,
        sizes: Mapping[str, Any] | None = None,
    ) -> None:
        settings = dict(config or {})
        if checkpoint:
            if not (Path(checkpoint) / "config.json").is_file():
                raise FileNotFoundError(
                    f"{checkpoint}: no checkpoint folder; one with config.json, vocab.json, merges.txt and weights of "
                    "the OFA architecture is accepted"
                )
            self.processor = OFAProcessor.from_pretrained(checkpoint, local_files_only=True)
            self.network = OFAForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True, **settings)
        else:
            tokenizer = learn_tokenizer(texts, pieces)
            whole = OFAConfig(vocab_size=len(tokenizer), **settings, **(sizes or {}))
            self.processor = OFAProcessor(OFAImageProcessor(whole.image_size), tokenizer)
            self.network = OFAForConditionalGeneration(whole)
        self.network.generation_config.update(**(generation or {}))

    def pixels(self, image: MetaTensor) -> torch.Tensor:
        """What the network is shown of a (1 | 3, H, W[, D]) image in [0, 1]: (3, size, size)."""
        return self.processor.image_processor(displayed(image), return_tensors="pt")["pixel_values"][0]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a checkpoint: weights, configurations, tokenizer (vocab.json and merges.txt among it)."""
        self.processor.save_pretrained(folder)
        self.processor.tokenizer.backend_tokenizer.model.save(str(folder))
        self.network.save_pretrained(folder)
        for weights in Path(folder).glob("*.safetensors"):  # which are written for their owner's eyes alone
            shutil.copymode(Path(folder) / "config.json", weights)


def learn_tokenizer(texts: Iterable[str], pieces: int = 1000) -> OFATokenizer:
    """Learn byte-level pieces from texts; special pieces stand where BART's do, and there are none for image codes.

    Args:
        texts: such as will be written.
        pieces: the most that there may be; fewer where the texts need no more.

    Raises:
        ValueError: without a text, or for fewer pieces than bytes and special pieces.
    """
    texts = [f" {text}" for text in texts if text.strip()]
    least = len(_FIRST) + 256 + 1
    if not texts:
        raise ValueError("no text to learn pieces from; at least one is needed")
    if pieces < least:
        raise ValueError(f"pieces is {pieces}; {least} or more are accepted, every byte being one")
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(texts, vocab_size=pieces - 1, special_tokens=_FIRST, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        learner.save_model(folder)
        lines = (Path(folder) / "merges.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {**learner.get_vocab(), _MASK: learner.get_vocab_size()}
    merges: Any = [tuple(line.split(" ")) for line in lines[1:]]
    return OFATokenizer(vocabulary, merges, codes=0, bins=0)
