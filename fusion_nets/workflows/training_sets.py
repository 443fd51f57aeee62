"""Pairs to train on: simulated ones, or those of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import CacheDataset
from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler

from fusion_nets.datalists import aanlib_pairs, balanced_weights, single_images, with_texts
from fusion_nets.simulation import SimulatedPairs

__all__ = ["check_crop_size", "drawn_pairs", "training_pairs"]


def training_pairs(
    data: str | os.PathLike[str] | None,
    section: str,
    transform: Callable[[Any], Any],
    simulated: Mapping[str, Any],
    texts: str | os.PathLike[str] | Sequence[dict[str, Any]] | None = None,
    described_images: bool = False,
) -> Dataset:
    """The pairs of one section of a folder; without a folder, simulated pairs.

    Args:
        data: a folder that :func:`fusion_nets.datalists.aanlib_pairs` reads, or None.
        section: "train" or "val", of the folder.
        transform: loads and prepares a pair of the folder; simulated pairs come prepared.
        simulated: arguments of :class:`fusion_nets.simulation.SimulatedPairs`.
        texts: on the pairs of the folder, as :func:`fusion_nets.datalists.with_texts` takes them; simulated pairs have
            texts of their own.
        described_images: single images of the folder, each with its text, which must be there, in place of pairs.
    """
    if data is None:
        return SimulatedPairs(**simulated)
    pairs = with_texts(aanlib_pairs(data, section), texts, required=described_images)
    return CacheDataset(single_images(pairs, described=True) if described_images else pairs, transform)


def drawn_pairs(dataset: Dataset, count: int, emphasis: Mapping[str, float] | None = None) -> Sampler[int]:
    """Draw so many pairs an epoch, by torch's global generator: of a folder every kind of pair equally often.

    Args:
        dataset: of :func:`training_pairs`.
        count: how many are drawn.
        emphasis: how many times as often as the others a kind of pair of a folder is drawn, such as {"CT-MRI": 2}.
    """
    if isinstance(dataset, CacheDataset):
        return WeightedRandomSampler(balanced_weights(dataset.data, emphasis=emphasis), count)
    return RandomSampler(dataset, replacement=True, num_samples=count)  # type: ignore[arg-type]


def check_crop_size(crop_size: int, smallest: int, multiple: int = 1) -> None:
    """See whether networks and losses can do with crops of this size, before training starts.

    Args:
        crop_size: pixels along both sides.
        smallest: what metrics in the loss, networks and simulated pairs need.
        multiple: of what it must be, for a network that does not pad.

    Raises:
        SystemExit: with what would be accepted; as of a bundle's run, where an error would be a page of others.
    """
    if type(crop_size) is int and crop_size >= smallest and crop_size % multiple == 0:
        return
    accepted = f"whole numbers from {smallest}"
    if multiple > 1:
        first = -(-smallest // multiple) * multiple
        accepted = f"multiples of {multiple}, which the network halves to nothing but whole pixels, from {first}"
    raise SystemExit(f"crop_size is {crop_size!r}; accepted are {accepted}")
