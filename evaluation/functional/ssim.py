from __future__ import annotations

import torch
import torch.nn.functional as F

from evaluation.functional._helpers import LEVELS, Images, Overlays, average, gaussian, measure, moments

# the windows' sides: of `ssim`, and what `ms_ssim` needs for its last scale to hold one whole window of 11
SSIM_SIDE = 7
MS_SSIM_SIDE = 176
_C1 = (0.01 * (LEVELS - 1)) ** 2
_C2 = (0.03 * (LEVELS - 1)) ** 2
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


def structure_kept(images: Images) -> torch.Tensor:
    """`ssim` of known images, summed over their sources."""
    side = SSIM_SIDE
    luminance, structure = _terms(images.fused, images.sources, [1 / side] * side, side**2 / (side**2 - 1))
    return average(luminance * structure).sum(1)


def structure_of_scales(images: Images) -> torch.Tensor:
    """`ms_ssim` of known images, summed over their sources."""
    fused, sources, window = images.fused, images.sources, gaussian(11, 1.5)
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


def _terms(
    fused: torch.Tensor, sources: torch.Tensor, window: list[float], sample: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 1, H, W) and (B, S, H, W) -> maps of similar luminance, and of similar contrast and structure, (B, S, h, w).

    Variances are multiplied by `sample`.
    """
    mean_f, mean_s, var_f, var_s, cov = moments(fused, sources, window)
    luminance = (2 * mean_f * mean_s + _C1) / (mean_f * mean_f + mean_s * mean_s + _C1)
    structure = (2 * sample * cov + _C2) / (sample * (var_f + var_s) + _C2)
    return luminance, structure
