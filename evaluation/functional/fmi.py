from __future__ import annotations

import math

import torch

from evaluation.functional._helpers import Images, Overlays, average, measure
from evaluation.functional.contrast import slope

FMI_SIDE = 3
_PIXELS = FMI_SIDE**2
# windows at a time on a CPU, whose caches hold what is made of so many
_AT_ONCE = 2**13
# no correlation, and no variance in squared pixels, of windows of 8-bit images is as small and not 0
_NOTHING = 1e-6


def fmi(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Information on the sources' gradients in those of the fused image (feature mutual information), 0 to about 1.

    In every 3 x 3 window, the gradients along rows, from their least (0) to their greatest, are taken as a
    distribution over the window's pixels (column by column). The joint distribution of fused image and source has
    their linear correlation between independence and the nearest extreme (Frechet bound). 2 I / (H_F + H_source) is
    averaged over windows and all sources; a window that is the same in both counts 1. Not differentiable.

    Where a gradient is alike but for rounding noise of the number type, it is constant: an even distribution.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range], at least 3 x 3 pixels.
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,); NaN where an image holds NaN or infinity.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if the images are smaller than the window, or if
            `data_range` is not positive or not theirs.

    Source: M. B. A. Haghighat, A. Aghagolzadeh, H. Seyedarabi, A non-reference image fusion metric based on mutual
    information of image features, Computers and Electrical Engineering 37(5), 2011, by windows as in M. Haghighat,
    M. A. Razian, Fast-FMI: non-reference image fusion metric, AICT 2014, and as its authors released it.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> fmi((anatomy + overlay) / 2, anatomy, overlay)
        tensor([0.3674])
    """
    return measure(features_kept, fused, anatomy, overlay, data_range=data_range, smallest=FMI_SIDE)


@torch.no_grad()
def features_kept(images: Images) -> torch.Tensor:
    """`fmi` of known images."""
    gradients = slope(images.grey, 3)
    rows = max(1, _AT_ONCE // max(1, gradients[:, 0, 0].numel()))
    if gradients.device.type != "cpu":
        rows = gradients.shape[2]
    bands = [gradients[:, :, i : i + rows + FMI_SIDE - 1] for i in range(0, gradients.shape[2] - FMI_SIDE + 1, rows)]
    kept = torch.cat([_windows_kept(band, images.noise) for band in bands], dim=2)
    return average(kept).mean(1)


def _windows_kept(gradients: torch.Tensor, noise: float) -> torch.Tensor:
    """(B, 1 + S, H, W), fused first -> what each window keeps of each source, (B, S, h, w)."""
    height, width = (length - FMI_SIDE + 1 for length in gradients.shape[2:])
    places = [(row, column) for column in range(FMI_SIDE) for row in range(FMI_SIDE)]
    # (B, 1 + S, pixels, h, w)
    windows = torch.stack([gradients[..., i : i + height, j : j + width] for i, j in places], dim=2)
    same = ((windows[:, :1] - windows[:, 1:]).abs() <= noise).all(2)
    density = _density(windows, noise)
    return _shared(density[:, :1], density[:, 1:]).masked_fill(same, 1.0)


def _density(windows: torch.Tensor, noise: float) -> torch.Tensor:
    """Each window as a distribution over its pixels."""
    lowest, highest = windows.amin(2, keepdim=True), windows.amax(2, keepdim=True)
    mass = (windows - lowest).masked_fill(highest - lowest <= noise, 1.0)
    return mass / mass.sum(2, keepdim=True)


def _shared(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Twice the information that distributions (..., pixels, h, w) share, by the sum of their entropies."""
    place = torch.arange(_PIXELS, dtype=p.dtype, device=p.device).view(-1, 1, 1)
    likeness = _pearson(p, q)
    offset_p, offset_q = (place - (d * place).sum(2, keepdim=True) for d in (p, q))
    spread = ((p * offset_p**2).sum(2) * (q * offset_q**2).sum(2)).sqrt()

    # The extreme joint distribution pairs both from their first pixel on, or one of them from its last: its mass in a
    # cell is how far their steps overlap.
    end_p, end_q = p.cumsum(2), q.cumsum(2)
    turned = (likeness < 0).unsqueeze(2)
    start_p, start_q = end_p - p, torch.where(turned, 1 - end_q, end_q - q)
    end_q = start_q + q

    def extreme(i: int) -> torch.Tensor:
        """The cells of pixel i of p."""
        overlap = torch.minimum(end_p[:, :, i, None], end_q) - torch.maximum(start_p[:, :, i, None], start_q)
        return overlap.clamp_min(0)

    covariance = torch.zeros_like(likeness)
    for i in range(_PIXELS):
        covariance += offset_p[:, :, i] * (extreme(i) * offset_q).sum(2)
    # one of them even, or all in one pixel, leaves nothing to share
    apart = (likeness == 0) | (spread <= _NOTHING) | (covariance.abs() <= _NOTHING)
    share = (likeness * spread / covariance.masked_fill(apart, 1.0)).masked_fill(apart, 0.0).unsqueeze(2)

    joint = torch.zeros_like(likeness)
    for i in range(_PIXELS):
        joint += _bits(share * extreme(i) + (1 - share) * p[:, :, i, None] * q)
    each = _bits(p) + _bits(q)
    return (2 * (each - joint) / each.masked_fill(apart, 1.0)).masked_fill(apart, 0.0)


def _pearson(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Linear correlation of two distributions' values; 0 where one is even."""
    p, q = p - 1 / _PIXELS, q - 1 / _PIXELS
    scale = ((p * p).sum(2) * (q * q).sum(2)).sqrt()
    even = scale <= _NOTHING
    return ((p * q).sum(2) / scale.masked_fill(even, 1.0)).masked_fill(even, 0.0)


def _bits(p: torch.Tensor) -> torch.Tensor:
    # where likeness exceeds what the extreme reaches, a cell falls below 0 and counts by its absolute's logarithm
    return -(p * p.abs().clamp_min(torch.finfo(p.dtype).tiny).log()).sum(2) / math.log(2)
