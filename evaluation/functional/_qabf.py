from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from evaluation.functional._common import LEVELS, separable, to_grey

_SMOOTH = (1.0, 2.0, 1.0)
_SLOPE = (-1.0, 0.0, 1.0)
_FLAT_SLOPE = (1.0, 0.0, -1.0)


def qabf(fused: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """How much of the sources' edges, in strength and direction, the fused image keeps: Q^AB/F, from 0 to below 1.

    Sobel gradients with zero padding; strengths that are rounding noise of the number type count as 0. Differentiable,
    with one exception: the direction of a fused edge weaker than one grey level, which no 8-bit image can show, gets
    no gradient (it would grow without bound). Nothing is rounded: published numbers are those of 8-bit values, which
    the caller gives.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,); 0 where neither source has an edge.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), or if `data_range` is not positive.

    Source: C. S. Xydeas, V. Petrovic, Objective image fusion performance measure, Electronics Letters 36(4), 2000.
    """
    grey = torch.cat(to_grey(fused, anatomy, overlay, data_range=data_range), dim=1)
    strength, angle = _edges(grey)
    strength_f, strength_s = strength[:, :1], strength[:, 1:]
    angle_f, angle_s = angle[:, :1], angle[:, 1:]

    weaker, stronger = torch.minimum(strength_f, strength_s), torch.maximum(strength_f, strength_s)
    ratio = weaker / torch.where(stronger == 0, 1.0, stronger)
    kept_strength = torch.where(strength_f == strength_s, strength_f, ratio)
    kept_angle = 1 - (angle_s - angle_f).abs() / (math.pi / 2)
    kept = 0.9994 * torch.sigmoid(15 * (kept_strength - 0.5)) * (0.9879 * torch.sigmoid(22 * (kept_angle - 0.8)))
    total = strength_s.sum(dim=(1, 2, 3))
    return (kept * strength_s).sum(dim=(1, 2, 3)) / torch.where(total == 0, 1.0, total)


def _edges(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Strength and angle, in (-pi/2, pi/2], of the gradient of every channel."""
    noise = LEVELS * 8 * torch.finfo(grey.dtype).eps
    padded = F.pad(grey, (1, 1, 1, 1))
    across = separable(padded, _SMOOTH, _SLOPE)
    down = separable(padded, _FLAT_SLOPE, _SMOOTH)
    square = across * across + down * down
    flat = square <= noise**2
    strength = torch.where(flat, 1.0, square).sqrt().masked_fill(flat, 0.0)
    upright = across.abs() <= noise
    angle = torch.atan(down / torch.where(upright, 1.0, across)).masked_fill(upright, math.pi / 2)
    return strength, torch.where(strength < 1, angle.detach(), angle)
