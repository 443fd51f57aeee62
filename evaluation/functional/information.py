from __future__ import annotations

import math

import torch

from evaluation.functional._helpers import LEVELS, Images, Overlays, measure, quantise


def mutual_information(
    fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0
) -> torch.Tensor:
    """Information that the fused image shares with its sources: I(F; anatomy) + I(F; overlay), in nats.

    Of several overlays the sum over all sources. Grey levels are rounded to the nearest of 256 (ties to even) and
    clipped to 0..255; probabilities are those of the joint histogram. Not differentiable; `parzen_mutual_information`
    is.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,); NaN where an image holds NaN or infinity.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), or if `data_range` is not positive or not theirs.

    Source: G. Qu, D. Zhang, P. Yan, Information measure for performance of image fusion, Electronics Letters 38(7),
    2002; natural logarithm.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> mutual_information((anatomy + overlay) / 2, anatomy, overlay)
        tensor([8.4690])
    """
    return measure(shared_information, fused, anatomy, overlay, data_range=data_range)


def normalised_mutual_information(
    fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0
) -> torch.Tensor:
    """Shared information by what there is to share: 2 (I(F; A) / (H(F) + H(A)) + I(F; B) / (H(F) + H(B))), 0 to 2.

    Levels, arguments and errors as for `mutual_information`. A source that is constant, as the fused image is, adds 0.
    Of several overlays the sum over all sources, which is at most their number.

    Source: M. Hossny, S. Nahavandi, D. Creighton, Comments on "Information measure for performance of image fusion",
    Electronics Letters 44(18), 2008.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> normalised_mutual_information((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.7334])
    """
    return measure(normalised_information, fused, anatomy, overlay, data_range=data_range)


def entropy(fused: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Entropy of the grey levels of the fused image, in bits, 0 to 8.

    Levels, arguments and errors as for `mutual_information`, for the fused image alone.

    Source: J. W. Roberts, J. van Aardt, F. Ahmed, Assessment of image fusion procedures using entropy, image quality,
    and multispectral classification, Journal of Applied Remote Sensing 2(1), 2008.

    Examples:
        >>> fused = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> entropy(fused)
        tensor([7.0988, 7.1403])
    """
    return measure(bits, fused, data_range=data_range)


def parzen_mutual_information(
    fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0, bins: int = 32
) -> torch.Tensor:
    """Information shared with the sources, summed over them, in nats, by histograms smooth enough for a gradient.

    Every pixel counts in four neighbouring bins, as a cubic B-spline weighs them. The gradient is 0 outside
    [0, data_range]. With few bins and smooth, lower than `mutual_information`; for training, not for tables.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.
        bins: bins of a histogram, from black (the second) to white (the last but two), 4 or more.

    Returns:
        One value per image, (B,).

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), if `data_range` is not positive or not theirs, or for too
            few bins.

    Source: P. Thevenaz, M. Unser, Optimization of mutual information for multiresolution image registration, IEEE
    Transactions on Image Processing 9(12), 2000, with both windows cubic.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 16, 16, generator=generator)
        >>> parzen_mutual_information((anatomy + overlay) / 2, anatomy, overlay)
        tensor([1.1611])
    """
    if bins < 4:
        raise ValueError(f"a cubic window needs 4 bins or more, got {bins}")
    return measure(lambda images: _parzen(images, bins), fused, anatomy, overlay, data_range=data_range)


def shared_information(images: Images) -> torch.Tensor:
    """`mutual_information` of known images."""
    fused, sources, joint = images.once(_entropies)
    return (fused + sources - joint).sum(1)


def normalised_information(images: Images) -> torch.Tensor:
    """`normalised_mutual_information` of known images."""
    fused, sources, joint = images.once(_entropies)
    apart = fused + sources
    shared = (apart - joint) / torch.where(apart == 0, 1.0, apart)
    return 2 * shared.sum(1)


def bits(images: Images) -> torch.Tensor:
    """`entropy` of known images."""
    with torch.no_grad():
        counts = _histogram(images.once(_levels)[:, :1], LEVELS)
        return _entropy(counts.to(images.grey.dtype) / images.fused[:, 0].flatten(1).shape[1]).sum(1) / math.log(2)


def _levels(images: Images) -> torch.Tensor:
    """(B, 1 + S, pixels), whole; what is not finite is some level."""
    return quantise(images.grey.detach().nan_to_num(), LEVELS - 1).long().flatten(2)


def _entropies(images: Images) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entropies in nats: of the fused image, (B, S) alike, of the sources (B, S), and joint (B, S)."""
    with torch.no_grad():
        levels = images.once(_levels)
        counts = _histogram(levels[:, :1] * LEVELS + levels[:, 1:], LEVELS**2)
        joint = counts.unflatten(2, (LEVELS, LEVELS)).to(images.grey.dtype) / levels.shape[2]
        return _entropy(joint.sum(3)), _entropy(joint.sum(2)), _entropy(joint.flatten(2))


def _histogram(cells: torch.Tensor, count: int) -> torch.Tensor:
    """(B, S, pixels), whole -> how often each cell occurs, (B, S, count)."""
    batch, channels, _ = cells.shape
    first = torch.arange(batch * channels, device=cells.device).view(batch, channels, 1) * count
    return torch.bincount((cells + first).flatten(), minlength=batch * channels * count).view(batch, channels, count)


def _entropy(probability: torch.Tensor) -> torch.Tensor:
    # an empty cell adds nothing, and shall have no infinite slope
    return -(probability * probability.clamp_min(torch.finfo(probability.dtype).tiny).log()).sum(-1)


def _parzen(images: Images, bins: int) -> torch.Tensor:
    place = images.grey.flatten(2).clamp(0, LEVELS - 1) * ((bins - 3) / (LEVELS - 1)) + 1
    # the last interval ends with white
    start = place.detach().nan_to_num().floor().clamp(1, bins - 3)
    t = place - start
    cubic = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
    near = (start.long() - 1)[..., None] + torch.arange(4, device=start.device)
    weights = place.new_zeros(*place.shape, bins).scatter(3, near, torch.stack(cubic, dim=3) / 6)
    # (B, S, bins, bins)
    joint = weights[:, :1].transpose(2, 3) @ weights[:, 1:] / place.shape[2]
    return (_entropy(joint.sum(3)) + _entropy(joint.sum(2)) - _entropy(joint.flatten(2))).sum(1)
