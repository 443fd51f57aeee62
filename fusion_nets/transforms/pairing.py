"""Lay sources on each other as one image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from fusion_nets.slabs import is_large, slabs, zeros

__all__ = ["PairUp", "PairUpD", "PairUpDict", "PairUpd"]


class PairUp(Transform):
    """Concatenate the channels of images on one grid, as MONAI's ``ConcatItemsd`` does; large volumes slab by slab.

    Examples:
        >>> tuple(PairUp()(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)).shape)
        (2, 4, 4)
    """

    backend = [TransformBackends.TORCH]

    def __call__(self, *img: torch.Tensor) -> torch.Tensor:
        """(C, H, W[, D]) of (C1, H, W[, D]), (C2, H, W[, D]) ...; the metadata are the first one's."""
        first = img[0]
        if not is_large(first.shape) or first.device.type != "cpu":
            return torch.cat(img)
        pair = torch.from_numpy(zeros((sum(len(one) for one in img), *first.shape[1:])))
        for slab in slabs(first.shape):
            pair[..., slab] = torch.cat([one.as_subclass(torch.Tensor)[..., slab] for one in img])
        return MetaTensor(pair, meta=dict(first.meta)) if isinstance(first, MetaTensor) else pair


class PairUpd(MapTransform):
    """Dictionary twin of :class:`PairUp`: the image stands under ``name``; the keys are its channels from there on.

    Args:
        keys: what to lay on each other, the anatomy first.
        name: of the image.
        allow_missing_keys: take those that are there.
    """

    backend = PairUp.backend

    def __init__(
        self,
        keys: KeysCollection = ("anatomy", "overlay"),
        name: Hashable = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.name = name
        self.pair_up = PairUp()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Lay on each other."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        image = d[self.name] = self.pair_up(*(d[key] for key in keys))
        start = 0
        for key in keys:
            channels = image.as_subclass(torch.Tensor)[start : start + len(d[key])]
            start += len(d[key])
            # so that each voxel is in memory once
            one = d[key]
            d[key] = MetaTensor(channels, meta=one.meta) if isinstance(one, MetaTensor) else channels
        return d


PairUpD = PairUpDict = PairUpd
