"""Which series of a study are fused with which: a small JSON file, looked at before anything is received."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from fusion_nets.clinical import modality_code
from fusion_nets.names import perhaps

__all__ = ["Facts", "Rule", "Wanted", "pairs_by", "read_rules"]

SERIES_KEYS = ("modality", "description", "without", "body_part", "least_images")
RULE_KEYS = ("name", "anatomy", "overlay", "method", "bundle_root", "options", "most")
OWN_OPTIONS = (
    *("anatomy", "overlay", "datalist", "dataset_dir", "section", "name", "regions", "settings", "bundle_root"),
    *("output_dir", "output_format", "resume", "progress", "method", "device"),
)
"""What the node says itself."""


@dataclass(frozen=True)
class Facts:
    """What rules ask of a series.

    Attributes:
        folder: where its files are.
        modality: DICOM's code.
        description: of the series; "" without one.
        body_part: examined; "" without one.
        images: number of files.
        patient: what tells one patient from another; to be compared, not shown.
    """

    folder: Path
    modality: str
    description: str = ""
    body_part: str = ""
    images: int = 1
    patient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a series must be; what is empty is not asked for.

    Attributes:
        modality: one of these codes.
        description: fits one of these patterns (``*`` and ``?``, whatever the case).
        without: fits none of these.
        body_part: one of these, as DICOM names it.
        least_images: files that there must be, so that scouts are left out.
    """

    modality: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    least_images: int = 1

    def fits(self, series: Facts) -> bool:
        """Whether a series is wanted."""
        said = " ".join(series.description.casefold().split())
        return (
            (not self.modality or series.modality in self.modality)
            and (not self.description or any(fnmatchcase(said, pattern) for pattern in self.description))
            and not any(fnmatchcase(said, pattern) for pattern in self.without)
            and (not self.body_part or series.body_part.upper() in self.body_part)
            and series.images >= self.least_images
        )


@dataclass(frozen=True)
class Rule:
    """One kind of pair, and how it is fused.

    Attributes:
        name: by which its pairs are known as done; another name has them fused anew.
        anatomy: the series whose grid the result keeps.
        overlay: the other.
        method: "dmfnet" or "smfusion".
        bundle_root: folder of the bundle; None for where the library finds it.
        options: of :func:`fusion_nets.workflows.fuse_pair`, such as ``{"register": "rigid"}``.
        most: pairs that a study may have by this rule; of more, none is fused.
    """

    name: str
    anatomy: Wanted
    overlay: Wanted
    method: str = "dmfnet"
    bundle_root: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    most: int = 4


def read_rules(path: str | os.PathLike[str]) -> list[Rule]:
    """The rules of a file, each looked at with the configuration of its bundle.

    Raises:
        ValueError: for what cannot be used, with the place in the file and the nearest that could be meant.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON ({error}); rules as docs/receive.md has them are accepted") from error
    top = _object(content, ("pairs",), str(path))
    entries = top.get("pairs")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f'{path}: "pairs" is no list of rules; one rule or more is accepted')
    rules = [_rule(entry, f"{path}: pairs[{number}]", Path(path).parent) for number, entry in enumerate(entries)]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: two rules are called {name!r}; a name of its own for each is accepted")
    return rules


def pairs_by(rule: Rule, series: Sequence[Facts]) -> list[tuple[Facts, Facts]]:
    """Every anatomy with every overlay that the rule wants."""
    anatomies = [one for one in series if rule.anatomy.fits(one)]
    overlays = [one for one in series if rule.overlay.fits(one)]
    return [(one, other) for one, other in product(anatomies, overlays) if one.folder != other.folder]


def _rule(entry: Any, where: str, beside: Path) -> Rule:
    given = _object(entry, RULE_KEYS, where)
    for key in ("name", "anatomy", "overlay"):
        if key not in given:
            raise ValueError(f'{where}: "{key}" is missing; a rule needs name, anatomy and overlay')
    root = _text(given["bundle_root"], f"{where}.bundle_root") if "bundle_root" in given else None
    rule = Rule(
        name=_text(given["name"], f"{where}.name"),
        anatomy=_wanted(given["anatomy"], f"{where}.anatomy"),
        overlay=_wanted(given["overlay"], f"{where}.overlay"),
        method=_text(given.get("method", "dmfnet"), f"{where}.method"),
        bundle_root=None if root is None else str(beside / root),
        options=_object(given.get("options", {}), None, f"{where}.options"),
        most=_count(given.get("most", 4), f"{where}.most"),
    )
    if rule.method not in ("dmfnet", "smfusion"):
        meant = perhaps(rule.method, ("dmfnet", "smfusion"))
        raise ValueError(f"{where}.method is {rule.method!r}{meant}; dmfnet or smfusion is accepted")
    _check_options(rule, where)
    return rule


def _wanted(entry: Any, where: str) -> Wanted:
    given = _object(entry, SERIES_KEYS, where)
    if "modality" not in given:
        raise ValueError(f'{where}: "modality" is missing, such as MR, CT, PT or NM')
    codes = [modality_code(code, f"{where}.modality") for code in _texts(given["modality"], f"{where}.modality")]
    patterns = {
        key: tuple(text.casefold() for text in _texts(given.get(key, []), f"{where}.{key}"))
        for key in ("description", "without")
    }
    return Wanted(
        modality=tuple(codes),
        body_part=tuple(text.upper() for text in _texts(given.get("body_part", []), f"{where}.body_part")),
        least_images=_count(given.get("least_images", 1), f"{where}.least_images"),
        **patterns,
    )


def _check_options(rule: Rule, where: str) -> None:
    """See whether a bundle has the entries that the rule sets, as `fuse_pair` would say for the first pair."""
    from monai.bundle import ConfigParser

    from fusion_nets.workflows import find_bundle
    from fusion_nets.workflows.user_values import check_options, check_values

    for name in rule.options:
        if name in OWN_OPTIONS:
            raise ValueError(f"{where}.options: {name!r} is said by the node itself; leave it out")
    root = find_bundle(rule.method) if rule.bundle_root is None else Path(rule.bundle_root)
    config = root / "configs" / "inference.json"
    if not config.is_file():
        raise ValueError(f"{where}: {config}: no such file; the folder of a bundle of this project is accepted")
    parser = ConfigParser(ConfigParser.load_config_file(config))
    try:
        check_options(parser, rule.options)
        check_values(rule.options)
    except ValueError as error:
        raise ValueError(f"{where}.options: {error}") from error


def _object(entry: Any, keys: Sequence[str] | None, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {_shown(entry)}; an object {{...}} is accepted")
    for key in entry:
        if keys is not None and key not in keys:
            raise ValueError(f"{where}: unknown key {key!r}{perhaps(key, keys)}; accepted are {', '.join(keys)}")
    return entry


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where} is {_shown(value)}; a text is accepted")
    return value.strip()


def _texts(value: Any, where: str) -> list[str]:
    return [_text(one, where) for one in (value if isinstance(value, list) else [value])]


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{where} is {_shown(value)}; a whole number from 1 is accepted")
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)[:80]
