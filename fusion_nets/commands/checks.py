"""Options that do not go together, and what the words of some mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from fusion_nets.overlays import OVERLAYS, each_of

__all__ = [
    "OF_DATASETS",
    "OF_EACH",
    "check_belonging",
    "check_options",
    "check_overlays",
    "check_receive",
    "check_sources",
    "methods",
    "overlap",
    "window",
    "windows",
]


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of a command that do not go together, before torch and MONAI are imported, which takes seconds."""
    given = vars(arguments)
    for words in (given.get("anatomy_window"), *windows(given.get("overlay_window"))):
        window(words)
    check_belonging(given)
    if given.get("command") == "fuse":
        check_sources(given)
    if given.get("command") == "view" and bool(arguments.anatomy) != bool(arguments.overlay):
        raise ValueError("--anatomy and --overlay go together: the page shows the values of both")
    if given.get("command") == "view":
        check_overlays(given)
    if given.get("command") == "evaluate":
        methods(arguments.method)
    if given.get("command") == "receive" and not arguments.list and arguments.retry is None:
        check_receive(arguments)
    if given.get("command") == "describe" and arguments.describer == "generated" and not arguments.model:
        raise ValueError("--describer generated needs a --model")


def check_belonging(given: dict[str, Any]) -> None:
    """Refuse an option that would change nothing, because another is missing."""
    for commands, options, told, holds in _BELONGING:
        if given.get("command") in commands and not holds(given):
            wrong = next((name for name in options if given[name] is not None and given[name] is not False), None)
            if wrong:
                raise ValueError(f"--{wrong} belongs to {told}")


def check_sources(given: dict[str, Any]) -> None:
    """Of `fuse`: an anatomy and its overlays, of which each may have values of its own, or a dataset."""
    one = ("anatomy", "overlay", "anatomy_series_uid", "overlay_series_uid")
    pair = (*one, "regions", "transform", "name", "settings")
    missing = [f"--{name}" for name in pair[:2] if not given[name]]
    if not given["bids_dir"] and missing:
        raise ValueError(f"the following arguments are required: {', '.join(missing)}, or --bids_dir of a dataset")
    check_overlays(given)
    others = pair if given["bids_dir"] else OF_DATASETS
    wrong = next((name for name in others if given[name] is not None), None)
    if wrong:
        how = "is of one pair, and --bids_dir has many" if given["bids_dir"] else "goes with --bids_dir"
        raise ValueError(f"--{wrong} {how}; it is accepted {'without' if given['bids_dir'] else 'with'} it")


def check_overlays(given: dict[str, Any]) -> None:
    """Of `fuse` and `view`: not too many overlays, and of what is said of them one value for all or one for each."""
    overlays = len(given["overlay"] or [""])
    if overlays > len(OVERLAYS):
        raise ValueError(f"--overlay is given {overlays} times; up to {len(OVERLAYS)} are accepted")
    for name in OF_EACH:
        each_of(f"--{name}", given.get(name) or [None], overlays)


def check_receive(arguments: argparse.Namespace) -> None:
    """Of `receive`: what comes from where, and goes where."""
    for name in ("rules", "to"):
        if not getattr(arguments, name):
            raise ValueError(f"--{name} is missing, which receiving needs; --list and --retry need none")
    if arguments.port is None and not arguments.poll:
        raise ValueError("neither --port nor --poll is given, so that nothing could come; one or both are accepted")
    if arguments.port is not None and not arguments.allow:
        raise ValueError("--port needs --allow, the AE titles of those that may send")
    if arguments.allow and arguments.port is None:
        raise ValueError("--allow belongs to --port")
    if bool(arguments.tls_cert) != bool(arguments.tls_key) or (arguments.tls_ca and not arguments.tls_cert):
        raise ValueError("--tls_cert and --tls_key go together, and --tls_ca with them")


def window(words: Sequence[str] | None) -> Any:
    """A named window, or two numbers; None for none."""
    if not words or len(words) == 1:
        return (words[0] or None) if words else None
    try:
        low, high = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"a window is LOW HIGH or a name, got {' '.join(words)}") from error
    return [low, high]


def windows(given: Any) -> list[Sequence[str]]:
    """Those of each overlay, where an option may be given again; else the only one."""
    return given if given and isinstance(given[0], list) else [given]


def overlap(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, or nothing."""
    return {} if arguments.least_overlap is None else {"least_overlap": arguments.least_overlap}


def methods(given: Sequence[str]) -> dict[str, str]:
    """The folder of each method."""
    methods: dict[str, str] = {}
    for method in given:
        name, equals, folder = method.partition("=")
        if not (name.strip() and equals and folder):
            raise ValueError(f"--method is {method!r}; NAME=FOLDER is accepted")
        if name in methods:
            raise ValueError(f"--method {name!r} is given twice; give each a name of its own")
        methods[name] = folder
    return methods


OF_EACH = (
    *("overlay_modality", "overlay_series_uid", "overlay_volume", "overlay_window"),
    *("overlay_palette", "register", "transform"),
)
"""Options of `fuse`, and some of `view`, that each of several overlays may have of its own."""

OF_DATASETS = ("participant_label", "session_label", "anatomy_suffix", "overlay_suffix")


def _registers(given: dict[str, Any]) -> bool:
    """Whether an overlay is to be registered, one without a transform of its own."""
    count = len(given["overlay"] or [""])
    how, moved = (each_of(f"--{name}", given[name] or [""], count) for name in ("register", "transform"))
    return any(one != "none" and not transform for one, transform in zip(how, moved, strict=True))


_GENERATING = ("model", "revision", "prompt", "max_new_tokens", "dtype", "download", "accept_research_licence")
_DETAILS = ("modality", "series_uid", "volume")
# the commands, options of theirs, what these belong to, and whether that is given
_BELONGING: tuple[tuple[tuple[str, ...], tuple[str, ...], str, Callable[[dict[str, Any]], Any]], ...] = (
    (("fuse",), ("describe",), "--method smfusion", lambda given: given["method"] == "smfusion"),
    (("fuse",), ("register_fallback", "register_limits"), "a registration, and none is asked for", _registers),
    (
        ("view",),
        tuple(f"{source}_{detail}" for source in ("anatomy", "overlay") for detail in _DETAILS),
        "--anatomy and --overlay",
        lambda given: given["anatomy"],
    ),
    (("evaluate", "lesions", "describe"), ("section",), "--dataset_dir", lambda given: given["dataset_dir"]),
    (("receive",), ("poll_from_start",), "--poll", lambda given: given["poll"]),
    (("describe",), _GENERATING, "--describer generated", lambda given: given["describer"] == "generated"),
)
