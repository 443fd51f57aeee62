"""Several overlays on one anatomy: what they are called, and what is said of each of them."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeVar

__all__ = [
    "DETAILS",
    "OVERLAYS",
    "SOURCES",
    "alone",
    "as_list",
    "each_of",
    "numbered",
    "overlays_in",
    "overlays_of",
    "parted",
    "record_of",
]

OVERLAYS = ("overlay", "overlay2", "overlay3")
"""What the overlays of a pair are called; most have the first alone."""

SOURCES = ("anatomy", *OVERLAYS)

DETAILS = ("_modality", "_series_uid", "_volume", "_text")
"""What may be said of a source in a datalist, behind its key."""

T = TypeVar("T")


def overlays_in(data: Iterable[Hashable]) -> list[str]:
    """Which overlays there are, in their order.

    Examples:
        >>> overlays_in({"overlay2": "pet", "anatomy": "mri", "overlay": "ct"})
        ['overlay', 'overlay2']
    """
    there = set(data)
    return [key for key in OVERLAYS if key in there]


def overlays_of(data: Mapping[Hashable, Any], keys: Sequence[Hashable], modality: str) -> dict[int, Hashable]:
    """Of the overlays that are there, those whose ``meta`` has a modality, by their channel behind the anatomy's.

    Examples:
        >>> from monai.data import MetaTensor
        >>> ct, pet = (MetaTensor([0.0], meta={"modality": of}) for of in ("CT", "PT"))
        >>> overlays_of({"overlay": ct, "overlay2": pet}, ["overlay", "overlay2", "overlay3"], "PT")
        {2: 'overlay2'}
    """
    there = [key for key in keys if key in data]
    return {k: key for k, key in enumerate(there, 1) if getattr(data[key], "meta", {}).get("modality") == modality}


def numbered(key: str) -> str:
    """What the names of files have that are of this overlay: "" of the first, then "2" and "3".

    Examples:
        >>> numbered("overlay"), numbered("overlay3")
        ('', '3')
    """
    return key.removeprefix("overlay") if key in OVERLAYS else ""


def as_list(option: str, value: Any) -> list[Any]:
    """The values of an option that overlays may have one each of: as many as there are, or the one for all.

    A window is two numbers, and a transform four rows: these are one value.

    Examples:
        >>> as_list("overlay_window", [0, 80]), as_list("overlay_window", ["brain", [0, 7]])
        ([[0, 80]], ['brain', [0, 7]])
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not value:
        return [value]
    if option.endswith("window"):
        is_one = all(isinstance(item, Real) for item in value)
    elif option == "transform":
        is_one = not all(item is None or isinstance(item, (str, os.PathLike)) or _is_table(item) for item in value)
    else:
        is_one = False
    return [value] if is_one else list(value)


def _is_table(item: Any) -> bool:
    """Whether it has rows, as a matrix has; said without NumPy, which commands do without until they run."""
    if hasattr(item, "ndim"):
        return bool(item.ndim == 2)
    return isinstance(item, Sequence) and bool(item) and all(_is_row(row) for row in item)


def _is_row(item: Any) -> bool:
    return hasattr(item, "ndim") or (isinstance(item, Sequence) and not isinstance(item, (str, bytes)))


def each_of(option: str, values: Sequence[T], count: int) -> list[T]:
    """One value for each of so many overlays, of as many values or one for all.

    Raises:
        ValueError: for another number of values.

    Examples:
        >>> each_of("register", ["rigid"], 2)
        ['rigid', 'rigid']
    """
    if len(values) not in (1, count):
        there = f"{count} overlay{'s' * (count != 1)}"
        raise ValueError(
            f"{option} has {len(values)} values for {there}; one for all{' or one for each' * (count > 1)} is accepted"
        )
    return list(values) * (count if len(values) == 1 else 1)


def alone(pair: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A pair as if it had one of its overlays only, which is called "overlay" then.

    Examples:
        >>> alone({"anatomy": "mri", "overlay": "ct", "overlay2": "pet", "overlay2_modality": "PT"}, "overlay2")
        {'anatomy': 'mri', 'overlay': 'pet', 'overlay_modality': 'PT'}
    """
    names = {f"{key}{detail}": f"overlay{detail}" for detail in ("", *DETAILS)}
    others = {f"{other}{detail}" for other in OVERLAYS for detail in ("", *DETAILS)} - set(names)
    return {names.get(name, name): value for name, value in pair.items() if name not in others}


def record_of(record: Mapping[str, Any], key: str = "overlay") -> Mapping[str, Any]:
    """What a record says of one of several overlays, as that of a pair with this overlay alone has it.

    Args:
        record: as :class:`fusion_nets.transforms.RecordChoices` gives it, of any number of overlays.
        key: the overlay.
    """
    told = record.get("record", {})
    keys = overlays_in(told)
    if len(keys) < 2:
        return record
    index = keys.index(key)
    settings = {
        name: value[index] if name in ("overlay_window", "overlay_palette", "register", "transform") else value
        for name, value in record.items()
    }
    one = {name: value for name, value in told.items() if name not in OVERLAYS}
    own = dict(told[key])
    if registration := own.pop("registration", None):
        one["registration"] = registration
    return {**{name: value for name, value in settings.items() if value is not None}, "record": {**one, "overlay": own}}


def parted(entry: Mapping[str, Any], most: int) -> dict[str, Any]:
    """An entry of a datalist with a key for each overlay, and for what is said of it, in the place of lists.

    Args:
        entry: with "overlay", an image or a list of images; then "overlay_modality" and so on are lists of as many, or
            one for all.
        most: overlays that are accepted.

    Raises:
        ValueError: for another number of overlays, or of what is said of them.

    Examples:
        >>> parted({"overlay": ["ct.nii", "pet.nii"], "overlay_modality": ["", "PT"]}, most=3)
        {'overlay': 'ct.nii', 'overlay2': 'pet.nii', 'overlay2_modality': 'PT'}
    """
    made, overlays = dict(entry), entry["overlay"]
    others = [key for key in entry if key.startswith(OVERLAYS[1:])]
    if isinstance(overlays, list):
        if not 1 <= len(overlays) <= len(OVERLAYS) or not all(overlays):
            raise ValueError(f"'overlay' is {overlays}; 1 to {len(OVERLAYS)} images are accepted")
        if others:
            raise ValueError(f"{others[0]!r} is given beside a list of overlays; one of both is accepted")
        for detail in ("", *DETAILS):
            said = made.pop(f"overlay{detail}", None)
            if said is not None:
                values = each_of(f"'overlay{detail}'", said if isinstance(said, list) else [said], len(overlays))
                each = zip(OVERLAYS, values, strict=False)
                made |= {f"{overlay}{detail}": value for overlay, value in each if value not in (None, "")}
    keys = overlays_in(made)
    if len(keys) > most:
        raise ValueError(f"has {len(keys)} overlays; {'one' if most == 1 else f'1 to {most}'} is accepted here")
    for key in others:
        if not key.startswith(tuple(keys)[1:]) or tuple(keys) != OVERLAYS[: len(keys)]:
            raise ValueError(f"{key!r} is given, and not all overlays up to it; a list as 'overlay' is accepted")
    return made
