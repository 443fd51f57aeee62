"""What sources and their fused image show of regions that a segmentation marks, such as lesions."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
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
    region_rings,
)
from fusion_nets.clinical import ImageError, Reason, check_same_grid, is_picture, read_image
from fusion_nets.overlays import SOURCES
from fusion_nets.registration import foreground, resample_labels

from .colour import luminance

__all__ = [
    "LoadRegions",
    "LoadRegionsD",
    "LoadRegionsDict",
    "LoadRegionsd",
    "MeasureRegions",
    "MeasureRegionsD",
    "MeasureRegionsDict",
    "MeasureRegionsd",
]

_LARGEST = 2**24
"""Whole numbers up to it are exact in float32, as which images are read."""


class LoadRegions(Transform):
    """Load a label image, such as a segmentation of lesions, onto the anatomy's grid.

    Any form that :func:`fusion_nets.clinical.read_image` takes, on any grid in the anatomy's coordinates: voxels take
    the label of the nearest one. Each whole number above 0 is a region, whether it is of one piece or not.

    Args:
        ring: from which distance to which a region's surroundings reach, in mm (of pictures: pixels).

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> head, mask = Image.linear_gradient("L").resize((40, 40)), Image.new("L", (40, 40))
        >>> mask.paste(1, (16, 16, 24, 24))
        >>> with TemporaryDirectory() as folder:
        ...     head.save(f"{folder}/head.png")
        ...     mask.save(f"{folder}/mask.png")
        ...     regions = LoadRegions()(f"{folder}/mask.png", read_image(f"{folder}/head.png"))
        >>> tuple(regions.shape), int(regions[0].sum())  # labels, and labels of the rings
        ((2, 40, 40), 64)
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
    """Measure regions in sources on one grid, in their own units: before they are brought to a display range.

    Examples:
        >>> regions = MetaTensor(torch.zeros(2, 40, 40, dtype=torch.int32))
        >>> regions[0, 16:24, 16:24] = regions[1, 10:14, 10:30] = 1
        >>> image = MetaTensor(torch.full((1, 40, 40), 30.0) + 12 * (regions[:1] > 0), meta={"units": "HU"})
        >>> (row,) = json.loads(MeasureRegions()(regions, {"overlay": image}))
        >>> row["voxels"], row["overlay"]["mean"], row["overlay"]["contrast"], row["overlay"]["units"]
        (64, 42.0, 12.0, 'HU')
    """

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
                table[-1]["volume_ml"] = plain_figure(voxels * regions.pixdim.prod() / 1000)
        for key, image in images.items():
            units = str(image.meta.get("units") or "stored")
            for row, told in zip(table, contrast_of_regions(luminance(image), labels, rings), strict=True):
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
        keys: KeysCollection = SOURCES[:2],
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


def contrast_of_regions(
    values: torch.Tensor, labels: torch.Tensor, rings: torch.Tensor
) -> list[dict[str, float | None]]:
    """Of one channel: mean, contrast and ratio of every region."""
    found = region_contrast(values.as_subclass(torch.Tensor).cpu(), labels, rings)
    return [
        {name: plain_figure(value) for name, value in zip(found._fields, row, strict=True)}
        for row in torch.cat(list(found), dim=1)
    ]


def plain_figure(value: Any) -> float | None:
    """Six digits for people; None for NaN and infinity, which JSON does not know."""
    return float(f"{float(value):.6g}") if math.isfinite(float(value)) else None


LoadRegionsD = LoadRegionsDict = LoadRegionsd
MeasureRegionsD = MeasureRegionsDict = MeasureRegionsd
