from __future__ import annotations

import torch

from evaluation.functional._helpers import Images, Overlays, average, measure, of_two
from evaluation.functional.contrast import centred

# a standard deviation of so few grey levels gives no gradient: it would grow without bound
_FAINT = 0.1


def mean_squared_error(
    fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0
) -> torch.Tensor:
    """Squared difference of the fused image from its sources, mean over pixels and all sources; low is good.

    In squared grey levels of 0..255. Differentiable. Nothing is rounded: published numbers are those of 8-bit values,
    which the caller gives.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,).

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), or if `data_range` is not positive or not theirs.

    Source: P. Jagalingam, A. V. Hegde, A review of quality metrics for fused image, Aquatic Procedia 4, 2015.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> mean_squared_error((anatomy + overlay) / 2, anatomy, overlay)
        tensor([2971.0107])
    """
    return measure(squared_error, fused, anatomy, overlay, data_range=data_range)


def psnr(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Peak signal to noise ratio in dB: 10 log10(max(F)^2 / MSE), with the mean squared error to all sources.

    The peak is the fused image's own, as the field has it. Arguments, errors and source as for `mean_squared_error`.

    Returns:
        One value per image, (B,); infinite where the fused image is equal to all sources, -infinite where it is black
        and they are not.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> psnr((anatomy + overlay) / 2, anatomy, overlay)
        tensor([13.1553])
    """
    return measure(peak_to_noise, fused, anatomy, overlay, data_range=data_range)


def correlation(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Correlation coefficient of the fused image and its sources, mean over all sources, -1 to 1.

    With a constant image nothing correlates: 0. Differentiable; images whose standard deviation is below a tenth of a
    grey level get no gradient (it would grow without bound). Arguments, result and errors as for
    `mean_squared_error`.

    Source: M. Deshmukh, U. Bhosale, Image fusion and image quality assessment of fused images, International Journal
    of Image Processing 4(5), 2010.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> correlation((anatomy + overlay) / 2, anatomy, overlay)
        tensor([0.6820])
    """
    return measure(likeness, fused, anatomy, overlay, data_range=data_range)


def scd(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """Sum of the correlations of differences: corr(A, F - B) + corr(B, F - A), -2 to 2.

    What the fused image has beyond one source should be the other one. A constant image or difference counts 0.
    Differentiable as `correlation` is. Of more than two sources nothing of the kind is published: a ValueError. Other
    arguments, result and errors as for `mean_squared_error`.

    Source: V. Aslantas, E. Bendes, A new image quality metric for image fusion: the sum of the correlations of
    differences, AEU International Journal of Electronics and Communications 69(12), 2015.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> scd((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.4621])
    """
    return measure(likeness_of_differences, fused, anatomy, overlay, data_range=data_range)


def squared_error(images: Images) -> torch.Tensor:
    """`mean_squared_error` of known images."""
    return average((images.fused - images.sources).square()).mean(1)


def peak_to_noise(images: Images) -> torch.Tensor:
    """`psnr` of known images."""
    error = images.once(squared_error)
    peak = images.fused.amax(dim=(1, 2, 3))
    return (10 * torch.log10(peak * peak / error)).masked_fill(error == 0, torch.inf)


def likeness(images: Images) -> torch.Tensor:
    """`correlation` of known images."""
    grey = images.once(centred)
    return _correlation(grey[:, :1], grey[:, 1:], images.noise).mean(1)


def likeness_of_differences(images: Images) -> torch.Tensor:
    """`scd` of known images."""
    of_two(images, "SCD")
    grey = images.once(centred)
    return _correlation(grey[:, 1:], grey[:, :1] - grey[:, 1:].flip(1), images.noise).sum(1)


def _correlation(x: torch.Tensor, y: torch.Tensor, noise: float) -> torch.Tensor:
    """Correlation of maps (B, 1 | S, H, W) whose mean is 0; 0 where one is constant but for rounding noise."""
    var_x, var_y = average(x * x), average(y * y)
    constant = (var_x <= noise**2) | (var_y <= noise**2)
    scale = torch.where(constant, 1.0, var_x * var_y).sqrt()
    value = (average(x * y) / scale).masked_fill(constant, 0.0)
    return torch.where(torch.minimum(var_x, var_y) < _FAINT**2, value.detach(), value)
