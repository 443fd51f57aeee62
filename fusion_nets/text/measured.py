"""Measured descriptions: what a picture shows, computed from its values and its affine alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from nibabel.affines import voxel_sizes
from scipy import ndimage

from fusion_nets.transforms import luminance

from .findings import Finding, write_findings

__all__ = ["MeasuredText"]

_VERSION = 1
_NAMES = {"PT": "PET", "NM": "SPECT", "fused": "fused image"}
_BRIGHT = {"CT": "bone", "PT": "tracer uptake", "NM": "tracer uptake", "MR": "signal"}
_EMISSION = ("PT", "NM")
_PLANES = ("Sagittal", "Coronal", "Axial")
_PLACES = ((), ("posterior", "anterior"), ("inferior", "superior"))

_THRESHOLDS = {
    "smoothing": 0.01,  # of the image's length: standard deviation of the Gaussian
    "head": 0.08,  # of the 99th percentile: what is darker is background
    "bright": 0.65,  # of the way from the head's 2nd percentile, its border left out, to its 99th
    "rim": 0.12,  # of the head's radius: how deep the rim reaches
    "bone": 0.5,  # of the head's radius: how deep bright signal that hangs together with the rim belongs to it
    "closed": 25.0,  # percent of the border: a rim that covers less is no bone or skin, and may be a finding
    "salient": 0.5,  # of the way from the median to the 2nd and 98th percentile inside
    "difference": 0.1,  # of the 98th percentile inside: the least a region differs from the median
    "length": 0.03,  # of the image's length: the smallest region
    "spread": 3.5,  # mean square distance from its centre, that of a disc or ball being 1: more is a ring, no region
    "centre": 0.5,  # of the head's half axes: the ellipse in which dark areas are central
    "beside": 0.1,  # of the largest part: how large other parts of the head must be
    "inside": 0.05,  # of the head: the least to look for regions in
    "one-sided": 0.75,  # of a region: how much of it lies on its side
    "apart": 0.2,  # of the head's half width: mean distance from the midline of what lies on both sides
    "alike": 2.0,  # percent: halves that differ less are alike
}
_MOST_BRIGHT, _MOST_DARK = 3, 2
_MOST_VOXELS_ALONG = {2: 256, 3: 96}


class MeasuredText:
    """Describe images by measuring them: deterministic, offline, and no diagnosis.

    A description names modality and plane, then states, where present and in this order: how much of the image the
    head fills; mean level, contrast (5th to 95th percentile) and noise (high-pass residual) in the head; which half
    is brighter; the extent of what is bright (bone on CT, tracer uptake on PET and SPECT); how much of the head's
    border is bright (not of tracer uptake); up to three bright regions, the dark area in the centre (where
    ventricles lie), and up to two dark regions, each with side, place, size and mean level.

    Sizes of regions are the side of a square (cube) of equal content, in percent of the image's own, or in mm for
    volumes and for slices whose pixels are not of 1 mm, as those of a picture are taken to be. Levels are percent of
    the display range. Thresholds are relative to the head's own values, so a merely dimmer image keeps its findings.

    :func:`~fusion_nets.text.parse_findings` of a description gives what :meth:`findings` gives.
    """

    @property
    def configuration(self) -> dict[str, Any]:
        """Kind, version and thresholds."""
        return {"kind": "measured", "version": _VERSION, **_THRESHOLDS}

    def __call__(self, images: Sequence[MetaTensor]) -> list[str]:
        """Describe (1 | 3, H, W[, D]) images in [0, 1]; see :class:`~fusion_nets.text.Describer` for their ``meta``.

        Raises:
            ValueError: for another shape, values outside [0, 1] or not finite, or an affine that cannot be inverted.
        """
        return [self._describe(image) for image in images]

    def findings(self, image: MetaTensor) -> list[Finding]:
        """What the description of an image states, in its order, figures rounded to one decimal."""
        return _findings(_Grey.of(image))

    def _describe(self, image: MetaTensor) -> str:
        grey = _Grey.of(image)
        name = _NAMES.get(grey.modality, grey.modality or "image")
        across = {0, 1, 2}.difference(grey.axes)
        title = f"{_PLANES[across.pop()]} {name}" if across else f"Volume, {name}"
        return f"{title}. {write_findings(_findings(grey), _BRIGHT.get(grey.modality, ''))}"


@dataclass(frozen=True)
class _Grey:
    """A grey image whose axes run to the patient's right, anterior and superior (all of them, or two)."""

    values: np.ndarray
    axes: tuple[int, ...]
    spacing: np.ndarray
    in_mm: bool
    modality: str

    @classmethod
    def of(cls, image: MetaTensor) -> _Grey:
        if not isinstance(image, MetaTensor):
            raise ValueError(f"a {type(image).__name__}; a MetaTensor is accepted, whose affine says where left is")
        if image.ndim not in (3, 4) or image.shape[0] not in (1, 3) or 0 in image.shape:
            raise ValueError(f"shape {tuple(image.shape)}; an image (1 | 3, H, W[, D]) is accepted")
        values = luminance(image.as_tensor().detach().cpu().to(torch.float64))[0].numpy()
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinity; only finite values are accepted")
        if values.min() < -1e-3 or values.max() > 1 + 1e-3:
            raise ValueError(f"values from {values.min():g} to {values.max():g}; values in [0, 1] are accepted")
        affine = np.asarray(to_affine_nd(3, np.asarray(image.affine, dtype=np.float64)))
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-3 * voxel_sizes(affine).prod():
            raise ValueError(f"affine {affine.tolist()} does not say where the voxels lie; one with an inverse does")
        ndim = values.ndim
        orientation = nib.orientations.io_orientation(affine)
        order = orientation[:, 0].astype(int)
        spacing = np.empty(3)
        spacing[order] = voxel_sizes(affine)
        values = nib.orientations.apply_orientation(values.reshape(values.shape + (1,) * (3 - ndim)), orientation)
        axes = tuple(sorted(order[:ndim].tolist()))
        spacing = spacing[list(axes)]
        values = np.ascontiguousarray(values.reshape([values.shape[axis] for axis in axes]))
        in_mm = ndim == 3 or not np.allclose(spacing, 1)
        return cls(values, axes, spacing, in_mm, str(image.meta.get("modality") or ""))


def _findings(grey: _Grey) -> list[Finding]:
    """Everything that is measured, in the order of the description."""
    ndim = grey.values.ndim
    content = float(np.prod(grey.values.shape * grey.spacing))
    blur = _THRESHOLDS["smoothing"] * content ** (1 / ndim)
    smooth = ndimage.gaussian_filter(grey.values, blur / grey.spacing, mode="nearest", truncate=3)
    grain = grey.values - ndimage.uniform_filter(grey.values, 3, mode="nearest")
    steps = [-(-n // _MOST_VOXELS_ALONG[ndim]) for n in smooth.shape]
    every = tuple(slice(step // 2, None, step) for step in steps)
    values, smooth, spacing = grey.values[every], smooth[every], grey.spacing * steps

    head = _head(smooth)
    findings = [Finding("head extent", size=_percent(head.mean()), unit="%")]
    if not head.any():
        return findings
    depth = ndimage.distance_transform_edt(np.pad(head, 1), sampling=spacing)[(slice(1, -1),) * ndim]
    core = depth > 4 * blur  # where smoothing brings no darkness in from outside
    low, p5 = np.percentile(smooth[core if core.any() else head], (2, 5))
    p95, high = np.percentile(smooth[head], (95, 99))
    noise = 1.4826 * np.median(np.abs(grain[every][head])) / np.sqrt(1 - 3.0**-ndim)
    findings.append(Finding("mean level", intensity=_percent(values[head].mean())))
    findings.append(Finding("contrast level", intensity=_percent(max(p95 - p5, 0))))
    findings.append(Finding("noise level", intensity=_percent(noise)))
    frame = _Frame.around(head, grey.axes)
    findings += _asymmetry(values, head, frame)

    threshold = low + _THRESHOLDS["bright"] * (high - low)
    bright = head & (smooth > (threshold if high - low > _THRESHOLDS["difference"] * high else np.inf))
    findings.append(Finding("bright extent", size=_percent(bright.mean()), unit="%"))
    inside = head
    if grey.modality not in _EMISSION:
        closed, inside = _rim(smooth, bright, depth, spacing, 3 * blur)
        findings.append(Finding("bright rim", size=closed, unit="%"))
    if inside.sum() < _THRESHOLDS["inside"] * head.sum():
        return findings
    light, central, dark = _regions(smooth, inside, spacing, frame)

    def statement(kind: str, region: np.ndarray) -> Finding:
        side, place = frame.where(region)
        size, unit = region.sum() * spacing.prod(), "mm"
        if not grey.in_mm:
            size, unit = size / content * 100**ndim, "%"
        return Finding(kind, side, place, round(float(size) ** (1 / ndim), 1), unit, _percent(values[region].mean()))

    findings += [statement("bright region", region) for region in light[:_MOST_BRIGHT]]
    if central:
        findings.append(replace(statement("central dark area", np.logical_or.reduce(central)), place=""))
    return findings + [statement("dark region", region) for region in dark[:_MOST_DARK]]


def _rim(
    smooth: np.ndarray, bright: np.ndarray, depth: np.ndarray, spacing: np.ndarray, gap: float
) -> tuple[float, np.ndarray]:
    """How many percent of the head's border the bright rim covers, and what of the head lies inside of it."""
    head = depth > 0
    radius = _radius(head.sum() * spacing.prod(), head.ndim)
    skin = depth <= _THRESHOLDS["rim"] * radius
    rim = _reached(bright & (depth <= _THRESHOLDS["bone"] * radius), skin)
    inside = head & ~skin
    if not rim.any():
        return 0.0, inside
    away = ndimage.distance_transform_edt(~rim, sampling=spacing)
    within = inside & (away > gap)
    if within.any() and np.median(smooth[within]) > (1 - _THRESHOLDS["difference"]) * np.percentile(smooth[rim], 90):
        return 0.0, inside  # as bright as the rim: tissue that only darker regions set off
    closed = _percent((away <= _THRESHOLDS["rim"] * radius)[head & (depth <= spacing.max())].mean())
    return closed, within if closed >= _THRESHOLDS["closed"] else inside


def _regions(
    smooth: np.ndarray, inside: np.ndarray, spacing: np.ndarray, frame: _Frame
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The bright regions, the dark ones in the centre, and the other dark ones, the most salient first."""
    t, ndim = _THRESHOLDS, smooth.ndim
    low, middle, high = np.percentile(smooth[inside], (2, 50, 98))
    least = t["difference"] * high
    least_voxels = max(t["length"] * smooth.size ** (1 / ndim), 3) ** ndim

    def regions(mask: np.ndarray) -> list[np.ndarray]:
        labels, count = ndimage.label(mask)
        index = np.arange(1, count + 1)
        voxels = ndimage.sum_labels(mask, labels, index)
        salience = ndimage.sum_labels(np.abs(smooth - middle), labels, index)
        kept = (voxels >= least_voxels) & (_spread(labels, voxels, spacing) <= t["spread"])
        return [labels == label for label in index[kept][np.argsort(-salience[kept], kind="stable")]]

    light = regions(inside & (smooth > middle + max(t["salient"] * (high - middle), least)))
    dark = regions(inside & (smooth < middle - max(t["salient"] * (middle - low), least)))
    central = [frame.is_central(region) for region in dark]
    return (
        light,
        [r for r, c in zip(dark, central, strict=True) if c],
        [r for r, c in zip(dark, central, strict=True) if not c],
    )


def _head(smooth: np.ndarray) -> np.ndarray:
    """What is not background, without small things beside it (a table, a fiducial), holes filled."""
    mask = smooth > max(_THRESHOLDS["head"] * np.percentile(smooth, 99), np.finfo(np.float32).eps)
    labels, _ = ndimage.label(mask)
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    mask = (voxels >= _THRESHOLDS["beside"] * voxels.max())[labels] & mask
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (outside != outside.flat[0])[(slice(1, -1),) * mask.ndim]


def _asymmetry(values: np.ndarray, head: np.ndarray, frame: _Frame) -> list[Finding]:
    if frame.lateral is None:
        return []
    left, right = (float(values[head & half].mean()) if (head & half).any() else 0.0 for half in frame.halves())
    if min(left, right) <= 0:
        return []
    difference = _percent(max(left, right) / min(left, right) - 1)
    side = "both" if difference < _THRESHOLDS["alike"] else "left" if left > right else "right"
    return [Finding("asymmetry", side, intensity=difference)]


def _reached(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The parts of a mask that touch the seed."""
    labels, count = ndimage.label(mask)
    touched = np.zeros(count + 1, dtype=bool)
    touched[labels[seed & mask]] = True
    return touched[labels] & mask


def _spread(labels: np.ndarray, voxels: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Mean square distance of each region's voxels from its centre, by that of a disc or ball of its content."""
    where, ndim = np.nonzero(labels), labels.ndim
    label = labels[where]
    total = np.zeros(len(voxels) + 1)
    for positions, step in zip(where, spacing, strict=True):
        first = np.bincount(label, positions * step, len(total))
        total += np.bincount(label, (positions * step) ** 2, len(total))
        total[1:] -= first[1:] ** 2 / voxels
    return total[1:] / voxels / (ndim / (ndim + 2) * _radius(voxels * spacing.prod(), ndim) ** 2)


def _radius(content: np.ndarray, ndim: int) -> np.ndarray:
    """Of the disc or ball of this area or volume."""
    return np.sqrt(content / np.pi) if ndim == 2 else np.cbrt(content * 0.75 / np.pi)


def _percent(share: float) -> float:
    return round(100 * float(share), 1)


@dataclass(frozen=True)
class _Frame:
    """The head's own frame: for every voxel how far along each axis, from -1 to 1 at the head's ends."""

    along: tuple[np.ndarray, ...]
    axes: tuple[int, ...]

    @classmethod
    def around(cls, head: np.ndarray, axes: tuple[int, ...]) -> _Frame:
        along = []
        for axis, n in enumerate(head.shape):
            profile = head.sum(axis=tuple(other for other in range(head.ndim) if other != axis))
            ends = np.flatnonzero(profile)[[0, -1]]
            middle = (profile * np.arange(n)).sum() / profile.sum() if axes[axis] == 0 else ends.mean()
            position = (np.arange(n) - middle) / max((ends[1] - ends[0]) / 2, 0.5)
            along.append(position.reshape([-1 if other == axis else 1 for other in range(head.ndim)]))
        return cls(tuple(along), axes)

    @property
    def lateral(self) -> np.ndarray | None:
        """Along the axis to the patient's right; None in a sagittal plane."""
        return self.along[self.axes.index(0)] if 0 in self.axes else None

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.lateral is not None
        return self.lateral < 0, self.lateral > 0

    def where(self, region: np.ndarray) -> tuple[str, str]:
        """Side and place of a region."""
        side, places = "", []
        for position, axis in zip(self.along, self.axes, strict=True):
            here = np.broadcast_to(position, region.shape)[region]
            if axis == 0:
                side = self._side(here)
            elif abs(here.mean()) > 1 / 3:
                places.append(_PLACES[axis][int(here.mean() > 0)])
        return side, " ".join(places) or "central"

    @staticmethod
    def _side(lateral: np.ndarray) -> str:
        on_left = float((lateral < 0).mean())
        if abs(on_left - 0.5) > _THRESHOLDS["one-sided"] - 0.5:
            return "left" if on_left > 0.5 else "right"
        return "both" if np.abs(lateral).mean() > _THRESHOLDS["apart"] else "midline"

    def is_central(self, region: np.ndarray) -> bool:
        """Whether most of a region lies where ventricles do; in a sagittal plane nothing says so."""
        if self.lateral is None:
            return False
        inside = sum((position / _THRESHOLDS["centre"]) ** 2 for position in self.along) < 1
        return bool((inside & region).sum() > 0.5 * region.sum())
