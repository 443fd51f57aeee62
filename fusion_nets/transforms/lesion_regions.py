"""What two sources and their fused image show of regions that a segmentation marks, such as lesions."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from evaluation.observers import (
    REGION_RING,
    region_contrast,
    region_labels,
    region_recovery,
    region_rings,
    regions_lost,
)
from fusion_nets.clinical import ImageError, Reason, check_same_grid, is_picture, read_image
from fusion_nets.files import whole_file
from fusion_nets.registration import foreground, resample_labels

from .colour import luminance

__all__ = [
    "JudgeRegions",
    "JudgeRegionsD",
    "JudgeRegionsDict",
    "JudgeRegionsd",
    "LoadRegions",
    "LoadRegionsD",
    "LoadRegionsDict",
    "LoadRegionsd",
    "MeasureRegions",
    "MeasureRegionsD",
    "MeasureRegionsDict",
    "MeasureRegionsd",
]

_SOURCES = ("anatomy", "overlay")
_LARGEST = 2**24
"""Whole numbers up to it are exact in float32, as which images are read."""


class LoadRegions(Transform):
    """Load a label image, such as a segmentation of lesions, onto the anatomy's grid.

    Any form that :func:`fusion_nets.clinical.read_image` takes, on any grid in the anatomy's coordinates: voxels take
    the label of the nearest one. Each whole number above 0 is a region, whether it is of one piece or not.

    Args:
        ring: from which distance to which a region's surroundings reach, in mm (of pictures: pixels).
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, ring: tuple[float, float] = REGION_RING) -> None:
        self.ring = (float(ring[0]), float(ring[1]))

    def __call__(self, path: PathLike, ref: MetaTensor) -> MetaTensor:  # type: ignore[override]
        """Load (2, H, W[, D]) int32 on the grid of `ref`: labels, and labels of the regions' rings inside the patient.

        Raises:
            ImageError: for what is no label image, has no label, or one of which nothing lies on that grid.
        """
        labels = read_image(path)
        values = labels.as_tensor()
        if labels.shape[0] != 1:
            raise ImageError(Reason.SHAPE, f"{path}: is coloured; regions are accepted as whole numbers, one a region")
        if (values != values.round()).any() or values.min() < 0 or values.max() >= _LARGEST:
            raise ImageError(
                Reason.VALUES,
                f"{path}: values from {values.min():g} to {values.max():g}, not all whole numbers from 0 to "
                f"{_LARGEST - 1}; a label image is accepted, 0 for the background and one number for each region",
            )
        if is_picture(labels) or is_picture(ref):
            check_same_grid(labels, ref)
        moved = resample_labels(labels, ref)
        lost = sorted(set(region_labels(labels).int().tolist()) - set(region_labels(moved).tolist()))
        if lost:
            raise ImageError(
                Reason.GRID,
                f"{path}: region{'s' * (len(lost) > 1)} {', '.join(map(str, lost[:9]))} of it cover"
                f"{'s' * (len(lost) == 1)} no voxel of the anatomy: outside its field of view, or smaller than its "
                "voxels; regions in the anatomy's coordinates are accepted",
            )
        spacing = None if is_picture(ref) else ref.pixdim[: ref.ndim - 1].tolist()
        inside = torch.from_numpy(foreground(ref))
        rings = region_rings(moved[0], spacing, self.ring, inside)
        both = torch.stack([moved.as_tensor()[0], rings])
        return MetaTensor(both, affine=ref.affine.clone(), meta={"filename_or_obj": str(path)})


class LoadRegionsd(MapTransform):
    """Dictionary twin of :class:`LoadRegions`.

    Args:
        keys: the label images.
        ref_key: the image whose grid they come onto, as it was loaded.
        ring: from which distance to which a region's surroundings reach, in mm (of pictures: pixels).
        allow_missing_keys: load those that are there.
    """

    backend = LoadRegions.backend

    def __init__(
        self,
        keys: KeysCollection = "regions",
        ref_key: Hashable = "anatomy",
        ring: tuple[float, float] = REGION_RING,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_key = ref_key
        self.load = LoadRegions(ring)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key.

        Raises:
            ImageError: as :class:`LoadRegions` does.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.load(d[key], d[self.ref_key])
        return d


class MeasureRegions(Transform):
    """Measure regions in sources on one grid, in their own units: before they are brought to a display range."""

    backend = LoadRegions.backend

    def __call__(self, regions: MetaTensor, images: Mapping[Hashable, MetaTensor]) -> str:  # type: ignore[override]
        """Measure, of coloured images the luminance.

        Args:
            regions: as :class:`LoadRegions` gives them.
            images: sources by their names, (1 | 3, H, W[, D]).

        Returns:
            JSON: a list with {"region", "voxels", "volume_ml"?, NAME: {"units", "mean", "contrast", "cnr"}} of each
            region. The volume is there of volumes; what cannot be said is null, see
            :func:`evaluation.observers.region_contrast`.
        """
        labels, rings = regions.as_tensor().cpu()
        found = region_labels(labels)
        table: list[dict[str, Any]] = []
        for label in found.tolist():
            voxels = int((labels == label).sum())
            table.append({"region": label, "voxels": voxels})
            if regions.ndim == 4:
                table[-1]["volume_ml"] = _plain(voxels * regions.pixdim.prod() / 1000)
        for key, image in images.items():
            units = str(image.meta.get("units") or "stored")
            for row, told in zip(table, _contrast(luminance(image), labels, rings), strict=True):
                row[str(key)] = {"units": units, **told}
        return json.dumps(table)


class MeasureRegionsd(MapTransform):
    """Dictionary twin of :class:`MeasureRegions`: the measures stand under "region_table".

    Args:
        keys: the sources.
        regions_key: the regions; where they are not there, nothing is measured.
        output_key: where the measures go.
        allow_missing_keys: measure the sources that are there.
    """

    backend = MeasureRegions.backend

    def __init__(
        self,
        keys: KeysCollection = _SOURCES,
        regions_key: Hashable = "regions",
        output_key: str = "region_table",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions_key = regions_key
        self.output_key = output_key
        self.measure = MeasureRegions()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Measure."""
        d = dict(data)
        if self.regions_key in d:
            d[self.output_key] = self.measure(d[self.regions_key], {key: d[key] for key in self.key_iterator(d)})
        return d


class JudgeRegions(Transform):
    """Tell which regions' contrast a fused image does not keep.

    The recovery is estimated, see :func:`evaluation.observers.region_recovery`. It counts from the display range on;
    "shown" is the share of a source's contrast that this lets through. A region is warned of where a source shows it
    and the fused image keeps less than a quarter of its contrast, or the display range does, and it is not kept as the
    other source shows it, bright or dark like here, see :func:`evaluation.observers.regions_lost`; and where it cannot
    be judged, because less than 8 voxels surround it.

    Args:
        visible: contrast-to-noise ratio from which on a source shows a region.
        threshold: recovery below which it is lost.
    """

    backend = LoadRegions.backend

    def __init__(self, visible: float = 1.0, threshold: float = 0.25) -> None:
        self.visible = visible
        self.threshold = threshold

    def __call__(  # type: ignore[override]
        self,
        img: torch.Tensor,
        image: torch.Tensor,
        regions: torch.Tensor,
        table: str,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, Any]:
        """Judge.

        Args:
            img: the fused luminance, (1, H, W[, D]) in [0, 1].
            image: what was fused, (2, H, W[, D]), anatomy first.
            regions: as :class:`LoadRegions` gives them.
            table: as :class:`MeasureRegions` gives it, of "anatomy" and "overlay".
            ranges: values of each source that became black and white; by default 0 and 1.

        Returns:
            {"visible_from_cnr", "lost_below_recovery", "regions", "warnings"}: the table with "shown" and "recovery" of
            each source, the same measures of the "fused" image, and its "warnings", by region and in all.
        """
        fused, sources = (one.as_subclass(torch.Tensor).detach().cpu() for one in (img, image))
        labels, rings = regions.as_subclass(torch.Tensor).cpu()
        rows: list[dict[str, Any]] = json.loads(table)
        recovery = region_recovery(fused, sources, labels, rings)
        displayed = region_contrast(sources, labels, rings).contrast
        own, cnr = (
            torch.tensor([[_number(row[key][name]) for key in _SOURCES] for row in rows], dtype=torch.float64)
            for name in ("contrast", "cnr")
        )
        cnr = torch.where(cnr.isnan() & (own.abs() > 0), torch.inf, cnr)  # which JSON does not know
        width = torch.tensor([high - low for low, high in ((ranges or {}).get(key, (0, 1)) for key in _SOURCES)])
        shown = torch.where(own == 0, torch.nan, displayed * width / own)
        lost = regions_lost(own, cnr, torch.minimum(recovery, shown), self.visible, self.threshold)
        warnings = []
        for i, (row, told) in enumerate(zip(rows, _contrast(fused, labels, rings), strict=True)):
            row["fused"] = told
            row["warnings"] = []
            for j, key in enumerate(_SOURCES):
                row[key] |= {"shown": _plain(shown[i, j]), "recovery": _plain(recovery[i, j])}
                if lost[i, j]:
                    row["warnings"].append(self._warning(key, row[key]))
            if told["contrast"] is None:
                row["warnings"].append("cannot be judged: less than 8 voxels surround it inside the patient")
            warnings += [f"region {row['region']}: {warning}" for warning in row["warnings"]]
        said = {"visible_from_cnr": self.visible, "lost_below_recovery": self.threshold}
        return {**said, "regions": rows, "warnings": warnings}

    def _warning(self, key: str, told: Mapping[str, Any]) -> str:
        noise = "without noise" if told["cnr"] is None else f"{told['cnr']:.1f} of its noise"
        seen = f"the {key} shows it (contrast {told['contrast']:g} {told['units']}, {noise})"
        if not _number(told["shown"]) >= self.threshold:
            return f"{seen}, its display range does not; another window is needed"
        return f"{seen}, the fused image keeps {_number(told['recovery']):.2f} of it; look at the {key} itself"


class JudgeRegionsd(MapTransform):
    """Dictionary twin of :class:`JudgeRegions`: logs the warnings, and puts what it found into the record and a table.

    The table is ``{output_dir}/{name}_regions.csv``; its name is added to "saved". Of the record, where there is one
    (:class:`RecordChoices`), the ranges are taken.

    Args:
        keys: the fused luminance.
        image_key: what was fused.
        regions_key: the regions; where they are not there, nothing is judged.
        table_key: the measures of the sources.
        record_key: the record.
        output_dir: the folder; by default no table is written.
        visible: contrast-to-noise ratio from which on a source shows a region.
        threshold: recovery below which it is lost.
        name_key: whose value names the file and the warnings.
        allow_missing_keys: pass over a key that is not there.
    """

    backend = JudgeRegions.backend

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: Hashable = "image",
        regions_key: Hashable = "regions",
        table_key: Hashable = "region_table",
        record_key: Hashable = "record",
        output_dir: str | os.PathLike[str] | None = None,
        visible: float = 1.0,
        threshold: float = 0.25,
        name_key: str = "name",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key, self.regions_key, self.table_key = image_key, regions_key, table_key
        self.record_key = record_key
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.name_key = name_key
        self.judge = JudgeRegions(visible, threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Judge, where there are regions."""
        d = dict(data)
        if self.regions_key not in d:
            return d
        for key in self.key_iterator(d):
            record = json.loads(d.get(self.record_key) or "{}")
            told = record.get("record", {})
            ranges = {name: told[name]["display"]["range"] for name in _SOURCES if "display" in told.get(name, {})}
            found = self.judge(d[key], d[self.image_key], d[self.regions_key], d[self.table_key], ranges)
            name = d.get(self.name_key, key)
            for warning in found["warnings"]:
                logging.getLogger(__name__).warning("%s: %s", name, warning)
            if told:
                told["regions"] = found
                d[self.record_key] = json.dumps(record, indent=2)
            if self.output_dir is not None:
                with whole_file(self.output_dir / f"{name}_regions.csv") as partial:
                    partial.write_text(_as_csv(found["regions"]), encoding="utf-8")
                d["saved"] = [*d.get("saved", []), f"{name}_regions.csv"]
        return d


def _contrast(values: torch.Tensor, labels: torch.Tensor, rings: torch.Tensor) -> list[dict[str, float | None]]:
    """Of one channel: mean, contrast and ratio of every region."""
    found = region_contrast(values.as_subclass(torch.Tensor).cpu(), labels, rings)
    return [
        {name: _plain(value) for name, value in zip(found._fields, row, strict=True)}
        for row in torch.cat(list(found), dim=1)
    ]


def _plain(value: Any) -> float | None:
    """Six digits for people; None for NaN and infinity, which JSON does not know."""
    return float(f"{float(value):.6g}") if math.isfinite(float(value)) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a region, and a column a measure, such as "overlay_contrast"; empty where it cannot be said."""
    flat = []
    for row in rows:
        line: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, Mapping):
                line |= {f"{name}_{measure}": figure for measure, figure in value.items()}
            else:
                line[name] = "; ".join(value) if isinstance(value, list) else value
        flat.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


JudgeRegionsD = JudgeRegionsDict = JudgeRegionsd
LoadRegionsD = LoadRegionsDict = LoadRegionsd
MeasureRegionsD = MeasureRegionsDict = MeasureRegionsd
