"""Make a training set of studies: every slice of every pair as a picture, in the folders that training reads."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose
from tqdm import tqdm

from evaluation.functional import FUSION_METRICS
from fusion_nets.clinical import ImageError, Reason, write_image
from fusion_nets.datalists import MODALITY_NAMES, load_pairs
from fusion_nets.files import whole_file
from fusion_nets.names import check_name, entries_read
from fusion_nets.registration import RegistrationMode
from fusion_nets.shortage import full_disk
from fusion_nets.transforms import CommonGridd, LoadStudyImaged, ScaleToDisplayRanged, SplitLuminanced
from fusion_nets.transforms.display import Window

from .inference import image_error
from .progress import LOG_ABOVE_BAR

__all__ = ["slice_pairs"]

_KEYS = ("anatomy", "overlay")

_DARK, _LEAST = 0.1, 0.05
"""Of its display range, and of a slice's pixels: so many must be brighter, because nothing is learnt from air."""


def slice_pairs(
    pairs: Sequence[dict[str, Any]],
    dataset_dir: str | os.PathLike[str],
    section: str = "train",
    windows: Mapping[str, Window | None] | None = None,
    register: RegistrationMode = "auto",
    progress: bool = True,
) -> Path:
    """Write the slices of pairs as pictures of 8 bit, and note them in a section of the folder's ``splits.json``.

    The folder is one that the training configurations take as ``dataset_dir``, and
    :func:`fusion_nets.datalists.aanlib_pairs` reads: ``{kind}/{MRI | CT | PET | SPECT}/{name}_{slice}.png`` with equal
    names for anatomy and overlay. The kind of a pair is its "pair", or its modalities, such as "PET-MRI", the overlay
    first. Sources are prepared as the bundles do: overlay on the anatomy's grid, both over their display range, of
    colours the luminance. Left out are slices of which less than 5 % of the anatomy is brighter than a tenth of its
    range, or whose overlay is constant.

    A pair is noted when all its slices are written, and one that is noted in this section is not done again, so that a
    run that was stopped goes on.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` takes and gives them.
        dataset_dir: the folder; made if it is missing, added to if it is there.
        section: "train", "val" or another.
        windows: display range by "anatomy" and "overlay", (low, high) in stored units or a name, see
            :class:`fusion_nets.transforms.ScaleToDisplayRange`.
        register: how the overlays are brought onto the anatomies, see :func:`fusion_nets.registration.register`.
        progress: show a progress bar.

    Returns:
        ``splits.json``.

    Raises:
        ImageError: after all others were written, if some pairs could not be used, one of a kind that names no two
            folders among them; each is logged with its reason.
        ValueError: for a malformed pair, or a pair that is in another section
            already: what is trained on must not be judged by.
    """
    pairs = load_pairs(pairs)
    root = Path(dataset_dir)
    splits = _read_splits(root / "splits.json")
    sections = {_study(name): one for kind in splits.values() for one, names in kind.items() for name in names}
    for pair in pairs:
        if sections.get(pair["name"], section) != section:
            raise ValueError(
                f"{root / 'splits.json'}: {pair['name']!r} is in section {sections[pair['name']]!r}; a pair is "
                "accepted in one section"
            )
    wanted = [pair for pair in pairs if pair["name"] not in sections]
    prepare = Compose(
        [
            LoadStudyImaged(_KEYS, smallest=FUSION_METRICS["VIF"].smallest),  # by which training chooses its weights
            CommonGridd("overlay", "anatomy", register),
            *(ScaleToDisplayRanged(key, (windows or {}).get(key)) for key in _KEYS),
            SplitLuminanced(_KEYS),
        ]
    )
    sources, failures = [pair[key] for pair in pairs for key in _KEYS], 0
    with ExitStack() as stack:
        stack.enter_context(LOG_ABOVE_BAR)
        for pair in stack.enter_context(tqdm(wanted, desc="slicing", unit="pair", disable=not progress)):
            try:
                _check_names(pair, root)
                prepared = prepare(pair)
                kind = _kind(pair, prepared)
                names = _write_slices(root / kind, kind, pair["name"], prepared, sources)
            except Exception as error:
                reason = image_error(error)
                if reason is None or full_disk(error):
                    raise
                logging.getLogger(__name__).error("%s: not sliced: %s", pair["name"], reason)
                failures += 1
                continue
            splits.setdefault(kind, {}).setdefault(section, []).extend(names)
            _write_splits(root / "splits.json", splits)
    if failures:
        raise ImageError(
            Reason.SEVERAL, f"{failures} of {len(pairs)} pairs could not be sliced; reasons are given above"
        )
    return root / "splits.json"


def _study(slice_name: str) -> str:
    return slice_name.rpartition("_")[0]


def _kind(pair: Mapping[str, Any], prepared: Mapping[str, MetaTensor]) -> str:
    """Such as "PET-MRI"."""
    if "pair" not in pair:
        modalities = {key: str(prepared[key].meta.get("modality", "")) for key in _KEYS}
        for key, modality in modalities.items():
            if modality not in MODALITY_NAMES:
                raise ImageError(
                    Reason.INCOMPLETE,
                    f"{pair[key]}: its modality is not known; {key}_modality in the datalist tells it, accepted are "
                    f"{', '.join(MODALITY_NAMES)}",
                )
        kind = "-".join(MODALITY_NAMES[modalities[key]] for key in reversed(_KEYS))
    else:
        kind = pair["pair"]
    overlay, dash, anatomy = kind.partition("-")
    if not (overlay and dash and anatomy) or overlay == anatomy or Path(kind).name != kind or "-" in anatomy:
        raise ImageError(
            Reason.OUTPUT,
            f"{pair['name']}: the kind of pair is {kind!r}; accepted is OVERLAY-ANATOMY with two different names, such "
            'as "PET-MRI", or "T2-T1" as "pair" in the datalist',
        )
    return kind


def _check_names(pair: Mapping[str, Any], root: Path) -> None:
    """Before anything is read: that the names can be those of files."""
    try:
        check_name(pair["name"], root, len("_0001.png"))
        if "pair" in pair:
            check_name(pair["pair"], root, 0)
    except ValueError as error:
        raise ImageError(Reason.OUTPUT, str(error)) from error


def _write_slices(
    folder: Path, kind: str, name: str, images: Mapping[str, MetaTensor], sources: Sequence[str]
) -> list[str]:
    """The names of a pair's slices that hold something, written for both images."""
    anatomy, overlay = (image[..., None] if image.ndim == 3 else image for image in (images[key] for key in _KEYS))
    held = [
        k
        for k in range(anatomy.shape[-1])
        if (anatomy[..., k] > _DARK).float().mean() >= _LEAST and overlay[..., k].min() < overlay[..., k].max()
    ]
    if not held:
        raise ImageError(
            Reason.EMPTY, f"{name}: has no slice in which both images show something; a single one is accepted"
        )
    overlay_name, _, anatomy_name = kind.partition("-")
    names = [f"{name}_{k + 1:04d}.png" for k in held]
    for called in (anatomy_name, overlay_name):
        for over in entries_read(folder / called, sources).keys() & set(names):
            raise ImageError(
                Reason.OUTPUT, f"{folder / called / over}: is read, and would be written over; another name is accepted"
            )
    for image, called in ((anatomy, anatomy_name), (overlay, overlay_name)):
        for k, file in zip(held, names, strict=True):
            write_image(folder / called / file, image[..., k])
    return names


def _read_splits(path: Path) -> dict[str, dict[str, list[str]]]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); what `fusion-nets slices` wrote is accepted") from error


def _write_splits(path: Path, splits: Mapping[str, Any]) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(splits, indent=1) + "\n", encoding="utf-8")
