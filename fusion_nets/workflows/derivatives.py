"""Results of a BIDS dataset as a dataset of derivatives, under names that its validator accepts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monai.utils import ensure_tuple

from fusion_nets import __version__
from fusion_nets.bids import dataset_description, place_of, registration_name
from fusion_nets.clinical import ImageError
from fusion_nets.clinical.bids_names import DESCRIPTION, bids_name, read_metadata
from fusion_nets.files import whole_file
from fusion_nets.names import RESULTS_BESIDE

__all__ = ["BidsDerivatives"]

BIDS_VERSION = "1.11.0"
_FORMATS = ("nifti", ".nii.gz", ".nii", "png", ".png", "html", ".html")
_GENERATOR = "fusion-nets"
_NOT_BIDS = (
    *("*_xfm.tfm", "figures", "*.csv", "*_description.json", "*_registration.tfm", "*_checkerboard.png"),
    *("*_fused.nii", "*_fused.nii.gz", "*_fused.json", ".cases/"),
)
"""What BIDS has no names for yet, such as a transform (proposal 14), pictures and tables; and what is being made."""


class BidsDerivatives:
    """Where the results of a dataset's pairs belong: ``sub-X[/ses-Y]/anat``, in a dataset of derivatives.

    Each fused image lies there with a sidecar that tells what was chosen (the record, which ``--settings`` takes), and
    by ``Sources`` of what it was made, as BIDS URIs; ``raw`` in them is the dataset that ``dataset_description.json``
    links. The registration lies beside it, ``from-pet_to-T1w_mode-image_..._xfm.tfm``, pictures and pages in
    ``figures``; both stand in ``.bidsignore``, as BIDS has no names for them.

    Args:
        bids_dir: the dataset that is fused.
        output_dir: of the results; "derivatives/..." in the dataset, or any other folder.
        output_format: as :class:`fusion_nets.transforms.SaveFused` takes it; BIDS has NIfTI, and png and html go into
            ``figures``.
        save: sources that would be saved beside; none can be.

    Raises:
        ValueError: for a folder of another dataset, or in this one outside ``derivatives``, for other formats, and for
            sources to be saved.
    """

    def __init__(
        self,
        bids_dir: str | os.PathLike[str],
        output_dir: str | os.PathLike[str],
        output_format: str | Sequence[str] | None = None,
        save: str | Sequence[str] | None = None,
    ) -> None:
        self.bids_dir, self.output_dir = Path(bids_dir), Path(output_dir)
        if save:
            raise ValueError(f"save is {save!r}; on the grid they have no name in BIDS; a run without it is accepted")
        for form in ensure_tuple(output_format or ()):
            if form.lower() not in _FORMATS:
                raise ValueError(f"output_format is {form!r}; of a BIDS dataset, nifti, png and html are accepted")
        inside = _relative(self.output_dir, self.bids_dir)
        if inside.parts[:1] != ("..",) and inside.parts[:1] != ("derivatives",):
            raise ValueError(
                f"{self.output_dir}: lies among the raw data of {self.bids_dir}; its folder derivatives, or one "
                "elsewhere, is accepted"
            )
        self._described = self._description()
        there = self.output_dir / DESCRIPTION
        if there.is_file() and not _is_ours(there):
            raise ValueError(f"{there}: is of another dataset; a new folder, or one of these results, is accepted")

    def __call__(self, pair: Mapping[str, Any], saved: Iterable[str]) -> list[str]:
        """Move the results of a pair to where they belong.

        Args:
            pair: as :func:`fusion_nets.bids.bids_pairs` gives it.
            saved: names of what was written, in ``output_dir``.

        Returns:
            Their paths in ``output_dir``.
        """
        self._write_about()
        name = str(pair["name"])
        beside = [f"{name}{ending}" for ending in RESULTS_BESIDE]
        files = [file for file in dict.fromkeys([*saved, *beside]) if (self.output_dir / file).exists()]
        places = {file: self._place(pair, file) for file in files}
        sidecar = next((place for place in places.values() if place.name == f"{name}.json"), None)
        for file, place in places.items():
            (self.output_dir / place).parent.mkdir(parents=True, exist_ok=True)
            if place == sidecar:
                self._write_sidecar(pair, file, place, places.values())
            else:
                _move(self.output_dir / file, self.output_dir / place)
        return [place.as_posix() for place in places.values()]

    def _place(self, pair: Mapping[str, Any], file: str) -> Path:
        """Of one result, in ``output_dir``."""
        name = str(pair["name"])
        folder, ending = place_of(name), file.removeprefix(name)
        if ending.startswith("_fused.") and not ending.endswith((".html", ".png")):
            return folder / f"{name}{ending.removeprefix('_fused')}"
        if ending == "_registration.tfm":
            return folder / registration_name(name, getattr(bids_name(pair["overlay"]), "suffix", "overlay"))
        return folder.parent / "figures" / f"{name}{ending.replace('_fused.', '.')}"

    def _write_sidecar(self, pair: Mapping[str, Any], file: str, place: Path, places: Iterable[Path]) -> None:
        told = json.loads((self.output_dir / file).read_text(encoding="utf-8"))
        suffixes = [getattr(bids_name(pair[key]), "suffix", key) for key in ("anatomy", "overlay")]
        transforms = [f"bids::{quote(one.as_posix(), safe='/+')}" for one in places if one.name.endswith("_xfm.tfm")]
        stripped = None
        with suppress(ImageError):  # nothing else is asked of its sidecar, which may be damaged
            stripped = read_metadata(Path(pair["anatomy"])).get("SkullStripped")
        said = {
            "Description": "{} and {} fused into one image, on the grid of the {}".format(*suffixes, suffixes[0]),
            "Sources": [*(self._uri(pair[key]) for key in ("anatomy", "overlay")), *transforms],
            "SkullStripped": stripped is True,
            **told,
        }
        with whole_file(self.output_dir / place) as partial:
            partial.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        (self.output_dir / file).unlink()

    def _uri(self, path: str) -> str:
        inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(self.bids_dir))
        return f"bids:raw:{quote(inside.as_posix(), safe='/+')}"

    def _description(self) -> dict[str, Any]:
        raw = dataset_description(self.bids_dir)
        link = quote(_relative(self.bids_dir, self.output_dir).as_posix() + "/", safe="/+")
        source = {"URL": link}
        if isinstance(raw.get("DatasetDOI"), str):
            source["DOI"] = raw["DatasetDOI"]
        return {
            "Name": "Fused images",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": _GENERATOR, "Version": __version__}],
            "SourceDatasets": [source],
            "DatasetLinks": {"raw": link},
        }

    def _write_about(self) -> None:
        """What the folder is; whole before the first result, and the same by whichever process."""
        texts = {
            DESCRIPTION: json.dumps(self._described, indent=2) + "\n",
            ".bidsignore": "".join(f"{line}\n" for line in _NOT_BIDS),
        }
        for name, text in texts.items():
            path = self.output_dir / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                with whole_file(path) as partial:
                    partial.write_text(text, encoding="utf-8")


def _relative(path: Path, start: Path) -> Path:
    return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(start)))


def _is_ours(path: Path) -> bool:
    try:
        by = dataset_description(path.parent).get("GeneratedBy")
    except ValueError:
        return False
    first = by[0] if isinstance(by, list) and by else None
    return isinstance(first, Mapping) and first.get("Name") == _GENERATOR


def _move(source: Path, target: Path) -> None:
    """A file, or a folder in place of an older one."""
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
