"""Noise schedules of the diffusion process: how much of the clean image is left at each step."""

from __future__ import annotations

import math

import torch

__all__ = ["cosine_alpha_bar", "linear_alpha_bar", "noise_level_range"]


def linear_alpha_bar(steps: int = 2000, beta_start: float = 1e-6, beta_end: float = 1e-2) -> torch.Tensor:
    """Cumulative product of ``1 - beta`` for betas that grow linearly (Ho et al., DDPM, section 4).

    Returns:
        (steps + 1,) in float64, falling from 1 (no noise) at index 0.
    """
    betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    return _with_clean_start(betas)


def cosine_alpha_bar(steps: int = 2000, offset: float = 0.008, max_beta: float = 0.999) -> torch.Tensor:
    """Cumulative product of ``1 - beta`` for the cosine schedule (Nichol and Dhariwal, equation 17).

    MONAI's cosine schedule clamps at 0.9999 and takes the cumulative product before the clamp, which gives other
    levels than DM-FNet was trained with.

    Returns:
        (steps + 1,) in float64, falling from 1 (no noise) at index 0.
    """
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return _with_clean_start((1 - curve[1:] / curve[:-1]).clamp(max=max_beta))


def noise_level_range(alpha_bar: torch.Tensor, step: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of the continuous noise level g at a step, x_noisy = g x + sqrt(1 - g^2) n (Chen et al., WaveGrad).

    Args:
        alpha_bar: (T + 1,), as the schedules of this module return it.
        step: one or more steps in 1..T.

    Returns:
        sqrt(alpha_bar[step]) and sqrt(alpha_bar[step - 1]), the lower and the upper bound.
    """
    return alpha_bar[step].sqrt(), alpha_bar[step - 1].sqrt()


def _with_clean_start(betas: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.ones(1, dtype=betas.dtype), torch.cumprod(1 - betas, dim=0)])
