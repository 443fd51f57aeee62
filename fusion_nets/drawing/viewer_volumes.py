"""Volumes as the viewer's page holds them: turned, reduced, packed; and how they are shown first."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation

from fusion_nets.clinical.dicom import PALETTES
from fusion_nets.clinical.grids import as_volume
from fusion_nets.clinical.quantities import CT_WINDOWS, UPTAKE
from fusion_nets.datalists import MODALITY_NAMES

from .palettes import OF_ONE_TRACER, OF_TRACERS, palette_colours

__all__ = ["StoredAs", "factors_of", "is_uptake", "packed", "palettes", "values_of"]


class StoredAs(NamedTuple):
    """How a volume lies in a page: its axes turned by `turn`, each voxel the mean of `every` voxels along each."""

    turn: np.ndarray
    every: tuple[int, int, int]

    def apply(self, volume: np.ndarray) -> np.ndarray:
        """(X, Y, Z[, 3]) turned and reduced, float32."""
        turned = apply_orientation(volume, self.turn)
        for axis, every in enumerate(self.every):
            if every > 1:
                behind = [(0, -turned.shape[axis] % every if other == axis else 0) for other in range(turned.ndim)]
                padded = np.pad(turned, behind, mode="edge")
                parts = (*padded.shape[:axis], -1, every, *padded.shape[axis + 1 :])
                turned = padded.reshape(parts).mean(axis + 1, dtype=np.float32)
        return np.asarray(turned, dtype=np.float32)


def factors_of(size: tuple[int, ...], spacing: np.ndarray, most: int) -> tuple[int, int, int]:
    """By which each axis is reduced, the one with the smallest voxels first."""
    every = [1, 1, 1]
    while np.prod([-(-n // k) for n, k in zip(size, every, strict=True)]) > most:
        left = [edge * k if n > k else np.inf for edge, k, n in zip(spacing, every, size, strict=True)]
        every[int(np.argmin(left))] += 1
    return every[0], every[1], every[2]


def values_of(image: MetaTensor) -> np.ndarray:
    """(X, Y, Z), of a coloured image (X, Y, Z, 3)."""
    values = as_volume(image).as_tensor().float().numpy()
    return values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)


def packed(
    key: str, values: np.ndarray, image: MetaTensor, record: Mapping[str, Any], number: int = 0
) -> tuple[dict[str, Any], str]:
    """What the page must know of an image, and its values: x changes first, packed by gzip, in base64.

    Args:
        key: "anatomy", "overlay" or "fused".
        values: (X, Y, Z[, 3]), as the page holds them.
        image: that they are of.
        record: what was chosen, with this overlay as the only one.
        number: of an overlay among several, from 1.
    """
    channels = 3 if values.ndim == 4 else 1
    told: dict[str, Any] = {"channels": channels, "slope": 1.0, "intercept": 0.0, "digits": 0}
    if key == "fused" or channels == 3:
        white = 1.0 if key == "fused" else float(image.meta.get("white") or 255)
        raw, told["type"] = np.rint((values / white).clip(0, 1) * 255).astype(np.uint8), "uint8"
        told |= {"low": 0, "high": 255, "palette": "grey"}
    else:
        low, high = float(values.min()), float(values.max())
        if (values == np.rint(values)).all() and high - low <= 65535:
            told["intercept"] = low
        else:
            told |= {"intercept": low, "slope": (high - low) / 65535 or 1.0}
            told["digits"] = int(np.clip(3 - np.floor(np.log10(max(abs(low), abs(high)))), 0, 9))
        raw, told["type"] = np.rint((values - low) / told["slope"]).astype(np.uint16), "uint16"
    if key != "fused":
        told |= _shown_first(key, values, image, record, channels, number)
    raw = np.ascontiguousarray(np.moveaxis(raw, (0, 1, 2), (2, 1, 0)))
    return told, base64.b64encode(gzip.compress(raw.astype(raw.dtype.newbyteorder("<")).tobytes(), 6, mtime=0)).decode()


def _shown_first(
    key: str, values: np.ndarray, image: MetaTensor, record: Mapping[str, Any], channels: int, number: int
) -> dict[str, Any]:
    """Names, units, palette and windows of a source, the one under which it was fused first."""
    said = record.get("record", {}).get(key, {})
    modality = said.get("modality") or image.meta.get("modality") or ""
    units = str(image.meta.get("units") or "stored")
    name = MODALITY_NAMES.get(modality, modality)
    which = f"{key} {number}" if number else key
    told = {
        "title": f"{which.capitalize()}, {name}" if name else which.capitalize(),
        "called": f"{which} ({name})" if number and name else which,
        **({"choice": f"{number} {name}".strip()} if number else {}),
        "units": "signal" if units == "stored" and modality == "MR" else units,
    }
    if channels == 3:
        return told
    palette = record.get(f"{key}_palette") or (OF_ONE_TRACER if key == "overlay" and is_uptake(image) else "grey")
    windows: dict[str, tuple[float, float]] = {}
    if isinstance(record.get(f"{key}_window"), (list, tuple)):
        rule = str(said.get("display", {}).get("window") or "given").replace("_", " ")
        windows[f"as fused ({rule})"] = tuple(record[f"{key}_window"])
    if units == "HU" or modality == "CT":
        windows |= {window.replace("_", " "): ends for window, ends in CT_WINDOWS.items()}
    if units.startswith("SUV"):
        windows |= {f"0 to {most} {units}": (0, most) for most in (5, 7, 10, 20)}
    above = values[values > values.min()]
    if above.size:
        windows["percentiles 1 to 99"] = tuple(np.percentile(above, (1, 99)))
    windows["all values"] = (values.min(), values.max() if above.size else values.min() + 1)
    ranges = [
        {"name": window, "low": float(low), "high": float(high)}
        for window, (low, high) in windows.items()
        if high > low
    ]
    return {
        **told,
        "windows": ranges,
        "low": ranges[0]["low"],
        "high": ranges[0]["high"],
        "palette": palette if palette in palettes([palette]) else "grey",
    }


def palettes(also: Iterable[str | None] = ()) -> dict[str, str]:
    """256 colours of each, red, green and blue of the first before the second, in base64.

    Args:
        also: palettes of a second or third tracer, which others do without.
    """
    from matplotlib import colormaps

    grey = np.linspace(0, 1, 256)
    asked = set(also)
    coloured = (OF_ONE_TRACER, OF_TRACERS[0], *PALETTES, *(name for name in OF_TRACERS[1:] if name in asked))
    tables = {
        "grey": np.stack([grey] * 3, axis=-1),
        "grey_inverted": np.stack([1 - grey] * 3, axis=-1),
        **{name: palette_colours(torch.from_numpy(grey)[None], name).numpy().T for name in coloured},
        **{name: colormaps[name](grey)[:, :3] for name in ("viridis", "cividis")},
    }
    return {
        name: base64.b64encode(np.rint(table * 255).astype(np.uint8).tobytes()).decode()
        for name, table in tables.items()
    }


def is_uptake(image: MetaTensor) -> bool:
    """Whether it is PET or SPECT."""
    return image.meta.get("units") in UPTAKE or image.meta.get("modality") in ("PT", "NM")
