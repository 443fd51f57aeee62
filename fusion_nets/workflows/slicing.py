"""Make a training set of studies: every slice of every pair as a picture, in the folders that training reads."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose
from tqdm import tqdm

from evaluation.functional import FUSION_METRICS
from fusion_nets.clinical import ImageError, Reason, write_image
from fusion_nets.datalists import MODALITY_NAMES, load_pairs
from fusion_nets.files import whole_file
from fusion_nets.names import check_name, entries_read, shown
from fusion_nets.registration import LEAST_OVERLAP, RegistrationMode
from fusion_nets.shortage import full_disk
from fusion_nets.transforms import CommonGridd, LoadStudyImaged, ScaleToDisplayRanged, SplitLuminanced
from fusion_nets.transforms.display import Window

from .digests import are_whole, digest, files_of, library_digest, sizes
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
    least_overlap: float = LEAST_OVERLAP,
) -> Path:
    """Write the slices of pairs as pictures of 8 bit, and note them in a section of the folder's ``splits.json``.

    The folder is one that the training configurations take as ``dataset_dir``, and
    :func:`fusion_nets.datalists.aanlib_pairs` reads: ``{kind}/{MRI | CT | PET | SPECT}/{name}_{slice}.png`` with equal
    names for anatomy and overlay. The kind of a pair is its "pair", or its modalities, such as "PET-MRI", the overlay
    first. Sources are prepared as the bundles do: overlay on the anatomy's grid, both over their display range, of
    colours the luminance. Left out are slices of which less than 5 % of the anatomy is brighter than a tenth of its
    range, or whose overlay is constant.

    A pair is noted when all its slices are written. One whose slices are there, none of them empty or shorter than it
    was, is not done again if they were made of the same files in the same way (windows, registration, version), so that
    a run that was stopped goes on; otherwise its slices are replaced. A pair of the same name and another kind is
    another pair: sub-01 as PET-MRI and as CT-MRI are two. What is known of the slices is kept in ``.slices``. Of many
    pairs several are noted together, and of a run that is killed those are done again, at most a twentieth of its time.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` takes and gives them.
        dataset_dir: the folder; made if it is missing, added to if it is there.
        section: "train", "val" or another.
        windows: display range by "anatomy" and "overlay", (low, high) in stored units or a name, see
            :class:`fusion_nets.transforms.ScaleToDisplayRange`.
        register: how the overlays are brought onto the anatomies, see :func:`fusion_nets.registration.register`.
        progress: show a progress bar.
        least_overlap: share of what one of the two images shows that must lie in the field of view of the other, see
            :func:`fusion_nets.registration.check_overlap`.

    Returns:
        ``splits.json``.

    Raises:
        ImageError: after all others were written, if some pairs could not be used, one of a kind that names no two
            folders among them; each is logged with its reason.
        ValueError: for a malformed pair, or a pair whose name is in another section already, of whatever kind: what is
            trained on must not be judged by.
    """
    pairs = load_pairs(pairs)
    root = Path(dataset_dir)
    records = _SliceRecords(root, {"windows": dict(windows or {}), "register": register})
    splits = _read_splits(root / "splits.json")
    sections = {_study(name): one for kind in splits.values() for one, names in kind.items() for name in names}
    for pair in pairs:
        if sections.get(pair["name"], section) != section:
            raise ValueError(
                f"{root / 'splits.json'}: {pair['name']!r} is in section {sections[pair['name']]!r}; a pair is "
                "accepted in one section"
            )
    noted_before: dict[tuple[str, str], set[str]] = {}
    for kind, in_sections in splits.items():
        for name in in_sections.get(section, []):
            noted_before.setdefault((kind, _study(name)), set()).add(name)
    wanted = [pair for pair in pairs if not records.is_done(pair, noted_before)]
    prepare = Compose(
        [
            LoadStudyImaged(_KEYS, smallest=FUSION_METRICS["VIF"].smallest),  # by which training chooses its weights
            CommonGridd("overlay", "anatomy", register, least_overlap=least_overlap),
            *(ScaleToDisplayRanged(key, (windows or {}).get(key)) for key in _KEYS),
            SplitLuminanced(_KEYS),
        ]
    )
    read = cache(lambda folder: entries_read(folder, [pair[key] for pair in pairs for key in _KEYS]).keys())
    failures = 0
    with ExitStack() as stack:
        note = stack.enter_context(_Notes(root / "splits.json", splits))
        stack.enter_context(LOG_ABOVE_BAR)
        for pair in stack.enter_context(tqdm(wanted, desc="slicing", unit="pair", disable=not progress)):
            try:
                _check_names(pair, root)
                made_by = records.made_by(pair)  # before it is read, which may take a while
                prepared = prepare(pair)
                kind = _kind(pair, prepared)
                before = records.forget(pair["name"], kind)
                names = _write_slices(root / kind, kind, pair["name"], prepared, read)
            except Exception as error:
                reason = image_error(error)
                if reason is None or full_disk(error):
                    raise
                logging.getLogger(__name__).error("%s: not sliced: %s", shown(pair["name"]), reason)
                failures += 1
                continue
            noted = splits.setdefault(kind, {}).setdefault(section, [])
            at = next((i for i, name in enumerate(noted) if _study(name) == pair["name"]), len(noted))
            others = [name for name in noted if _study(name) != pair["name"]]
            splits[kind][section] = [*others[:at], *names, *others[at:]]
            note()
            records.note(pair["name"], kind, made_by, names, before)
    if failures:
        raise ImageError(
            Reason.SEVERAL, f"{failures} of {len(pairs)} pairs could not be sliced; reasons are given above"
        )
    return root / "splits.json"


class _SliceRecords:
    """Of what the slices of a pair were made, and how long they are: ``.slices/{name}.json``, by the kind of pair."""

    def __init__(self, root: Path, settings: Mapping[str, Any]) -> None:
        self.root = root
        self.made_with = digest([settings, library_digest()])

    def made_by(self, pair: Mapping[str, Any]) -> str:
        rest = dict(pair)
        return digest([self.made_with, [files_of(Path(rest.pop(key))) for key in _KEYS], rest])

    def is_done(self, pair: Mapping[str, Any], noted_before: Mapping[tuple[str, str], set[str]]) -> bool:
        for kind, told in self._read(pair["name"]).items():
            noted = noted_before.get((kind, pair["name"]))
            if noted and told["made_by"] == self.made_by(pair):
                written = {Path(file).name for file in told["files"]}
                return noted == written and are_whole(self.root, told["files"])
        return False

    def forget(self, name: str, kind: str) -> list[str]:
        """The files of a pair, which are no longer known."""
        told = self._read(name)
        files = list(told.pop(kind, {}).get("files", {}))
        self._write(name, told)
        return files

    def note(self, name: str, kind: str, made_by: str, slices: Sequence[str], before: Sequence[str]) -> None:
        """Note what was written, and remove what is no longer a slice."""
        files = sizes(self.root, [f"{kind}/{folder}/{one}" for folder in kind.split("-") for one in slices])
        for file in set(before) - files.keys():
            (self.root / file).unlink(missing_ok=True)
        self._write(name, {**self._read(name), kind: {"made_by": made_by, "files": files}})

    def _path(self, name: str) -> Path:
        return self.root / ".slices" / f"{name}.json"

    def _read(self, name: str) -> dict[str, Any]:
        try:
            told = json.loads(self._path(name).read_text(encoding="utf-8"))
            return {kind: {"made_by": str(of["made_by"]), "files": dict(of["files"])} for kind, of in told.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self, name: str, told: Mapping[str, Any]) -> None:
        if told:
            _write_json(self._path(name), told)
        else:
            self._path(name).unlink(missing_ok=True)


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
    folder: Path, kind: str, name: str, images: Mapping[str, MetaTensor], read: Callable[[Path], Iterable[str]]
) -> list[str]:
    """The names of a pair's slices that hold something, written for both images, unless what is read of a folder."""
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
        for over in set(names).intersection(read(folder / called)):
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


class _Notes:
    """Writes ``splits.json``, which grows with every pair: whenever that takes no more than a twentieth of the time."""

    def __init__(self, path: Path, splits: Mapping[str, Any]) -> None:
        self.path = path
        self.splits = splits
        self.is_due = False
        self.next = 0.0

    def __enter__(self) -> _Notes:
        return self

    def __call__(self) -> None:
        """Write now or later, at the end at the latest."""
        self.is_due = True
        began = time.monotonic()
        if began >= self.next:
            self._write()
            ended = time.monotonic()
            self.next = ended + 19 * (ended - began)

    def __exit__(self, *_: object) -> None:
        if self.is_due:
            self._write()

    def _write(self) -> None:
        _write_json(self.path, self.splits)
        self.is_due = False


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
