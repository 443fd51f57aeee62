"""The settings of an earlier result, for the sources that they were made for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion_nets.cautions import about, caution, noting
from fusion_nets.clinical import read_image, source_sha256
from fusion_nets.names import perhaps
from fusion_nets.overlays import alone, as_list, each_of, overlays_in, record_of

__all__ = ["repeated_settings"]

_SETTINGS = (
    "anatomy_window",
    "overlay_window",
    "overlay_palette",
    "keep_bone",
    "keep_anatomy",
    "register",
    "transform",
)
"""What a record repeats."""

_OF_EACH = {"overlay_window": None, "overlay_palette": "auto", "register": "auto", "transform": None}
"""Of these, which each of several overlays has of its own, what stands for one that is not taken."""

_KEYS = ("anatomy", "overlay")


def repeated_settings(
    path: str | os.PathLike[str] | None, pair: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What of the record of an earlier result holds for a pair.

    Its registration is that of its own sources, known by their digests and by which of several volumes was chosen; a
    display range is also that of others in the same units. What is not taken is warned of. What an option says is not
    taken either, nor a registration where an option asks for one. Of several overlays, each is looked at by itself.

    Args:
        path: of the record; None is none.
        pair: as :func:`fusion_nets.datalists.load_pairs` gives it.
        options: what is asked for otherwise.

    Raises:
        ImageError: if a source cannot be read.
        ValueError: if the file is no record, has an entry that none has, or is of another number of overlays.
    """
    if path is None:
        return {}
    said, told = _read(Path(path))
    keys = overlays_in(pair)
    there = len(overlays_in(told))
    if there not in (0, len(keys)):
        raise ValueError(
            f"{path}: is of {there} overlay{'s' * (there > 1)}, and {len(keys)} are given; as many are accepted"
        )
    if len(keys) == 1:
        return _repeated(path, said, told, pair, options)
    values = {name: each_of(name, as_list(name, said[name]), len(keys)) for name in _OF_EACH if name in said}
    each = []
    for i, key in enumerate(keys):
        own = {**said, **{name: value[i] for name, value in values.items()}}
        of_key = record_of({"record": told}, key)["record"]
        with about(key):
            each.append(_repeated(path, own, of_key, alone(pair, key), options, key))
    taken = {name: value for name, value in each[0].items() if name not in _OF_EACH}
    for name, default in _OF_EACH.items():
        if any(name in one for one in each):
            taken[name] = [one.get(name, default) for one in each]
    return taken


def _repeated(
    path: str | os.PathLike[str],
    said: Mapping[str, Any],
    told: Mapping[str, Any],
    pair: Mapping[str, Any],
    options: Mapping[str, Any],
    called: str = "overlay",
) -> dict[str, Any]:
    """What holds for a pair of the anatomy and one overlay, which is called so."""
    names = {"anatomy": "anatomy", "overlay": called}
    taken = {name: value for name, value in said.items() if name not in options and value is not None}
    if "register" in options:
        taken.pop("transform", None)
    registration = told.get("registration", {})
    is_in_a_file = registration.get("mode") == "given" and "bending" in registration
    if is_in_a_file and not {"transform", "register"} & set(options):
        raise ValueError(
            f"{path}: was made by a transform that bends, which a record does not hold; its file as transform, or "
            "another registration by register, is accepted"
        )
    others = [key for key in _KEYS if not _is_same(pair, key, told.get(key))]
    logger = logging.getLogger(__name__)
    if others and "transform" in taken:
        words = "the registration of the settings is not taken, because %s another than they tell of"
        which = " and the ".join(names[key] for key in others)
        caution(logger, path, words, f"the {which} {'is' if len(others) == 1 else 'are'}")
        del taken["transform"]
        taken.pop("register", None)
    for key in _KEYS:
        known, modality = told.get(key, {}), pair.get(f"{key}_modality")
        is_as_it_was = key not in others and modality in (None, known.get("modality"))
        if is_as_it_was or isinstance(taken.get(f"{key}_window"), (str, type(None))):
            continue
        with noting():  # it is read again
            image = read_image(pair[key], pair.get(f"{key}_series_uid"), modality, pair.get(f"{key}_volume"))
        units = image.meta.get("units")
        if units != known.get("units"):
            words = "the %s_window of the settings is not taken, because it is in %s, and the %s in %s"
            in_units = known.get("units", "units that it does not tell")
            caution(logger, path, words, key, in_units, names[key], units)
            del taken[f"{key}_window"]
    return taken


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings, and what they were made for."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); the record of an earlier result is accepted") from error
    if not isinstance(said, dict) or not isinstance(said.get("record"), dict):
        raise ValueError(f"{path}: the record of an earlier result is accepted")
    told = said.pop("record")
    said = {name: value for name, value in said.items() if not name[:1].isupper()}  # what a sidecar of BIDS has, too
    for name in said:
        if name not in _SETTINGS:
            raise ValueError(
                f"{path}: unknown entry {name!r}{perhaps(name, _SETTINGS)}; accepted are {', '.join(_SETTINGS)}"
            )
    return said, {key: value for key, value in told.items() if isinstance(value, dict)}


def _is_same(pair: Mapping[str, Any], key: str, told: Mapping[str, Any] | None) -> bool:
    volume = pair.get(f"{key}_volume")
    if told is None or told.get("volume") != (None if volume is None else str(volume)):
        return False
    return told.get("sha256") == source_sha256(pair[key], pair.get(f"{key}_series_uid"), pair.get(f"{key}_modality"))
