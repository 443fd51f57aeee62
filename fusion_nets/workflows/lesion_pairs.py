"""Pairs without and with inserted lesions: written to be fused by any program, or made in a run of a bundle."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from evaluation.observers import LESION_MAKES, Lesion, LesionCase, lesion_cases, luminance
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import MODALITY_NAMES, load_pairs
from fusion_nets.files import whole_file
from fusion_nets.names import check_name, entries_read, shown
from fusion_nets.registration import LEAST_OVERLAP, RegistrationMode
from fusion_nets.transforms.display import Window

from .inference import image_error
from .progress import LOG_ABOVE_BAR
from .study_images import StudyImages, study_rows

__all__ = ["CURVE_MAKES", "InsertLesions", "KnownCase", "lesion_group", "read_lesion_pairs", "write_lesion_pairs"]

CURVE_MAKES = ("discs", "small", "large", "faint", "strong")
"""Makes of lesions that a psychometric curve needs; the first is that of the headline."""
_TRUTH, _DATALIST = "lesions.json", "datalist.json"
_BLURRED = ("PT", "NM")
_LONGEST = 64
"""Bytes that are put behind a pair's name, as of the longest make and kind, and some."""


class KnownCase(NamedTuple):
    """A pair with lesions whose truth is known.

    Attributes:
        name: of the pair with lesions, by which its fused image is found.
        clean: name of the same pair without.
        kind: of the lesions, or "none".
        make: of the lesions; "" of none.
        signs: in the anatomy and in the overlay.
        lesions: what was put in.
    """

    name: str
    clean: str
    kind: str
    make: str
    signs: tuple[int, ...]
    lesions: tuple[Lesion, ...]

    @classmethod
    def from_plain(cls, told: Mapping[str, Any]) -> KnownCase:
        """Of what JSON gives for :meth:`plain`."""
        lesions = tuple(Lesion(**lesion) for lesion in told["lesions"])
        in_anatomy, in_overlay = told["signs"]
        return cls(told["name"], told["clean"], told["kind"], told["make"], (in_anatomy, in_overlay), lesions)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "lesions": [lesion._asdict() for lesion in self.lesions]}


def lesion_group(pair: Mapping[str, Any], modality: str) -> str:
    """What a pair belongs to in tables: its "pair", or the modalities, overlay first."""
    names = [MODALITY_NAMES.get(code, code) for code in (modality, pair.get("anatomy_modality", "MR"))]
    return pair.get("pair") or "-".join(names)


def _cases(
    pair: Mapping[str, Any], sources: np.ndarray, modality: str, makes: Sequence[str], seed: int, most: int
) -> Iterator[tuple[KnownCase, LesionCase]]:
    """A pair without lesions and with those of every make and kind, all at the same places."""
    clean = f"{pair['name']}-none"
    for make in makes:
        # the places are drawn first, so that every make has the same
        generator = np.random.default_rng([seed, *pair["name"].encode()])
        for case in lesion_cases(sources[0], sources[1], generator, modality == "CT", LESION_MAKES[make], most):
            if case.kind == "none":
                if make == makes[0]:
                    yield KnownCase(clean, clean, "none", "", (0, 0), ()), case
                continue
            words = [pair["name"], *([make] if make != "discs" else []), case.kind.replace(",", "").replace(" ", "-")]
            yield KnownCase("-".join(words), clean, case.kind, make, case.signs, tuple(case.lesions)), case


def _checked_makes(makes: Sequence[str]) -> list[str]:
    unknown = [make for make in makes if make not in LESION_MAKES]
    if unknown or not makes:
        raise ValueError(f"makes of lesions {unknown} are unknown; accepted are {', '.join(LESION_MAKES)}")
    return list(dict.fromkeys(makes))


def _checked_modality(name: str, modality: str | None) -> str:
    if modality != "CT" and modality not in _BLURRED:
        raise ImageError(
            Reason.INCOMPLETE,
            f"{name}: overlay_modality is {modality or 'missing'}, and lesions are as sharp as the modality; CT, "
            f"{' and '.join(_BLURRED)} are accepted",
        )
    return modality


def write_lesion_pairs(
    pairs: Sequence[dict[str, Any]],
    output_dir: str | os.PathLike[str],
    makes: Sequence[str] = CURVE_MAKES,
    seed: int = 0,
    most: int = 5,
    pairs_of_kind: int | None = None,
    windows: Mapping[str, Window | None] | None = None,
    register: RegistrationMode = "auto",
    progress: bool = True,
    least_overlap: float = LEAST_OVERLAP,
) -> Path:
    """Write registered 2-D pairs without and with inserted lesions, as grey pictures, to be fused by any program.

    Sources are prepared as the bundles do, see :func:`evaluate_methods`. Beside the datalist to fuse stands
    ``lesions.json``, which tells where which lesion is. Pairs that have no place for a lesion are left out. The same
    pairs, names and seed give the same lesions; of the make "discs" those of the reference judge.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` takes and gives them; "overlay_modality" must be known, and
            be CT, PT or NM.
        output_dir: folder to write into.
        makes: of ``evaluation.observers.LESION_MAKES``; the first is that of the headline.
        seed: where lesions lie, and what is random in them.
        most: the most lesions in a pair.
        pairs_of_kind: the most pairs of each kind (such as CT-MRI), evenly spaced; by default all.
        windows: display range by "anatomy" and "overlay".
        register: how the overlays are brought onto the anatomies.
        progress: show a progress bar.
        least_overlap: share of what one of the two images shows that must lie in the field of view of the other, see
            :func:`fusion_nets.registration.check_overlap`.

    Returns:
        The datalist.

    Raises:
        ImageError: after all others were written, if some pairs could not be used; each is logged with its reason.
        ValueError: for an unknown make, a malformed pair or window, or if no pair has a place for a lesion.
    """
    pairs, makes, folder = load_pairs(pairs), _checked_makes(makes), Path(output_dir)
    chosen = _spaced(pairs, pairs_of_kind)
    study, failed = StudyImages(chosen, {}, windows or {}, register, least_overlap=least_overlap), 0
    read = entries_read(folder, (pair[key] for pair in pairs for key in ("anatomy", "overlay")))
    datalist, truth = [], []
    bar = tqdm(chosen, desc="inserting lesions", unit="pair", disable=not progress)
    with LOG_ABOVE_BAR, bar:
        for pair in bar:
            try:
                _check_name(pair["name"], folder, read)
                sources, modality = _sources(study, pair)
            except Exception as error:
                if (reason := image_error(error)) is None:
                    raise
                failed += 1
                logging.getLogger(__name__).error("%s: no lesion inserted: %s", shown(pair["name"]), reason)
                continue
            kept = {"subject": pair.get("subject", pair["name"]), "pair": lesion_group(pair, modality)}
            kept |= {"anatomy_modality": pair.get("anatomy_modality", "MR"), "overlay_modality": modality}
            for known, case in _cases(pair, sources, modality, makes, seed, most):
                names = {key: f"{known.name}_{key}.png" for key in ("anatomy", "overlay")}
                for name, image in zip(names.values(), case.images, strict=True):
                    with whole_file(folder / name) as partial:
                        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(partial)
                datalist.append({"name": known.name, **names, **kept})
                truth.append(known.plain())
    if not truth:
        raise ValueError(
            f"none of {len(chosen)} pairs has a place for a lesion: both sources must show tissue, neither black nor "
            "white, 24 pixels from the border"
        )
    for name, content in ((_TRUTH, {"seed": seed, "makes": makes, "cases": truth}), (_DATALIST, datalist)):
        with whole_file(folder / name) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if failed:
        raise ImageError(
            Reason.SEVERAL, f"{failed} pairs could not be used, reasons are given above; the others are in {output_dir}"
        )
    return folder / _DATALIST


def _check_name(name: str, folder: Path, read: Mapping[str, str]) -> None:
    """Before anything is read: that its pictures can bear it, and are none that is read."""
    try:
        check_name(name, folder, _LONGEST)
    except ValueError as error:
        raise ImageError(Reason.OUTPUT, str(error)) from error
    for entry, source in read.items():
        if entry.startswith(f"{name}-") and entry.endswith(("_anatomy.png", "_overlay.png")):
            raise ImageError(
                Reason.OUTPUT, f"{folder}: the pictures of {name!r} would be written over {source}, which is read; "
                "another folder or name is accepted"
            )  # fmt: skip


def _spaced(pairs: Sequence[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    """At most so many of each kind of pair, evenly spaced, in their order."""
    if most is None:
        return list(pairs)
    if most < 1:
        raise ValueError(f"{most} pairs of each kind were asked for; 1 or more are accepted")
    kinds: dict[str, list[str]] = {}
    for pair in pairs:
        kinds.setdefault(pair.get("pair", pair.get("overlay_modality", "")), []).append(pair["name"])
    names = {name for of in kinds.values() for name in of[:: max(1, len(of) // most)][:most]}
    return [pair for pair in pairs if pair["name"] in names]


def _sources(study: StudyImages, pair: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """Luminances (2, H, W) in [0, 1] as one looks at them, and the overlay's modality."""
    sources = study.sources(pair)
    if isinstance(sources, ImageError):
        raise sources
    if sources.anatomy.ndim != 3:
        raise ImageError(
            Reason.SHAPE, f"{pair['name']}: a volume; 2-D pairs are accepted, as `fusion-nets slices` makes them"
        )
    modality = _checked_modality(pair["name"], pair.get("overlay_modality", sources.overlay.meta.get("modality")))
    planes = [np.atleast_3d(study_rows(source, 0)[0]) for source in sources]
    grey = [luminance(torch.from_numpy(np.moveaxis(plane, -1, 0)[None].copy()))[0, 0].numpy() for plane in planes]
    return np.stack(grey), modality


def read_lesion_pairs(folder: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[KnownCase]]:
    """What :func:`write_lesion_pairs` wrote: the pairs to fuse, without and with lesions, and their truth.

    Raises:
        ValueError: if this is no such folder.
    """
    root = Path(folder)
    try:
        truth = json.loads((root / _TRUTH).read_text(encoding="utf-8"))
        cases = [KnownCase.from_plain(told) for told in truth["cases"]]
    except OSError as error:
        raise ValueError(
            f"{root / _TRUTH}: cannot be read ({error.strerror}); a folder is accepted that `fusion-nets lesions` wrote"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{root / _TRUTH}: does not tell of lesions ({error}); what `fusion-nets lesions` wrote is accepted"
        ) from error
    pairs = load_pairs(root / _DATALIST)
    missing = {name for case in cases for name in (case.name, case.clean)} - {pair["name"] for pair in pairs}
    if missing:
        raise ValueError(f"{root / _DATALIST}: has no pair {min(missing)!r}, of which {_TRUTH} tells")
    return pairs, cases


class InsertLesions:
    """Turn a prepared pair, "image" (2, H, W), into itself without and with lesions of every kind: (2, H, W, K).

    For a run that fuses and judges at once: the slices go through the network as those of a volume do, the first
    without a lesion, the others in the order of "lesions", a JSON list of :meth:`KnownCase.plain`. A pair without a
    place for a lesion has one slice. What goes with each slice, texts, is the same for all.

    Args:
        makes: of ``evaluation.observers.LESION_MAKES``; the first is that of the headline.
        seed: where lesions lie, and what is random in them.
        most: the most lesions in a pair.
        slice_keys: what the network gets with each slice, where there is such.

    Raises:
        ValueError: for an unknown make.
        ImageError: on a volume, or a pair whose overlay's modality is not CT, PT or NM.
    """

    def __init__(
        self,
        makes: Sequence[str] = ("discs",),
        seed: int = 0,
        most: int = 5,
        slice_keys: Sequence[str] = ("text", "text_mask", "text_vector"),
    ) -> None:
        self.makes = _checked_makes(makes)
        self.seed = seed
        self.most = most
        self.slice_keys = tuple(slice_keys)

    def __call__(self, pair: Mapping[str, Any]) -> dict[str, Any]:
        """Insert."""
        image = pair["image"].as_subclass(torch.Tensor)
        if image.ndim != 3:
            raise ImageError(
                Reason.SHAPE, f"{pair['name']}: a volume; 2-D pairs are accepted, as `fusion-nets slices` makes them"
            )
        modality = pair.get("overlay_modality") or getattr(pair.get("overlay"), "meta", {}).get("modality")
        modality = _checked_modality(pair["name"], modality)
        sources = image.cpu().double().numpy().clip(0, 1)
        made = list(_cases(pair, sources, modality, self.makes, self.seed, self.most))
        slices = [case.images for _, case in made] or [sources]
        told = [known.plain() for known, _ in made]
        repeated = {key: torch.stack([pair[key]] * len(slices)) for key in self.slice_keys if key in pair}
        volume = torch.from_numpy(np.stack(slices, axis=-1)).to(image)
        return {**pair, **repeated, "image": volume, "lesions": json.dumps(told), "group": lesion_group(pair, modality)}
