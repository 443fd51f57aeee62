from __future__ import annotations

import torch

from evaluation.functional._common import LEVELS, moments, to_grey

_SIDE = 7
_C1 = (0.01 * (LEVELS - 1)) ** 2
_C2 = (0.03 * (LEVELS - 1)) ** 2


def ssim(fused: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of the fused image to its sources, the sum over the two: 2 is perfect.

    7 x 7 uniform window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the pixels whose window lies inside the
    image. Differentiable. Nothing is rounded: published numbers are those of 8-bit values, which the caller gives.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range], at least 7 x 7 pixels.
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,), at most 2.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if the images are smaller than the window, or if
            `data_range` is not positive.

    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from error visibility to
    structural similarity, IEEE Transactions on Image Processing 13(4), 2004, equations 13 and 17.
    """
    grey = to_grey(fused, anatomy, overlay, data_range=data_range, smallest=_SIDE)
    return _similarity(grey[0], torch.cat(grey[1:], dim=1)).sum(1)


def ssim_single(fused: torch.Tensor, source: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of the fused image to one source, (B,): one of the two terms of `ssim`, symmetric.

    Arguments, errors and source as for `ssim`; 1 is perfect.
    """
    grey = to_grey(fused, source, data_range=data_range, smallest=_SIDE)
    return _similarity(*grey).sum(1)


def _similarity(fused: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) and (B, S, H, W), grey levels -> (B, S)."""
    mean_f, mean_s, var_f, var_s, cov = moments(fused, sources, [1 / _SIDE] * _SIDE)
    sample = _SIDE**2 / (_SIDE**2 - 1)
    luminance = (2 * mean_f * mean_s + _C1) / (mean_f * mean_f + mean_s * mean_s + _C1)
    structure = (2 * sample * cov + _C2) / (sample * (var_f + var_s) + _C2)
    return (luminance * structure).mean(dim=(2, 3))
