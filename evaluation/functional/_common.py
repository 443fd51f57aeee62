"""What the metrics share: checks, the 8-bit grey scale, separable windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

LEVELS = 256


def quantise(images: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Bring images to the 8-bit grid that published numbers are measured on: whole grey levels 0..255.

    Values in [0, data_range], any shape, are scaled, rounded to the nearest level (ties to even) and clipped. Integer
    types and half precision become float32; NaN stays NaN.

    Raises:
        ValueError: if `data_range` is not a positive number.
    """
    return (_plain(images) * _scale(data_range)).round().clamp(0, LEVELS - 1)


def to_grey(*images: torch.Tensor, data_range: float, smallest: int = 1) -> list[torch.Tensor]:
    """Check that images of shape (B, 1, H, W) belong together and bring them to grey levels 0..255.

    float64 stays float64, every other type is computed in float32.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if a side is shorter than `smallest`, or if
            `data_range` is not a positive number.
    """
    for image in images:
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"expected torch tensors, got {type(image).__name__}")
    shape = tuple(images[0].shape)
    if any(tuple(image.shape) != shape for image in images):
        raise ValueError(f"fused and source images differ in shape: {[tuple(image.shape) for image in images]}")
    if len(shape) != 4 or shape[1] != 1:
        raise ValueError(f"expected images of shape (B, 1, H, W), got {shape}")
    if min(shape[2:]) < smallest:
        raise ValueError(
            f"this metric needs images of at least {smallest} x {smallest} pixels, got {shape[2]} x {shape[3]}"
        )
    double = any(image.dtype == torch.float64 for image in images)
    return [_plain(image, double) * _scale(data_range) for image in images]


def _plain(image: torch.Tensor, double: bool = False) -> torch.Tensor:
    # a MetaTensor would carry its header through every operation
    image = image.as_subclass(torch.Tensor)
    return image.to(torch.float64 if double or image.dtype == torch.float64 else torch.float32)


def _scale(data_range: float) -> float:
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}")
    return (LEVELS - 1) / data_range


def separable(
    maps: torch.Tensor, column: Sequence[float], row: Sequence[float] | None = None, stride: int = 1
) -> torch.Tensor:
    """Correlate every channel of (B, C, H, W) with the window `column` x `row`, valid part only.

    `column` runs along H, `row` along W (the same window where it is not given).
    """
    channels = maps.shape[1]
    down = maps.new_tensor(column).view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = maps.new_tensor(column if row is None else row).view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    # One group per channel: fast on CPU, and on CUDA the kernel that never drops to TF32, which the small differences
    # of large squares in a variance would not survive. For the same reason no autocast.
    with torch.autocast(maps.device.type, enabled=False):
        maps = F.conv2d(maps.contiguous(), down, stride=(stride, 1), groups=channels)
        return F.conv2d(maps, across, stride=(1, stride), groups=channels)


def moments(
    fused: torch.Tensor, sources: torch.Tensor, window: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windowed means, (population) variances and covariances of (B, 1, H, W) and (B, S, H, W).

    Returns the mean and variance of `fused` (B, 1, h, w), those of `sources` (B, S, h, w), and their covariance
    (B, S, h, w): mean_f, mean_s, var_f, var_s, cov. Rounding may leave a variance slightly negative.
    """
    count = sources.shape[1]
    maps = torch.cat([fused, sources, fused * fused, sources * sources, fused * sources], dim=1)
    mean_f, mean_s, square_f, square_s, product = separable(maps, window).split([1, count, 1, count, count], dim=1)
    return mean_f, mean_s, square_f - mean_f * mean_f, square_s - mean_s * mean_s, product - mean_f * mean_s
