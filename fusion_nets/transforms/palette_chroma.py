"""Chroma of a palette: what colours a grey tracer."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor

from fusion_nets.cautions import caution
from fusion_nets.clinical.dicom import PALETTES
from fusion_nets.clinical.quantities import UPTAKE
from fusion_nets.drawing.palettes import OF_ONE_TRACER, OF_TRACERS, palette_colours
from fusion_nets.overlays import as_list, each_of
from fusion_nets.slabs import slabwise

from .colour import luminance

__all__ = [
    "PaletteChroma",
    "PaletteChromaD",
    "PaletteChromaDict",
    "PaletteChromad",
]


class PaletteChroma(Transform):
    """The chroma of a palette for a grey image in [0, 1]; the image itself, whose luminance is fused, stays grey.

    Luminance must rise with uptake, for it is what is fused. That of a palette need not: it falls in parts of "pet" and
    "pet_20_step", so that a hot spot would be darker than warm tissue, and where it rises ("hot_iron",
    "hot_metal_blue", "hot"), it is bent. So the palette gives hue and saturation alone, for :class:`MergeChroma` to put
    on the fused luminance, which is the same under every palette and none. Most palettes end in white, which has
    no hue: on a grey anatomy the highest uptake would look like none. So 1 is the last saturated colour before that
    (yellow of "hot"), and what comes after it is left out.

    Args:
        palette: "ember", "hot", "cold", "green", or one of DICOM's, as
            :func:`fusion_nets.drawing.palettes.palette_colours` has them; "auto", ember for PET and SPECT, and none for
            others; None or "none" has no chroma.

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
        accepted = (*PALETTES, OF_ONE_TRACER, *OF_TRACERS, "auto", "none")
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
            return OF_ONE_TRACER if is_uptake else None
        return None if self.palette == "none" else self.palette


@functools.cache
def _saturated(palette: str) -> float:
    """Where a palette, of 0 to 1, has its last saturated colour before white, or its end."""
    shades = torch.linspace(0, 1, 256)[None]
    colours = palette_colours(shades, palette)
    saturation = colours.amax(0) - colours.amin(0)
    if saturation[-1] > 0:
        return 1.0
    return float(shades[0, saturation >= 0.95 * saturation.max()].max())


class PaletteChromad(MapTransform):
    """Dictionary twin of :class:`PaletteChroma`: ``{key}_chroma`` gets the chroma of a key that has none.

    It comes after :class:`SplitLuminanced`; ``meta["palette"]`` of the key says what was taken. Of several keys that
    are "auto", a tracer beside which nothing is coloured gets :data:`OF_ONE_TRACER`, of others each one of
    :data:`OF_TRACERS` that no other has; a palette that was asked for twice is warned of.

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
        grey = [f"{key}_{self.chroma_postfix}" not in d for key in keys]
        names = [one.named(d[key]) if is_grey else None for key, one, is_grey in zip(keys, chromas, grey, strict=True)]
        if sum(name is not None or not is_grey for name, is_grey in zip(names, grey, strict=True)) < 2:
            return chromas
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


PaletteChromaD = PaletteChromaDict = PaletteChromad
