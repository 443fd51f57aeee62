"""Write results as a transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import TransformBackends

from fusion_nets.clinical import OUTPUT_SUFFIXES, RASTER_SUFFIXES, write_image

__all__ = ["SaveFusedd"]


class SaveFusedd(MapTransform):
    """Write ``{output_dir}/{name}_{key}{output_ext}``, see :func:`fusion_nets.clinical.write_image`.

    MONAI's ``SaveImaged`` writes in place and has no form for a coloured volume.

    Args:
        keys: what to write, (1 | 3, H, W[, D]) in [0, 1].
        output_dir: folder to write to.
        output_ext: ending that says in which form; by default .png where the sources were pictures, else .nii.gz.
        name_key: whose value names the file.
        allow_missing_keys: write those that are there.

    Raises:
        ValueError: for an ending that is none of :data:`fusion_nets.clinical.OUTPUT_SUFFIXES`.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = "fused",
        output_dir: str | os.PathLike[str] = ".",
        output_ext: str | None = None,
        name_key: str = "name",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if output_ext and output_ext.lower() not in OUTPUT_SUFFIXES:
            raise ValueError(f"output_ext is {output_ext!r}; accepted are {', '.join(OUTPUT_SUFFIXES)}")
        self.output_dir = Path(output_dir)
        self.output_ext = output_ext
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            source = str(getattr(d[key], "meta", {}).get("filename_or_obj", "")).lower()
            ending = self.output_ext or (".png" if source.endswith(RASTER_SUFFIXES) else ".nii.gz")
            write_image(self.output_dir / f"{d[self.name_key]}_{key}{ending}", d[key])
        return d
