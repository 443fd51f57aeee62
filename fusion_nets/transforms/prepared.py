"""Take an image that is prepared already in the place of a pair."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.overlays import SOURCES

__all__ = [
    "CheckLuminances",
    "CheckLuminancesD",
    "CheckLuminancesDict",
    "CheckLuminancesd",
    "WhereGiven",
    "WhereGivenD",
    "WhereGivenDict",
    "WhereGivend",
]


class WhereGiven(Transform):
    """Apply transforms to an image that is there, and leave None as it is.

    Args:
        transforms: applied one after another.

    Examples:
        >>> WhereGiven([lambda image: image * 2])(3), WhereGiven([lambda image: image * 2])(None)
        (6, None)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transform = Compose(transforms)

    def __call__(self, img: Any) -> Any:
        """Transform, or not."""
        return None if img is None else self.transform(img)


class WhereGivend(Transform):
    """Dictionary twin of :class:`WhereGiven`: transform data that have all of some keys, and leave others as they are.

    A bundle's inference so takes a pair, or an "image" that needs nothing of what a pair needs, as MONAI Label's app
    for bundles gives it.

    Args:
        keys: what must be there.
        transforms: dictionary transforms, applied one after another.
    """

    backend = WhereGiven.backend

    def __init__(self, keys: KeysCollection, transforms: Sequence[Callable[..., Any]]) -> None:
        self.keys = ensure_tuple(keys)
        self.transform = WhereGiven(transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Transform, or not."""
        return self.transform(data) if all(key in data for key in self.keys) else data


class CheckLuminances(Transform):
    """Refuse an image that is not what the network was trained on: luminances, (2 to 4, H, W[, D]) in [0, 1].

    Args:
        smallest: number of pixels that a slice must have along both axes.

    Examples:
        >>> tuple(CheckLuminances()(torch.rand(2, 32, 32)).shape)
        (2, 32, 32)
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, smallest: int = 32) -> None:
        self.smallest = smallest

    def __call__(self, img: torch.Tensor, name: str = "image") -> torch.Tensor:
        """Leave the image as it is; the name is for messages about one that comes from no file.

        Raises:
            ImageError: for an image that cannot be used.
        """
        where = getattr(img, "meta", {}).get("filename_or_obj", name)
        if img.ndim not in (3, 4) or not 2 <= img.shape[0] <= len(SOURCES):
            raise ImageError(
                Reason.SHAPE,
                f"{where}: shape {tuple(img.shape)}; two channels are accepted, anatomy and overlay, or up to "
                f"{len(SOURCES)} of several overlays",
            )
        if min(img.shape[1:3]) < self.smallest:
            size = f"{self.smallest} x {self.smallest}"
            raise ImageError(
                Reason.TOO_SMALL, f"{where}: size {tuple(img.shape[1:])}; slices of {size} or more are accepted"
            )
        low, high = float(img.min()), float(img.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(
                Reason.VALUES,
                f"{where}: values from {low:g} to {high:g}; accepted are luminances from 0 (black) to 1 (white)",
            )
        return img


class CheckLuminancesd(MapTransform):
    """Dictionary twin of :class:`CheckLuminances`.

    Args:
        keys: what to check.
        smallest: number of pixels that a slice must have along both axes.
        allow_missing_keys: check those that are there.
    """

    backend = CheckLuminances.backend

    def __init__(self, keys: KeysCollection = "image", smallest: int = 32, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckLuminances(smallest)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Leave the data as they are.

        Raises:
            ImageError: for an image that cannot be used.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            self.check(d[key], str(key))
        return d


CheckLuminancesD = CheckLuminancesDict = CheckLuminancesd
WhereGivenD = WhereGivenDict = WhereGivend
