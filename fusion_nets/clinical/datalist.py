"""Datalists: which images belong together."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["AANLIB_PAIRS", "aanlib_pairs", "balanced_weights", "single_images"]

AANLIB_PAIRS = ("CT-MRI", "PET-MRI", "SPECT-MRI")


def aanlib_pairs(
    dataset_dir: str | os.PathLike[str], section: str, pairs: Sequence[str] = AANLIB_PAIRS
) -> list[dict[str, str]]:
    """Pairs of one section of an AANLIB folder.

    The folder holds ``{pair}/MRI`` and ``{pair}/{CT | PET | SPECT}`` with equally named slices, and ``splits.json`` that
    names the slices of each section.

    Args:
        dataset_dir: the folder.
        section: "train", "val", "test", or another that ``splits.json`` has.
        pairs: which modality pairs.

    Returns:
        A datalist with keys "anatomy", "overlay", "name", and "pair".

    Raises:
        FileNotFoundError: if the folder has no ``splits.json``.
        KeyError: if a section or pair is not in it.
    """
    root = Path(dataset_dir)
    splits = root / "splits.json"
    if not splits.is_file():
        raise FileNotFoundError(f"{splits}: no such file; dataset_dir must be an AANLIB folder, see the model card")
    names = json.loads(splits.read_text())
    return [
        {
            "anatomy": str(root / pair / "MRI" / name),
            "overlay": str(root / pair / pair.split("-")[0] / name),
            "name": f"{pair}_{Path(name).stem}",
            "pair": pair,
        }
        for pair in pairs
        for name in names[pair][section]
    ]


def single_images(datalist: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Both sources of every pair on their own, under "image": what the first training stage learns from."""
    return [{"image": pair[key], "pair": pair["pair"]} for pair in datalist for key in ("anatomy", "overlay")]


def balanced_weights(datalist: Sequence[dict[str, str]], key: str = "pair") -> list[float]:
    """Sampling weight of every item, so that each value of ``key`` is drawn equally often."""
    counts = Counter(item[key] for item in datalist)
    return [1 / counts[item[key]] for item in datalist]
