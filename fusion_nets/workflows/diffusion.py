"""Batches for the first training stage: clean images, noised at a random continuous level."""

from __future__ import annotations

import torch
from monai.engines import PrepareBatch

from fusion_nets.networks import cosine_alpha_bar, noise_level_range

__all__ = ["NoisyBatch"]


class NoisyBatch(PrepareBatch):
    """Turn "image" in [0, 1] into (noisy, clean, (noise_level,), {}) in [-1, 1], for x0 prediction.

    A step is drawn for every image, then the level between that step's bounds, then the noise (DM-FNet, section III-B;
    WaveGrad, section 3.1).

    Args:
        steps: length of the cosine schedule.
        seed: draw the same steps, levels and noise for every batch, as validation needs; None draws from torch's
            global generator.
    """

    def __init__(self, steps: int = 2000, seed: int | None = None) -> None:
        self.alpha_bar = cosine_alpha_bar(steps)
        self.seed = seed

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch: (B, 1, H, W)."""
        clean = batchdata["image"].as_tensor().to(device=device, non_blocking=non_blocking, **kwargs) * 2 - 1
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        step = torch.randint(1, len(self.alpha_bar), [len(clean)], generator=generator)
        lower, upper = noise_level_range(self.alpha_bar, step)
        level = (lower + torch.rand(len(clean), generator=generator) * (upper - lower)).to(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        g = level[:, None, None, None]
        return g * clean + torch.sqrt(1 - g**2) * noise, clean, (level,), {}
