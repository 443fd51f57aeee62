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
from fusion_nets.bids import dataset_description, on_grid_place, place_of, registration_name
from fusion_nets.clinical import ImageError
from fusion_nets.clinical.bids_names import DESCRIPTION, bids_name, read_metadata
from fusion_nets.files import whole_file
from fusion_nets.names import RESULTS_BESIDE

__all__ = ["BidsDerivatives"]

BIDS_VERSION = "1.11.0"
_SOURCES = ("anatomy", "overlay")
_FORMATS = ("nifti", ".nii.gz", ".nii", "png", ".png", "html", ".html")
_GENERATOR = "fusion-nets"
_NOT_BIDS = (
    *("*_xfm.tfm", "figures", "*.csv", "*_description.json", "*_registration.tfm", "*_checkerboard.png"),
    *("*_fused.nii", "*_fused.nii.gz", "*_fused.json", "*_on_grid.nii*", ".cases/"),
    *("ct", "*_ct.*", "spect", "*_spect.*", "nm", "*_nm.*"),
)
"""What BIDS has no names for yet: transforms (proposal 14), pictures, tables, CT, SPECT; and what is being made."""

_UNITS = {"SUV": "g/mL", "Bq/ml": "Bq/mL", "HU": "HU"}
"""As sidecars have them."""


class BidsDerivatives:
    """Where the results of a dataset's pairs belong: ``sub-X[/ses-Y]/anat``, in a dataset of derivatives.

    Each fused image lies there with a sidecar that tells what was chosen (the record, which ``--settings`` takes), and
    by ``Sources`` of what it was made, as BIDS URIs; ``raw`` in them is the dataset that ``dataset_description.json``
    links. A source that was saved on the grid lies under its own name, which its ``space`` tells from the raw image
    (:func:`fusion_nets.bids.on_grid_place`), with the anatomy as ``SpatialReference``. The registration lies beside
    the fused image, ``from-pet_to-T1w_mode-image_..._xfm.tfm``, pictures and pages in ``figures``; these stand in
    ``.bidsignore``, as BIDS has no names for them.

    Args:
        bids_dir: the dataset that is fused.
        output_dir: of the results; "derivatives/..." in the dataset, or any other folder.
        output_format: as :class:`fusion_nets.transforms.SaveFused` takes it; BIDS has NIfTI, and png and html go into
            ``figures``.

    Raises:
        ValueError: for a folder of another dataset, or in this one outside ``derivatives``, and for other formats.
    """

    def __init__(
        self,
        bids_dir: str | os.PathLike[str],
        output_dir: str | os.PathLike[str],
        output_format: str | Sequence[str] | None = None,
    ) -> None:
        self.bids_dir, self.output_dir = Path(bids_dir), Path(output_dir)
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
        record = next((file for file, place in places.items() if place.name == f"{name}.json"), None)
        told = {} if record is None else json.loads((self.output_dir / record).read_text(encoding="utf-8"))
        written = []
        for file, place in places.items():
            (self.output_dir / place).parent.mkdir(parents=True, exist_ok=True)
            written.append(place)
            if file == record:
                self._write_sidecar(pair, told, place, places)
                (self.output_dir / file).unlink()
                continue
            _move(self.output_dir / file, self.output_dir / place)
            key = next((key for key in _SOURCES if file.startswith(f"{name}_{key}_on_grid.")), None)
            if key is not None:
                written.append(self._write_source_sidecar(pair, key, told, place, places))
        return [place.as_posix() for place in written]

    def _place(self, pair: Mapping[str, Any], file: str) -> Path:
        """Of one result, in ``output_dir``."""
        name = str(pair["name"])
        folder, ending = place_of(name), file.removeprefix(name)
        if ending.startswith("_fused.") and not ending.endswith((".html", ".png")):
            return folder / f"{name}{ending.removeprefix('_fused')}"
        for key in _SOURCES:
            if ending.startswith(f"_{key}_on_grid."):
                where = on_grid_place(pair[key], pair["anatomy"] if key == "overlay" else None)
                return where.with_name(where.name + ending.removeprefix(f"_{key}_on_grid"))
        if ending == "_registration.tfm":
            return folder / registration_name(name, getattr(bids_name(pair["overlay"]), "suffix", "overlay"))
        return folder.parent / "figures" / f"{name}{ending.replace('_fused.', '.')}"

    def _write_sidecar(
        self, pair: Mapping[str, Any], told: Mapping[str, Any], place: Path, places: Mapping[str, Path]
    ) -> None:
        """Of the fused image: its record, in which the others are called as they are now."""
        suffixes = [getattr(bids_name(pair[key]), "suffix", key) for key in _SOURCES]
        record = dict(told.get("record", {}))
        for key in _SOURCES:
            on_grid = record.get(key, {}).get("on_grid")
            if on_grid:
                files = [places[file].as_posix() for file in on_grid["files"] if file in places]
                record[key] = {**record[key], "on_grid": {**on_grid, "files": files}}
        said = {
            "Description": "{} and {} fused into one image, on the grid of the {}".format(*suffixes, suffixes[0]),
            "Sources": [*(self._uri(pair[key]) for key in _SOURCES), *_transforms(places)],
            "SkullStripped": _is_stripped(pair["anatomy"]),
            **told,
            **({"record": record} if record else {}),
        }
        self._write_json(place, said)

    def _write_source_sidecar(
        self, pair: Mapping[str, Any], key: str, told: Mapping[str, Any], place: Path, places: Mapping[str, Path]
    ) -> Path:
        """Of a source on the grid; its path. That of an anatomy is the same for all of its overlays."""
        suffixes = {key: getattr(bids_name(pair[key]), "suffix", key) for key in _SOURCES}
        units = _UNITS.get(told.get("record", {}).get(key, {}).get("units"))
        said = {
            "Description": f"{suffixes[key]} on the grid of the {suffixes['anatomy']}, in its own units",
            "Sources": [self._uri(pair[key]), *(_transforms(places) if key == "overlay" else ())],
            **({"SpatialReference": self._uri(pair["anatomy"])} if key == "overlay" else {}),
            "SkullStripped": _is_stripped(pair[key]),
            **({"Units": units} if units else {}),
        }
        sidecar = place.with_name(place.name.partition(".")[0] + ".json")
        self._write_json(sidecar, said)
        return sidecar

    def _write_json(self, place: Path, said: Mapping[str, Any]) -> None:
        with whole_file(self.output_dir / place) as partial:
            partial.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

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


def _transforms(places: Mapping[str, Path]) -> list[str]:
    """URIs of the registrations among results."""
    found = [place.as_posix() for place in places.values() if place.name.endswith("_xfm.tfm")]
    return [f"bids::{quote(place, safe='/+')}" for place in found]


def _is_stripped(path: str) -> bool:
    with suppress(ImageError):  # nothing else is asked of its sidecar, which may be damaged
        return read_metadata(Path(path)).get("SkullStripped") is True
    return False


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
