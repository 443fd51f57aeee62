"""Names and sidecars of files by the Brain Imaging Data Structure (BIDS 1.11, https://bids-specification.readthedocs.io).

An own reading of names: a regular expression, where pybids brings pandas and SQLAlchemy, and bids2table pyarrow.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ImageError, Reason

__all__ = ["BidsName", "bids_name", "dataset_root", "read_metadata", "read_table", "read_weight"]

DESCRIPTION = "dataset_description.json"
"""Stands in the folder of every dataset."""

SUFFIX_MODALITIES = {
    **dict.fromkeys(("T1w", "T2w", "PDw", "FLAIR", "T2starw", "FLASH", "PD", "T2star", "angio", "UNIT1"), "MR"),
    "pet": "PT",
    "ct": "CT",
    "spect": "NM",
    "nm": "NM",
}
"""DICOM's codes. BIDS 1.11 has no suffix for CT, for which proposal 24 writes ``ct``, and none for SPECT."""

_NAME = re.compile(r"(?P<entities>[a-z]+-[0-9a-zA-Z+]+(?:_[a-z]+-[0-9a-zA-Z+]+)*)_(?P<suffix>[0-9a-zA-Z]+)")
_LEVELS = 4
"""Folders above an image in which its dataset is looked for: of the kind of data, session, participant, and all."""
_KG = {"kg": 1.0, "g": 1e-3, "lb": 0.45359237, "lbs": 0.45359237}


class BidsName(NamedTuple):
    """What the name of an image says, such as ``sub-01_ses-1_T1w.nii.gz``.

    Attributes:
        entities: {"sub": "01", "ses": "1"}, in their order.
        suffix: "T1w".
        ending: ".nii.gz".
    """

    entities: dict[str, str]
    suffix: str
    ending: str

    @property
    def modality(self) -> str | None:
        """DICOM's code, where the suffix tells it."""
        return SUFFIX_MODALITIES.get(self.suffix)


def bids_name(path: str | os.PathLike[str]) -> BidsName | None:
    """What a name says by BIDS; None where it does not say it, or tells no participant.

    Examples:
        >>> bids_name("sub-01_trc-FDG_pet.nii.gz")
        BidsName(entities={'sub': '01', 'trc': 'FDG'}, suffix='pet', ending='.nii.gz')
        >>> bids_name("mri.nii.gz")
    """
    stem, dot, ending = os.path.basename(path).partition(".")
    found = _NAME.fullmatch(stem)
    if not found or not stem.startswith("sub-"):
        return None
    parts = [part.split("-", 1) for part in found["entities"].split("_")]
    entities = {part[0]: part[1] for part in parts}
    return BidsName(entities, found["suffix"], dot + ending) if len(entities) == len(parts) else None


def dataset_root(path: Path) -> Path | None:
    """The dataset that an image lies in; None where there is none."""
    above = list(Path(os.path.abspath(path)).parents)[:_LEVELS]
    return next((folder for folder in above if (folder / DESCRIPTION).is_file()), None)


def read_metadata(path: Path) -> dict[str, Any]:
    """What sidecars say of an image: beside it, and above it by BIDS' principle of inheritance; the nearest one counts.

    Args:
        path: of an image whose name is one of BIDS.

    Returns:
        What they say, not looked at; nothing where there is no sidecar.

    Raises:
        ImageError: for a sidecar that cannot be read.
    """
    name, root = bids_name(path), dataset_root(path)
    if name is None:
        return {}
    folders = [Path(os.path.abspath(path)).parent]
    while root is not None and folders[-1] != root:
        folders.append(folders[-1].parent)
    said: dict[str, Any] = {}
    for folder in reversed(folders):
        try:
            files = _sidecars(str(folder), folder.stat().st_mtime_ns)
        except OSError as error:
            raise ImageError(
                Reason.MISSING, f"{folder}: cannot be listed ({error.strerror}); a folder of sidecars is accepted"
            ) from error
        applicable = [
            (len(entities), file) for file in files if (entities := _entities_of_sidecar(file, name)) is not None
        ]
        for _, file in sorted(applicable):
            said |= _read_json(folder / file)
    return said


def read_weight(path: Path) -> float | None:
    """Weight in kg of the participant of an image, by the column ``weight`` of ``participants.tsv``, or None.

    The unit is that of ``participants.json``, by default kg, as BIDS writes it.

    Raises:
        ImageError: if one of the two cannot be read.
    """
    name, root = bids_name(path), dataset_root(path)
    if name is None or root is None or not (root / "participants.tsv").is_file():
        return None
    row = read_table(root / "participants.tsv").get(f"sub-{name.entities['sub']}", {})
    column = next((key for key in row if key.lower() == "weight"), None)
    if column is None:
        return None
    units = "kg"
    if (root / "participants.json").is_file():
        about = _read_json(root / "participants.json").get(column)
        units = str(about.get("Units", "kg")) if isinstance(about, Mapping) else units
    try:
        weight = float(row[column]) * _KG[units.strip().lower()]
    except (ValueError, KeyError):  # n/a, or in other units
        return None
    return weight if math.isfinite(weight) and weight > 0 else None


def read_table(path: Path) -> Mapping[str, Mapping[str, str]]:
    """The rows of a table by their first column, such as ``participant_id``.

    Raises:
        ImageError: if it cannot be read.
    """
    try:
        return _rows(str(path), path.stat().st_mtime_ns)
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "no table"
        raise ImageError(
            Reason.DAMAGED, f"{path}: cannot be read ({reason}); a table of BIDS, parted by tabs, is accepted"
        ) from error


@lru_cache(maxsize=8)
def _rows(path: str, _: int) -> Mapping[str, Mapping[str, str]]:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    header = lines[0] if lines else []
    return {line[0]: dict(zip(header, line, strict=False)) for line in lines[1:] if line}


@lru_cache(maxsize=64)
def _sidecars(folder: str, _: int) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".json")))


def _entities_of_sidecar(file: str, image: BidsName) -> dict[str, str] | None:
    """The entities that the name of a sidecar tells, if it is one of this image."""
    *parts, suffix = file.removesuffix(".json").split("_")
    pairs = [part.partition("-") for part in parts]
    entities = {key: value for key, _, value in pairs}
    fits = suffix == image.suffix and all(image.entities.get(key) == value for key, value in entities.items())
    return entities if fits else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImageError(
            Reason.MISSING,
            f"{path}: cannot be read ({error.strerror}); a sidecar that is there is accepted, which `git annex get` "
            "fetches where it is a link",
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImageError(Reason.DAMAGED, f"{path}: not JSON; a sidecar of BIDS is accepted") from error
    if not isinstance(said, dict):
        raise ImageError(Reason.DAMAGED, f"{path}: holds no object; a sidecar of BIDS is accepted")
    return said
