"""How much of a lesion's contrast a fused image keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["contrast_recovery", "lost", "luminance", "patches_at"]

# BT.601, as the field's programs turn colour into grey
_WEIGHTS = (0.299, 0.587, 0.114)
# below this sum of squares (of values in [0, 1]; one grey level in one pixel: 1.5e-5), a source shows no change
_NOTHING = 1e-9


def contrast_recovery(
    fused: torch.Tensor,
    fused_without: torch.Tensor,
    source: torch.Tensor,
    source_without: torch.Tensor,
    places: torch.Tensor,
    half: int | Sequence[int] = 20,
    data_range: float = 1.0,
) -> torch.Tensor:
    """How much of the contrast of lesions in a source the fused image keeps: 1 keeps it, 0 loses it.

    The change that a lesion makes in the fused luminance, regressed (through the origin) on the change that it makes in
    its source, over a square window around it; below 0, bright became dark. It does not depend on the background. For a
    lesion in several sources, take the first overlay that shows it as the source, or each in turn. In volumes, windows
    are blocks, and a lesion may span slices. Differentiable. What lies outside the image changes nothing.

    Args:
        fused: fused images of the sources with lesions, (B, 1 | 3, H, W[, D]), values in [0, data_range]; of colours
            the luminance (BT.601) is taken.
        fused_without: the same of the sources without lesions.
        source: one source with lesions, (B, 1 | 3, H, W[, D]), same range.
        source_without: the same without.
        places: where the lesions are, (N, 3) whole numbers: image of the batch, row, column; in volumes (N, 4), the
            slice last.
        half: the window reaches so many pixels from its middle: 41 x 41 by default; or so many along each axis.
        data_range: the value that stands for white.

    Returns:
        One value per lesion, (N,); NaN where the source shows no change, or something is not finite.

    Raises:
        ValueError: if shapes do not belong together, or a place on the CPU lies outside the images.

    Source: the contrast recovery of phantoms, NEMA NU 2-2018, section 7, for fusion: known lesions instead of spheres.

    Examples:
        >>> spot = torch.zeros(1, 1, 64, 64)
        >>> spot[..., 30:34, 30:34] = 0.2
        >>> anatomy, overlay = torch.rand(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) / 2
        >>> mean, mean_without = (anatomy + overlay + spot) / 2, (anatomy + overlay) / 2
        >>> contrast_recovery(mean, mean_without, overlay + spot, overlay, torch.tensor([[0, 32, 32]]))
        tensor([0.5000])
    """
    changes = []
    for image, before in ((fused, fused_without), (source, source_without)):
        if image.shape != before.shape or image.shape[:1] + image.shape[2:] != fused.shape[:1] + fused.shape[2:]:
            shapes = [tuple(given.shape) for given in (fused, fused_without, source, source_without)]
            raise ValueError(f"fused images and sources, with and without lesions, differ in shape: {shapes}")
        changes.append(patches_at((luminance(image) - luminance(before)) / data_range, places, half))
    in_fused, in_source = changes
    window = tuple(range(1, in_source.ndim))
    kept, shown = (in_fused * in_source).sum(window), in_source.square().sum(window)
    visible = shown > _NOTHING
    return torch.where(visible, kept / torch.where(visible, shown, 1.0), torch.nan)


def lost(recovery: torch.Tensor, opposite: bool | torch.Tensor = False, threshold: float = 0.25) -> torch.Tensor:
    """Which lesions are lost: those whose contrast recovery is below a quarter.

    Lesions of opposite signs at one place cannot both be kept in grey: such a one is kept if it shows either way, and
    lost if the recovery's absolute value is below the threshold. The mean of what comes out (`nanmean`) is the lost
    share.

    Args:
        recovery: of every lesion, any shape, as of `contrast_recovery`.
        opposite: whether the lesion's signs are opposite in two sources; one for all, or one for each.
        threshold: below this a lesion is lost.

    Returns:
        1 for lost, 0 for kept, NaN where there is no recovery, in the shape of `recovery`.

    Examples:
        >>> recovery = torch.tensor([0.9, 0.1, -0.6, torch.nan])
        >>> lost(recovery)
        tensor([0., 1., 1., nan])
        >>> lost(recovery, opposite=True)
        tensor([0., 1., 0., nan])
    """
    signs = torch.as_tensor(opposite, device=recovery.device)
    below = torch.where(signs, recovery.abs(), recovery) < threshold
    return below.to(recovery.dtype).masked_fill(recovery.isnan(), torch.nan)


def luminance(images: torch.Tensor) -> torch.Tensor:
    """Grey of images, (B, 1 | 3, ...) -> (B, 1, ...), BT.601; floating, float64 stays float64.

    Raises:
        ValueError: for another number of channels.

    Examples:
        >>> luminance(torch.ones(1, 3, 1, 2))
        tensor([[[[1., 1.]]]])
    """
    images = images.as_subclass(torch.Tensor)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.ndim < 2 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"expected images of one channel or three (RGB), as (B, 1 | 3, ...), got {tuple(images.shape)}"
        )
    if images.shape[1] == 1:
        return images
    red, green, blue = (weight * channel for weight, channel in zip(_WEIGHTS, images.unbind(1), strict=True))
    return (red + green + blue)[:, None]


def patches_at(images: torch.Tensor, places: torch.Tensor, half: int | Sequence[int]) -> torch.Tensor:
    """Square windows of images around places, or blocks of volumes; beyond the border they are 0.

    Args:
        images: (B, C, H, W[, D]).
        places: (N, 3) whole numbers: image of the batch, row, column; in volumes (N, 4), the slice last. Where they lie
            on the CPU they are checked; elsewhere that would wait for the device.
        half: windows reach so many pixels from their middle; one for all axes, or one for each.

    Returns:
        (N, C, 2 half + 1, 2 half + 1[, 2 half + 1]).

    Raises:
        ValueError: if shapes are not as above, or for a place outside the images.

    Examples:
        >>> patches_at(torch.arange(9.0).view(1, 1, 3, 3), torch.tensor([[0, 2, 1]]), half=1)
        tensor([[[[3., 4., 5.],
                  [6., 7., 8.],
                  [0., 0., 0.]]]])
    """
    if images.ndim not in (4, 5):
        raise ValueError(f"expected images of shape (B, C, H, W[, D]), got {tuple(images.shape)}")
    axes = images.ndim - 2
    if places.ndim != 2 or places.shape[1] != 1 + axes or places.is_floating_point():
        raise ValueError(f"expected places as (N, {1 + axes}) whole numbers, got {tuple(places.shape)} {places.dtype}")
    halves = [half] * axes if isinstance(half, int) else list(half)
    if len(halves) != axes:
        raise ValueError(f"half is {tuple(halves)}; one number is accepted, or {axes}, one for each axis")
    if places.device.type == "cpu" and len(places):
        sizes = torch.tensor([images.shape[0], *images.shape[2:]])
        if (places < 0).any() or (places >= sizes).any():
            raise ValueError(f"a place lies outside the images {tuple(images.shape)}: {places.tolist()}")
    padded = F.pad(images, [reach for reach in reversed(halves) for _ in range(2)]).movedim(1, -1)
    number, *middles = places.to(images.device).unbind(1)
    inside = [
        middle.view(-1, *[1] * axes)
        + torch.arange(2 * reach + 1, device=images.device).view(-1, *[1] * (axes - 1 - axis))
        for axis, (middle, reach) in enumerate(zip(middles, halves, strict=True))
    ]
    index = (number.view(-1, *[1] * axes), *inside)
    return padded[index].movedim(-1, 1)
