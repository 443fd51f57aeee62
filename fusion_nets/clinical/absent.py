"""Values that are not there: NaN around what was measured becomes background, within it the image is refused."""

from __future__ import annotations

import logging

import numpy as np
from scipy import ndimage

from fusion_nets.cautions import caution

from .errors import ImageError, Reason

__all__ = ["fill_absent"]

logger = logging.getLogger(__name__)


def fill_absent(volume: np.ndarray, where: object) -> None:
    """Give NaN that lies around the image, as SPM writes it outside of its mask, the lowest value, and say so.

    Args:
        volume: (C, H, W[, D]), float; changed in place.
        where: what messages start with.

    Raises:
        ImageError: for infinity, for NaN that reaches no border, and where nothing else is there.
    """
    if np.isfinite(volume.sum(dtype=np.float64)):
        return
    absent = np.isnan(volume)
    if np.isinf(volume).any() or absent.all() or not absent.any():
        raise ImageError(Reason.NOT_FINITE, f"{where}: holds infinity or nothing but NaN; finite values are accepted")
    anywhere = absent.any(axis=0)
    parts, _ = ndimage.label(anywhere)
    rims = [parts.take(end, axis=axis) for axis, length in enumerate(parts.shape) if length > 1 for end in (0, -1)]
    outside = np.unique(np.concatenate([rim.ravel() for rim in rims]))
    if not outside.any():
        raise ImageError(
            Reason.NOT_FINITE,
            f"{where}: holds NaN in {int(anywhere.sum())} voxels within the image; around it, NaN is accepted",
        )
    enclosed = int(anywhere.sum() - np.isin(parts, outside[outside > 0]).sum())
    lowest = float(np.nanmin(volume))
    volume[absent] = lowest
    words = "NaN in %d voxels, %d of them within the image, became background (%g)"
    caution(logger, where, words, int(anywhere.sum()), enclosed, lowest)
