"""What is left of a display in pseudo-colour when its luminance is taken."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

__all__ = ["luminance_map"]

_MAPS = ("jet", "hot", "nipy_spectral", "gist_ncar", "rainbow", "turbo", "gnuplot2", "CMRmap", "inferno", "gist_stern")
_BT601 = np.array([0.299, 0.587, 0.114])


def luminance_map(rng: np.random.Generator) -> np.ndarray:
    """Luminance of 256 levels, 0 to 1, black first: a grey scale, a known colour map, or one made up.

    The luminance of a colour map need not rise with the level: PET and SPECT are often shown in maps where it has
    plateaus, steps and falls.
    """
    kind = rng.random()
    ramp = np.linspace(0, 1, 256)
    if kind < 0.3:
        return ramp ** rng.uniform(0.7, 1.6) * rng.uniform(0.6, 1.0)
    if kind < 0.55:
        known = _known()
        return known[rng.integers(len(known))] * rng.uniform(0.7, 1.0)
    x, y = _ridge(rng) if kind < 0.7 else _steps(rng)
    y = y / y.max() * rng.uniform(0.5, 1.0)
    made = ndimage.gaussian_filter1d(np.interp(ramp, x, y), rng.uniform(1.5, 8), mode="nearest")
    return made * np.clip(np.arange(256) / 4, 0, 1)


def _ridge(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a map as a rainbow has it: a steep rise to a bright colour, a fall, and white or a plateau at last."""
    u = rng.uniform
    top, valley = u(0.2, 0.5), u(0.55, 0.8)
    return np.array([0, top, valley, u(0.85, 1), 1]), np.array([0, u(0.75, 1), u(0.45, 0.85), u(0.6, 1), u(0.8, 1)])


def _steps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a map with any plateaus, steps and falls, more often rising than not."""
    count = int(rng.integers(4, 9))
    x = np.sort(np.r_[0, rng.uniform(0.03, 1, count - 2) ** 1.3, 1])
    y = rng.uniform(0.15, 0.95, count)
    if rng.random() < 0.6:
        y.sort()
    y[0] = 0
    for i in range(2, count):
        if rng.random() < 0.3:
            y[i] = y[i - 1]
    if rng.random() < 0.25:
        y[rng.integers(1, count)] = rng.uniform(0, 0.2)
    return x, y


@functools.cache
def _known() -> list[np.ndarray]:
    from matplotlib import colormaps

    maps = [colormaps[name](np.arange(256))[:, :3] @ _BT601 for name in _MAPS]
    return [values * np.clip(np.arange(256) / 8, 0, 1) for values in maps]
