"""Datalists: which images belong together."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_nets.clinical import ImageError, Reason, is_dicom, modality_code
from fusion_nets.clinical.modalities import MODALITY_NAMES
from fusion_nets.names import is_unicode, perhaps, shown
from fusion_nets.overlays import DETAILS, OVERLAYS, SOURCES, parted

__all__ = [
    "AANLIB_PAIRS",
    "MODALITY_NAMES",
    "aanlib_pairs",
    "balanced_weights",
    "check_texts",
    "load_pairs",
    "pairs_or_section",
    "single_images",
    "single_sources",
    "texts_of",
    "with_texts",
]

AANLIB_PAIRS = ("CT-MRI", "PET-MRI", "SPECT-MRI")
"""The kinds of pair of the Whole Brain Atlas, overlay first."""
# the atlas's, case and slice; and what `slice_pairs` writes
_OF_SUBJECT = re.compile(r"(?P<case>\d{1,2})\d{3}|(?P<name>.+)_\d{3}")
_CODES = {name: code for code, name in MODALITY_NAMES.items()}


def aanlib_pairs(
    dataset_dir: str | os.PathLike[str], section: str | Sequence[str], pairs: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """Pairs of one section of an AANLIB folder, or of several.

    The folder holds ``{pair}/MRI`` and ``{pair}/{CT | PET | SPECT}`` with equally named slices, and ``splits.json``,
    which names the slices of each section. :func:`fusion_nets.workflows.slice_pairs` makes one of other studies.

    Args:
        dataset_dir: the folder.
        section: "train", "val", "test", or another that ``splits.json`` has; or a list of them.
        pairs: which kinds of pair, named after overlay and anatomy; by default all that have such a section.

    Returns:
        A datalist with keys "anatomy", "overlay", "name", "pair", "subject" (a slice's name, such as 2005 or s07_012,
        less the three digits of its number; another name is a subject of its own), "anatomy_modality" ("MR"), and
        "overlay_modality" ("CT", "PT", or "NM", as DICOM calls them).

    Raises:
        FileNotFoundError: if the folder has no ``splits.json``.
        ValueError: if a section or pair is not in it.
    """
    root = Path(dataset_dir)
    splits = root / "splits.json"
    if not splits.is_file():
        raise FileNotFoundError(f"{splits}: no such file; dataset_dir must be an AANLIB folder, see the model card")
    names = json.loads(splits.read_text())
    sections = [section] if isinstance(section, str) else section
    for pair in pairs or ():
        if pair not in names:
            raise ValueError(f"{splits}: has no pairs {pair!r}; it has {', '.join(names)}")
    kinds = list(names) if pairs is None else pairs
    for one in sections:
        if not any(one in names[pair] for pair in kinds):
            known = dict.fromkeys(known for pair in kinds for known in names[pair])
            raise ValueError(f"{splits}: has no section {one!r} of {', '.join(kinds)}; it has {', '.join(known)}")
    images = {pair: pair.split("-") for pair in kinds}
    return [
        {
            "anatomy": str(root / pair / anatomy / name),
            "overlay": str(root / pair / overlay / name),
            "name": f"{pair}_{Path(name).stem}",
            "pair": pair,
            "subject": _subject_of(Path(name).stem),
            "anatomy_modality": _CODES.get(anatomy, anatomy),
            "overlay_modality": _CODES.get(overlay, overlay),
        }
        for one in sections
        for pair, (overlay, anatomy) in images.items()
        for name in names[pair].get(one, ())
    ]


def _subject_of(stem: str) -> str:
    named = _OF_SUBJECT.fullmatch(stem)
    return named["case"] or named["name"] if named else stem


def single_images(datalist: Sequence[Mapping[str, Any]], described: bool = False) -> list[dict[str, Any]]:
    """Both sources of every pair on their own, as "image" and, where there is one, its "text".

    Args:
        datalist: the pairs.
        described: leave out sources without a text.
    """
    texts = {"anatomy": "anatomy_text", "overlay": "overlay_text"}
    return [
        {"image": pair[key], "pair": pair["pair"], **({"text": pair[text]} if text in pair else {})}
        for pair in datalist
        for key, text in texts.items()
        if pair.get(text) or not described
    ]


def single_sources(datalist: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every source of every pair that has a text, on its own under its role, as :func:`load_pairs` gives the pairs.

    Each is {"anatomy" or "overlay", and of the same role "anatomy_text", "anatomy_modality"?, "anatomy_series_uid"?;
    "name", "pair"?, "kind"}; "kind" is the modality, or the role where that is unknown.

    Raises:
        ValueError: if there is none, or naming the first pair with a text for each slice.
    """
    sources = []
    for pair in datalist:
        for role in ("anatomy", "overlay"):
            text = pair.get(f"{role}_text")
            if isinstance(text, list):
                raise ValueError(
                    f"{pair['name']}: {role}_text is a list of texts; one text is accepted here, as `fusion-nets "
                    "describe --per series` writes it"
                )
            if text:
                own = {key: value for key, value in pair.items() if key in ("name", "pair") or key.startswith(role)}
                sources.append({**own, "kind": pair.get(f"{role}_modality", role)})
    if not sources:
        raise ValueError("no image has a text; `fusion-nets describe` writes them")
    return sources


def texts_of(datalist: Iterable[Mapping[str, Any]]) -> list[str]:
    """The texts on sources, such as :func:`single_sources` gives, one each, or on both of pairs."""
    return [source[key] for source in datalist for key in _TEXT_KEYS if key in source]


def balanced_weights(
    datalist: Sequence[dict[str, str]], key: str = "pair", emphasis: Mapping[str, float] | None = None
) -> list[float]:
    """Sampling weight of every item, so that each value of ``key`` is drawn equally often.

    Args:
        datalist: the items.
        key: what to balance.
        emphasis: how many times as often as the others a value is drawn.
    """
    counts = Counter(item[key] for item in datalist)
    return [(emphasis or {}).get(item[key], 1) / counts[item[key]] for item in datalist]


_TEXT_KEYS = ("anatomy_text", "overlay_text")
_PATH_KEYS = (*SOURCES, "regions")
_PAIR_KEYS = {
    *("regions", "name", "pair", "subject"),
    *(f"{source}{detail}" for source in SOURCES[:2] for detail in ("", *DETAILS)),
}
_OTHER_KEYS = {f"{overlay}{detail}" for overlay in OVERLAYS[1:] for detail in ("", *DETAILS)}
"""Of overlays but the first, as they are called when a list was parted."""


def load_pairs(
    datalist: str | os.PathLike[str] | Sequence[dict[str, Any]] | Mapping[str, Any] | None = None,
    anatomy: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    bids: Sequence[dict[str, Any]] | None = None,
    most_overlays: int = 1,
    **details: Any,
) -> list[dict[str, Any]]:
    """The pairs a user asks for: a datalist, a single pair, or those of a BIDS dataset.

    Args:
        datalist: a JSON file, or what is in one: a list of {"anatomy", "overlay", "name"?, "pair"?, "subject"?,
            "anatomy_modality"?, "overlay_modality"?, "anatomy_series_uid"?, "overlay_series_uid"?, "anatomy_text"?,
            "overlay_text"?, "anatomy_volume"?, "overlay_volume"?, "regions"?}, or an object that has this list under
            "pairs", as ``fusion-nets describe`` writes it. "regions" is a label image, see
            :class:`fusion_nets.transforms.LoadRegions`. "anatomy_volume" and "overlay_volume" say which of several
            volumes of an image is meant, as :func:`fusion_nets.clinical.read_image` takes it.
            Modalities are DICOM codes ("MR", "CT", "PT", "NM") or what people call them ("MRI", "PET", "SPECT"); they
            pick among several series in a folder, as a series UID or its fingerprint does. A text may be a list of
            texts, one per slice. Relative paths in a file start from its folder. "overlay" may be a list of up to three
            images; what is said of it is then a list of as many, or one for all (a list of texts: one for each
            overlay, which may be a list itself).
        anatomy: the anatomical image of a single pair, instead of a datalist.
        overlay: its overlay, or a list of several.
        bids: instead of both, what :func:`fusion_nets.bids.bids_pairs` found; None is nothing.
        details: what else is known of the single pair, such as ``overlay_modality="PT"``; of those of a dataset only
            modality and volume, for each; None counts as unknown.
        most_overlays: that a pair may have, up to 3.

    Returns:
        The pairs, each with a name of its own: by default that of the anatomy's file, or "pair1" and so on for DICOM,
        whose folders and files are often named after the patient. All strings are data: a name that no file can have
        is refused by what would write it (:func:`fusion_nets.names.check_name`), a text that is none by what loads the
        pair (:func:`check_texts`), and costs that pair alone. Several overlays are "overlay", "overlay2" and
        "overlay3", with "overlay2_modality" and so on.

    Raises:
        ValueError: naming the datalist, the entry, and what would be accepted.
    """
    entries: object
    if bids is not None:
        return load_pairs(_with_details(bids, [datalist, anatomy, overlay], details))
    if datalist is None or (isinstance(datalist, str) and not datalist):
        if not (anatomy and overlay):
            raise ValueError("give a datalist, or both an anatomy and an overlay")
        known = {key: value for key, value in details.items() if value is not None}
        where, folder = "the command", Path()
        paths = str(overlay) if isinstance(overlay, (str, os.PathLike)) else [str(one) for one in overlay]
        entries = [{"anatomy": str(anatomy), "overlay": paths, **known}]
    elif anatomy or overlay or any(value is not None for value in details.values()):
        raise ValueError("give either a datalist or an anatomy and an overlay, not both")
    elif isinstance(datalist, (str, os.PathLike)):
        where, folder = str(datalist), Path(datalist).parent
        try:
            # bytes that are no text cost the pair that they stand in
            entries = json.loads(Path(datalist).read_text(encoding="utf-8-sig", errors="surrogateescape"))
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error.strerror}); a JSON file is accepted") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
    else:
        where, folder, entries = "datalist", Path(), datalist
    if isinstance(entries, Mapping) and "pairs" in entries:
        entries = entries["pairs"]
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ValueError(
            f'{where}: expected a list of at least one {{"anatomy", "overlay", "name"?}}, '
            'or an object with this list under "pairs"'
        )
    pairs = [
        _checked(entry, f"{where}, entry {number}", folder, number, most_overlays)
        for number, entry in enumerate(entries, start=1)
    ]
    for name, count in Counter(pair["name"] for pair in pairs).items():
        if count > 1:
            raise ValueError(f"{where}: {count} entries would be called {name!r}; give each a name of its own")
    return pairs


def _with_details(
    bids: Sequence[dict[str, Any]], others: Sequence[Any], details: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The pairs of a dataset, with what is known of each of them."""
    known = {key: value for key, value in details.items() if value is not None}
    wrong = [key for key in known if not key.endswith(("_modality", "_volume"))]
    if any(others) or wrong:
        raise ValueError(
            f"{wrong[0] if wrong else 'a datalist, anatomy or overlay'} is given beside bids_dir, which has the pairs; "
            "modality and volume are accepted there"
        )
    return [{**pair, **known} for pair in bids]


def _checked(entry: object, where: str, folder: Path, number: int, most_overlays: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected {{"anatomy", "overlay", "name"?}}, got {type(entry).__name__}')
    unknown = sorted(str(key) for key in set(entry) - _PAIR_KEYS - _OTHER_KEYS)
    if unknown:
        raise ValueError(
            f"{where}: unknown key {unknown[0]!r}{perhaps(unknown[0], _PAIR_KEYS)}; accepted are "
            f"{', '.join(sorted(_PAIR_KEYS))}"
        )
    for key in ("anatomy", "overlay"):
        if entry.get(key) in (None, ""):
            raise ValueError(f"{where}: {key!r} is missing")
    try:
        entry = parted(entry, most_overlays)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for key, value in entry.items():
        if key.endswith("_text") and isinstance(value, list):
            if not value or not all(isinstance(text, str) for text in value):
                raise ValueError(f"{where}: {key!r} must be a text or a list of texts, one per slice")
        elif not isinstance(value, str) and not (key.endswith("_volume") and type(value) is int):
            raise ValueError(f"{where}: {key!r} must be a text, got {type(value).__name__}")
    name = entry.get("name") or _default_name(folder / entry["anatomy"], number)
    codes = {
        key: modality_code(value, f"{where}: {key!r}")
        for key, value in entry.items()
        if key.endswith("_modality") and value
    }
    files = {key: str(folder / entry[key]) for key in _PATH_KEYS if entry.get(key)}
    return {**{key: value for key, value in entry.items() if key != "regions"}, **codes, **files, "name": name}


def check_texts(pair: Mapping[Any, Any], paths: Collection[Hashable] = _PATH_KEYS) -> None:
    """See whether all that a pair says is Unicode.

    JSON can tell of half characters (lone surrogates), and bytes that are no text are read as such; no result, page or
    tokenizer takes them. Paths may hold them, as file systems do.

    Args:
        pair: as :func:`load_pairs` gives it.
        paths: the keys of its paths.

    Raises:
        ImageError: naming the pair and what it says.

    Examples:
        >>> check_texts({"name": "a", "anatomy_text": "Ein großer Tumor."})
    """
    for key, value in pair.items():
        texts = value if isinstance(value, list) else [value]
        if key not in paths and not all(is_unicode(text) for text in texts if isinstance(text, str)):
            name = shown(str(pair.get("name", "the pair")))
            raise ImageError(
                Reason.TEXT, f"{name}: {key!r} has half a character (a lone surrogate); a text in Unicode is accepted"
            )


def _default_name(path: Path, number: int) -> str:
    if is_dicom(path):
        return f"pair{number}"
    return Path(path.stem).stem if path.name.lower().endswith(".nii.gz") else path.stem


def with_texts(
    pairs: Sequence[dict[str, Any]],
    datalist: str | os.PathLike[str] | Sequence[dict[str, Any]] | None,
    required: bool = False,
) -> list[dict[str, Any]]:
    """The pairs, with the texts that a datalist has under the same names.

    Args:
        pairs: what to put the texts to, such as :func:`aanlib_pairs`.
        datalist: as :func:`load_pairs` takes it, with texts; it may hold other pairs too. None or "" leaves the pairs
            as they are.
        required: refuse that.

    Raises:
        FileNotFoundError: if there is no such datalist.
        ValueError: if one is required, or naming the first pair for which it has no text.
    """
    if not datalist:
        if required:
            raise ValueError("texts are needed: a datalist with descriptions, as `fusion-nets describe` writes it")
        return list(pairs)
    if isinstance(datalist, (str, os.PathLike)) and not Path(datalist).is_file():
        raise FileNotFoundError(f"{datalist}: no such datalist of texts; `fusion-nets describe` writes one")
    described = {pair["name"]: {key: pair[key] for key in _TEXT_KEYS if pair.get(key)} for pair in load_pairs(datalist)}
    for pair in pairs:
        if not described.get(pair["name"]):
            where = datalist if isinstance(datalist, (str, os.PathLike)) else "datalist"
            raise ValueError(f"{where}: has no text for {pair['name']!r}; `fusion-nets describe` writes them")
    return [{**pair, **described[pair["name"]]} for pair in pairs]


def pairs_or_section(
    datalist: str | os.PathLike[str] | Sequence[dict[str, Any]] | Mapping[str, Any] | None = None,
    anatomy: str | os.PathLike[str] | None = None,
    overlay: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    dataset_dir: str | os.PathLike[str] | None,
    section: str | Sequence[str] | None = None,
    default_section: str | Sequence[str] = "test",
    texts: str | os.PathLike[str] | Sequence[dict[str, Any]] | None = None,
    texts_required: bool = False,
    bids: Sequence[dict[str, Any]] | None = None,
    most_overlays: int = 1,
    **details: Any,
) -> list[dict[str, Any]]:
    """The pairs a user asks for, or else a section of a folder of slices.

    Args:
        datalist: as :func:`load_pairs` takes it.
        anatomy: likewise.
        overlay: likewise.
        dataset_dir: as :func:`aanlib_pairs` takes it, where nothing of the above is given; None otherwise.
        section: likewise.
        default_section: that which is taken where none is asked for.
        texts: what :func:`with_texts` puts to that section; pairs of a user have theirs in the datalist.
        texts_required: refuse a section without texts.
        bids: as :func:`load_pairs` takes it.
        most_overlays: likewise.
        details: likewise.

    Raises:
        FileNotFoundError: as :func:`aanlib_pairs` and :func:`with_texts` do.
        ValueError: as :func:`load_pairs` and they do, and for a section or its texts beside pairs of a user.
    """
    if bids is None and not (datalist or anatomy or overlay) and all(value is None for value in details.values()):
        if dataset_dir is None:
            raise ValueError("give a datalist, both an anatomy and an overlay, or dataset_dir")
        return with_texts(aanlib_pairs(dataset_dir, section or default_section), texts, texts_required)
    pairs = load_pairs(datalist, anatomy, overlay, bids, most_overlays, **details)
    for name, value, instead in (
        ("dataset_dir", dataset_dir, "give one of both"),
        ("section", section, "it is of dataset_dir"),
        ("texts", texts, "they are of a section of dataset_dir; those of a datalist stand in it"),
    ):
        if value is not None:
            raise ValueError(f"pairs are given, and {name} as well; {instead}")
    return pairs
