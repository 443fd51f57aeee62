"""Images with their descriptions on the way into a describer's training."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandomizableTransform
from monai.utils import TransformBackends

__all__ = ["RandRedescribed", "TakeSourced"]


class TakeSourced(MapTransform):
    """Of a source known by its role, make "image" and "text"; the image's ``meta`` learns its modality.

    From the first of ``keys`` that is there, with ``{key}_text`` and ``{key}_modality``.

    Args:
        keys: the roles a source may have.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection = ("anatomy", "overlay")) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take it, and leave the rest."""
        key = next(iter(self.key_iterator(dict(data))))
        image, modality = data[key], data.get(f"{key}_modality")
        if modality:
            image.meta["modality"] = modality
        return {"image": image, "text": data[f"{key}_text"]}


class RandRedescribed(RandomizableTransform, MapTransform):
    """Now and then, change an image, and describe what came out anew.

    For describers that measure: an image that is turned, moved or dimmed has other figures, and those are what a
    network is to learn. The image's affine stays, as if another patient had been imaged in the same way.

    Args:
        keys: images (1 | 3, H, W[, D]) in [0, 1]; results are clamped to that.
        describer: gives one text per image, see :class:`fusion_nets.text.Describer`; written to ``text_key``.
        transforms: what to do to an image, array transforms.
        text_key: where the text stands.
        prob: how often.
        allow_missing_keys: change the images that are there.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        describer: Callable[[Sequence[MetaTensor]], list[str]],
        transforms: Sequence[Callable[..., Any]],
        text_key: str = "text",
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.describer = describer
        self.transforms = Compose(transforms)
        self.text_key = text_key

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandRedescribed:
        """Seed this transform and those within."""
        super().set_random_state(seed, state)
        self.transforms.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change and describe."""
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(d):
                changed = torch.as_tensor(self.transforms(d[key].as_tensor())).as_subclass(torch.Tensor).clamp(0, 1)
                d[key] = MetaTensor(changed, meta=dict(d[key].meta))
                (d[self.text_key],) = self.describer([d[key]])
        return d
