"""Colour as it is seen: CIELAB."""

from __future__ import annotations

import torch

__all__ = ["cielab"]

# sRGB to XYZ in four digits, and its white (D65): IEC 61966-2-1
_XYZ = ((0.4125, 0.3576, 0.1804), (0.2127, 0.7152, 0.0722), (0.0193, 0.1192, 0.9502))
_WHITE = (0.95047, 1.0, 1.08883)
_DARK = 0.008856


def cielab(images: torch.Tensor) -> torch.Tensor:
    """CIELAB of sRGB images: lightness L, 0 to 100, and the opponent colours a and b; D65. Differentiable.

    Args:
        images: (B, 3, ...), values in [0, 1].

    Returns:
        L, a and b, (B, 3, ...), floating; float64 stays float64.

    Raises:
        ValueError: if there are not three channels.

    Source: CIE 15:2004, section 8.2.1, and IEC 61966-2-1:1999.

    Examples:
        >>> white_and_red = torch.tensor([[[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]]])
        >>> cielab(white_and_red).round().abs()
        tensor([[[100.,  53.],
                 [  0.,  80.],
                 [  0.,  67.]]])
    """
    if images.ndim < 2 or images.shape[1] != 3:
        raise ValueError(f"expected colour images as (B, 3, ...), got {tuple(images.shape)}")
    rgb = images.as_subclass(torch.Tensor)
    rgb = rgb.to(torch.promote_types(rgb.dtype, torch.float32))
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92).unbind(1)
    x, y, z = (
        _lightness((row[0] * linear[0] + row[1] * linear[1] + row[2] * linear[2]) / white)
        for row, white in zip(_XYZ, _WHITE, strict=True)
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _lightness(value: torch.Tensor) -> torch.Tensor:
    # a cube root has an infinite slope at 0
    return torch.where(value > _DARK, value.clamp_min(_DARK) ** (1 / 3), 7.787 * value + 16 / 116)
