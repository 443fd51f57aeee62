"""Maximum intensity projections of PET and SPECT, coronal and sagittal."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image, ImageDraw

from fusion_nets.clinical.errors import check_window
from fusion_nets.clinical.grids import affine_of, as_volume, on_cpu
from fusion_nets.files import whole_file
from fusion_nets.slabs import slabs

from .marks import CORONAL, SAGITTAL, draw_scale, draw_sides

__all__ = ["write_projections"]

HEIGHT = 720
"""Of the taller picture, in pixels."""

GAP, LINE = 24, 22
"""Between the pictures, and of the words below, in pixels."""


def write_projections(
    path: str | os.PathLike[str], image: MetaTensor, window: tuple[float, float] = (0.0, 1.0), words: str | None = None
) -> Path:
    """Draw the maximum along every line from front to back, and from side to side: coronal on the left, then sagittal.

    Inverted grey, as PET is read: white is nothing, black much uptake. Radiological display, whatever the order of the
    voxels; where they are oblique, the nearest. A large volume is gone through slab by slab.

    Args:
        path: the PNG to write; a file of this name is replaced.
        image: (1, H, W, D).
        window: what is shown white and black.
        words: what is said of the window; by default its values.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in .png, the image has colours or is a single slice, or for a window out of
            order.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: unknown ending; .png is accepted")
    if image.shape[0] != 1 or image.ndim != 4 or min(image.shape[1:]) < 2:
        raise ValueError(f"an image of size {tuple(image.shape)} has no projections; a grey volume is accepted")
    low, high = check_window(window, "the window of the projections")
    image = on_cpu(image)
    values, affine = as_volume(image)[0].numpy(), affine_of(image)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "A", "S")))
    spacing = voxel_sizes(affine @ inv_ornt_aff(turn, values.shape))
    scale = HEIGHT / (spacing[2] * values.shape[int(np.flatnonzero(turn[:, 0] == 2)[0])])
    pictures = []
    for plane in (CORONAL, SAGITTAL):
        axis = int(np.flatnonzero(turn[:, 0] == plane.through)[0])
        most = plane.lay(apply_orientation(np.expand_dims(_maxima(values, axis), axis), turn))[..., 0]
        grey = 1 - ((most.astype(np.float32) - low) / (high - low)).clip(0, 1)
        picture = Image.fromarray(np.ascontiguousarray(grey.T[::-1]))
        size = [max(round(n * spacing[a] * scale), 1) for n, a in zip(most.shape, (plane.right, plane.up), strict=True)]
        shown = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BILINEAR))
        made = Image.fromarray(np.rint(shown * 255).astype(np.uint8))
        draw_sides(made, plane.sides, 0, 255)
        draw_scale(made, scale, 0, 255)
        pictures.append(made)
    sheet = Image.new("L", (sum(p.width for p in pictures) + GAP, max(p.height for p in pictures) + LINE), 255)
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    said = f"Maximum intensity, {words or f'{low:.4g} to {high:.4g}'}"
    ImageDraw.Draw(sheet).text((6, sheet.height - LINE / 2), said, fill=0, anchor="lm", font_size=14)
    with whole_file(path) as partial:
        sheet.save(partial, format="PNG")
    return path


def _maxima(values: np.ndarray, axis: int) -> np.ndarray:
    """The greatest value along an axis of (X, Y, Z)."""
    parts = (values[..., slab] for slab in slabs(values.shape))
    if axis < 2:
        return np.concatenate([part.max(axis=axis) for part in parts], axis=-1)
    found = next(parts).max(axis=axis)
    for part in parts:
        np.maximum(found, part.max(axis=axis), out=found)
    return np.asarray(found)
