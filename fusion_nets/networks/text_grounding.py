"""Where in an image lies what a text names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["TextGrounding"]


class TextGrounding(nn.Module):
    """Find in an image what a text names: phrase grounding, trained on simulation, where the truth is known.

    Each finding is looked for by what it is (differences of Gaussians show blobs of its tone) and by where it is said
    to lie (each pixel knows its place in what the image shows). Where nothing that is there is named, nothing is found.

    Args:
        text_width: D, the figures of a finding as :class:`fusion_nets.text.FindingEncoder` gives them, the tone first.
        widths: channels of half and of a quarter of the image's size.
        place_width: channels of what is known of the place.
        threshold: what is less sure than this is not found at all.

    Raises:
        ValueError: for a threshold outside 0 to 1.
    """

    def __init__(
        self,
        text_width: int = 30,
        widths: Sequence[int] = (24, 48),
        place_width: int = 16,
        threshold: float = 0.2,
    ) -> None:
        super().__init__()
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold}; 0 to below 1 is accepted")
        fine, coarse = widths
        self.text_width = text_width
        self.threshold = threshold
        self.sigmas = [1.0, 2.0, 4.0, 8.0]
        self.said = nn.Linear(text_width, place_width)
        self.place = nn.Sequential(
            nn.Conv2d(10 + place_width, 48, 1),
            nn.SiLU(),
            nn.Conv2d(48, 48, 1),
            nn.SiLU(),
            nn.Conv2d(48, place_width, 1),
        )
        self.fine = _block(len(self.sigmas) + 1, fine)
        self.coarse = _block(fine, coarse)
        self.after = _block(coarse + place_width, coarse)
        self.decoder = _block(fine + coarse, fine)
        self.head = nn.Conv2d(fine, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, -3.0)  # little of an image is named

    def find(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Where what is named lies: (B, 1, H, W) from 0 to 1, 0 where this is not sure. As of :meth:`forward`."""
        sure = torch.sigmoid(self.forward(image, text, text_mask).float())
        return ((sure - self.threshold) / (1 - self.threshold)).clamp_min(0)

    def forward(self, image: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
        """Look for what is named.

        Args:
            image: (B, 1, H, W) in [0, 1].
            text: (B, L, D), the findings that a text on each names, in figures.
            text_mask: (B, L), true where there is a finding.

        Returns:
            (B, 1, H, W), how sure it is, as logits; of several findings the surest, of none -20.
        """
        height, width = image.shape[2:]
        padded = F.pad(image, [0, -width % 4, 0, -height % 4], mode="replicate")
        half = F.avg_pool2d(padded, 2)
        blobs, narrower = [half - half.mean(dim=(2, 3), keepdim=True)], half
        for sigma in self.sigmas:
            wider = blurred(half, sigma)
            blobs.append(4 * (narrower - wider))
            narrower = wider
        shown, places = torch.cat(blobs, dim=1), _places(F.avg_pool2d(half, 2))
        if torch.jit.is_tracing() or text.shape[1] == 0:  # a graph has one more place than texts, which names nothing
            nothing = image.new_zeros([image.shape[0], 1, self.text_width])
            text = torch.cat([nothing.to(text.dtype), text], dim=1)
            text_mask = torch.cat([nothing[..., 0] > 0, text_mask > 0], dim=1)
        # every finding is an image of its own
        batch, count = text.shape[0], text.shape[1]
        finding = text.flatten(0, 1)
        shown, places = _for_each(shown, count), _for_each(places, count)
        tone = finding[:, :1, None, None]
        fine = self.fine(torch.where(tone == 0, shown.abs(), shown * tone))
        said = self.said(finding)[:, :, None, None].expand(-1, -1, places.shape[2], places.shape[3])
        there = self.place(torch.cat([places.to(said.dtype), said], dim=1))
        x = self.after(torch.cat([self.coarse(F.avg_pool2d(fine, 2)), there], dim=1))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        x = self.head(self.decoder(torch.cat([fine, x], dim=1)))
        # the first of the place's channels says outright where a finding cannot lie
        x = x + F.interpolate(there[:, :1], scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :height, :width]
        sure = x.reshape(batch, count, 1, height, width)
        named = (text_mask > 0)[:, :, None, None, None]
        return torch.where(named, sure, torch.full_like(sure, -20.0)).amax(dim=1)


def _for_each(maps: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C, h, w) -> (B count, C, h, w), each so many times."""
    return maps[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)


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


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """(B, 1, H, W) by a Gaussian, the border repeated."""
    reach = int(3 * sigma)
    offset = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-(offset**2) / (2 * sigma**2))
    window = window / window.sum()
    padded = F.pad(image, [reach, reach, reach, reach], mode="replicate")
    return F.conv2d(F.conv2d(padded, window[None, None, :, None]), window[None, None, None, :])
