"""Colour: luminance to fuse and chroma to keep, BT.601 full range (ITU-T T.871, section 7)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple

from fusion_nets.cautions import caution
from fusion_nets.clinical.dicom import PALETTES, palette_entries
from fusion_nets.clinical.quantities import UPTAKE
from fusion_nets.overlays import as_list, each_of
from fusion_nets.slabs import slabwise

__all__ = [
    "MergeChroma",
    "MergeChromaD",
    "MergeChromaDict",
    "MergeChromad",
    "PaletteChroma",
    "PaletteChromaD",
    "PaletteChromaDict",
    "PaletteChromad",
    "SplitLuminance",
    "SplitLuminanceD",
    "SplitLuminanceDict",
    "SplitLuminanced",
    "luminance",
    "mixed_chroma",
    "palette_colours",
    "room_for",
]

_WEIGHTS = (0.299, 0.587, 0.114)

OF_TRACERS = ("hot", "cold", "green")
"""Palettes that PET and SPECT get of themselves, the first that no other overlay has. Hot and cold lie apart along the
axis from yellow to blue, which those see, too, who cannot tell red from green; red and green make the yellow of hot."""


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


class PaletteChroma(Transform):
    """The chroma of a palette for a grey image in [0, 1]; the image itself, whose luminance is fused, stays grey.

    Luminance must rise with uptake, for it is what is fused. That of a palette need not: it falls in parts of "pet" and
    "pet_20_step", so that a hot spot would be darker than warm tissue, and where it rises ("hot_iron",
    "hot_metal_blue", "hot"), it is bent. So the palette gives hue and saturation alone, for :class:`MergeChroma` to put
    on the fused luminance, which is the same under every palette and none. All these palettes end in white, which has
    no hue: on a grey anatomy the highest uptake would look like none. So 1 is the last saturated colour before that
    (yellow of "hot"), and what comes after it is left out.

    Args:
        palette: "hot_iron", "pet", "hot_metal_blue" or "pet_20_step", DICOM's well-known palettes (PS3.6 B.1);
            "hot", from black over red and yellow to white, red rising over the first three eighths of the range, green
            over the next three, blue over the last quarter; "cold", the same from black over blue and cyan, for a
            second tracer; "green", of one hue, for a third; "auto", hot for PET and SPECT, for its hue tells most
            levels apart and rises from red to yellow, and none for others;
            None or "none" has no chroma. Colours between two entries are interpolated, but for the 20 steps.

    Raises:
        ValueError: for another palette.

    Examples:
        >>> chroma = PaletteChroma("hot")(torch.full((1, 1, 1), 0.5))
        >>> (chroma[0] > chroma[2]).item()  # of middle uptake the red is stronger than the blue
        True
        >>> PaletteChroma("none")(torch.rand(1, 2, 2)) is None
        True
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, palette: str | None = "auto") -> None:
        accepted = (*PALETTES, *OF_TRACERS, "auto", "none")
        if palette is not None and palette not in accepted:
            raise ValueError(f"palette is {palette!r}; accepted are {', '.join(accepted)}")
        self.palette = palette

    def __call__(self, img: torch.Tensor) -> torch.Tensor | None:
        """Colour differences (3, ...) of (1, ...), as :class:`SplitLuminance` gives them; None without a palette."""
        palette = self.named(img)
        if palette is None:
            return None
        grey = convert_to_tensor(img, track_meta=False)

        def chroma(part: torch.Tensor) -> torch.Tensor:
            colours = palette_colours(part * _saturated(palette), palette)
            return colours - luminance(colours)

        return slabwise(chroma, grey)

    def named(self, img: torch.Tensor) -> str | None:
        """The palette that an image gets."""
        if self.palette == "auto":
            meta = getattr(img, "meta", {})
            is_uptake = meta.get("modality") in ("PT", "NM") or meta.get("units") in UPTAKE
            return OF_TRACERS[0] if is_uptake else None
        return None if self.palette == "none" else self.palette


def palette_colours(grey: torch.Tensor, palette: str) -> torch.Tensor:
    """A palette's own colours (3, ...) of a grey image (1, ...), both in [0, 1]; see :class:`PaletteChroma`."""
    if palette in ("hot", "cold"):
        ramps = [grey * 8 / 3, grey * 8 / 3 - 1, grey * 4 - 3]
        return torch.cat(ramps if palette == "hot" else ramps[::-1]).clamp(0, 1)
    if palette == "green":
        return torch.cat([torch.zeros_like(grey), grey.clamp(0, 1), torch.zeros_like(grey)])
    table = _table(palette).to(grey)
    last = len(table) - 1
    if palette == "pet_20_step":
        return table[(grey[0] * (last + 1)).long().clamp(0, last)].movedim(-1, 0)
    place = (grey[0] * last).clamp(0, last)
    below = place.long().clamp(max=last - 1)
    return torch.lerp(table[below], table[below + 1], (place - below)[..., None]).movedim(-1, 0)


@functools.cache
def _saturated(palette: str) -> float:
    """Where a palette, of 0 to 1, has its last saturated colour."""
    shades = torch.linspace(0, 1, 256)[None]
    colours = palette_colours(shades, palette)
    saturation = colours.amax(0) - colours.amin(0)
    return float(shades[0, saturation >= 0.95 * saturation.max()].max())


@functools.cache
def _table(palette: str) -> torch.Tensor:
    """Entries (256, 3) of a well-known palette, in [0, 1]."""
    return torch.from_numpy(palette_entries(palette) / 255)


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


class PaletteChromad(MapTransform):
    """Dictionary twin of :class:`PaletteChroma`: ``{key}_chroma`` gets the chroma of a key that has none.

    It comes after :class:`SplitLuminanced`; ``meta["palette"]`` of the key says what was taken. Of several keys that
    are "auto", each gets one of :data:`OF_TRACERS` that no other has; a palette that was asked for twice is warned of.

    Args:
        keys: the overlays.
        palette: as :class:`PaletteChroma` takes it; or a list, one for each key that is there.
        chroma_postfix: of where the chroma goes.
        allow_missing_keys: pass over keys that are not there.
        name_key: whose value a warning names.
    """

    backend = PaletteChroma.backend

    def __init__(
        self,
        keys: KeysCollection,
        palette: str | Sequence[str | None] | None = "auto",
        chroma_postfix: str = "chroma",
        allow_missing_keys: bool = False,
        name_key: str = "name",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.chroma_postfix = chroma_postfix
        self.option = f"{self.keys[0]}_palette"  # as configurations and commands call it
        self.chromas = [PaletteChroma(one) for one in as_list("palette", palette)]
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Give every grey key its chroma."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        for key, chroma in zip(keys, self._apart(d, keys), strict=True):
            chroma_key = f"{key}_{self.chroma_postfix}"
            if chroma_key in d:
                if len(keys) > 1:
                    d[key] = MetaTensor(d[key], meta={**getattr(d[key], "meta", {}), "colour": "its own"})
                continue
            made = chroma(d[key])
            if made is not None:
                d[chroma_key] = made
                d[key] = MetaTensor(d[key], meta={**getattr(d[key], "meta", {}), "palette": chroma.named(d[key])})
        return d

    def _apart(self, d: Mapping[Hashable, Any], keys: Sequence[Hashable]) -> list[PaletteChroma]:
        """The palette of each key, another one where several would choose the same."""
        chromas = each_of(self.option, self.chromas, len(keys))
        if len(keys) < 2:
            return chromas
        grey = [f"{key}_{self.chroma_postfix}" not in d for key in keys]
        names = [one.named(d[key]) if is_grey else None for key, one, is_grey in zip(keys, chromas, grey, strict=True)]
        taken = {name for name, one in zip(names, chromas, strict=True) if one.palette != "auto"}
        for i, one in enumerate(chromas):
            if one.palette == "auto" and names[i] is not None:
                names[i] = next(name for name in OF_TRACERS if name not in taken)
                taken.add(names[i])
        for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
            alike = " and ".join(str(key) for key, own in zip(keys, names, strict=True) if own == name)
            words = "%s both have the palette %s, so that their colours cannot be told apart; one for each is accepted"
            caution(logging.getLogger(__name__), d.get(self.name_key, "pair"), words, alike, name)
        return [PaletteChroma(name) for name in names]


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
PaletteChromaD = PaletteChromaDict = PaletteChromad
SplitLuminanceD = SplitLuminanceDict = SplitLuminanced
