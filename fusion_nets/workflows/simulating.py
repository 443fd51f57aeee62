"""Write a set of simulated pairs: pictures, maps of lesions, truth and texts, as a data set to train on or publish."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from fusion_nets import __version__
from fusion_nets.files import remove_partials, whole_file
from fusion_nets.simulation import MODALITIES, SimulatedPair, simulate_pair
from fusion_nets.simulation.pairs import PAIRS
from fusion_nets.text import write_truth

__all__ = ["write_simulated_set"]

_COLUMNS, _SHEET_ROWS = 8, 3
_OUTLINE = (255, 150, 0)
_END = b"IEND\xaeB\x60\x82"
"""Of a PNG that is whole."""


def write_simulated_set(
    output_dir: str | os.PathLike[str],
    count: int = 300,
    seed: int = 0,
    size: int = 256,
    modalities: Sequence[str] = MODALITIES,
    shapes_share: float = 0.4,
    upright: float = 1.0,
    lesions: int = 3,
    progress: bool = True,
) -> dict[str, Path]:
    """Simulate pairs and write them into a folder that the training configurations take as ``dataset_dir``.

    Of every pair there are the two sources with lesions (``PET-MRI/MRI/000000.png`` and ``PET-MRI/PET/000000.png``),
    the same without (``.../without_lesions/...``), the map of lesions (``.../lesions/000000.png``, 8 bit, a lesion's
    label or 0) and the truth (``.../truth/000000.json``, as :meth:`~fusion_nets.simulation.SimulatedPair.truth` has
    it). ``pairs.json`` is a datalist in MONAI's decathlon layout with a text for each source; ``splits.json`` has all
    pairs in the section "train". ``contact_sheet.png`` shows some, ``README.md`` says what the set is.

    A run that was stopped goes on where it was, and makes again what is cut short; a larger count adds to a set.

    Args:
        output_dir: the folder; made when missing.
        count: number of pairs.
        seed: which pairs; the same seed writes the same set.
        size: pixels along both axes.
        modalities: of the overlays, one after the other: "CT", "PT", "NM".
        shapes_share: share of pairs that show shapes without anatomy.
        upright: share of heads that are shown as a reader is shown them.
        lesions: how many at most in each pair.
        progress: show a progress bar.

    Returns:
        The files that stand for the whole, by "pairs", "splits", "contact_sheet" and "readme".

    Raises:
        ValueError: for a number out of range, or a folder that holds another set.
        ModuleNotFoundError: if the extra `fusion-nets[sample]` is not installed.
    """
    root = Path(output_dir)
    settings = {"version": __version__, "seed": seed, "size": size, "modalities": list(modalities)}
    settings |= {"shapes_share": shapes_share, "upright": upright, "lesions": lesions}
    _check(count, settings)
    _same_settings(root / "settings.json", settings)
    entries = []
    for index in tqdm(range(count), desc="simulating", unit="pair", disable=not progress):
        modality = modalities[index % len(modalities)]
        folder, name = root / PAIRS[modality], f"{index:06d}"
        truth = folder / "truth" / f"{name}.json"
        if not _is_whole(folder, name):
            rng = np.random.default_rng([seed, index])
            is_head = bool(rng.random() >= shapes_share)
            _write_pair(
                simulate_pair(rng, modality, size, is_head=is_head, upright=upright, lesions=lesions), folder, name
            )
        entries.append(_entry(PAIRS[modality], name, modality, json.loads(truth.read_text(encoding="utf-8"))))
    for kind in {PAIRS[modality] for modality in modalities}:
        for folder in (root / kind).rglob("*"):
            remove_partials(folder)
    written = {
        "pairs": root / "pairs.json",
        "splits": root / "splits.json",
        "contact_sheet": root / "contact_sheet.png",
        "readme": root / "README.md",
    }
    splits: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        splits.setdefault(entry["pair"], {}).setdefault("train", []).append(Path(entry["anatomy"]).name)
    description = f"Simulated pairs of fusion-nets {__version__}, seed {seed}: texts are the truth, not measured."
    _write_json(written["pairs"], {"description": description, "pairs": entries})
    _write_json(written["splits"], splits)
    with whole_file(written["contact_sheet"]) as partial:
        _contact_sheet(root, entries).save(partial, optimize=True)
    with whole_file(written["readme"]) as partial:
        partial.write_text(_card(root, entries, settings), encoding="utf-8")
    return written


_LIMITS = {
    "count": (1, 10**6),
    "seed": (0, 2**63),
    "size": (32, 4096),
    "shapes_share": (0, 1),
    "upright": (0, 1),
    "lesions": (0, 20),
}


def _check(count: int, settings: Mapping[str, Any]) -> None:
    for name, (least, most) in _LIMITS.items():
        value = count if name == "count" else settings[name]
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}; {least} to {most} are accepted")
    modalities = settings["modalities"]
    if not modalities or any(modality not in MODALITIES for modality in modalities):
        raise ValueError(f"modalities are {list(modalities)}; accepted are one or more of {', '.join(MODALITIES)}")


def _is_whole(folder: Path, name: str) -> bool:
    """Whether a pair was written to its end, and all of it is still there."""
    try:
        json.loads((folder / "truth" / f"{name}.json").read_text(encoding="utf-8"))  # it is written last
        overlay, anatomy = folder.name.split("-")
        for where in (anatomy, overlay, "lesions", f"without_lesions/{anatomy}", f"without_lesions/{overlay}"):
            with (folder / where / f"{name}.png").open("rb") as file:
                file.seek(-len(_END), os.SEEK_END)
                if file.read() != _END:
                    return False
    except (OSError, ValueError):
        return False
    return True


def _same_settings(path: Path, settings: Mapping[str, Any]) -> None:
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != settings:
            differs = sorted(key for key in {*there, *settings} if there.get(key) != settings.get(key))
            raise ValueError(
                f"{path.parent}: holds a set of other settings ({', '.join(differs)}); the same ones or a new folder "
                "are accepted"
            )
    elif path.parent.is_dir() and any(path.parent.iterdir()):
        raise ValueError(f"{path.parent}: holds something else; a new or empty folder is accepted")
    else:
        _write_json(path, settings)


def _write_pair(pair: SimulatedPair, folder: Path, name: str) -> None:
    overlay, anatomy = folder.name.split("-")
    pictures = {folder / "lesions": pair.lesion_map}
    for where, images in ((folder, pair.lesion_image), (folder / "without_lesions", pair.image)):
        for kind, image in zip((anatomy, overlay), images, strict=True):
            pictures[where / kind] = np.rint(image * 255).astype(np.uint8)
    for where, picture in pictures.items():
        with whole_file(where / f"{name}.png") as partial:
            Image.fromarray(picture).save(partial)
    _write_json(folder / "truth" / f"{name}.json", pair.truth())


def _write_json(path: Path, content: Any) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _entry(kind: str, name: str, modality: str, truth: Mapping[str, Any]) -> dict[str, str]:
    overlay, anatomy = kind.split("-")
    return {
        "anatomy": f"{kind}/{anatomy}/{name}.png",
        "overlay": f"{kind}/{overlay}/{name}.png",
        "name": f"{kind}_{name}",
        "pair": kind,
        "anatomy_modality": "MR",
        "overlay_modality": modality,
        "anatomy_text": write_truth(truth, "anatomy"),
        "overlay_text": write_truth(truth, "overlay"),
    }


def _contact_sheet(root: Path, entries: Sequence[Mapping[str, str]], tile: int = 128) -> Image.Image:
    """The first pairs of each kind, anatomy over overlay, lesions outlined, one kind after the other."""
    kinds = list(dict.fromkeys(entry["pair"] for entry in entries))
    rows = []
    for kind in kinds:
        chosen = [entry for entry in entries if entry["pair"] == kind]
        each = _COLUMNS * max(1, _SHEET_ROWS // len(kinds))
        rows += [chosen[i : i + _COLUMNS] for i in range(0, min(len(chosen), each), _COLUMNS)]
    sheet = Image.new("RGB", (_COLUMNS * tile, len(rows) * 2 * tile))
    for y, row in enumerate(rows):
        for x, entry in enumerate(row):
            with Image.open(root / entry["pair"] / "lesions" / Path(entry["anatomy"]).name) as picture:
                inside = np.asarray(picture.resize((tile, tile), Image.Resampling.NEAREST)) > 0
            inside = ndimage.binary_fill_holes(ndimage.binary_dilation(inside, iterations=2))
            outline = ndimage.binary_dilation(inside) & ~inside
            for z, key in enumerate(("anatomy", "overlay")):
                with Image.open(root / entry[key]) as picture:
                    shown = np.array(picture.convert("RGB").resize((tile, tile)))
                shown[outline] = _OUTLINE
                sheet.paste(Image.fromarray(shown), (x * tile, (2 * y + z) * tile))
    return sheet.quantize(64, dither=Image.Dither.NONE)


def _card(root: Path, entries: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    truths = [
        json.loads((root / entry["pair"] / "truth" / f"{Path(entry['anatomy']).stem}.json").read_text(encoding="utf-8"))
        for entry in entries
    ]
    kinds = Counter(lesion["kind"] for truth in truths for lesion in truth["lesions"])
    pairs = Counter(entry["pair"] for entry in entries)
    heads = sum(truth["is_head"] for truth in truths)
    rows = "\n".join(f"| {kind} | {number} |" for kind, number in kinds.most_common())
    return f"""# Simulated pairs of MRI with {" or ".join(kind.split("-")[0] for kind in pairs)}

![some of them, lesions outlined](contact_sheet.png)

{len(entries)} pairs of {settings["size"]} x {settings["size"]} pixels, 8 bit:
{", ".join(f"{number} {kind}" for kind, number in pairs.items())}; {heads} show a head, {len(entries) - heads} shapes
without anatomy. Made by `fusion-nets simulate` of fusion-nets {settings["version"]}; with these settings it makes the
same again: `{json.dumps(dict(settings))}`.

| kind of lesion | number |
|---|---|
{rows}

- `KIND/MRI`, `KIND/CT` and the like: the sources, with lesions; `KIND/without_lesions`: the same, noise included,
  without them; what differs is the lesions' alone.
- `KIND/lesions`: where a lesion changes either source, its label; 0 elsewhere.
- `KIND/truth`: kind, side, place, size and contrast of every lesion, sequence and tracer, width of a pixel.
- `pairs.json`: datalist with a text for each source, written from the truth; `splits.json`: all are in `train`.

The patient's right is at the picture's left, where a head is upright (`plane` in its truth).

## What it is not

No patient was imaged, and nothing was learnt from patients' images but the average of 152 brains in the MNI152
template. Lesions are changes of grey with the signs that such lesions often have, not disease; heads are one head,
bent. It is meant to train and to test what works on local structure, such as image fusion, and says nothing about how
often anything occurs, nor how well a reader or a program finds it in patients.

Made from the MNI152 template, ICBM 2009 (Fonov et al., NeuroImage 54:313, 2011). Copyright (C) 1993-2009 Louis
Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University; keep this line.
"""
