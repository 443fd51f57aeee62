from __future__ import annotations

import math
from functools import partial

import torch

from evaluation.functional._helpers import Images, Overlays, gaussian, measure, moments, separable, total

_SIDES = (17, 9, 5, 3)
_NOISE = 2.0
# the smallest side that leaves the last scale one whole window
VIF_SIDE = 41
# less information than any 8-bit image holds that is not constant (one level in one corner: 1.2e-5): no variance
_BLANK = 1e-5


def vif(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Visual information of the sources that the fused image preserves, the sum over them.

    Pixel domain, four scales, Gaussian windows of side 17, 9, 5, 3 (sigma = side / 5), valid part only, noise variance
    2. Differentiable. Nothing is rounded: published numbers are those of 8-bit values, which the caller gives. There is
    no published form for volumes: those are measured slice by slice.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range], at least 41 x 41 pixels.
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,). A source without any variance counts 1.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if the images are too small for four scales, or if
            `data_range` is not positive or not theirs.

    Source: H. R. Sheikh, A. C. Bovik, Image information and visual quality, IEEE Transactions on Image Processing
    15(2), 2006, in the multi-scale pixel-domain form of the authors' later release.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 48, 48, generator=generator)
        >>> vif((anatomy + overlay) / 2, anatomy, overlay)
        tensor([0.1964])
    """
    return measure(information_kept, fused, anatomy, overlay, data_range=data_range, smallest=VIF_SIDE)


def vif_single(fused: torch.Tensor, source: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Visual information of one source that the fused image preserves, (B,): one of the terms of `vif`.

    Shapes, ranges, errors and source as for `vif`; 1 is a perfect copy, contrast enhancement can exceed it. Not
    symmetric: elsewhere the undistorted image, here `source`, often comes first.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 48, 48, generator=generator)
        >>> vif_single((anatomy + overlay) / 2, anatomy)
        tensor([0.1018])
    """
    return measure(information_kept, fused, source, data_range=data_range, smallest=VIF_SIDE)


def information_kept(images: Images) -> torch.Tensor:
    """`vif` of known images, summed over their sources."""
    # A shift changes no variance, but keeps squares small and so their differences exact; the minimum, because most
    # of a medical image is black and shall stay 0.
    grey = images.grey - images.grey.detach().amin(dim=(2, 3), keepdim=True)
    kept = held = torch.zeros_like(images.sources[:, :, 0, 0])
    for scale, side in enumerate(_SIDES):
        window = gaussian(side, side / 5)
        if scale:
            grey = separable(grey, window, stride=2)
        more_kept, more_held = _information(grey[:, :1], grey[:, 1:], window)
        kept, held = kept + more_kept, held + more_held
    blank = held < _BLANK
    return torch.where(blank, 1.0, kept / torch.where(blank, 1.0, held)).sum(1)


def _information(fused: torch.Tensor, sources: torch.Tensor, window: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Information on the sources at one scale: in the fused image and in the sources themselves, (B, S) each."""
    mean_f, mean_s, var_f, var_s, cov = moments(fused, sources, partial(separable, column=window))
    # A variance is a difference of squares: below this it is rounding, and a gain divided by it would be too.
    eps = torch.finfo(var_s.dtype).eps
    seen_s = var_s > 1e-10 + 8 * eps * (mean_s * mean_s)
    seen_f = var_f > 1e-10 + 8 * eps * (mean_f * mean_f)
    gain = cov.clamp_min(0) * (seen_s & seen_f) / (var_s.clamp_min(0) + 1e-10)
    residual = (var_f - gain * cov).clamp_min(1e-10)
    kept = torch.log1p(gain * gain * var_s / (residual + _NOISE))
    held = torch.log1p(var_s * seen_s / _NOISE)
    return total(kept) / math.log(10), total(held) / math.log(10)
