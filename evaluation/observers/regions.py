"""What of a region, such as a lesion that a segmentation marks, can be seen in an image and in what was fused of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.ndimage import distance_transform_edt, find_objects

__all__ = [
    "REGION_RING",
    "RegionContrast",
    "region_contrast",
    "region_labels",
    "region_recovery",
    "region_rings",
    "regions_lost",
]

REGION_RING = (3.0, 8.0)
"""Distance in mm, or in pixels where they have no size, from a region to its ring and to where that ends."""

_FEWEST = 8
"""Voxels of a ring below which its mean and standard deviation say nothing."""

_NOTHING = 1e-6
"""Variance (of values in [0, 1]; a quarter of a grey level: 1e-6) below which an image shows nothing."""

_ALIKE = 0.98
"""Correlation of two sources from which on it cannot be told which of them arrived."""


class RegionContrast(NamedTuple):
    """What an image shows of regions.

    Attributes:
        mean: of the values inside, (L, C).
        contrast: that, less the mean of the ring, (L, C).
        cnr: contrast over the ring's standard deviation, without its sign: contrast-to-noise ratio, (L, C).
    """

    mean: torch.Tensor
    contrast: torch.Tensor
    cnr: torch.Tensor


def region_labels(labels: torch.Tensor) -> torch.Tensor:
    """The labels that there are, (L,), rising; 0 is none.

    Examples:
        >>> region_labels(torch.tensor([[0, 7], [2, 7]]))
        tensor([2, 7])
    """
    found = labels.as_subclass(torch.Tensor).unique()
    return found[found > 0]


def region_rings(
    labels: torch.Tensor,
    spacing: Sequence[float] | None = None,
    ring: tuple[float, float] = REGION_RING,
    inside: torch.Tensor | None = None,
) -> torch.Tensor:
    """What surrounds each region: voxels at a distance from it, which lie nearer to no other region.

    Args:
        labels: whole numbers, (H, W[, D]); 0 is no region.
        spacing: edges of a voxel, in mm; by default 1.
        ring: from which distance to which, in mm between voxels' centres.
        inside: where the patient is, (H, W[, D]) bool; by default everywhere.

    Returns:
        (H, W[, D]) in the numbers and on the device of `labels`: the label of the region whose ring a voxel belongs to,
        0 for none.

    Raises:
        ValueError: if the distances do not rise from above 0.

    Examples:
        >>> region_rings(torch.tensor([[5, 0, 0, 0, 0, 6]]), ring=(2, 3))
        tensor([[0, 0, 5, 6, 0, 0]])
    """
    if not 0 < ring[0] <= ring[1]:
        raise ValueError(f"ring is {ring}; two rising distances above 0 are accepted")
    edges = [1.0] * labels.ndim if spacing is None else [float(edge) for edge in spacing]
    rings = torch.zeros_like(labels.as_subclass(torch.Tensor))
    (box,) = find_objects((labels > 0).cpu().numpy().astype("uint8")) or [None]
    if box is None:
        return rings
    reach = [int(ring[1] / edge) + 1 for edge in edges]
    part = tuple(slice(max(one.start - n, 0), one.stop + n) for one, n in zip(box, reach, strict=True))
    near = labels.as_subclass(torch.Tensor)[part]
    distance, nearest = distance_transform_edt((near == 0).cpu().numpy(), edges, return_indices=True)
    owner = near[tuple(torch.from_numpy(index).long().to(near.device) for index in nearest)]
    is_ring = torch.from_numpy((distance >= ring[0]) & (distance <= ring[1])).to(near.device)
    rings[part] = owner * (is_ring if inside is None else is_ring & inside[part].to(near.device))
    return rings


def region_contrast(values: torch.Tensor, labels: torch.Tensor, rings: torch.Tensor) -> RegionContrast:
    """Mean, contrast and contrast-to-noise ratio of every region.

    Args:
        values: (C, H, W[, D]), in any units.
        labels: (H, W[, D]), as of :func:`region_rings`.
        rings: what that gave.

    Returns:
        Of every label in the order of :func:`region_labels`, for every channel, float64. NaN where the ring has fewer
        than 8 voxels; where it is of one value, the ratio is infinite, or NaN for a region of the same.

    Examples:
        >>> labels, rings = torch.zeros(2, 1, 9, dtype=torch.long)
        >>> labels[0, 4], rings[0, :4], rings[0, 5:] = 1, 1, 1
        >>> region_contrast(torch.tensor([[[1.0, 2, 1, 2, 8, 2, 1, 2, 1]]]), labels, rings).contrast
        tensor([[6.5000]], dtype=torch.float64)
    """
    found = region_labels(labels)
    values = values.as_subclass(torch.Tensor).double().flatten(1)
    inside, around = _moments(values, labels, found), _moments(values, rings, found, _FEWEST)
    contrast = inside.mean - around.mean
    deviation = around.covariance.diagonal(dim1=1, dim2=2).sqrt()
    varies = deviation > 1e-9 * around.mean.abs()
    cnr = contrast.abs() / torch.where(varies | deviation.isnan(), deviation, 0)
    return RegionContrast(inside.mean, contrast, cnr)


def region_recovery(
    fused: torch.Tensor, sources: torch.Tensor, labels: torch.Tensor, rings: torch.Tensor
) -> torch.Tensor:
    """How much of the contrast of regions in each source a fused image keeps, estimated without a lesion-free version.

    Within each region and its ring, which count alike, the fused luminance is regressed on those of all sources
    together and on a constant. The coefficient of a source is what :func:`~evaluation.observers.contrast_recovery`
    measures where the fusion is locally linear; where it switches between sources inside the region or the ring, the
    coefficient is that of all texture there, not of the lesion alone. Sources that are alike here (correlation .98) are
    regressed on one by one: each is then given what is of both.

    Args:
        fused: (1, H, W[, D]) in [0, 1].
        sources: (S, H, W[, D]), the luminances that were fused.
        labels: (H, W[, D]), as of :func:`region_rings`.
        rings: what that gave.

    Returns:
        (L, S) float64, of every label in the order of :func:`region_labels`: 1 is kept, 0 lost, below 0 turned round;
        NaN where a source shows nothing, or the ring has fewer than 8 voxels.

    Raises:
        ValueError: if the images differ in size.

    Examples:
        >>> labels, rings = torch.zeros(2, 1, 9, dtype=torch.long)
        >>> labels[0, 4], rings[0, :4], rings[0, 5:] = 1, 1, 1
        >>> sources = torch.rand(2, 1, 9, generator=torch.Generator().manual_seed(0))
        >>> region_recovery(0.8 * sources[:1] + 0.1 * sources[1:], sources, labels, rings)
        tensor([[0.8000, 0.1000]], dtype=torch.float64)
    """
    if not fused.shape[1:] == sources.shape[1:] == labels.shape == rings.shape:
        shapes = [tuple(given.shape) for given in (fused, sources, labels, rings)]
        raise ValueError(f"fused image, sources, labels and rings differ in size: {shapes}")
    found = region_labels(labels)
    values = torch.cat([one.as_subclass(torch.Tensor).double().flatten(1) for one in (sources, fused)])
    inside, around = _moments(values, labels, found), _moments(values, rings, found, _FEWEST)
    step = inside.mean - around.mean
    covariance = (inside.covariance + around.covariance) / 2 + step[:, :, None] * step[:, None] / 4
    own, with_fused = covariance[:, :-1, :-1], covariance[:, :-1, -1]
    variance = own.diagonal(dim1=1, dim2=2)
    shows = variance > _NOTHING
    alone = with_fused / variance.where(shows, torch.nan)
    scale = variance.where(shows, 1).sqrt()
    correlation = (own / (scale[:, :, None] * scale[:, None])).where(shows[:, :, None] & shows[:, None], 0)
    correlation.diagonal(dim1=1, dim2=2).fill_(1)
    apart = correlation.tril(-1).abs().amax((1, 2)) < _ALIKE
    usable = torch.where(apart[:, None, None], correlation, torch.eye(len(sources)).to(correlation))
    together = torch.linalg.solve(usable, (with_fused / scale).where(shows, 0)) / scale
    return together.where(apart[:, None], alone).where(shows, torch.nan)


def regions_lost(
    contrast: torch.Tensor,
    cnr: torch.Tensor,
    recovery: torch.Tensor,
    visible: float = 1.0,
    threshold: float = 0.25,
) -> torch.Tensor:
    """In which source a region is to be seen whose contrast a fused image does not keep.

    A region that is bright in several sources, or dark in them, is kept in all if it is in one, for it is to be seen as
    all show it. Of one that is bright in one source and dark in the other, grey can keep but one.

    Args:
        contrast: in each source, (L, S), of which the sign counts.
        cnr: contrast-to-noise ratio in each source, (L, S).
        recovery: as of :func:`region_recovery`, (L, S).
        visible: ratio from which on a region is to be seen.
        threshold: recovery below which it is lost.

    Returns:
        (L, S) bool; a recovery of NaN is none, a ratio of NaN is not to be seen.

    Examples:
        >>> contrast = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, -1.0]])
        >>> regions_lost(contrast, torch.tensor([[3, 0.5], [3, 2], [3, 2]]), torch.tensor([[0.1, 0.9]]).expand(3, 2))
        tensor([[ True, False],
                [False, False],
                [ True, False]])
    """
    seen, kept = cnr >= visible, recovery >= threshold
    alike = contrast.sign()[:, :, None] == contrast.sign()[:, None]
    return seen & ~kept & ~((seen & kept)[:, None] & alike).any(2)


class _Moments(NamedTuple):
    mean: torch.Tensor
    covariance: torch.Tensor


def _moments(values: torch.Tensor, which: torch.Tensor, found: torch.Tensor, fewest: int = 1) -> _Moments:
    """Of values (C, voxels) where `which` has each label that was found, (L, C) and (L, C, C); NaN of too few."""
    flat = which.as_subclass(torch.Tensor).flatten().to(values.device)
    at = flat.nonzero()[:, 0]
    number = torch.searchsorted(found.to(values.device), flat[at])
    chosen = values[:, at].T
    count = torch.bincount(number, minlength=len(found)).to(values)[:, None]
    count = count.where(count >= fewest, torch.nan)
    mean = values.new_zeros(len(found), len(values)).index_add_(0, number, chosen) / count
    apart = chosen - mean[number]
    squares = values.new_zeros(len(found), len(values), len(values))
    squares.index_add_(0, number, apart[:, :, None] * apart[:, None])
    return _Moments(mean, squares / count[..., None])
