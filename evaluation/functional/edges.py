from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from evaluation.functional._helpers import Images, Overlays, measure, of_two, root, separable, total

_SMOOTH = (1.0, 2.0, 1.0)
_SLOPE = (-1.0, 0.0, 1.0)
_FLAT_SLOPE = (1.0, 0.0, -1.0)

# the smallest side that can be mirrored for `nabf`
NABF_SIDE = 2


def qabf(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """How much of the sources' edges, in strength and direction, the fused image keeps: Q^AB/F, from 0 to below 1.

    Sobel gradients with zero padding; strengths that are rounding noise of the number type count as 0. Differentiable,
    with one exception: the direction of a fused edge weaker than one grey level, which no 8-bit image can show, gets
    no gradient (it would grow without bound). Nothing is rounded: published numbers are those of 8-bit values, which
    the caller gives. Of any number of sources, what is kept of each source's edges is weighted by their strength among
    those of all: sum Q_i g_i / sum g_i, which for two is the published form.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,); 0 where no source has an edge.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), or if `data_range` is not positive or not theirs.

    Source: C. S. Xydeas, V. Petrovic, Objective image fusion performance measure, Electronics Letters 36(4), 2000.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> qabf((anatomy + overlay) / 2, anatomy, overlay)
        tensor([0.3248])
    """
    return measure(edges_kept, fused, anatomy, overlay, data_range=data_range)


def nabf(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """How much of its edges the fused image invented: stronger than in either source, N^AB/F, 0 to 1; low is good.

    The share of edge information lost or distorted where the fused edge is stronger than both sources' edges. An edge
    counts by its strength in the source to the power of 1.5, and where that is below 2 grey levels by 0.001: detail
    invented on flat ground weighs little beside edges elsewhere. Constants, mirrored borders and the Sobel operator
    divided by 8 are those of the author's release, whose values papers report; they are not those of `qabf`.

    Of more than two sources nothing of the kind is published: a ValueError. Other arguments and errors as for `qabf`;
    images of at least 2 x 2 pixels.

    Returns:
        One value per image, (B,); NaN where an image holds NaN or infinity.

    Source: B. K. Shreyamsha Kumar, Multifocus and multispectral image fusion based on pixel significance using
    discrete cosine harmonic wavelet transform, Signal, Image and Video Processing 7(6), 2013, after V. Petrovic,
    C. Xydeas, Objective image fusion performance characterisation, ICCV 2005.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> nabf((anatomy + overlay) / 2, anatomy, overlay)
        tensor([0.])
    """
    return measure(edges_invented, fused, anatomy, overlay, data_range=data_range, smallest=NABF_SIDE)


def edges_kept(images: Images) -> torch.Tensor:
    """`qabf` of known images."""
    across, down = _sobel(F.pad(images.grey, (1, 1, 1, 1)))
    strength = root(across * across + down * down, images.noise)
    angle = _angle(down, across, images.noise)
    if angle.requires_grad:
        angle = torch.where(strength < 1, angle.detach(), angle)
    strength_f, strength_s = strength[:, :1], strength[:, 1:]
    angle_f, angle_s = angle[:, :1], angle[:, 1:]

    ratio = _ratio(strength_f, strength_s, images.noise)
    # the definition has the strength itself where both are equal
    kept_strength = ratio + (strength_f == strength_s) * (strength_f - ratio)
    kept_angle = 1 - (angle_s - angle_f).abs() / (math.pi / 2)
    kept = torch.sigmoid(15 * (kept_strength - 0.5)) * torch.sigmoid(22 * (kept_angle - 0.8))
    edges = total(strength_s).sum(1)
    return 0.9994 * 0.9879 * total(kept * strength_s).sum(1) / torch.where(edges == 0, 1.0, edges)


def edges_invented(images: Images) -> torch.Tensor:
    """`nabf` of known images."""
    of_two(images, "Nabf")
    across, down = (slope / 8 for slope in _sobel(F.pad(images.grey, (1, 1, 1, 1), mode="reflect")))
    strength = root(across * across + down * down, images.noise)
    angle = _angle(across, down, images.noise) * (strength > 0)
    strength_f, strength_s = strength[:, :1], strength[:, 1:]
    angle_f, angle_s = angle[:, :1], angle[:, 1:]

    kept_strength = _ratio(strength_f, strength_s, images.noise)
    kept_angle = ((angle_s - angle_f).abs() - math.pi / 2).abs() * (2 / math.pi)
    kept = 0.9999 * torch.sigmoid(19 * (kept_strength - 0.5)) * (0.9995 * torch.sigmoid(22 * (kept_angle - 0.5)))
    weight = torch.where(strength_s < 2, 0.001, strength_s * strength_s.sqrt())
    invented = (strength_f > strength_s).all(dim=1, keepdim=True)
    distorted = total((1 - kept.sqrt()) * weight * invented).sum(1) / total(weight).sum(1)
    return distorted


def _sobel(padded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses across and (upward) down, without the border."""
    return separable(padded, _SMOOTH, _SLOPE), separable(padded, _FLAT_SLOPE, _SMOOTH)


def _angle(rise: torch.Tensor, run: torch.Tensor, noise: float) -> torch.Tensor:
    """atan(rise / run), in (-pi/2, pi/2]; pi/2 where the run is rounding noise, whatever the rise."""
    run = F.hardshrink(run, noise)
    side = run.sign()
    return torch.atan2(rise * side + (1 - side * side), run.abs())


def _ratio(x: torch.Tensor, y: torch.Tensor, noise: float) -> torch.Tensor:
    """The smaller over the larger of two strengths that are 0 or above the noise; 0 where both are 0."""
    return torch.minimum(x, y) / torch.maximum(x, y).clamp_min(noise)
