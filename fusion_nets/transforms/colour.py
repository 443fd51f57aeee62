"""Colour: luminance to fuse and chroma to keep, BT.601 full range (ITU-T T.871, section 7)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor

__all__ = ["HotColours", "HotColoursd", "MergeChroma", "MergeChromad", "SplitLuminance", "SplitLuminanced", "luminance"]

_WEIGHTS = (0.299, 0.587, 0.114)


def luminance(image: torch.Tensor) -> torch.Tensor:
    """BT.601 luminance of (3, ...) as (1, ...), in the range of the image; a (1, ...) image is its own."""
    if image.shape[0] == 1:
        return image
    if image.shape[0] != 3:
        raise ValueError(f"expected 1 (grey) or 3 (RGB) channels, got {image.shape[0]}")
    red, green, blue = _WEIGHTS
    return red * image[0:1] + green * image[1:2] + blue * image[2:3]


class HotColours(Transform):
    """Colour a grey image in [0, 1] from black over red and yellow to white, the "hot" scale of nuclear medicine.

    Red rises over the first three eighths of the range, green over the next three, blue over the last quarter;
    luminance rises throughout. A coloured image stays as it is.
    """

    backend = [TransformBackends.TORCH]

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Colour (1 | 3, ...) as (3, ...)."""
        if img.shape[0] == 3:
            return img
        return torch.cat([img * 8 / 3, img * 8 / 3 - 1, img * 4 - 3]).clamp(0, 1)


class SplitLuminance(Transform):
    """Part a (1 | 3, ...) image in [0, 1] into luminance (1, ...) and colour differences (3, ...), R - Y, G - Y, B - Y.

    The colour differences carry the same information as Cb and Cr (they are linear maps of each other), and adding
    one luminance to all three puts the colour back. A grey image has none: they are None.

    Raises:
        ValueError: for another number of channels.
    """

    backend = [TransformBackends.TORCH]

    def __call__(self, img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Split."""
        img = convert_to_tensor(img, track_meta=True)
        grey = luminance(img)
        return grey, (img - grey if img.shape[0] == 3 else None)


class MergeChroma(Transform):
    """Put the chroma of a coloured overlay on a fused luminance, inside the RGB range.

    Where luminance and chroma together would leave [0, 1], all three colour differences are scaled down by one factor:
    luminance is exact and hue is kept, only saturation gives way. Clipping the channels one by one would change both.
    """

    backend = [TransformBackends.TORCH]

    def __call__(  # type: ignore[override]
        self, luminance: torch.Tensor, chroma: torch.Tensor | None
    ) -> torch.Tensor:
        """Merge.

        Args:
            luminance: (1, ...) in [0, 1]; the metadata of the result is its.
            chroma: (3, ...), as :class:`SplitLuminance` gives it, or None for grey.

        Returns:
            (3, ...) in [0, 1], or the luminance itself where there is no chroma.
        """
        if chroma is None:
            return luminance
        colour = convert_to_tensor(chroma)
        bright = luminance.to(torch.result_type(luminance, colour))
        room = torch.where(colour > 0, 1 - bright, bright)
        tiny = torch.finfo(colour.dtype).tiny
        scale = (room / colour.abs().clamp(min=tiny)).amin(dim=0, keepdim=True).clamp(0, 1)
        return (bright + scale * colour).clamp(0, 1)


class HotColoursd(MapTransform):
    """Dictionary twin of :class:`HotColours`."""

    backend = HotColours.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.colour = HotColours()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Colour every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.colour(d[key])
        return d


class SplitLuminanced(MapTransform):
    """Dictionary twin of :class:`SplitLuminance`: each key keeps its luminance, ``{key}_chroma`` gets the rest."""

    backend = SplitLuminance.backend

    def __init__(self, keys: KeysCollection, chroma_postfix: str = "chroma", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.chroma_postfix = chroma_postfix
        self.split = SplitLuminance()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Split every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key], chroma = self.split(d[key])
            if chroma is not None:
                d[f"{key}_{self.chroma_postfix}"] = chroma
        return d


class MergeChromad(MapTransform):
    """Dictionary twin of :class:`MergeChroma`: ``output_key`` gets the key's luminance in the chroma of ``chroma_key``.

    Without that chroma the overlay was grey, and so is the output.
    """

    backend = MergeChroma.backend

    def __init__(
        self,
        keys: KeysCollection = "pred",
        chroma_key: str = "overlay_chroma",
        output_key: str = "fused",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.chroma_key = chroma_key
        self.output_key = output_key
        self.merge = MergeChroma()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Merge."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.output_key] = self.merge(d[key], d.get(self.chroma_key))
        return d
