from __future__ import annotations

import torch

from evaluation.functional._helpers import Images, average, measure, root


def standard_deviation(fused: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Contrast of the fused image: the (population) standard deviation, in grey levels of 0..255.

    Differentiable. Nothing is rounded: published numbers are those of 8-bit values, which the caller gives.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,).

    Raises:
        TypeError: if the image is no tensor.
        ValueError: if its shape is not (B, 1, H, W), or if `data_range` is not positive or not its own.

    Source: Y.-J. Rao, In-fibre Bragg grating sensors, Measurement Science and Technology 8(4), 1997, as papers of the
    field cite it.

    Examples:
        >>> fused = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> standard_deviation(fused)
        tensor([72.6531, 75.7800])
    """
    return measure(spread, fused, data_range=data_range)


def spatial_frequency(fused: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Liveliness of the fused image: the root of the mean squared steps along rows and along columns, in grey levels.

    Differentiable. Arguments, result and errors as for `standard_deviation`.

    Source: A. M. Eskicioglu, P. S. Fisher, Image quality measures and their performance, IEEE Transactions on
    Communications 43(12), 1995.

    Examples:
        >>> fused = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> spatial_frequency(fused)
        tensor([144.3699, 151.3308])
    """
    return measure(frequency, fused, data_range=data_range)


def average_gradient(fused: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Sharpness of the fused image: the mean of sqrt((gx^2 + gy^2) / 2), in grey levels.

    Central differences, one-sided at the border. Differentiable; where an image is flat, without a gradient. Arguments,
    result and errors as for `standard_deviation`.

    Source: G. Cui, H. Feng, Z. Xu, Q. Li, Y. Chen, Detail preserved fusion of visible and infrared images using
    regional saliency extraction and multi-scale image decomposition, Optics Communications 341, 2015.

    Examples:
        >>> fused = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> average_gradient(fused)
        tensor([51.4536, 52.9241])
    """
    return measure(sharpness, fused, data_range=data_range)


def spread(images: Images) -> torch.Tensor:
    """`standard_deviation` of known images."""
    return root(average(images.once(centred)[:, 0].square()), images.noise)


def frequency(images: Images) -> torch.Tensor:
    """`spatial_frequency` of known images."""
    fused = images.fused[:, 0]
    return root(average(fused.diff(dim=2).square()) + average(fused.diff(dim=1).square()), images.noise)


def sharpness(images: Images) -> torch.Tensor:
    """`average_gradient` of known images."""
    across, down = slope(images.fused[:, 0], 2), slope(images.fused[:, 0], 1)
    return average(root((across.square() + down.square()) / 2, images.noise))


def centred(images: Images) -> torch.Tensor:
    """Grey levels less their mean, (B, 1 + S, H, W); of a constant image exactly 0."""
    grey = images.grey - images.grey[:, :, :1, :1]
    return grey - average(grey)[..., None, None]


def slope(maps: torch.Tensor, dim: int) -> torch.Tensor:
    """Derivative along one dimension: central differences, one-sided at both ends; 0 along a side of one pixel."""
    length = maps.shape[dim]
    if length == 1:
        return torch.zeros_like(maps)
    steps = maps.diff(dim=dim)
    if length == 2:
        return torch.cat([steps, steps], dim=dim)
    inner = (maps.narrow(dim, 2, length - 2) - maps.narrow(dim, 0, length - 2)) / 2
    return torch.cat([steps.narrow(dim, 0, 1), inner, steps.narrow(dim, length - 2, 1)], dim=dim)
