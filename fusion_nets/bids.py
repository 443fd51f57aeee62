"""Which images of a BIDS dataset belong together: a participant's anatomy, and what is fused onto it.

An own walk of four levels of folders and one grammar of names (:mod:`fusion_nets.clinical.bids_names`): pybids would
bring pandas, SQLAlchemy and an index of the whole dataset, bids2table pyarrow and Python 3.11; neither knows CT or SUV.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion_nets.clinical.bids_names import DESCRIPTION, BidsName, bids_name
from fusion_nets.names import perhaps, shown

__all__ = ["ANATOMY_SUFFIXES", "OVERLAY_SUFFIXES", "RESULT", "bids_pairs", "dataset_description", "place_of"]
__all__ += ["on_grid_place", "registration_name"]

logger = logging.getLogger(__name__)

ANATOMY_SUFFIXES = ("T1w", "T2w", "FLAIR")
"""Which image of a session is the anatomy, by default: the first of these that is there."""

OVERLAY_SUFFIXES = ("pet", "ct")
"""Which are fused onto it, by default: all of these, each on its own."""

RESULT = re.compile(
    r"(?P<sub>sub-[0-9a-zA-Z+]+)(?:_(?P<ses>ses-[0-9a-zA-Z+]+))?_.*desc-fused[0-9a-zA-Z+]*_(?P<suffix>[0-9a-zA-Z]+)"
)
"""The name of a pair, and of its fused image."""

_LABEL = re.compile(r"[0-9a-zA-Z+]+")
_CHOICE = re.compile(r"(?:[a-z]+-[0-9a-zA-Z+]+_)*[0-9a-zA-Z]+")
_ENDINGS = (".nii", ".nii.gz")
_OF_NO_MAGNITUDE = ("phase", "real", "imag")


@dataclass(frozen=True)
class _Image:
    path: Path
    name: BidsName

    @property
    def session(self) -> str | None:
        return self.name.entities.get("ses")

    @property
    def run(self) -> int:
        run = self.name.entities.get("run", "")
        return int(run) if run.isdecimal() else 0

    def is_chosen(self, choice: str) -> bool:
        """Whether it has the suffix, and the entities before it, such as "ce-gad_T1w"."""
        *entities, suffix = choice.split("_")
        has = (f"{key}-{value}" for key, value in self.name.entities.items())
        return suffix == self.name.suffix and set(entities) <= set(has)


def bids_pairs(
    bids_dir: str | os.PathLike[str] | None,
    participant_label: Any = None,
    session_label: Any = None,
    anatomy_suffix: Any = None,
    overlay_suffix: Any = None,
) -> list[dict[str, str]] | None:
    """The pairs of a BIDS dataset: every overlay of a session, with its anatomy.

    The anatomy is that of the overlay's session, by the first of ``anatomy_suffix`` that is there; of several, the one
    of the lowest run. Where a session has none, it is that of the only other session of the participant that has one,
    as where MRI and PET were acquired on two days. What is chosen of several, and what has no partner, is said in the
    log; the others go on.

    Args:
        bids_dir: the dataset, a folder with ``dataset_description.json``; None or "" is none.
        participant_label: of the participants, with or without "sub-"; one or several, also parted by commas or spaces;
            by default all.
        session_label: likewise, of the sessions whose overlays are fused.
        anatomy_suffix: which image is the anatomy, the preferred first: suffixes, each with or without entities before
            it, such as "ce-gad_T1w"; by default :data:`ANATOMY_SUFFIXES`.
        overlay_suffix: likewise, which images are fused onto it, each; by default :data:`OVERLAY_SUFFIXES`. BIDS has no
            suffix for SPECT; "spect" and "nm" are taken for it.

    Returns:
        A datalist with keys "anatomy", "overlay", "name", "subject", and the modalities that the suffixes tell; None
        without a dataset. "name" is what the fused image is called: that of the anatomy, with ``desc-fused`` and what
        tells the overlay from others, such as ``sub-01_desc-fusedpetTrcFDG_T1w``.

    Raises:
        ValueError: for a folder that is no dataset, a label or suffix that none can be or that the dataset does not
            have, and where there is no pair at all.
    """
    if bids_dir is None or bids_dir == "":
        return None
    root = Path(bids_dir)
    dataset_description(root)
    people = _labels(participant_label, "participant_label", "sub-")
    sessions = _labels(session_label, "session_label", "ses-")
    anatomies = _choices(anatomy_suffix, "anatomy_suffix") or ANATOMY_SUFFIXES
    overlays = _choices(overlay_suffix, "overlay_suffix") or OVERLAY_SUFFIXES
    there = [entry.name[4:] for entry in _folders(root, "sub-")]
    _check_there(people, there, f"{root}: has no participant", "participant_label")
    found = {label: list(_images(root, label)) for label in there if not people or label in people}
    known = sorted({image.session for images in found.values() for image in images if image.session})
    _check_there(sessions, known, f"{root}: has no session", "session_label")
    pairs: list[dict[str, str]] = []
    for label, images in found.items():
        pairs += _pairs_of(f"sub-{label}", images, sessions, anatomies, overlays)
    if not pairs:
        raise ValueError(
            f"{root}: has no pair of {', '.join(anatomies)} with {', '.join(overlays)}; a dataset with such images in "
            "NIfTI is accepted, or others by anatomy_suffix and overlay_suffix"
        )
    return pairs


def dataset_description(folder: Path) -> dict[str, Any]:
    """What a dataset says of itself.

    Raises:
        ValueError: if the folder is no dataset.
    """
    try:
        said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder}: is no BIDS dataset ({DESCRIPTION} cannot be read); a folder with one is accepted"
        ) from error
    if not isinstance(said, dict):
        raise ValueError(f"{folder / DESCRIPTION}: holds no object; the description of a BIDS dataset is accepted")
    return said


def place_of(name: str) -> Path:
    """The folder of a pair's results in a dataset of derivatives, by the name that :func:`bids_pairs` gave it.

    Examples:
        >>> place_of("sub-01_ses-1_desc-fusedpet_T1w").as_posix()
        'sub-01/ses-1/anat'
    """
    parts = RESULT.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name!r} is no name of a result by BIDS; sub-01_desc-fusedpet_T1w is one")
    return Path(parts["sub"], parts["ses"] or "", "anat")


def on_grid_place(source: str | os.PathLike[str], anatomy: str | os.PathLike[str] | None = None) -> Path:
    """Where a source on the anatomy's grid belongs in a dataset of derivatives, without the ending of its file.

    An overlay keeps its own name and folder; BIDS' entity ``space`` tells the anatomy, with what tells that from
    others. The anatomy itself, whose space it is, is told from the fused image by ``desc``.

    Args:
        source: an image of the dataset.
        anatomy: whose grid it is; None where the source is the anatomy.

    Raises:
        ValueError: for a name that is none of BIDS.

    Examples:
        >>> on_grid_place("raw/sub-01/pet/sub-01_pet.nii.gz", "raw/sub-01/anat/sub-01_run-1_T1w.nii.gz").as_posix()
        'sub-01/pet/sub-01_space-T1wRun1_pet'
        >>> on_grid_place("raw/sub-01/anat/sub-01_T1w.nii.gz").name
        'sub-01_desc-values_T1w'
    """
    name, on = bids_name(source), None if anatomy is None else bids_name(anatomy)
    if name is None or (anatomy is not None and on is None):
        raise ValueError(f"{source}, {anatomy}: not both have names by BIDS; sub-01_pet.nii.gz is one")
    entities = {key: value for key, value in name.entities.items() if key not in ("space", "desc")}
    entities |= {"desc": "values"} if on is None else {"space": f"{on.suffix}{_tells(on, name)}"}
    folder = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    stem = "_".join([*(f"{key}-{value}" for key, value in entities.items()), name.suffix])
    return Path(*folder, Path(source).parent.name, stem)


def registration_name(name: str, moving: str) -> str:
    """What the registration of a pair is called there, by extension proposal 14.

    Args:
        name: of the pair.
        moving: suffix of the overlay.

    Examples:
        >>> registration_name("sub-01_desc-fusedpet_T1w", "pet")
        'sub-01_from-pet_to-T1w_mode-image_desc-fusedpet_xfm.tfm'
    """
    stem, _, suffix = name.rpartition("_")
    before, _, description = stem.rpartition("_")
    return f"{before}_from-{moving}_to-{suffix}_mode-image_{description}_xfm.tfm"


def _pairs_of(
    person: str, images: Sequence[_Image], sessions: Sequence[str], anatomies: Sequence[str], overlays: Sequence[str]
) -> Iterator[dict[str, str]]:
    wanted = [image for image in images if any(map(image.is_chosen, overlays))]
    best = {session: _best(images, session, anatomies) for session in {image.session for image in images}}
    elsewhere = [anatomy for anatomy in best.values() if anatomy is not None]
    for session in sorted({image.session or "" for image in images}):
        where = person + (f" ses-{session}" if session else "")
        here = [image for image in wanted if (image.session or "") == session]
        if sessions and session not in sessions:
            continue
        anatomy = best[session or None]
        if not here:
            if anatomy is not None and (sessions or not _is_used(wanted, elsewhere)):
                logger.warning("%s: has no overlay (%s); nothing is fused there", where, ", ".join(overlays))
            continue
        if anatomy is None and len(elsewhere) == 1:
            anatomy = elsewhere[0]
            logger.info("%s: its anatomy is %s, of another session", where, anatomy.path.name)
        if anatomy is None:
            many = f"{len(elsewhere)} other sessions have one" if elsewhere else ", ".join(anatomies)
            logger.warning("%s: has no anatomy (%s); nothing is fused there", where, many)
            continue
        for overlay in here:
            if overlay.path != anatomy.path:
                yield _pair(anatomy, overlay)


def _is_used(wanted: Sequence[_Image], anatomies: Sequence[_Image]) -> bool:
    """Whether the only anatomy of a participant serves the overlays of other sessions."""
    return len(anatomies) == 1 and bool(wanted)


def _best(images: Sequence[_Image], session: str | None, choices: Sequence[str]) -> _Image | None:
    of_session = [image for image in images if image.session == session]
    for choice in choices:
        found = [image for image in of_session if image.is_chosen(choice)]
        if found:
            found.sort(key=lambda image: (image.run, image.path.name))
            if len(found) > 1:
                logger.warning(
                    "%s: is the anatomy of its session, of %d that are %s; another one by anatomy_suffix",
                    found[0].path.name, len(found), choice,
                )  # fmt: skip
            return found[0]
    return None


def _pair(anatomy: _Image, overlay: _Image) -> dict[str, str]:
    entities = {key: value for key, value in anatomy.name.entities.items() if key != "desc"}
    entities["desc"] = f"fused{overlay.name.suffix}{_tells(overlay.name, anatomy.name)}"
    name = "_".join([*(f"{key}-{value}" for key, value in entities.items()), anatomy.name.suffix])
    modalities = {
        f"{key}_modality": image.name.modality
        for key, image in (("anatomy", anatomy), ("overlay", overlay))
        if image.name.modality
    }
    files = {"anatomy": str(anatomy.path), "overlay": str(overlay.path)}
    return {**files, "name": name, "subject": f"sub-{entities['sub']}", **modalities}


def _tells(name: BidsName, other: BidsName) -> str:
    """What tells an image from others that may be paired with another one, in a label."""
    of_both = {key: value for key, value in other.entities.items() if key in ("sub", "ses")}
    return "".join(f"{key.capitalize()}{value}" for key, value in name.entities.items() if of_both.get(key) != value)


def _images(root: Path, label: str) -> Iterator[_Image]:
    """The images of a participant in NIfTI, in the order of their names."""
    person = root / f"sub-{label}"
    passed = 0
    for folder in [person, *(Path(entry.path) for entry in _folders(person, "ses-"))]:
        for kind in _folders(folder, ""):
            if kind.name.startswith("ses-"):
                continue
            names = sorted(entry.name for entry in os.scandir(kind.path) if entry.name.endswith(_ENDINGS))
            for file in names:
                name = bids_name(file)
                session = folder.name[4:] if folder != person else None
                if name is None or (name.entities["sub"], name.entities.get("ses")) != (label, session):
                    passed += 1
                elif name.ending in _ENDINGS and name.entities.get("part") not in _OF_NO_MAGNITUDE:
                    if name.ending == ".nii" and f"{file}.gz" in names:
                        passed += 1
                        continue
                    yield _Image(Path(kind.path, file), name)
    if passed:
        logger.warning(
            "sub-%s: %d files without a name by BIDS for their folder, or there twice, are passed over", label, passed
        )


def _folders(folder: Path, start: str) -> list[os.DirEntry[str]]:
    """The folders in one, sorted, whose names are this start and a label."""
    entries = [entry for entry in os.scandir(folder) if entry.name.startswith(start) and entry.is_dir()]
    named = [entry for entry in entries if _LABEL.fullmatch(entry.name[len(start) :]) or not start]
    if len(named) < len(entries):
        logger.warning(
            "%s: %d folders %s* without a label by BIDS are passed over", folder, len(entries) - len(named), start
        )
    return sorted(named, key=lambda entry: entry.name)


def _words(value: Any, option: str) -> list[str]:
    """One or several, also parted by commas or spaces; whole numbers are what command lines make of labels."""
    given = list(value) if isinstance(value, (list, tuple)) else [] if value is None or value == "" else [value]
    for word in given:
        if not isinstance(word, (str, int)) or isinstance(word, bool):
            raise ValueError(
                f"{option} is {shown(repr(value))[:200]}; texts are accepted, such as '\"1e2\"' or \"['01', '02']\""
            )
    return [part for word in given for part in re.split(r"[,\s]+", str(word)) if part]


def _labels(value: Any, option: str, start: str) -> list[str]:
    labels = [word.removeprefix(start) for word in _words(value, option)]
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{option} is {shown(repr(label))[:200]}; labels of letters and digits are accepted, such as 01"
            )
    return labels


def _choices(value: Any, option: str) -> tuple[str, ...]:
    choices = _words(value, option)
    for choice in choices:
        if not _CHOICE.fullmatch(choice):
            raise ValueError(
                f"{option} is {shown(repr(choice))[:200]}; suffixes are accepted, such as T1w or ce-gad_T1w"
            )
    return tuple(choices)


def _check_there(labels: Sequence[str], there: Sequence[str], words: str, option: str) -> None:
    for label in labels:
        if label not in there:
            some = ", ".join(there[:10]) + (" ..." if len(there) > 10 else "")
            raise ValueError(f"{words} {label!r}{perhaps(label, there)}; {option} may be {some or 'left out'}")
