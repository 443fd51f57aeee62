"""Colour: luminance to fuse and chroma to keep, BT.601 full range (ITU-T T.871, section 7)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple

from fusion_nets.slabs import slabwise

__all__ = [
    "MergeChroma",
    "MergeChromaD",
    "MergeChromaDict",
    "MergeChromad",
    "SplitLuminance",
    "SplitLuminanceD",
    "SplitLuminanceDict",
    "SplitLuminanced",
    "luminance",
    "mixed_chroma",
    "room_for",
]

_WEIGHTS = (0.299, 0.587, 0.114)


def luminance(image: torch.Tensor) -> torch.Tensor:
    """BT.601 luminance of (3, ...) as (1, ...), in the range of the image; a (1, ...) image is its own."""
    if image.shape[0] == 1:
        return image
    if image.shape[0] != 3:
        raise ValueError(f"expected 1 (grey) or 3 (RGB) channels, got {image.shape[0]}")
    return slabwise(_weighted, image)


def _weighted(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = _WEIGHTS
    return red * image[0:1] + green * image[1:2] + blue * image[2:3]


class SplitLuminance(Transform):
    """Part a (1 | 3, ...) image in [0, 1] into luminance (1, ...) and colour differences (3, ...), R - Y, G - Y, B - Y.

    The colour differences carry the same information as Cb and Cr (they are linear maps of each other), and adding
    one luminance to all three puts the colour back. A grey image has none: they are None.

    Raises:
        ValueError: for another number of channels.

    Examples:
        >>> red = torch.tensor([1.0, 0, 0]).reshape(3, 1, 1)
        >>> grey, chroma = SplitLuminance()(red)
        >>> round(grey.item(), 3), [round(value, 3) for value in chroma.flatten().tolist()]
        (0.299, [0.701, -0.299, -0.299])
    """

    backend = [TransformBackends.TORCH]

    def __call__(self, img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Split."""
        img = convert_to_tensor(img, track_meta=True)
        grey = luminance(img)
        return grey, (slabwise(torch.sub, img, grey) if img.shape[0] == 3 else None)


class MergeChroma(Transform):
    """Put the chroma of a coloured overlay on a fused luminance, inside the RGB range.

    Where luminance and chroma together would leave [0, 1], all three colour differences are scaled down by one factor:
    luminance is exact and hue is kept, only saturation gives way. Clipping the channels one by one would change both.

    Examples:
        >>> grey, chroma = SplitLuminance()(torch.tensor([0.8, 0.4, 0.2]).reshape(3, 1, 1))
        >>> [round(value, 3) for value in MergeChroma()(grey, chroma).flatten().tolist()]
        [0.8, 0.4, 0.2]
    """

    backend = [TransformBackends.TORCH]

    def __call__(  # type: ignore[override]
        self, luminance: torch.Tensor, chroma: torch.Tensor | None
    ) -> torch.Tensor:
        """Merge.

        Args:
            luminance: (1, ...) in [0, 1]; the metadata of the result is its.
            chroma: (3, ...), as :class:`SplitLuminance` gives it, on any device, or None for grey.

        Returns:
            (3, ...) in [0, 1] on the luminance's device, or the luminance itself where there is no chroma.
        """
        if chroma is None:
            return luminance
        return slabwise(_merged, luminance, convert_to_tensor(chroma, device=luminance.device))


def _merged(luminance: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    bright = luminance.to(torch.result_type(luminance, colour))
    return (bright + room_for(colour, bright) * colour).clamp(0, 1)


def room_for(colour: torch.Tensor, luminance: torch.Tensor) -> torch.Tensor:
    """How much of colour differences (3, ...) a luminance (1, ...) has room for inside the RGB range, (1, ...) to 1."""
    up, down = (end.amax(0, keepdim=True).clamp(min=torch.finfo(end.dtype).tiny) for end in (colour, -colour))
    return torch.minimum((1 - luminance) / up, luminance / down).clamp(0, 1)


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


def mixed_chroma(data: Mapping[Hashable, Any], keys: Sequence[str], postfix: str = "chroma") -> torch.Tensor | None:
    """The chroma of overlays laid on each other: of the only coloured one its own, of several their light mixed.

    Each has its luminance under its key and its chroma, (3, ...), as :class:`SplitLuminance` gives it, under
    ``{key}_chroma``; one without that is grey and colours nothing. A chroma stands for the purest colour that has it,
    the one without white in it. These colours are mixed as lights are (Grassmann's laws: additive mixture, in linear
    light, IEC 61966-2-1), each by its luminance. So where one overlay alone is not black, its own colour is seen; which
    overlay comes first makes no difference; and complementary colours of equal strength become grey.

    Args:
        data: with these keys.
        keys: the overlays.
        postfix: of where the chroma lies.

    Returns:
        (3, ...), or None where no overlay is coloured.

    Examples:
        >>> pair = {"overlay": torch.full((1, 1, 2), 0.5), "overlay2": torch.tensor([[[0.0, 0.5]]])}
        >>> for key, palette in (("overlay", "hot"), ("overlay2", "cold")):
        ...     pair[f"{key}_chroma"] = PaletteChroma(palette)(torch.full((1, 1, 2), 0.25))
        >>> mixed = mixed_chroma(pair, ["overlay", "overlay2"])
        >>> torch.allclose(mixed[:, 0, 0], pair["overlay_chroma"][:, 0, 0], atol=1e-6)
        True
        >>> (mixed[0, 0, 1] == mixed[2, 0, 1]).item()  # as much blue as red
        True
    """
    coloured = [key for key in keys if data.get(f"{key}_{postfix}") is not None]
    if len(coloured) < 2:
        return data[f"{coloured[0]}_{postfix}"] if coloured else None
    chromas = [convert_to_tensor(data[f"{key}_{postfix}"], track_meta=False) for key in coloured]
    weights = [convert_to_tensor(data[key], track_meta=False).to(chromas[0]) for key in coloured]
    return slabwise(_mixed, *chromas, *weights)


def _mixed(*chromas_and_weights: torch.Tensor) -> torch.Tensor:
    half = len(chromas_and_weights) // 2
    chromas, weights = chromas_and_weights[:half], chromas_and_weights[half:]
    total = torch.stack(weights).sum(0)
    pure = (_linear((chroma - chroma.amin(0, keepdim=True)).clamp(0, 1)) for chroma in chromas)
    light = torch.stack([weight * colour for weight, colour in zip(weights, pure, strict=True)]).sum(0)
    # where all are black, there is no light to mix
    colours = _encoded(light / torch.where(total > 0, total, 1))
    return colours - luminance(colours)


def _linear(encoded: torch.Tensor) -> torch.Tensor:
    """Light of values of sRGB, both in [0, 1]."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _encoded(light: torch.Tensor) -> torch.Tensor:
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


class MergeChromad(MapTransform):
    """Dictionary twin of :class:`MergeChroma`: ``output_key`` gets the key's luminance in the chroma of the overlays.

    Without any, the overlays were grey, and so is the output. Of several that are coloured, see :func:`mixed_chroma`.

    Args:
        keys: the fused luminance.
        chroma_key: where the overlay's chroma lies; or a list, of several overlays, each of which has its luminance
            under the same name without "_chroma".
        output_key: of the result.
        allow_missing_keys: merge those that are there.
    """

    backend = MergeChroma.backend

    def __init__(
        self,
        keys: KeysCollection = "pred",
        chroma_key: str | Sequence[str] = "overlay_chroma",
        output_key: str = "fused",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.chroma_keys = ensure_tuple(chroma_key)
        self.output_key = output_key
        self.merge = MergeChroma()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Merge."""
        d = dict(data)
        if len(self.chroma_keys) == 1:
            chroma = d.get(self.chroma_keys[0])
        else:
            chroma = mixed_chroma(d, [key.removesuffix("_chroma") for key in self.chroma_keys])
        for key in self.key_iterator(d):
            d[self.output_key] = self.merge(d[key], chroma)
        return d


MergeChromaD = MergeChromaDict = MergeChromad
SplitLuminanceD = SplitLuminanceDict = SplitLuminanced
