"""What users say, in a configuration: as it is, past the parser that takes strings for code."""

from __future__ import annotations

import inspect
import math
import os
import traceback
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from fusion_nets.names import perhaps
from fusion_nets.overlays import as_list, each_of
from fusion_nets.transforms import KeepAnatomy, KeepBone

__all__ = ["check_arguments", "check_options", "check_values", "only_one", "set_values"]

_VALUES = "_user_values_"

_OF_EACH = ("overlay_window", "overlay_palette", "register", "transform")
"""Options of which each of several overlays may have its own."""


def set_values(parser: ConfigParser, values: Mapping[str, Any]) -> None:
    """Set entries of a configuration to values that stay as they are.

    MONAI's parser evaluates every string that begins with ``$``, resolves ``@`` and ``%``, rewrites ``#`` and
    instantiates ``_target_``, wherever in dictionaries and lists these stand. It looks into nothing else: the values go
    into a tuple, and each entry becomes the expression that takes its own out of it.

    Args:
        parser: of the configuration, before it is parsed.
        values: by the names of entries.

    Examples:
        >>> parser = ConfigParser({"name": None, "file": "$@name + '.txt'"})
        >>> set_values(parser, {"name": "$1 + 1 @file #%"})
        >>> parser.get_parsed_content("file")
        '$1 + 1 @file #%.txt'
    """
    known = parser.get(_VALUES, ())
    parser[_VALUES] = (*known, *values.values())
    for number, name in enumerate(values, start=len(known)):
        parser[name] = f"$@{_VALUES}[{number}]"


def check_options(parser: ConfigParser, options: Mapping[str, Any], others: tuple[str, ...] = ()) -> None:
    """See whether a configuration has the entries that a user wants to set, and whether they are values.

    Args:
        parser: of the configuration, before it is parsed.
        options: by the names of entries, such as "register" or "inferer#sw_batch_size".
        others: names that are accepted elsewhere, to be told where one is misspelt.

    Raises:
        ValueError: for an entry that is not there, with the nearest that is; or for one that is code.
    """
    for name, value in options.items():
        entry, _, last = name.replace("#", "::").rpartition("::")
        if name not in parser and not (last == "_disabled_" and entry in parser):
            raise ValueError(_unknown(parser, name, others))
        if last in ("_target_", "_mode_", "_requires_") or _is_code(value):
            raise ValueError(
                f"{name}: a configuration with '_target_' is code, and an option is none; the object itself is "
                "accepted, or a configuration file in the bundle"
            )


def check_arguments() -> None:
    """See whether what a command sets of a configuration is there, as what nothing looks at would change nothing.

    Of ``python -m monai.bundle run`` and :func:`monai.bundle.create_workflow`, which take any name without a word; for
    ``initialize`` of a configuration. A name within an entry, such as "network_def#emphasis", is the entry's to refuse.

    Raises:
        SystemExit: for an entry that no configuration file has, with the nearest that is there; as of a bundle's run,
            where an error would be a page of others.
    """
    for frame, _ in traceback.walk_stack(None):
        if frame.f_code is create_workflow.__code__:
            given, files = (frame.f_locals.get(name) for name in ("_args", "config_file"))
            if not given or files is None:
                return
            parser = ConfigParser()
            parser.read_config(files)
            theirs = inspect.signature(ConfigWorkflow).parameters
            for name in given:
                entry = name.replace("#", "::").split("::")[0]
                if entry not in parser and entry not in theirs and not entry.startswith("_"):
                    raise SystemExit(_unknown(parser, entry))
            return


def _unknown(parser: ConfigParser, name: str, others: tuple[str, ...] = ()) -> str:
    """What is said of an entry that is not there."""
    there = [entry for entry in parser.get() if entry.isidentifier() and not entry.startswith("_")]
    plain = [entry for entry in there if not isinstance(parser[entry], (dict, list))]
    accepted = ", ".join(sorted({*plain, *others}))
    return f"unknown option {name!r}{perhaps(name, (*there, *others))}; accepted are {accepted}"


def check_values(values: Mapping[str, Any], overlays: int = 1) -> None:
    """See whether the options of fusing are of the kind that they must be; what they say, transforms look at.

    Args:
        values: of the options.
        overlays: how many there are, of which each may have a value of its own.

    Raises:
        ValueError: naming the first that is not.
    """
    for name in ("overlays", "sources"):
        if name in values:
            raise ValueError(f"{name} is no option; a list of images as overlay is accepted")
    given = {
        name: each_of(name, as_list(name, value), overlays) if name in _OF_EACH and overlays > 1 else [value]
        for name, value in values.items()
    }
    if overlays > 1 and values.get("engine", "auto") not in ("auto", "torch"):
        raise ValueError(f"engine is {_shown(values['engine'])}; for several overlays auto and torch are accepted")
    KeepBone(values.get("keep_bone", 0))
    KeepAnatomy(values.get("keep_anatomy", 0))
    for name in ("register", "overlay_palette", "describe_per", "engine", "precision"):
        for text in given.get(name, ()):
            if not isinstance(text, str):
                raise ValueError(f"{name} is {_shown(text)}; a text is accepted")
    for name in ("anatomy_window", "overlay_window"):
        for window in given.get(name, ()):
            if not isinstance(window, (str, type(None))) and not _is_matrix(window, (2,)):
                raise ValueError(
                    f"{name} is {_shown(window)}; two finite numbers, low and high, or a name are accepted"
                )
    for transform in given.get("transform", ()):
        if not isinstance(transform, (str, os.PathLike, type(None))) and not _is_matrix(transform, (4, 4)):
            raise ValueError(
                f"transform is {_shown(transform)}; a .tfm file or a (4, 4) matrix of finite numbers is accepted"
            )


def only_one(name: str, value: Any) -> Any:
    """The value of an option of overlays in a list of one."""
    values = as_list(name, value) if name in _OF_EACH else [value]
    return values[0] if len(values) == 1 else value


def _shown(value: Any) -> str:
    """In one line, of no endless length."""
    return " ".join(repr(value).split())[:200]


def _is_matrix(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.asarray(value, dtype=object)
        return array.shape == shape and all(
            isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number) for number in array.flat
        )
    except (ValueError, TypeError, OverflowError):
        return False


def _is_code(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_is_code, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_is_code, value))
