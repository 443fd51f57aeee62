"""Where in an image lies what a text names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["TextGrounding"]

_SIZES = 3
"""Small, middling and large."""

_LONGEST = 384
"""Pixels along the longest image that is searched as it is; heads of 256 x 256 were learnt from, about 1 mm a pixel."""


class TextGrounding(nn.Module):
    """Find in an image what a text names: phrase grounding, trained on simulation, where the truth is known.

    A UNet looks for whatever stands out at each place, bright or dark, of three sizes: it sees blobs
    (differences of Gaussians) and what the other side of the head shows there. What a text says of a finding then
    chooses among them: its tone, its size, and where it is said to lie (each pixel knows its place in what the image
    shows). Where nothing that is there is named, nothing is found.

    Args:
        text_width: D, the figures of a finding as :class:`fusion_nets.text.FindingEncoder` gives them, the tone first.
        widths: channels from half of the image's size on, each level half the size of the one before; multiples of 8.
        said_width: channels of what is said of a finding.
        threshold: a finding of whose surest pixel it is less sure than this is not found at all.

    Raises:
        ValueError: for a threshold outside 0 to 1, or fewer than two levels.
    """

    def __init__(
        self,
        text_width: int = 30,
        widths: Sequence[int] = (32, 64, 96, 96),
        said_width: int = 48,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}; 0 to below 1 is accepted")
        if len(widths) < 2:
            raise ValueError(f"widths are {list(widths)}; two or more are accepted")
        self.text_width = text_width
        self.threshold = threshold
        self.longest = _LONGEST
        self.sigmas = [1.0, 2.0, 4.0, 8.0]
        self.multiple = 2 ** len(widths)
        shown = 2 * (len(self.sigmas) + 1) + 1
        finer, coarser = widths[:-1], widths[1:]
        self.down = nn.ModuleList(_Block(inputs, width) for inputs, width in zip((shown, *finer), widths, strict=True))
        self.up = nn.ModuleList(
            _Block(below + width, width) for width, below in reversed(list(zip(finer, coarser, strict=True)))
        )
        self.head = nn.Conv2d(widths[0], _SIZES, 3, padding=1)
        nn.init.constant_(self.head.bias, -4.0)  # little of an image stands out
        self.said = nn.Sequential(
            nn.Linear(text_width, said_width), nn.SiLU(), nn.Linear(said_width, said_width), nn.SiLU()
        )
        self.size = nn.Linear(said_width, _SIZES)
        self.place = nn.Sequential(
            nn.Conv2d(10 + said_width, 64, 1), nn.SiLU(), nn.Conv2d(64, 64, 1), nn.SiLU(), nn.Conv2d(64, 1, 1)
        )

    def find(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Where what is named lies: (B, 1, H, W) from 0 to 1, 0 throughout for what is not sure. As of :meth:`forward`.

        The surest pixel of a finding says whether it is there, and how sure others are beside it where it lies. Finer
        grids than those it learnt from (longer than 384 pixels) are searched at a half, a third and so on of their
        size; a traced graph searches what it is given.
        """
        coarser = 1 if torch.jit.is_tracing() else -(-max(image.shape[2], image.shape[3]) // self.longest)
        if coarser == 1:
            return self._found(image, text, text_mask)
        shown = F.interpolate(image, size=[-(-image.shape[2] // coarser), -(-image.shape[3] // coarser)], mode="area")
        return _sized(self._found(shown, text, text_mask), image)

    def _found(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        sure = torch.sigmoid(self._each(image, text, text_mask)[:, :, :1].float())
        surest = sure.amax(dim=(3, 4), keepdim=True)
        there = (4 * (surest - self.threshold) / (1 - self.threshold)).clamp(0, 1)
        return (there * (5 * sure / surest.clamp_min(1e-6) - 3).clamp(0, 1)).amax(dim=1)

    def forward(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Look for what is named.

        Args:
            image: (B, 1, H, W) in [0, 1].
            text: (B, L, D), the findings that a text on each names, in figures.
            text_mask: (B, L), true where there is a finding.

        Returns:
            (B, 2, H, W), logits: how sure it is of what is named, and of what has such a tone and size wherever it
            lies; of several findings the surest, of none -20.
        """
        return self._each(image, text, text_mask).amax(dim=1)

    def _each(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """(B, L, 2, H, W), how sure it is of each finding, as logits; L is 1 at least."""
        height, width = image.shape[2:]
        if torch.jit.is_tracing() or text.shape[1] == 0:  # a graph has one more place than texts, which names nothing
            nothing = image.new_zeros([image.shape[0], 1, self.text_width])
            text = torch.cat([nothing.to(text.dtype), text], dim=1)
            text_mask = torch.cat([nothing[..., 0] > 0, text_mask > 0], dim=1)
        padded = F.pad(image, [0, -width % self.multiple, 0, -height % self.multiple], mode="replicate")
        half = F.avg_pool2d(padded, 2)
        shown = self._shown(half)
        out = self._standing_out(torch.cat([shown, -shown]), half.repeat(2, 1, 1, 1))
        bright, dark = out.unsqueeze(1).chunk(2)  # (B, 1, sizes, h, w)
        tone = text[:, :, :1, None, None]
        of_tone = torch.where(tone > 0, bright, torch.where(tone < 0, dark, torch.maximum(bright, dark)))
        said = self.said(text)
        anywhere = torch.logsumexp(of_tone + self.size(said)[..., None, None], dim=2, keepdim=True)
        sure = torch.cat([anywhere + self._where(half, said), anywhere], dim=2)
        sure = F.interpolate(sure.flatten(0, 1), scale_factor=2.0, mode="bilinear", align_corners=False)
        sure = sure[..., :height, :width].reshape(text.shape[0], text.shape[1], 2, height, width)
        named = (text_mask > 0)[:, :, None, None, None]
        return torch.where(named, sure, torch.full_like(sure, -20.0))

    def _shown(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, h, w) -> (B, 2 (sigmas + 1), h, w): bands from fine to coarse, each of the image and its mirror."""
        both = torch.cat([image, _mirrored(image)], dim=1)
        bands, narrower = [], both
        for sigma in self.sigmas:
            wider = blurred(both.flatten(0, 1)[:, None], sigma).reshape(both.shape)
            bands.append(4 * (narrower - wider))
            narrower = wider
        bands.append(narrower - image.mean(dim=(2, 3), keepdim=True))
        return torch.cat(bands, dim=1)

    def _standing_out(self, shown: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and (B, 1, h, w) -> (B, sizes, h, w), what stands out brightly, of each size, as logits."""
        x = torch.cat([shown, half], dim=1)
        levels: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            levels.append(x)
        for level, block in enumerate(self.up):
            beside = levels[-2 - level]
            x = block(torch.cat([_sized(x, beside), beside], dim=1))
        return self.head(x)

    def _where(self, half: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """(B, 1, h, w) and (B, L, C) -> (B, L, 1, h, w), how well each place is the one that is said, as logits."""
        places = _places(F.avg_pool2d(half, min(4, self.multiple // 2)))
        batch, count, height, width = said.shape[0], said.shape[1], places.shape[2], places.shape[3]
        places = places[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1).to(said.dtype)
        everywhere = said.flatten(0, 1)[:, :, None, None].expand(-1, -1, height, width)
        where = _sized(self.place(torch.cat([places, everywhere], dim=1)), half)
        return where.reshape(batch, count, 1, half.shape[2], half.shape[3])


class _Block(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
        )
        self.around = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.around(x) + self.body(x)


def _sized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


def _mirrored(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, h, w), mirrored about the middle of what it shows; black where that lies outside."""
    shown = (image > 0.06).to(torch.float32) + 1e-4
    columns = torch.arange(image.shape[3], dtype=torch.float32, device=image.device) + 0.5
    middle = (shown * columns).sum(dim=(1, 2, 3)) / shown.sum(dim=(1, 2, 3))
    comes_from = 2 * middle[:, None, None] - columns[None, None, :]
    share = (1 - (comes_from - columns[None, :, None]).abs()).clamp_min(0)  # (B, of, to), of the two columns beside it
    return image @ share[:, None].to(image.dtype)


def _places(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, h, w) -> (B, 10, h, w): where a pixel lies in what the image shows, down and across, and waves of both."""
    shown = (image > 0.06).to(torch.float32) + 1e-4
    places = []
    for axis in (2, 3):
        size = image.shape[axis]
        line = (torch.arange(size, dtype=torch.float32, device=image.device) + 0.5) / size
        line = line[None, None, :, None] if axis == 2 else line[None, None, None, :]
        total = shown.sum(dim=(1, 2, 3), keepdim=True)
        middle = (shown * line).sum(dim=(1, 2, 3), keepdim=True) / total
        spread = ((shown * (line - middle).square()).sum(dim=(1, 2, 3), keepdim=True) / total).sqrt().clamp_min(0.02)
        place = ((line - middle) / (2 * spread)).expand_as(image).clamp(-2, 2)  # about -1 to 1 within a head
        places += [place, torch.sin(1.5 * place), torch.cos(1.5 * place), torch.sin(3 * place), torch.cos(3 * place)]
    return torch.cat(places, dim=1)


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, 1, H, W) by a Gaussian, the border repeated."""
    reach = int(3 * sigma)
    offset = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-(offset**2) / (2 * sigma**2))
    window = window / window.sum()
    padded = F.pad(image, [reach, reach, reach, reach], mode="replicate")
    return F.conv2d(F.conv2d(padded, window[None, None, :, None]), window[None, None, None, :])
