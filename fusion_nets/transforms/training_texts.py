"""Images with their descriptions on the way into a describer's training."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, RandomizableTransform, Transform
from monai.utils import TransformBackends

__all__ = [
    "RandRedescribe",
    "RandRedescribeD",
    "RandRedescribeDict",
    "RandRedescribed",
    "TakeSource",
    "TakeSourceD",
    "TakeSourceDict",
    "TakeSourced",
]


class TakeSource(Transform):
    """Make a training item of an image and its text: {"image", "text"}; the image's ``meta`` learns its modality.

    Examples:
        >>> item = TakeSource()(MetaTensor(torch.rand(1, 4, 4)), "FDG uptake.", "PT")
        >>> item["text"], item["image"].meta["modality"]
        ('FDG uptake.', 'PT')
    """

    backend = [TransformBackends.TORCH]

    def __call__(  # type: ignore[override]
        self, img: MetaTensor, text: str, modality: str | None = None
    ) -> dict[Hashable, Any]:
        """Take (1 | 3, H, W[, D]), what is said of it, and of which modality it is, where that is known."""
        if modality:
            img.meta["modality"] = modality
        return {"image": img, "text": text}


class TakeSourced(MapTransform):
    """Dictionary twin of :class:`TakeSource`, of a source known by its role.

    From the first of ``keys`` that is there, with ``{key}_text`` and ``{key}_modality``.

    Args:
        keys: the roles a source may have.
    """

    backend = TakeSource.backend

    def __init__(self, keys: KeysCollection = ("anatomy", "overlay")) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.take = TakeSource()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take it, and leave the rest."""
        key = next(iter(self.key_iterator(dict(data))))
        return self.take(data[key], data[f"{key}_text"], data.get(f"{key}_modality"))


class RandRedescribe(RandomizableTransform):
    """Now and then, change an image, and describe what came out anew.

    For describers that measure: an image that is turned, moved or dimmed has other figures, and those are what a
    network is to learn. The image's affine stays, as if another patient had been imaged in the same way.

    Args:
        describer: gives one text per image, see :class:`fusion_nets.text.Describer`.
        transforms: what to do to an image, array transforms.
        prob: how often.

    Examples:
        >>> image = MetaTensor(torch.full((1, 2, 2), 0.5))
        >>> dimmed, text = RandRedescribe(lambda images: [f"At most {images[0].max():g}."], [lambda x: x / 2])(image)
        >>> text
        'At most 0.25.'
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        describer: Callable[[Sequence[MetaTensor]], list[str]],
        transforms: Sequence[Callable[..., Any]],
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self.describer = describer
        self.transforms = Compose(transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandRedescribe:
        """Seed this transform and those within."""
        super().set_random_state(seed, state)
        self.transforms.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def __call__(self, img: MetaTensor, randomize: bool = True) -> tuple[MetaTensor, str | None]:
        """Change and describe (1 | 3, H, W[, D]) in [0, 1], to which the result is clamped; or as it was, and None."""
        if randomize:
            self.randomize(None)
        if not self._do_transform:
            return img, None
        changed = torch.as_tensor(self.transforms(img.as_tensor())).as_subclass(torch.Tensor).clamp(0, 1)
        img = MetaTensor(changed, meta=dict(img.meta))
        (text,) = self.describer([img])
        return img, text


class RandRedescribed(RandomizableTransform, MapTransform):
    """Dictionary twin of :class:`RandRedescribe`.

    Args:
        keys: images (1 | 3, H, W[, D]) in [0, 1]; results are clamped to that.
        describer: gives one text per image, see :class:`fusion_nets.text.Describer`; written to ``text_key``.
        transforms: what to do to an image, array transforms.
        text_key: where the text stands.
        prob: how often, and then all keys.
        allow_missing_keys: change the images that are there.
    """

    backend = RandRedescribe.backend

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
        self.redescribe = RandRedescribe(describer, transforms, prob)
        self.text_key = text_key

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandRedescribed:
        """Seed this transform and those within."""
        super().set_random_state(seed, state)
        self.redescribe.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change and describe."""
        d = dict(data)
        self.redescribe.randomize(None)
        for key in self.key_iterator(d):
            d[key], text = self.redescribe(d[key], randomize=False)
            if text is not None:
                d[self.text_key] = text
        return d


RandRedescribeD = RandRedescribeDict = RandRedescribed
TakeSourceD = TakeSourceDict = TakeSourced
