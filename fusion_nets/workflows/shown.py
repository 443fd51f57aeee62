"""What of an image goes through a network together: slices and the box that show anything, and tiles of a large one."""

from __future__ import annotations

import torch

from fusion_nets.slabs import slabs

__all__ = ["Box", "shown_box", "shows", "tiles"]

Box = tuple[slice, slice]
"""Rows and columns."""

_LEAST = 64
"""Pixels of a side at least: what a network of five levels pads smaller images to."""

_WORTH = 0.9
"""Of an image's pixels: a larger box saves nothing."""


_LEAST_TILE = 256
"""Pixels of a tile's side at least: below, the margins would take more than the tile."""


def shows(slices: torch.Tensor) -> torch.Tensor:
    """Which of the slices (N, C, H, W) are not black all over: (N,).

    Black is 0, the low end of the display range; a grey that is the same everywhere is not, for it may have been
    measured.
    """
    return (slices != 0).flatten(1).any(dim=1)


def shown_box(image: torch.Tensor, margin: int, stride: int) -> Box | None:
    """Find the box in which any source of any slice is not black, and so much around it.

    Args:
        image: (B, C, H, W[, D]).
        margin: pixels around what shows.
        stride: of which rows and columns begin and end at multiples, or at the image's border, so that a network that
            halves sizes halves them as it does the image's.

    Returns:
        Rows and columns; None where this saves next to nothing, or nothing shows.
    """
    plane = torch.zeros(image.shape[2:4], dtype=torch.bool, device=image.device)
    for part in slabs(image.shape) if image.ndim == 5 else (slice(None),):
        there = (image[..., part] != 0).flatten(4).any(dim=4) if image.ndim == 5 else image != 0
        plane |= there.flatten(0, 1).any(dim=0)
    if not plane.any():
        return None
    rows, columns = (_range(plane.any(dim=1 - axis), margin, stride) for axis in (0, 1))
    share = (rows.stop - rows.start) * (columns.stop - columns.start) / plane.numel()
    return None if share > _WORTH else (rows, columns)


def _range(line: torch.Tensor, margin: int, stride: int) -> slice:
    """Of a line (N,) that is true where something shows."""
    size, found = len(line), torch.nonzero(line)
    first, last = int(found[0]), int(found[-1]) + 1
    start = max(min(first - margin, size - _LEAST), 0) // stride * stride
    stop = -(-max(last + margin, start + _LEAST) // stride) * stride
    return slice(start, min(stop, size))


def tiles(box: Box, margin: int, stride: int, most: int) -> list[tuple[Box, Box]]:
    """Cut a box into tiles that are fused one after another, and leave no seam.

    Args:
        box: rows and columns, which begin at multiples of the stride.
        margin: pixels around one that its result depends on.
        stride: of which tiles begin at multiples, so that a network halves them as it does the whole.
        most: pixels of a tile with its margin; more only where it would have less than 256 x 256 without.

    Returns:
        Each tile, and what of the box has to be looked at for it; together the tiles are the box.
    """
    margin = -(-margin // stride) * stride
    counts = [1, 1]
    while True:
        rows, columns = (_parts(side, count, margin, stride) for side, count in zip(box, counts, strict=True))
        if max(_size(seen) for _, seen in rows) * max(_size(seen) for _, seen in columns) <= most:
            break
        longest = [_size(side) / count for side, count in zip(box, counts, strict=True)]
        if max(longest) < 2 * _LEAST_TILE:
            break
        counts[longest.index(max(longest))] += 1
    return [((down, across), (below, beside)) for down, below in rows for across, beside in columns]


def _parts(side: slice, count: int, margin: int, stride: int) -> list[tuple[slice, slice]]:
    """Of one size with their margins, but for the last: what an engine has made room for serves the next one, too."""
    each = -(-(_size(side) + (count - 1) * 2 * margin) // (count * stride)) * stride
    starts = range(side.start, side.stop - 2 * margin, each - 2 * margin) if count > 1 else (side.start,)
    cuts = [side.start, *(start + margin for start in starts[1:]), side.stop]
    return [(slice(cuts[k], cuts[k + 1]), slice(start, min(start + each, side.stop))) for k, start in enumerate(starts)]


def _size(part: slice) -> int:
    return part.stop - part.start
