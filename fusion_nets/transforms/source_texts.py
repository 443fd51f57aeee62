"""Put images into words as a transform."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from fusion_nets.clinical import ImageError, Reason

__all__ = ["Describe", "DescribeD", "DescribeDict", "Described"]

Text: TypeAlias = str | list[str]


class Describe(Transform):
    """Describe images by a describer, see :class:`fusion_nets.text.Describer`.

    Args:
        describer: gives one text per image.
        per: "series" describes a volume as a whole, "slice" each of its slices (last axis) as an image of its own, with
            the affine of its place. A two-dimensional image has one text either way.

    Raises:
        ValueError: for another ``per``.

    Examples:
        >>> image = MetaTensor(torch.rand(1, 8, 8, 3), affine=torch.eye(4))
        >>> def describer(images):
        ...     return [f"{part.ndim - 1} axes." for part in images]
        >>> Describe(describer)(image)
        '3 axes.'
        >>> Describe(describer, per="slice")(image)
        ['2 axes.', '2 axes.', '2 axes.']
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, describer: Callable[[Sequence[MetaTensor]], list[str]], per: Literal["series", "slice"] = "series"
    ) -> None:
        if per not in ("series", "slice"):
            raise ValueError(f"per is {per!r}; accepted are 'series' and 'slice'")
        self.describer = describer
        self.per = per

    def __call__(self, img: MetaTensor) -> Text:
        """Describe a (1 | 3, H, W[, D]) image in [0, 1]: a text, or D texts where they are asked for per slice."""
        return self.describe([img])[0]

    def describe(self, images: Sequence[MetaTensor]) -> list[Text]:
        """Describe several images in one call of the describer; each result is as that of one image.

        Raises:
            ImageError: if the describer says nothing about an image.
        """
        parts = [self._parts(image) for image in images]
        texts = iter(self.describer([part for of_image in parts for part in of_image]))
        described: list[Text] = []
        for image, of_image in zip(images, parts, strict=True):
            own = [next(texts) for _ in of_image]
            if not all(own):
                raise ImageError(
                    Reason.TEXT, f"{_file(image)}: the describer gave no text; an image it can describe is accepted"
                )
            described.append(own if self._is_sliced(image) else own[0])
        return described

    def _is_sliced(self, image: MetaTensor) -> bool:
        return self.per == "slice" and image.ndim == 4

    def _parts(self, image: MetaTensor) -> list[MetaTensor]:
        return [_slice(image, index) for index in range(image.shape[-1])] if self._is_sliced(image) else [image]


class Described(MapTransform):
    """Dictionary twin of :class:`Describe`: writes ``{key}_text`` where it is absent or empty; a given text wins.

    The describer finds ``{key}_modality`` in the image's ``meta["modality"]``.

    Args:
        keys: the images.
        describer: gives one text per image; it is called once for all keys.
        per: "series" or "slice".
        allow_missing_keys: describe those that are there.
    """

    backend = Describe.backend

    def __init__(
        self,
        keys: KeysCollection,
        describer: Callable[[Sequence[MetaTensor]], list[str]],
        per: Literal["series", "slice"] = "series",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.describe = Describe(describer, per)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Describe every key that has no text.

        Raises:
            ImageError: if a given list of texts is not one per slice, or the describer says nothing about an image.
        """
        d = dict(data)
        keys = []
        for key in self.key_iterator(d):
            text, modality = d.get(f"{key}_text"), d.get(f"{key}_modality")
            if modality:
                d[key] = d[key].clone()
                d[key].meta["modality"] = modality
            if not text:
                keys.append(key)
            elif not (isinstance(text, str) or (d[key].ndim == 4 and len(text) == d[key].shape[-1])):
                raise ImageError(
                    Reason.TEXT,
                    f"{_file(d[key])}: {key}_text has {len(text)} texts; one, or as many as a volume has slices, is "
                    "accepted",
                )
        for key, text in zip(keys, self.describe.describe([d[key] for key in keys]) if keys else [], strict=True):
            d[f"{key}_text"] = text
        return d


def _slice(volume: MetaTensor, index: int) -> MetaTensor:
    """(C, H, W) of (C, H, W, D), its affine starting at the slice."""
    affine = volume.affine.clone()
    affine[:3, 3] += index * affine[:3, 2]
    return MetaTensor(volume.as_tensor()[..., index], meta={**volume.meta, "affine": affine})


def _file(image: MetaTensor) -> str:
    return str(image.meta.get("filename_or_obj", "image"))


DescribeD = DescribeDict = Described
