"""Order statistics of volumes of any length."""

from __future__ import annotations

import numpy as np

from fusion_nets.slabs import is_large, slabs, zeros

__all__ = ["percentile", "ranked", "selected"]


def percentile(values: np.ndarray, percent: float) -> float:
    """As NumPy's, of all values; those of a large volume are put in order in a file."""
    if not is_large(values.shape):
        return float(np.percentile(values, percent))
    return float(np.percentile(selected(values, None), percent, overwrite_input=True))


def ranked(values: np.ndarray, rank: int) -> float:
    """The value of a rank, from 1 for the least; the values, (N,), are put in another order."""
    values.partition(rank - 1)
    return float(values[rank - 1])


def selected(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The values (N,) of a volume where a mask of its size is true, or all; of a large volume in a file."""
    if not is_large(values.shape):
        return values[mask] if mask is not None else values.flatten()
    count = values.size if mask is None else int(np.count_nonzero(mask))
    made, done = zeros((1, 1, 1, max(count, 1)), values.dtype).reshape(-1)[:count], 0
    for slab in slabs(values.shape):
        part = values[..., slab] if mask is None else values[..., slab][mask[..., slab]]
        made[done : done + part.size] = part.ravel()
        done += part.size
    return made
