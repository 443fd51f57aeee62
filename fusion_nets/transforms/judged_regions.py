"""Which regions that a segmentation marks a fused image does not keep."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from evaluation.observers import region_contrast, region_recovery, regions_lost
from evaluation.report.tables import csv_text
from fusion_nets.files import whole_file
from fusion_nets.overlays import SOURCES

from .lesion_regions import LoadRegions, contrast_of_regions, plain_figure

__all__ = ["JudgeRegions", "JudgeRegionsD", "JudgeRegionsDict", "JudgeRegionsd"]


class JudgeRegions(Transform):
    """Tell which regions' contrast a fused image does not keep.

    The recovery is estimated, see :func:`evaluation.observers.region_recovery`. It counts from the display range on;
    "shown" is the share of a source's contrast that this lets through. A region is warned of where a source shows it
    and the fused image keeps less than a quarter of its contrast, or the display range does, and it is not kept as
    another source shows it, bright or dark like here, see :func:`evaluation.observers.regions_lost`; and where it
    cannot be judged, because less than 8 voxels surround it.

    Args:
        visible: contrast-to-noise ratio from which on a source shows a region.
        threshold: recovery below which it is lost.

    Examples:
        >>> from fusion_nets.transforms import MeasureRegions
        >>> regions = MetaTensor(torch.zeros(2, 40, 40, dtype=torch.int32))
        >>> regions[0, 16:24, 16:24] = regions[1, 10:14, 10:30] = 1
        >>> image = MetaTensor(torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.4)
        >>> image[1, 16:24, 16:24] += 0.2  # which the overlay alone shows
        >>> table = MeasureRegions()(regions, {"anatomy": image[:1], "overlay": image[1:]})
        >>> for fused in (image[:1], image[1:]):
        ...     len(JudgeRegions()(fused, image, regions, table)["warnings"])
        1
        0
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
            image: what was fused, (S, H, W[, D]), anatomy first.
            regions: as :class:`LoadRegions` gives them.
            table: as :class:`MeasureRegions` gives it, of "anatomy" and "overlay", and of further overlays.
            ranges: values of each source that became black and white; by default 0 and 1.

        Returns:
            {"visible_from_cnr", "lost_below_recovery", "regions", "warnings"}: the table with "shown" and "recovery" of
            each source, the same measures of the "fused" image, and its "warnings", by region and in all.
        """
        fused, sources = (one.as_subclass(torch.Tensor).detach().cpu() for one in (img, image))
        labels, rings = regions.as_subclass(torch.Tensor).cpu()
        rows: list[dict[str, Any]] = json.loads(table)
        keys = [key for key in SOURCES if key in rows[0]]
        recovery = region_recovery(fused, sources, labels, rings)
        displayed = region_contrast(sources, labels, rings).contrast
        own, cnr = (
            torch.tensor([[_number(row[key][name]) for key in keys] for row in rows], dtype=torch.float64)
            for name in ("contrast", "cnr")
        )
        cnr = torch.where(cnr.isnan() & (own.abs() > 0), torch.inf, cnr)  # which JSON does not know
        width = torch.tensor([high - low for low, high in ((ranges or {}).get(key, (0, 1)) for key in keys)])
        shown = torch.where(own == 0, torch.nan, displayed * width / own)
        lost = regions_lost(own, cnr, torch.minimum(recovery, shown), self.visible, self.threshold)
        warnings = []
        for i, (row, told) in enumerate(zip(rows, contrast_of_regions(fused, labels, rings), strict=True)):
            row["fused"] = told
            row["warnings"] = []
            for j, key in enumerate(keys):
                row[key] |= {"shown": plain_figure(shown[i, j]), "recovery": plain_figure(recovery[i, j])}
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
            ranges = {name: told[name]["display"]["range"] for name in SOURCES if "display" in told.get(name, {})}
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
    return csv_text([list(flat[0]), *([line.get(name, "") for name in flat[0]] for line in flat)])


JudgeRegionsD = JudgeRegionsDict = JudgeRegionsd
