"""What is known of BiomedGPT's checkpoints before one is loaded: their licence, and how they are asked."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

__all__ = ["GENERATION", "LICENCE", "PROMPT", "check_licence", "generation_of", "is_biomedgpt", "is_ofa"]

PROMPT = " what does the image describe?"
"""What the checkpoints were taught to answer with a caption; the blank in front belongs to it."""

GENERATION: dict[str, Any] = {
    "max_new_tokens": 128,
    "min_new_tokens": 16,
    "do_sample": False,
    "num_beams": 5,
    "no_repeat_ngram_size": 3,
}
"""How they answer (Zhang et al., Nature Medicine 2024)."""

LICENCE = "its weights are for research only, their authors forbid commercial and clinical use"

_NOT_SETTINGS = re.compile(r"_from_model_config|transformers_version|.*_token_id|use_cache")


def is_biomedgpt(model: str) -> bool:
    """Whether a name on the hub is one of the authors' checkpoints, ``PanaceaAI/BiomedGPT-*``, or derived from one."""
    return "biomedgpt" in model.lower() or model.lower().startswith("panaceaai/")


def check_licence(model: str, is_accepted: bool) -> None:
    """Refuse BiomedGPT by its name on the hub, unless the licence was accepted.

    A folder needs no acceptance: who put it there chose it, and nothing in it tells whose weights it has.

    Raises:
        ValueError: for such a name, with how to accept.
    """
    if is_biomedgpt(model) and not os.path.isdir(model) and not is_accepted:
        raise ValueError(
            f"{model}: {LICENCE}; accept_research_licence=True (--accept_research_licence) says that this is accepted"
        )


def is_ofa(folder: Path) -> bool:
    """Whether a checkpoint's ``config.json`` names the architecture; False for a folder without a readable one."""
    return _read(folder / "config.json").get("model_type") == "ofa"


def generation_of(folder: Path) -> dict[str, Any]:
    """Arguments of ``generate`` for a folder with an OFA checkpoint: what it came with, else :data:`GENERATION`."""
    own = _read(folder / "generation_config.json")
    return {**GENERATION, **{name: value for name, value in own.items() if not _NOT_SETTINGS.fullmatch(name)}}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
