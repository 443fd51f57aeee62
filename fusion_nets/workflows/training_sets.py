"""Pairs, and single sources with their texts, to train on: simulated ones, or those of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import CacheDataset
from torch.utils.data import Dataset, RandomSampler, Sampler, WeightedRandomSampler

from fusion_nets.datalists import (
    aanlib_pairs,
    balanced_weights,
    load_pairs,
    single_images,
    single_sources,
    texts_of,
    with_texts,
)
from fusion_nets.simulation import SimulatedPairs

__all__ = ["check_crop_size", "check_simulated", "drawn_pairs", "training_pairs", "training_sources", "training_texts"]

_Texts = str | os.PathLike[str] | Sequence[dict[str, Any]]
_Lists = Mapping[str, str | os.PathLike[str] | Sequence[dict[str, Any]] | None]


def training_pairs(
    data: str | os.PathLike[str] | None,
    section: str,
    transform: Callable[[Any], Any],
    simulated: Mapping[str, Any],
    texts: _Texts | None = None,
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

    Raises:
        ValueError: for texts without a folder.
    """
    if data is None:
        _without_folder(texts)
        return SimulatedPairs(**simulated)
    pairs = with_texts(aanlib_pairs(data, section), texts, required=described_images)
    return CacheDataset(single_images(pairs, described=True) if described_images else pairs, transform)


def training_sources(
    data: str | os.PathLike[str] | None,
    section: str,
    transform: Callable[[Any], Any],
    simulated: Mapping[str, Any],
    datalists: _Lists | None = None,
    texts: _Texts | None = None,
) -> Dataset:
    """Single sources with a text each, of one's own list or of a folder; without either, of simulated pairs.

    Args:
        data: as :func:`training_pairs` takes it.
        section: likewise, and of the lists.
        transform: loads and prepares a source of a list or a folder, an item of
            :func:`fusion_nets.datalists.single_sources`.
        simulated: arguments of :class:`fusion_nets.simulation.SimulatedPairs`, whose transform takes one source.
        datalists: by section, as :func:`fusion_nets.datalists.load_pairs` takes them; one that is there comes before
            the folder.
        texts: on the pairs of the folder, which must be there.

    Raises:
        FileNotFoundError: for a folder or a list that is not there.
        ValueError: for a list of another section alone, texts without a folder, a folder or texts beside lists of all
            sections, and where no source has a text.
    """
    if (found := _described(data, section, datalists, texts)) is None:
        return SimulatedPairs(**simulated)
    return CacheDataset(found, transform)


def training_texts(
    data: str | os.PathLike[str] | None,
    section: str,
    simulated: Mapping[str, Any],
    datalists: _Lists | None = None,
    texts: _Texts | None = None,
) -> list[str]:
    """What is said of the sources that :func:`training_sources` gives by the same arguments.

    Args:
        data: likewise.
        section: likewise.
        simulated: as it takes them, with a transform that writes "anatomy_text" and "overlay_text", such as
            :class:`fusion_nets.text.WriteTruthd`.
        datalists: likewise.
        texts: likewise.
    """
    found = _described(data, section, datalists, texts)
    items = SimulatedPairs(**simulated) if found is None else found
    return texts_of(items[number] for number in range(len(items)))


def _described(
    data: str | os.PathLike[str] | None, section: str, datalists: _Lists | None, texts: _Texts | None
) -> list[dict[str, Any]] | None:
    given = {name for name, one in (datalists or {}).items() if one is not None}
    if section not in given and data is None:
        if given:
            raise ValueError(
                f'a list is given of "{", ".join(sorted(given))}" and none of "{section}"; both are needed, or a folder'
            )
        _without_folder(texts)
        return None
    if given and given == set(datalists or {}) and not (data is texts is None):
        raise ValueError("lists of all sections are given, and a folder or its texts as well; give one of both")
    if section in given:
        return single_sources(load_pairs((datalists or {})[section]))
    return single_sources(with_texts(aanlib_pairs(data or "", section), texts, required=True))


def _without_folder(texts: _Texts | None) -> None:
    if texts is not None:
        raise ValueError("texts are given without the folder of the images that they tell of; give both, or neither")


def drawn_pairs(
    dataset: Dataset, count: int, emphasis: Mapping[str, float] | None = None, key: str = "pair"
) -> Sampler[int]:
    """Draw so many pairs an epoch, by torch's global generator: of a folder every kind of pair equally often.

    Args:
        dataset: of :func:`training_pairs` or :func:`training_sources`.
        count: how many are drawn.
        emphasis: how many times as often as the others a kind of pair of a folder is drawn, such as {"CT-MRI": 2}.
        key: of what tells of which kind an item of a folder is; "kind" of single sources.
    """
    if isinstance(dataset, CacheDataset):
        return WeightedRandomSampler(balanced_weights(dataset.data, key, emphasis), count)
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


def check_simulated(**given: Any) -> None:
    """See whether a training that learns from simulation alone is given images of one's own, before it starts.

    Args:
        given: options that it has no use for, by name.

    Raises:
        SystemExit: naming those that are given, as :func:`check_crop_size` does.
    """
    if idle := [name for name, value in given.items() if value is not None]:
        raise SystemExit(f"{' and '.join(idle)}: this training learns from simulated images alone; leave it out")
