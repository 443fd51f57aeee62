"""What of an image is the patient."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

__all__ = ["foreground"]

AIR_AND_TISSUE = -300.0
"""HU between them: partial volumes of skin and air lie around -500, fat around -100."""

BESIDE = 0.1
"""Of the largest part: how large another must be to belong to the patient; a table or a head rest is smaller."""

BINS = 256


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
    values = image.as_tensor().detach().cpu().float().mean(dim=0).numpy()
    if values.min() == values.max():
        return np.zeros(values.shape, dtype=bool)
    if image.meta.get("units") == "HU" or image.meta.get("modality") == "CT":
        mask = values > AIR_AND_TISSUE
    else:
        smooth = ndimage.gaussian_filter(values, 1, mode="nearest")
        mask = smooth > _threshold(smooth)
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    mask = (voxels >= BESIDE * voxels.max())[labels]
    mask = _filled(mask)
    # a head is open where the field of view ends, so that only its slices are closed
    return np.stack([_filled(part) for part in np.moveaxis(mask, -1, 0)], axis=-1) if mask.ndim == 3 else mask


def _filled(mask: np.ndarray) -> np.ndarray:
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (outside != outside.flat[0])[(slice(1, -1),) * mask.ndim]


def _threshold(values: np.ndarray) -> float:
    top = float(np.percentile(values, 99.5))
    low = float(values.min())
    if not low < top:
        return low
    counts, edges = np.histogram(values.clip(low, top), BINS, (low, top))
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = counts.cumsum(), counts.sum()
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_below, mean_above = sums / below, (sums[-1] - sums) / (total - below)
    between = np.nan_to_num(below * (total - below) * (mean_above - mean_below) ** 2)
    best = int(between.argmax())
    return float((mean_below[best] + edges[best + 1]) / 2)
