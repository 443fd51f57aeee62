"""Smooth random fields, and what else the simulation computes with."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage, sparse

__all__ = ["blur", "noise", "sigmoid", "smooth_field"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian filter over the last two axes; what lies outside of the image is like its border."""
    sigmas = (0.0,) * (image.ndim - 2) + (sigma, sigma)
    return ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=3) if sigma > 0.1 else image


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float = 0.0) -> np.ndarray:
    """White noise of standard deviation 1, or noise of a grain (standard deviation of its Gaussian, in pixels)."""
    grain = blur(rng.standard_normal(shape, dtype=np.float32), sigma)
    return grain / (grain.std() + 1e-6)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], sigma: float, count: int | None = None
) -> np.ndarray:
    """A Gaussian random field of standard deviation 1, or several.

    It is a sum of Gaussian bumps, one per node of a grid, so that a coarse field costs nearly nothing.

    Args:
        rng: source of randomness.
        shape: of the image.
        sigma: standard deviation of a bump in pixels, from 2; its correlation reaches about twice as far.
        count: how many fields, along a new first axis.
    """
    rows, columns = (_bumps(size, round(max(sigma, 2.0) * 4)) for size in shape)
    nodes, many = (rows.shape[1], columns.shape[1]), 1 if count is None else count
    heights = rng.standard_normal((nodes[0], many * nodes[1]), dtype=np.float32)
    down = (rows @ heights).reshape(shape[0] * many, nodes[1])
    fields = np.moveaxis((columns @ down.T).reshape(shape[1], shape[0], many), 0, -1)
    return np.ascontiguousarray(fields[:, 0] if count is None else np.moveaxis(fields, 1, 0))


@functools.lru_cache(maxsize=512)
def _bumps(size: int, quarters: int) -> sparse.csr_array:
    """What every node adds to every pixel of one axis, nodes a standard deviation (in quarters of a pixel) apart.

    Sparse, for its products use neither threads, which the workers of a data loader would fight for, nor an order of
    summation that depends on their number.
    """
    sigma = quarters / 4
    nodes = np.arange(-3, size / sigma + 3) * sigma
    weights = np.exp(-((np.arange(size)[:, None] - nodes) ** 2) / (2 * sigma**2))
    weights[weights < 0.01] = 0
    return sparse.csr_array((weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32))
