from __future__ import annotations

import torch

from evaluation.functional._helpers import Images, Overlays, measure, total


def flicker(fused: torch.Tensor, anatomy: torch.Tensor, overlay: Overlays, data_range: float = 1.0) -> torch.Tensor:
    """How much fused volumes change from slice to slice beyond any of their sources, in grey levels; low is good.

    The mean over all pairs of voxels that lie one behind the other along D of max(0, |dF| - max over sources of |dS|),
    d being the step from the one to the other: through-plane variation that no source has there. A fused image that
    follows one source everywhere has none, nor has one whose every step lies within those of its sources, such as their
    mean; one that goes from source to source, from slice to slice, has much, which shows as bands in sagittal and
    coronal planes. What raises contrast, or adds what two sources show at one place, has some, too. Values fall with
    the share of the volume that is empty: hold methods against each other on the same volumes. Differentiable. Nothing
    is rounded.

    Args:
        fused: fused volumes, (B, 1, H, W, D), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        data_range: the value that stands for white.

    Returns:
        One value per volume, (B,), in grey levels of 0..255; NaN of a single slice.

    Raises:
        TypeError: if a volume is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W, D), or if `data_range` is not positive or not theirs.

    Source: this library's own; of total variation between neighbouring slices, what the sources do not explain.

    Examples:
        >>> anatomy, overlay = torch.zeros(1, 1, 4, 4, 6), torch.full((1, 1, 4, 4, 6), 0.2)
        >>> fused = torch.where(torch.arange(6) % 2 == 0, anatomy, overlay)
        >>> flicker(fused, anatomy, overlay), flicker((anatomy + overlay) / 2, anatomy, overlay)
        (tensor([51.]), tensor([0.]))
    """
    return measure(steps_beyond, fused, anatomy, overlay, data_range=data_range, dims=3)


def steps_beyond(images: Images) -> torch.Tensor:
    """`flicker` of known volumes."""
    steps = images.grey.diff(dim=-1).abs()
    beyond = (steps[:, 0] - steps[:, 1:].amax(1)).clamp_min(0)
    return total(beyond).sum(-1) / (beyond[0].numel() or torch.nan)
