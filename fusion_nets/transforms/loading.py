"""Load a pair's images as transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.clinical import ImageError, read_image

__all__ = ["LoadStudyImage", "LoadStudyImaged"]


class LoadStudyImage(Transform):
    """Load any image the library reads, see :func:`fusion_nets.clinical.read_image`."""

    backend = [TransformBackends.TORCH]

    def __call__(self, path: PathLike, series_uid: str | None = None, modality: str | None = None) -> MetaTensor:
        """Load (1 | 3, H, W[, D]); of several series of DICOM, the one that is meant."""
        return read_image(path, series_uid, modality)


class LoadStudyImaged(MapTransform):
    """Dictionary twin of :class:`LoadStudyImage`, for images that belong together; the grid of the first will count.

    ``{key}_series_uid`` and ``{key}_modality`` of the pair say which series of DICOM is meant, and of which modality an
    image is that does not say it. :class:`~fusion_nets.transforms.CommonGridd` brings the others onto the first one's
    grid.

    Args:
        keys: what to load, the image whose grid counts first.
        grey_keys: which of them must have one channel.
        smallest: number of pixels that a slice of the first image must have along both axes.
        pictures_only: refuse a volume as first image, because the result is to be a picture.
        allow_missing_keys: load those that are there.
    """

    backend = LoadStudyImage.backend

    def __init__(
        self,
        keys: KeysCollection = ("anatomy", "overlay"),
        grey_keys: KeysCollection = (),
        smallest: int = 32,
        pictures_only: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.grey_keys = ensure_tuple(grey_keys)
        self.smallest = smallest
        self.pictures_only = pictures_only
        self.load = LoadStudyImage()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key.

        Raises:
            ImageError: for an image that cannot be used.
        """
        d = dict(data)
        is_first = True
        for key in self.key_iterator(d):
            path, image = d[key], self.load(d[key], d.get(f"{key}_series_uid"), d.get(f"{key}_modality"))
            size = tuple(image.shape[1:])
            if key in self.grey_keys and image.shape[0] != 1:
                raise ImageError(f"{path}: has {image.shape[0]} channels (colour); a grey image is accepted here")
            if is_first and min(size[:2]) < self.smallest:
                raise ImageError(
                    f"{path}: size {size}; slices of {self.smallest} x {self.smallest} or more are accepted"
                )
            if is_first and self.pictures_only and image.ndim == 4:
                raise ImageError(f"{path}: is a volume, which cannot become a picture; a single slice is accepted here")
            d[key], is_first = image, False
        return d
