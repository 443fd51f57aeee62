"""Load a pair's images as transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from fusion_nets.clinical import ImageError, read_image

__all__ = ["LoadStudyImage", "LoadStudyImaged"]


class LoadStudyImage(Transform):
    """Load any image the library reads, see :func:`fusion_nets.clinical.read_image`."""

    backend = [TransformBackends.TORCH]

    def __call__(self, path: PathLike) -> MetaTensor:
        """Load (1 | 3, H, W[, D])."""
        return read_image(path)


class LoadStudyImaged(MapTransform):
    """Dictionary twin of :class:`LoadStudyImage`, for images that belong together: they must be of one size."""

    backend = LoadStudyImage.backend

    def __init__(self, keys: KeysCollection = ("anatomy", "overlay"), allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadStudyImage()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key.

        Raises:
            ImageError: for an image that cannot be used, or of another size than the first.
        """
        d = dict(data)
        first = None
        for key in self.key_iterator(d):
            path = d[key]
            d[key] = self.load(path)
            if first is None:
                first = key, path
            elif d[key].shape[1:] != d[first[0]].shape[1:]:
                raise ImageError(
                    f"{path}: size {tuple(d[key].shape[1:])} differs from {tuple(d[first[0]].shape[1:])} of {first[1]}; "
                    "sources on one grid are accepted"
                )
        return d
