"""A picture to judge a registration by: two images in alternating fields."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image, ImageDraw

from fusion_nets.clinical.grids import affine_of, as_volume, check_same_grid, on_cpu, thinned
from fusion_nets.clinical.modalities import MODALITY_NAMES
from fusion_nets.clinical.quantities import MEASURED
from fusion_nets.files import whole_file
from fusion_nets.registration import foreground, selected
from fusion_nets.registration.plausibility import ENOUGH
from fusion_nets.slabs import release

from .marks import AXIAL, CORONAL, SAGITTAL, Plane, draw_scale, draw_sides

__all__ = ["write_checkerboard"]

HEIGHT = 480
"""Of the tallest plane, in pixels."""

FIELDS = 8
"""Along the longest edge of the planes."""

MARGIN = 10.0
"""Around the patient, in mm."""

TINT = np.array([1.0, 0.8, 0.5], dtype=np.float32)
"""Of the overlay, so that the fields tell which image they show."""

PERCENTILES = (1, 99)
"""Inside the patient, shown black and white."""

YELLOW, BLACK = (255, 255, 0), (0, 0, 0)

LINE = 20
"""Of the words below, in pixels."""


def write_checkerboard(path: str | os.PathLike[str], anatomy: MetaTensor, overlay: MetaTensor) -> Path:
    """Draw axial, coronal and sagittal plane through the middle of the patient, fields of both images in turn.

    Grey fields show the anatomy, yellowish ones the overlay: where the images fit, contours run on from field to field.
    Radiological display, whatever the order of the voxels; where they are oblique, the nearest. A single slice
    has one plane. Letters tell the sides, a bar the scale, and words below what is shown black and white.

    Args:
        path: the PNG to write; a file of this name is replaced.
        anatomy: (1, H, W[, D]).
        overlay: likewise, on the same grid.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in .png, or an image has colours.
        ImageError: if the images do not lie on one grid.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: unknown ending; .png is accepted")
    if anatomy.shape[0] != 1 or overlay.shape[0] != 1:
        raise ValueError(f"images of {anatomy.shape[0]} and {overlay.shape[0]} channels; grey images are accepted")
    anatomy, overlay = on_cpu(anatomy), on_cpu(overlay)
    check_same_grid(overlay, anatomy)
    affine = affine_of(anatomy)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "A", "S")))
    whole = [as_volume(image) for image in (anatomy, overlay)]
    coarse = [thinned(image, ENOUGH) for image in whole]  # enough to see where the patient is, and how bright
    content = foreground(coarse[0])
    ranges = [_range(image[0].numpy(), content) for image in coarse]
    volumes = [apply_orientation(image[0].numpy(), turn) for image in whole]
    spacing = voxel_sizes(affine @ inv_ornt_aff(turn, whole[0].shape[1:]))
    box, middle = _box(content, affine_of(coarse[0]), affine_of(whole[0]), turn, volumes[0].shape)
    extent = np.array([part.stop - part.start for part in box]) * spacing
    pixels_per_mm = HEIGHT / extent.max()
    pictures = [
        _plane(volumes, ranges, box, middle, spacing, pixels_per_mm, plane)
        for plane in (AXIAL, CORONAL, SAGITTAL)
        if min(extent[[plane.right, plane.up]] / spacing[[plane.right, plane.up]]) > 1
    ]
    height = max(p.height for p in pictures)
    sheet = Image.new("RGB", (sum(p.width for p in pictures), height + 2 * LINE))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, (height - picture.height) // 2))
        left += picture.width
    tints: tuple[np.ndarray, ...] = (np.ones(3), TINT)
    for line, (name, image, (low, high), tint) in enumerate(
        zip(("Grey", "Yellow"), (anatomy, overlay), ranges, tints, strict=True)
    ):
        words = f"{name}: {_words(image)}{low:.3g} to {high:.3g} {_units(image)}".strip()
        ink = tuple(int(255 * part) for part in tint)
        ImageDraw.Draw(sheet).text((6, height + (line + 0.5) * LINE), words, fill=ink, anchor="lm", font_size=14)
    with whole_file(path) as partial:
        sheet.save(partial)
    return path


def _words(image: MetaTensor) -> str:
    modality = str(image.meta.get("modality") or "")
    return f"{MODALITY_NAMES.get(modality, modality)}, ".removeprefix(", ")


def _units(image: MetaTensor) -> str:
    units = str(image.meta.get("units"))
    return units if units in MEASURED else ""


def _range(values: np.ndarray, content: np.ndarray) -> np.ndarray:
    inside = selected(values, content if content.any() else None)
    release()
    return np.percentile(inside, PERCENTILES, overwrite_input=True)


def _box(
    content: np.ndarray, coarse: np.ndarray, fine: np.ndarray, turn: np.ndarray, shape: Sequence[int]
) -> tuple[tuple[slice, ...], np.ndarray]:
    """What of a turned volume is shown, and the voxel in the middle of the patient.

    Args:
        content: where the patient is, (X, Y, Z), of every so many voxels of the volume before it was turned.
        coarse: affine of the content.
        fine: affine of that volume.
        turn: how it was turned, as nibabel's ``apply_orientation`` takes it.
        shape: of the volume as it is turned.
    """
    if not content.any():
        return tuple(slice(0, n) for n in shape), np.array(shape) // 2
    steps = np.rint(voxel_sizes(coarse) / voxel_sizes(fine)).astype(int)
    margins = np.ceil(MARGIN / voxel_sizes(fine)).astype(int)
    box, middle = [slice(0)] * 3, np.zeros(3)
    for axis, ((into, way), every, margin) in enumerate(zip(turn.astype(int), steps, margins, strict=True)):
        counts = np.count_nonzero(content, axis=tuple({0, 1, 2} - {axis}))
        (held,) = np.nonzero(counts)
        n = shape[into]
        start, stop = max(every * held[0] - margin, 0), min(every * (held[-1] + 1) + margin, n)
        centre = every * (np.arange(len(counts)) @ counts / counts.sum())
        box[into] = slice(int(start), int(stop)) if way > 0 else slice(int(n - stop), int(n - start))
        middle[into] = centre if way > 0 else n - 1 - centre
    return tuple(box), np.rint(middle).astype(int)


def _plane(
    volumes: Sequence[np.ndarray],
    ranges: Sequence[np.ndarray],
    box: tuple[slice, ...],
    middle: np.ndarray,
    spacing: np.ndarray,
    pixels_per_mm: float,
    way: Plane,
) -> Image.Image:
    right, up, through = way.right, way.up, way.through
    both = []
    for volume, (lowest, highest) in zip(volumes, ranges, strict=True):
        plane = np.moveaxis(volume, through, 2)[box[min(right, up)], box[max(right, up)], middle[through]]
        plane = ((plane - lowest) / max(highest - lowest, np.finfo(np.float32).tiny)).clip(0, 1)
        plane = plane if right < up else plane.T
        plane = plane[:: -1 if way.mirrored else 1, ::-1].T
        size = [
            max(round(n * spacing[axis] * pixels_per_mm), 1)
            for n, axis in zip(plane.shape[::-1], (right, up), strict=True)
        ]
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
        both.append(np.asarray(picture.resize(size, Image.Resampling.BILINEAR)))
    rows, columns = np.ogrid[tuple(slice(n) for n in both[0].shape)]
    field = HEIGHT / FIELDS
    odd = (rows // field + columns // field) % 2 == 1
    mixed = np.where(odd[..., None], both[1][..., None] * TINT, both[0][..., None])
    picture = Image.fromarray(np.rint(mixed * 255).astype(np.uint8))
    draw_sides(picture, way.sides, YELLOW, BLACK)
    draw_scale(picture, pixels_per_mm, YELLOW, BLACK)
    return picture
