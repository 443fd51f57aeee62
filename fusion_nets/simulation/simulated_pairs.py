"""Simulated pairs, and sets of several sources, as data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from .pairs import MODALITIES, PAIRS, simulate_pair, simulate_sources
from .template import packed_head

__all__ = ["SimulatedPairs", "SimulatedSources"]


class SimulatedPairs(Dataset):
    """Pairs made on the fly, for a DataLoader: item i is the same in every process and run.

    Each item is a dictionary of
    "image" (2, H, W) float32 in [0, 1], anatomy first, without lesions;
    "lesion_image", the same with lesions;
    "lesion_map" (1, H, W) uint8, where each lesion changes either source, by its number from 1;
    "contrast" (lesions, 2) float32, mean change of each lesion in anatomy and overlay, 0 where there is none;
    "modality", index of the overlay's in ("CT", "PT", "NM"); "pair", such as "CT-MRI"; and, if asked for,
    "truth", JSON of :meth:`~fusion_nets.simulation.SimulatedPair.truth`.

    Args:
        seed: with the index, what a pair is made of; other seeds share no pair.
        length: number of pairs.
        size: pixels along both axes.
        modalities: of the overlay; item i has the (i modulo their number)-th.
        shapes_share: share of pairs without anatomy.
        lesions: how many at most in each pair.
        truth: whether items have their "truth".
        transform: what is done to each item at last, such as :class:`~fusion_nets.text.WriteTruthd`; what it draws at
            random is the item's own, too.
        options: what else :func:`~fusion_nets.simulation.simulate_pair` takes.
    """

    def __init__(
        self,
        seed: int = 0,
        length: int = 10000,
        size: int = 128,
        modalities: tuple[str, ...] | list[str] = MODALITIES,
        shapes_share: float = 0.4,
        lesions: int = 3,
        truth: bool = False,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        self.seed, self.length, self.size, self.lesions = seed, length, size, lesions
        self.modalities, self.shapes_share = tuple(modalities), shapes_share
        self.with_truth, self.transform, self.options = truth, transform, options
        if shapes_share < 1:
            packed_head()  # once, before there are workers

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        """Make one pair.

        Raises:
            IndexError: for an index that is not from 0 to the length.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"index is {index}; 0 to {self.length - 1} are accepted")
        rng = np.random.default_rng([self.seed, index])
        modality = self.modalities[index % len(self.modalities)]
        is_head = bool(rng.random() >= self.shapes_share)
        pair = simulate_pair(rng, modality, self.size, is_head=is_head, lesions=self.lesions, **self.options)
        contrast = torch.zeros(self.lesions, 2)
        for lesion in pair.lesions:
            contrast[lesion.label - 1] = torch.tensor(lesion.contrast)
        item = {
            "image": torch.from_numpy(pair.image),
            "lesion_image": torch.from_numpy(pair.lesion_image),
            "lesion_map": torch.from_numpy(pair.lesion_map)[None],
            "contrast": contrast,
            "modality": MODALITIES.index(modality),
            "pair": PAIRS[modality],
        }
        if self.with_truth:
            item["truth"] = json.dumps(pair.truth())
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=int(rng.integers(2**31)))
        return item if self.transform is None else self.transform(item)


class SimulatedSources(Dataset):
    """Sets of an anatomy and several overlays of one slice, made on the fly: item i is the same in every process.

    Each item is a dictionary of "image" (1 + overlays, H, W) float32 in [0, 1], anatomy first, without lesions, and
    "pair", what it is of, such as "CT-PET-MRI".

    Args:
        seed: with the index, what a set is made of; other seeds share none.
        length: number of sets.
        size: pixels along both axes.
        modalities: of the overlays, in their order.
        shapes_share: share of sets without anatomy.
        transform: what is done to each item at last, such as :class:`~fusion_nets.transforms.RandInsertLesionsd`; what
            it draws at random is the item's own, too.
        options: what else :func:`~fusion_nets.simulation.simulate_sources` takes.
    """

    def __init__(
        self,
        seed: int = 0,
        length: int = 10000,
        size: int = 128,
        modalities: tuple[str, ...] | list[str] = MODALITIES,
        shapes_share: float = 0.4,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        **options: Any,
    ) -> None:
        self.seed, self.length, self.size, self.modalities = seed, length, size, tuple(modalities)
        self.shapes_share, self.transform, self.options = shapes_share, transform, options
        self.names = [PAIRS[modality].split("-")[0] for modality in modalities]
        if shapes_share < 1:
            packed_head()  # once, before there are workers

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        """Make one set.

        Raises:
            IndexError: for an index that is not from 0 to the length.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"index is {index}; 0 to {self.length - 1} are accepted")
        rng = np.random.default_rng([self.seed, index])
        is_head = bool(rng.random() >= self.shapes_share)
        image = simulate_sources(rng, self.modalities, self.size, is_head=is_head, **self.options)
        item = {"image": torch.from_numpy(image), "pair": "-".join([*self.names, "MRI"])}
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=int(rng.integers(2**31)))
        return item if self.transform is None else self.transform(item)
