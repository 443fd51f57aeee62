"""Palettes that PET and SPECT are shown in: colours of grey levels."""

from __future__ import annotations

import functools

import torch

from fusion_nets.clinical.dicom import palette_entries

__all__ = ["OF_ONE_TRACER", "OF_TRACERS", "palette_colours"]

OF_ONE_TRACER = "ember"
"""Palette that PET and SPECT get of themselves where nothing else is coloured. A tenth more uptake is always another
colour, at least 5 apart in CIELAB, on a dark anatomy and on a bright one; of "hot", on a bright one, a third of the
range is one pale red."""

OF_TRACERS = ("hot", "cold", "green")
"""Palettes that several get, the first that no other overlay has. Hot and cold lie apart along the
axis from yellow to blue, which those see, too, who cannot tell red from green; red and green make the yellow of hot."""

# red, green and blue of "ember" as cubics of the level, constant term first
_EMBER = ((0.495, 0.9, -0.447, -0.072), (0.13, 0.381, 0.549, -0.213), (0.325, 0.089, -0.621, 0.583))


def palette_colours(grey: torch.Tensor, palette: str) -> torch.Tensor:
    """A palette's own colours (3, ...) of a grey image (1, ...), both in [0, 1].

    Args:
        grey: the levels.
        palette: "hot_iron", "pet", "hot_metal_blue" or "pet_20_step", DICOM's well-known palettes (PS3.6 B.1), between
            whose entries colours are interpolated, but for the 20 steps;
            "ember", from black over crimson and orange to yellow: above a fifth, equal steps are nearly equal steps of
            CIELAB's lightness, 41 to 85, and hue, 12 to 102 degrees, at a chroma of 48 to 60; below, it fades away,
            so that what hardly takes anything up is hardly coloured;
            "hot", from black over red and yellow to white, red rising over the first three eighths of the range, green
            over the next three, blue over the last quarter; "cold", the same from black over blue and cyan;
            "green", of one hue.

    Examples:
        >>> palette_colours(torch.tensor([[0.0, 0.375, 0.75, 1.0]]), "hot")
        tensor([[0., 1., 1., 1.],
                [0., 0., 1., 1.],
                [0., 0., 0., 1.]])
    """
    if palette in ("hot", "cold"):
        ramps = [grey * 8 / 3, grey * 8 / 3 - 1, grey * 4 - 3]
        return torch.cat(ramps if palette == "hot" else ramps[::-1]).clamp(0, 1)
    if palette == "green":
        return torch.cat([torch.zeros_like(grey), grey.clamp(0, 1), torch.zeros_like(grey)])
    if palette == "ember":
        level = grey.clamp(0, 1)
        glow = (5 * level).clamp(max=1)
        return torch.cat([glow * (a + level * (b + level * (c + level * d))) for a, b, c, d in _EMBER])
    table = _table(palette).to(grey)
    last = len(table) - 1
    if palette == "pet_20_step":
        return table[(grey[0] * (last + 1)).long().clamp(0, last)].movedim(-1, 0)
    place = (grey[0] * last).clamp(0, last)
    below = place.long().clamp(max=last - 1)
    return torch.lerp(table[below], table[below + 1], (place - below)[..., None]).movedim(-1, 0)


@functools.cache
def _table(palette: str) -> torch.Tensor:
    """Entries (256, 3) of a well-known palette, in [0, 1]."""
    return torch.from_numpy(palette_entries(palette) / 255)
