"""What of an image is the patient."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from fusion_nets.slabs import filtered, slabs, slabwise, zeros

from .order import percentile

__all__ = ["foreground"]

AIR_AND_TISSUE = -300.0
"""HU between them: partial volumes of skin and air lie around -500, fat around -100."""

BESIDE = 0.1
"""Of the largest part: how large another must be to belong to the patient; a table or a head rest is smaller."""

BINS = 256

REACH = 4
"""Of smoothing by a voxel, in voxels."""


def foreground(image: MetaTensor) -> np.ndarray:
    """Where the patient is: above air, without small things beside, holes filled.

    CT is parted from air at -300 HU. In any other image the threshold lies half way between the mean of what is dark by
    Otsu's method (Otsu, IEEE Trans SMC 9:62, 1979) and Otsu's own threshold, after smoothing by a voxel: Otsu alone
    would leave out dark tissue such as cerebrospinal fluid in a T1-weighted MRI.

    Args:
        image: (1 | 3, H, W[, D]); of three channels, the mean counts. ``meta["units"]`` "HU" or ``meta["modality"]``
            "CT" means HU.

    Returns:
        (H, W[, D]) bool; all False where every value is the same.
    """
    values = slabwise(lambda part: part.float().mean(dim=0, keepdim=True), image.detach().cpu())[0].numpy()
    if values.min() == values.max():
        return zeros(values.shape, bool)
    if image.meta.get("units") == "HU" or image.meta.get("modality") == "CT":
        mask = _above(values, AIR_AND_TISSUE)
    else:
        smooth = filtered(lambda part: ndimage.gaussian_filter(part, 1, mode="nearest"), values, REACH)
        mask = _above(smooth, _threshold(smooth))
        del smooth
    labels, voxels = _parts(mask)
    if len(voxels) == 1:
        return mask
    voxels[0] = 0
    is_patient = voxels >= BESIDE * voxels.max()
    for slab in slabs(mask.shape):
        mask[..., slab] = is_patient[labels[..., slab]]
    del labels
    _fill(mask)
    if mask.ndim == 3:  # a head is open where the field of view ends, so that only its slices are closed
        for k in range(mask.shape[-1]):
            _fill(mask[..., k])
    return mask


def _above(values: np.ndarray, threshold: float) -> np.ndarray:
    mask = zeros(values.shape, bool)
    for slab in slabs(values.shape):
        np.greater(values[..., slab], threshold, out=mask[..., slab])
    return mask


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the connected parts of a mask, from 1, and how many voxels have each label."""
    labels = zeros(mask.shape, np.int32)
    # along the file, where they lie in one; which part has which label does not count
    count = ndimage.label(np.moveaxis(mask, -1, 0), output=np.moveaxis(labels, -1, 0))
    voxels = np.zeros(count + 1, dtype=np.int64)
    for slab in slabs(mask.shape):
        voxels += np.bincount(labels[..., slab].ravel(), minlength=count + 1)
    return labels, voxels


def _fill(mask: np.ndarray) -> None:
    """Fill the holes of a mask, in place."""
    around = zeros([n + 2 for n in mask.shape], bool)
    around[...] = True
    inside = (slice(1, -1),) * mask.ndim
    np.logical_not(mask, out=around[inside])
    labels, _ = _parts(around)
    outside = labels[(0,) * mask.ndim]
    np.not_equal(labels[inside], outside, out=mask)


def _threshold(values: np.ndarray) -> float:
    top = percentile(values, 99.5)
    low = float(values.min())
    if not low < top:
        return low
    counts, edges = np.zeros(BINS, dtype=np.int64), np.empty(0)
    for slab in slabs(values.shape):
        found, edges = np.histogram(values[..., slab].clip(low, top), BINS, (low, top))
        counts += found
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = counts.cumsum(), counts.sum()
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_below, mean_above = sums / below, (sums[-1] - sums) / (total - below)
    between = np.nan_to_num(below * (total - below) * (mean_above - mean_below) ** 2)
    best = int(between.argmax())
    return float((mean_below[best] + edges[best + 1]) / 2)
