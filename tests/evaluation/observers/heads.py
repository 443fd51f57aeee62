"""Small pairs of heads made of noise and ellipses, and ways to fuse them."""

import numpy as np
from scipy.ndimage import gaussian_filter


def head_pair(seed, ct, side=144):
    """MRI with CT, or with a tracer: (2, H, W) in [0, 1]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] - side / 2
    depth = np.hypot(rows / generator.uniform(0.4, 0.46), columns / generator.uniform(0.36, 0.44)) / side
    within = depth < 0.92
    texture = [gaussian_filter(generator.normal(0, 1, (side, side)), sigma) * sigma for sigma in (1.5, 2, 5)]
    mri = np.clip(0.45 * within + 0.12 * texture[0] * within + 0.35 * (abs(depth - 1.05) < 0.05), 0, 1)
    if ct:
        other = np.where(within, 0.4 + 0.04 * texture[1], 0) + (abs(depth - 0.96) < 0.05)
    else:
        other = gaussian_filter(np.where(within, 0.5 + 0.25 * texture[2], 0), 3)
    return np.stack([mri, np.clip(other, 0, 1)])


def unequal(pair):
    """A fused image that keeps some of each source: more of the overlay on the left, and squashed."""
    weight = np.linspace(0.2, 0.9, pair.shape[-1])
    return np.clip((1 - weight) * pair[0] ** 0.8 + weight * pair[1] + 0.1 * gaussian_filter(pair[0], 4), 0, 1)


def coloured(pair):
    """The same with the overlay as a tint, (H, W, 3)."""
    grey = unequal(pair)
    return np.clip(np.stack([grey + 0.3 * pair[1], grey, grey - 0.3 * pair[1]], axis=-1), 0, 1)
