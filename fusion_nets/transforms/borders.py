"""Let an overlay that ends inside the anatomy end there without a seam."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from scipy import ndimage

from fusion_nets.registration import NEAR_BORDER, FieldOfView
from fusion_nets.slabs import slabs, zeros

from .colour import room_for

__all__ = ["FadeAtBorder", "FadeAtBorderD", "FadeAtBorderDict", "FadeAtBorderd"]

_REACH = 3.0
"""Of a Gaussian, in standard deviations."""


class FadeAtBorder(Transform):
    """Lead the brightness of an overlay over to the anatomy's where its field of view ends inside of it.

    A fused image would have an edge there that no tissue has, and be darker beyond, where the overlay is not black, but
    unknown. So beyond the border the overlay becomes the anatomy, which is fused with itself; and over
    the last :data:`fusion_nets.registration.NEAR_BORDER` mm before it, the overlay's mean brightness, weighed by a
    Gaussian of that standard deviation in the plane, goes over to the anatomy's. What differs from the mean stays as it
    was: a lesion at the border is not faded.

    Args:
        distance: standard deviation, in mm.

    Examples:
        >>> from fusion_nets.registration import field_of_view
        >>> anatomy = MetaTensor(torch.full((1, 40, 40, 4), 0.5))
        >>> anatomy[:, :2] = 0.0
        >>> overlay = MetaTensor(torch.ones(1, 20, 40, 4))
        >>> view = field_of_view(overlay, anatomy)
        >>> faded = FadeAtBorder()(torch.nn.functional.pad(overlay, [0, 0, 0, 0, 0, 20]), anatomy, view)
        >>> [round(faded[0, row, 20, 2].item(), 2) for row in (5, 12, 19, 30)]
        [1.0, 1.0, 0.54, 0.5]
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, distance: float = NEAR_BORDER) -> None:
        self.distance = distance

    def __call__(self, img: torch.Tensor, anatomy: MetaTensor, view: FieldOfView | None) -> torch.Tensor:  # type: ignore[override]
        """Lead over.

        Args:
            img: the overlay's luminance on the anatomy's grid, (1, H, W, D) in [0, 1].
            anatomy: (1, H, W, D) in [0, 1].
            view: where the overlay was measured; None, everywhere, leaves it as it is.

        Returns:
            (1, H, W, D) in [0, 1]; bit for bit what it was where the border is further off.
        """
        if view is None:
            return img
        sigma = [*(self.distance / anatomy.pixdim[:2].numpy()), 0]

        def led_over(overlay: np.ndarray, anatomy: np.ndarray, slab: slice) -> np.ndarray:
            weight, outside = view.weight(slab), view.outside(slab)
            if weight.min() == 1:
                return overlay
            inside = (~outside).astype(np.float32)
            # of a slice that has nothing of the overlay, nothing is asked
            share = ndimage.gaussian_filter(inside, sigma, truncate=_REACH).clip(np.finfo(np.float32).tiny)
            level = ndimage.gaussian_filter(inside * (anatomy - overlay), sigma, truncate=_REACH) / share
            level = np.minimum(level, anatomy)  # there is nothing to lead over to in the air around
            return np.where(outside, anatomy, (overlay + (1 - weight) * level).clip(0, 1))

        return _by_slabs(led_over, img, anatomy)


class FadeAtBorderd(MapTransform):
    """Dictionary twin of :class:`FadeAtBorder`: of the channels of an image that overlays have there.

    It comes after :class:`PairUpd`. "coverage" (1, H, W, D) tells the inferer how much of the result is the network's:
    1 where an overlay was measured, going to 0 over as many mm beyond, where the anatomy stays as it is. The colour of
    an overlay goes towards the border, too, and its luminance under its own key with it, by which colours are mixed
    (:func:`mixed_chroma`). What :class:`CommonGridd` told of the field of view, ``meta["field_of_view"]``, is taken
    away; without it nothing changes.

    Args:
        keys: the overlays, in the order of their channels, the anatomy's before them.
        image_key: of all sources.
        coverage_key: of the coverage, where an overlay ends.
        chroma_postfix: of where an overlay's chroma lies.
        allow_missing_keys: pass over keys that are not there.
        distance: as of :class:`FadeAtBorder`.
    """

    backend = FadeAtBorder.backend

    def __init__(
        self,
        keys: KeysCollection = "overlay",
        image_key: Hashable = "image",
        coverage_key: Hashable = "coverage",
        chroma_postfix: str = "chroma",
        allow_missing_keys: bool = False,
        distance: float = NEAR_BORDER,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.coverage_key = coverage_key
        self.chroma_postfix = chroma_postfix
        self.fade = FadeAtBorder(distance)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Lead every overlay over."""
        d = dict(data)
        image = d[self.image_key]
        keys = list(self.key_iterator(d))
        views = [getattr(d[key], "meta", {}).pop("field_of_view", None) for key in keys]
        if all(views):
            d[self.coverage_key] = _coverage(image, views)
        for channel, (key, view) in enumerate(zip(keys, views, strict=True), start=1):
            if view is None:
                continue
            own = image[channel : channel + 1].as_subclass(torch.Tensor)
            faded = self.fade(own, MetaTensor(image[:1].as_subclass(torch.Tensor), affine=image.affine), view)
            chroma = f"{key}_{self.chroma_postfix}"
            if chroma in d:
                d[chroma] = _pale(d[chroma], torch.maximum(image[:1], faded), view)
            d[key] = _by_slabs(lambda part, slab, view=view: part * view.weight(slab), d[key])
            for slab in slabs(own.shape):
                own[..., slab] = faded[..., slab]
        return d


def _coverage(image: torch.Tensor, views: Sequence[FieldOfView]) -> torch.Tensor:
    """(1, H, W, D), of all overlays."""
    made = torch.from_numpy(zeros((1, *image.shape[1:])))
    for slab in slabs(made.shape):
        made[0, ..., slab] = torch.from_numpy(np.max([view.coverage(slab) for view in views], axis=0))
    return made


def _pale(chroma: torch.Tensor, luminance: torch.Tensor, view: FieldOfView) -> torch.Tensor:
    """Chroma (3, H, W, D) that goes to 0 at the border, of as much as is seen on about this luminance (1, H, W, D).

    Of a strong colour on bright tissue most has no room, and would go unseen until little is left.
    """
    colour, bright = (one.as_subclass(torch.Tensor).cpu() for one in (chroma, luminance))
    made = torch.from_numpy(zeros(chroma.shape))
    for slab in slabs(chroma.shape):
        weight, part = torch.from_numpy(view.weight(slab)), colour[..., slab]
        made[..., slab] = part * torch.where(weight < 1, weight * room_for(part, bright[..., slab]), 1)
    return made.to(chroma.device)


def _by_slabs(function: Any, image: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    plain = [one.as_subclass(torch.Tensor).cpu() for one in (image, *others)]
    made = torch.from_numpy(zeros(image.shape))
    for slab in slabs(image.shape):
        made[..., slab] = torch.from_numpy(np.stack([
            function(channel[..., slab].numpy(), *(one[0, ..., slab].numpy() for one in plain[1:]), slab)
            for channel in plain[0]
        ]))  # fmt: skip
    made = made.to(image.device)
    return MetaTensor(made, meta=dict(image.meta)) if isinstance(image, MetaTensor) else made


FadeAtBorderD = FadeAtBorderDict = FadeAtBorderd
