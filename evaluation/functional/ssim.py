from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from evaluation.functional._helpers import (
    LEVELS,
    Images,
    Overlays,
    average,
    gaussian,
    measure,
    moments,
    separable,
    separable_3d,
    total,
)

# the windows' sides: of `ssim`, and what `ms_ssim` needs for its last scale to hold one whole window of 11
SSIM_SIDE = 7
MS_SSIM_SIDE = 176
_C1 = (0.01 * (LEVELS - 1)) ** 2
_C2 = (0.03 * (LEVELS - 1)) ** 2
# of Gaussian windows: sigma, and where they end in sigmas
_SIGMA, _REACH = 1.5, 3.5
# slices at a time of volumes, and voxels where slices are small
_SLICES, _VOXELS = 16, 2**20
# how much each scale weighs, from fine to coarse
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of the fused image to its sources, the sum over them: of two, 2 is perfect.

    7 x 7 uniform window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the pixels whose window lies inside the
    image. Differentiable. Nothing is rounded: published numbers are those of 8-bit values, which the caller gives.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range], at least 7 x 7 pixels.
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,), at most the number of sources.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if the images are smaller than the window, or if
            `data_range` is not positive or not theirs.

    Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from error visibility to
    structural similarity, IEEE Transactions on Image Processing 13(4), 2004, equations 13 and 17.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> ssim((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.2685])
    """
    return measure(structure_kept, fused, anatomy, overlay, data_range=data_range, smallest=SSIM_SIDE)


def ssim_single(fused: torch.Tensor, source: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity of the fused image to one source, (B,): one of the terms of `ssim`, symmetric.

    Arguments, errors and source as for `ssim`; 1 is perfect.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> ssim_single((anatomy + overlay) / 2, anatomy)
        tensor([0.6100])
    """
    return measure(structure_kept, fused, source, data_range=data_range, smallest=SSIM_SIDE)


def ms_ssim(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Structural similarity to the sources at five scales, each half as fine as the one before: of two, 2 is perfect.

    The sum over the sources. 11 x 11 Gaussian window (sigma 1.5), K1 = 0.01, K2 = 0.03, halved by the mean of 2 x 2
    pixels, mean over the pixels whose window lies inside the image; a scale whose structure is opposed to the source's
    counts 0. Differentiable. Nothing is rounded.

    Arguments and errors as for `ssim`; images of at least 176 x 176 pixels.

    Source: Z. Wang, E. P. Simoncelli, A. C. Bovik, Multiscale structural similarity for image quality assessment,
    Asilomar Conference on Signals, Systems and Computers, 2003, equation 7 and section 3.2.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 176, 176, generator=generator)
        >>> ms_ssim((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.4465])
    """
    return measure(structure_of_scales, fused, anatomy, overlay, data_range=data_range, smallest=MS_SSIM_SIDE)


def ssim_3d(
    fused: torch.Tensor,
    anatomy: torch.Tensor,
    overlay: Overlays,
    data_range: float = 1.0,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> torch.Tensor:
    """Structural similarity of fused volumes to their sources, the sum over them: of two, 2 is perfect.

    The windows are blocks: Gaussian, sigma 1.5 of the smallest edge of a voxel along each axis in mm, cut off at 3.5
    sigma, which is 11 x 11 x 11 voxels where these are cubes, and a single slice where slices lie far apart. K1 = 0.01,
    K2 = 0.03, population covariance, mean over the voxels whose window lies inside the volume. Differentiable. Nothing
    is rounded. `ssim` of slices has other windows, and other values.

    Args:
        fused: fused volumes, (B, 1, H, W, D), values in [0, data_range], no smaller than the window.
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.
        spacing: edges of a voxel along H, W and D, in mm or any other unit.

    Returns:
        One value per volume, (B,), at most the number of sources.

    Raises:
        TypeError: if a volume is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W, D), if the volumes are smaller than the window, if
            `spacing` is not three positive numbers, or if `data_range` is not positive or not theirs.

    Source: K. Zeng, Z. Wang, 3D-SSIM for video quality assessment, ICIP 2012, for windows that are blocks, without its
    weighting by information; window and constants of Z. Wang et al., 2004, as for `ssim`. Where voxels are cubes, the
    sum over the sources of MONAI's `SSIMMetric(spatial_dims=3)`.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, 16, generator=generator)
        >>> ssim_3d((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.2945])
    """
    if len(spacing) != 3 or not all(math.isfinite(edge) and edge > 0 for edge in spacing):
        raise ValueError(f"spacing is {tuple(spacing)}; three positive numbers are accepted, along H, W and D")
    sigmas = [_SIGMA * min(spacing) / edge for edge in spacing]
    windows = [gaussian(2 * int(_REACH * sigma + 0.5) + 1, sigma) for sigma in sigmas]
    sides = [len(window) for window in windows]
    kept = partial(_structure_in_blocks, windows=windows)
    return measure(kept, fused, anatomy, overlay, data_range=data_range, smallest=sides, dims=3)


def structure_kept(images: Images) -> torch.Tensor:
    """`ssim` of known images, summed over their sources."""
    side = SSIM_SIDE
    uniform = partial(separable, column=[1 / side] * side)
    luminance, structure = _terms(images.fused, images.sources, uniform, side**2 / (side**2 - 1))
    return average(luminance * structure).sum(1)


def structure_of_scales(images: Images) -> torch.Tensor:
    """`ms_ssim` of known images, summed over their sources."""
    fused, sources, window = images.fused, images.sources, partial(separable, column=gaussian(11, _SIGMA))
    similarity = torch.ones_like(sources[:, :, 0, 0])
    for scale, weight in enumerate(_WEIGHTS, start=1):
        luminance, structure = _terms(fused, sources, window)
        value = average(structure if scale < len(_WEIGHTS) else luminance * structure)
        # a power below 1 has an infinite slope at 0
        opposed = value <= 0
        similarity = similarity * (torch.where(opposed, 1.0, value) ** weight).masked_fill(opposed, 0.0)
        if scale < len(_WEIGHTS):
            fused, sources = F.avg_pool2d(fused, 2), F.avg_pool2d(sources, 2)
    return similarity.sum(1)


def _structure_in_blocks(images: Images, windows: Sequence[Sequence[float]]) -> torch.Tensor:
    """`ssim_3d` of known volumes, summed over their sources; some slices at a time, so that memory stays bounded."""
    column, row, through = windows
    inside = images.grey.shape[-1] - len(through) + 1
    at_once = max(_SLICES, _VOXELS // math.prod(images.grey.shape[2:4]))
    sums, count = [], 0
    for start in range(0, inside, at_once):
        grey = images.grey[..., start : min(start + at_once, inside) + len(through) - 1]
        blurred = partial(separable_3d, column=column, row=row, through=through)
        luminance, structure = _terms(grey[:, :1], grey[:, 1:], blurred)
        similarity = luminance * structure
        sums.append(total(similarity).sum(-1))
        count += similarity[0, 0].numel()
    return torch.stack(sums).sum(0).sum(1) / count


def _terms(
    fused: torch.Tensor,
    sources: torch.Tensor,
    windowed: Callable[[torch.Tensor], torch.Tensor],
    sample: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 1, ...) and (B, S, ...) -> maps of similar luminance, and of similar contrast and structure, (B, S, ...).

    Variances are multiplied by `sample`.
    """
    mean_f, mean_s, var_f, var_s, cov = moments(fused, sources, windowed)
    luminance = (2 * mean_f * mean_s + _C1) / (mean_f * mean_f + mean_s * mean_s + _C1)
    structure = (2 * sample * cov + _C2) / (sample * (var_f + var_s) + _C2)
    return luminance, structure
