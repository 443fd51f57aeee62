"""Make an image-text datalist: every image of a datalist put into words, stopped and started as one likes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

from monai.data import MetaTensor
from tqdm import tqdm

from fusion_nets import __version__
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import check_texts, load_pairs
from fusion_nets.files import file_sha256, whole_file
from fusion_nets.names import check_destination, shown
from fusion_nets.text import Describer
from fusion_nets.transforms import Describe, LoadStudyImage, ScaleToDisplayRange
from fusion_nets.transforms.display import Window

from .digests import library_digest
from .inference import image_error
from .progress import LOG_ABOVE_BAR

__all__ = ["describe_pairs"]

_KEYS = ("anatomy", "overlay")
_LIBRARY = f"fusion-nets {__version__}"


def describe_pairs(
    pairs: Sequence[dict[str, Any]],
    describer: Describer,
    output: str | os.PathLike[str],
    per: Literal["series", "slice"] = "series",
    windows: Mapping[str, Window | None] | None = None,
    overwrite: bool = False,
    batch_size: int = 1,
    journal: str | os.PathLike[str] | None = None,
    progress: bool = True,
    is_program: bool = False,
) -> Path:
    """Describe both images of every pair, and write a datalist that has the texts.

    The datalist is a JSON object in MONAI's decathlon layout: "description" says what described the images, "pairs"
    holds the pairs with their "anatomy_text" and "overlay_text"; :func:`fusion_nets.datalists.load_pairs` and
    :func:`monai.data.load_decathlon_datalist` (``data_list_key="pairs"``) read it. Relative paths are written so that
    they start from its folder. The same input gives the same bytes.

    Every text is noted in a journal at once. A run that was stopped goes on from there: what the same describer said of
    the same file, in the same modality and display range, is not asked again. The journal is removed at the end.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` takes and gives them; "anatomy_modality" and
            "overlay_modality" are told to the describer.
        describer: puts images into words; its configuration is written down.
        output: the datalist to write.
        per: "series" gives a text per image, "slice" a list of texts for a volume.
        windows: display range (low, high) in stored units by "anatomy" and "overlay", see
            :class:`fusion_nets.transforms.ScaleToDisplayRange`.
        overwrite: describe images that came with a text, too; the describer finds it in ``meta["text"]``.
        batch_size: images loaded and given to the describer together.
        journal: where to note the texts, by default ``{output}.journal.jsonl``.
        progress: show a progress bar.
        is_program: where some images could not be described, end the program with a non-zero exit code instead of
            raising, as a bundle's run does.

    Returns:
        The path of the datalist.

    Raises:
        ImageError: after all other images were described, if some could not be; each is logged with its reason, the
            journal stays and no datalist is written.
        ValueError: for a malformed pair or setting, or an output that is an image to describe.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is accepted")
    output = Path(output)
    pairs = [{**pair} for pair in load_pairs(pairs)]
    check_destination(output, [pair[key] for pair in pairs for key in _KEYS])
    task = _Task(Describe(describer, per), describer.configuration, dict(windows or {}), output.parent)
    failures = set(_refused(pairs))
    usable = [pair for pair in pairs if pair["name"] not in failures]
    wanted = [(pair, key) for pair in usable for key in _KEYS if overwrite or not pair.get(f"{key}_text")]
    with ExitStack() as stack:
        noted = stack.enter_context(_Journal(Path(journal or f"{output}.journal.jsonl")))
        stack.enter_context(LOG_ABOVE_BAR)
        bar = stack.enter_context(tqdm(total=len(wanted), desc="describing", unit="image", disable=not progress))
        for start in range(0, len(wanted), batch_size):
            batch = wanted[start : start + batch_size]
            for (pair, key), text in zip(batch, task.describe(batch, noted), strict=True):
                if isinstance(text, ImageError):
                    logging.getLogger(__name__).error("%s: not described: %s", shown(pair["name"]), text)
                    failures.add(pair["name"])
                else:
                    pair[f"{key}_text"] = text
            bar.update(len(batch))
    if failures:
        message = (
            f"{len(failures)} of {len(pairs)} pairs could not be described, reasons are given above; {output} is not "
            f"written, and a run that is started again goes on from {noted.path}"
        )
        raise SystemExit(message) if is_program else ImageError(Reason.SEVERAL, message)
    description = {
        "describer": task.configuration,
        "per": per,
        "windows": task.windows,
        "described": len(wanted),
        "given": 2 * len(pairs) - len(wanted),
        "library": _LIBRARY,
    }
    placed = [{**pair, **{key: task.place(pair[key]) for key in _KEYS}} for pair in pairs]
    with whole_file(output) as partial:
        text = json.dumps({"description": description, "pairs": placed}, indent=1, ensure_ascii=False)
        # of paths that are no Unicode, JSON's escape sequences
        text = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
        partial.write_text(text + "\n", encoding="utf-8")
    noted.path.unlink(missing_ok=True)
    return output


def _refused(pairs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The names of pairs that say what is no text."""
    for pair in pairs:
        try:
            check_texts(pair)
        except ImageError as error:
            logging.getLogger(__name__).error("%s: not described: %s", shown(pair["name"]), error)
            yield pair["name"]


class _Task:
    """How one image is described, and by what its text is known again."""

    def __init__(
        self,
        transform: Describe,
        configuration: dict[str, Any],
        windows: dict[str, Window | None],
        folder: Path,
    ) -> None:
        self.transform = transform
        self.configuration = configuration
        self.windows = {key: windows.get(key) for key in _KEYS}
        self.folder = folder
        self.load = LoadStudyImage()
        self.scale = {key: ScaleToDisplayRange(window) for key, window in self.windows.items()}

    def describe(
        self, batch: Sequence[tuple[dict[str, Any], str]], noted: _Journal
    ) -> list[str | list[str] | ImageError]:
        """A text, or why there is none, for each key of a pair; what is noted is taken from there."""
        entries = [self.entry(pair, key) for pair, key in batch]
        results: list[Any] = [noted.text(entry) for entry in entries]
        images = {}
        for index, (pair, key) in enumerate(batch):
            if results[index] is None:
                try:
                    images[index] = self.image(pair, key)
                except Exception as error:
                    if (reason := image_error(error)) is None:
                        raise
                    results[index] = reason
        for index, text in zip(images, self.texts(list(images.values())), strict=True):
            results[index] = text
            if not isinstance(text, ImageError):
                noted.write(entries[index], text)
        return results

    def texts(self, images: list[MetaTensor]) -> list[Any]:
        """Describe together, and one by one where one of them cannot be described."""
        try:
            return list(self.transform.describe(images)) if images else []
        except Exception as error:
            if (reason := image_error(error)) is None:
                raise
        return [reason] if len(images) == 1 else [self.texts([image])[0] for image in images]

    def image(self, pair: dict[str, Any], key: str) -> MetaTensor:
        loaded = self.load(pair[key], *(pair.get(f"{key}_{which}") for which in ("series_uid", "modality", "volume")))
        loaded.meta |= {name: pair[f"{key}_{name}"] for name in ("modality", "text") if pair.get(f"{key}_{name}")}
        return cast(MetaTensor, self.scale[key](loaded))

    def entry(self, pair: dict[str, Any], key: str) -> dict[str, str]:
        """Image, file and settings: where all three are the same, so is the text."""
        settings = {
            "describer": self.configuration,
            "per": self.transform.per,
            "window": self.windows[key],
            "meta": [pair.get(f"{key}_modality"), pair.get(f"{key}_text")],
            "library": library_digest(),
        }
        if pair.get(f"{key}_series_uid"):
            settings["series"] = pair[f"{key}_series_uid"]
        if pair.get(f"{key}_volume"):
            settings["volume"] = str(pair[f"{key}_volume"])
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        try:
            file = _folder_sha256(pair[key]) if os.path.isdir(pair[key]) else file_sha256(pair[key])
        except (OSError, ValueError):
            file = ""  # loading it says what is wrong
        return {"image": self.place(pair[key]), "file": file, "settings": digest}

    def place(self, path: str) -> str:
        """A relative path, so that it starts from the datalist's folder; links to folders are followed first."""
        if os.path.isabs(path):
            return path
        folder, name = os.path.split(path)
        try:
            return os.path.relpath(os.path.join(os.path.realpath(folder), name), os.path.realpath(self.folder))
        except ValueError:  # no file can be called so
            return path


def _folder_sha256(folder: str) -> str:
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


class _Journal:
    """Texts in a file, one JSON line each, there as soon as they are written; a torn line is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[str, ...], str | list[str]] = {}

    def __enter__(self) -> _Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a+", encoding="utf-8", errors="replace")
        self.file.seek(0)
        content = self.file.read()
        for line in content.split("\n"):
            try:
                entry = json.loads(line)
                self.known[self._key(entry)] = entry["text"]
            except (ValueError, TypeError, KeyError):
                continue
        if content and not content.endswith("\n"):
            self.file.write("\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def text(self, entry: dict[str, str]) -> str | list[str] | None:
        return self.known.get(self._key(entry))

    def write(self, entry: dict[str, str], text: str | list[str]) -> None:
        self.known[self._key(entry)] = text
        self.file.write(json.dumps({**entry, "text": text}, ensure_ascii=False) + "\n")
        self.file.flush()

    @staticmethod
    def _key(entry: dict[str, str]) -> tuple[str, ...]:
        return entry["image"], entry["file"], entry["settings"]
