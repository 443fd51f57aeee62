from __future__ import annotations

import torch

from evaluation.functional._common import LEVELS, quantise, to_grey


def mutual_information(
    fused: torch.Tensor, anatomy: torch.Tensor, overlay: torch.Tensor, data_range: float = 1.0
) -> torch.Tensor:
    """Information that the fused image shares with its sources: I(F; anatomy) + I(F; overlay), in nats.

    Grey levels are rounded to the nearest of 256 (ties to even) and clipped to 0..255; probabilities are those of the
    joint histogram. Not differentiable.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,); NaN where one of the three images holds a NaN.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not (B, 1, H, W), or if `data_range` is not positive.

    Source: G. Qu, D. Zhang, P. Yan, Information measure for performance of image fusion, Electronics Letters 38(7),
    2002; natural logarithm.
    """
    with torch.no_grad():
        images = torch.cat(to_grey(fused, anatomy, overlay, data_range=data_range), dim=1).flatten(2)
        unknown = images.isnan().flatten(1).any(1)
        levels = quantise(images.nan_to_num(), LEVELS - 1).long()
        # (B, 2, pixels): the cell of each pixel in the joint histograms of F with each source
        cells = levels[:, :1] * LEVELS + levels[:, 1:]
        batch, _, pixels = cells.shape
        cells = cells + torch.arange(batch * 2, device=cells.device).view(batch, 2, 1) * LEVELS**2
        counts = torch.bincount(cells.flatten(), minlength=batch * 2 * LEVELS**2)
        joint = counts.view(batch, 2, LEVELS, LEVELS).to(images.dtype) / pixels
        shared = _entropy(joint.sum(3)) + _entropy(joint.sum(2)) - _entropy(joint.flatten(2))
        return shared.sum(1).masked_fill(unknown, torch.nan)


def _entropy(probability: torch.Tensor) -> torch.Tensor:
    return -torch.xlogy(probability, probability).sum(-1)
