"""Where images lie: corners of a grid, distance of two grids, what of one is in the field of view of the other."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import io_orientation

from fusion_nets.slabs import places

from .errors import ImageError, Reason

__all__ = [
    "RAS_TO_LPS",
    "affine_of",
    "as_volume",
    "check_same_grid",
    "corners",
    "grid_distance",
    "is_one_grid",
    "is_picture",
    "on_cpu",
    "overlap",
    "radiological_view",
    "thinned",
    "voxels_between",
]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
"""From world axes as NIfTI and this library have them to those of DICOM and ITK, and back: its own inverse."""

ALIKE = 0.1
"""Of a voxel: grids that differ less, as by rounded headers, are one; interpolation would only blur."""


def radiological_view(affine: np.ndarray) -> tuple[str, str]:
    """Where columns and rows of a slice (the first two axes) run to, as a radiologist looks at it: codes of nibabel.

    The patient's right (or front, in a sagittal slice) is on the left, front or head on top.
    """
    in_plane = set(io_orientation(affine)[:2, 0].astype(int))
    return "L" if 0 in in_plane else "P", "I" if 2 in in_plane else "P"


def is_picture(image: MetaTensor) -> bool:
    """Whether an image is a picture, (C, H, W) with a value for white: it has no place in a patient."""
    return image.ndim == 3 and image.meta.get("white") is not None


def as_volume(image: MetaTensor) -> MetaTensor:
    """The image as (C, H, W, D); a two-dimensional one is its only slice, as thick as the affine says."""
    return image if image.ndim == 4 else MetaTensor(image.as_tensor()[..., None], meta=image.meta)


def on_cpu(image: MetaTensor) -> MetaTensor:
    """The image where NumPy, SciPy and ITK can read it: itself, or a copy of one that lies on a GPU."""
    return image if image.device.type == "cpu" else cast(MetaTensor, image.cpu())


def affine_of(image: MetaTensor) -> np.ndarray:
    """Voxel index to world (4, 4), float64; (row, column, 0) for a two-dimensional image."""
    return image.affine.cpu().numpy().astype(np.float64)


def corners(image: MetaTensor) -> np.ndarray:
    """Centres of the voxels at the corners of an image, (8, 3) in mm; those of a single slice are there twice."""
    ends = np.array(np.meshgrid(*([0, n - 1] for n in (*image.shape[1:], 1)[:3]), indexing="ij"), dtype=np.float64)
    affine = affine_of(image)
    return ends.reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]


def grid_distance(image: MetaTensor, reference: MetaTensor) -> float:
    """How far the furthest corner lies from where the reference has it, in mm; infinite for another size."""
    if image.shape[1:] != reference.shape[1:]:
        return float("inf")
    return float(np.linalg.norm(corners(image) - corners(reference), axis=1).max())


def is_one_grid(image: MetaTensor, reference: MetaTensor) -> bool:
    """Whether two images lie on one grid, to a tenth of a voxel; not where the place of one was a guess."""
    if not (image.meta.get("placed", True) and reference.meta.get("placed", True)):
        return False
    return grid_distance(image, reference) <= ALIKE * float(reference.pixdim[: reference.ndim - 1].min())


def check_same_grid(image: MetaTensor, reference: MetaTensor) -> None:
    """Refuse an image that has another size, or a corner further than half a pixel from where the reference has it.

    Raises:
        ImageError: naming both files.
    """
    path, first_path = (str(one.meta.get("filename_or_obj", "image")) for one in (image, reference))
    size, wanted = tuple(image.shape[1:]), tuple(reference.shape[1:])
    if size != wanted:
        raise ImageError(
            Reason.GRID, f"{path}: size {size} differs from {wanted} of {first_path}; images on one grid are accepted"
        )
    apart = grid_distance(image, reference)
    if apart > 0.5 * float(reference.pixdim[: len(wanted)].min()):
        raise ImageError(
            Reason.GRID, f"{path}: lies up to {apart:.1f} mm away from {first_path}; images on one grid are accepted"
        )


def thinned(volume: MetaTensor, spacing: float) -> MetaTensor:
    """Every so many voxels of a volume (C, H, W, D), so that they lie no further apart than `spacing` in mm."""
    every = [max(int(spacing / edge + 1e-3), 1) for edge in volume.pixdim.tolist()]
    affine = volume.affine.clone()
    affine[:3, :3] *= torch.tensor(every, dtype=affine.dtype)
    part = volume.as_tensor()[:, :: every[0], :: every[1], :: every[2]]
    return MetaTensor(part, meta={**volume.meta, "affine": affine})


def voxels_between(image: MetaTensor, reference: MetaTensor, transform: np.ndarray | None = None) -> np.ndarray:
    """Voxel index of the reference to voxel index of the image, (4, 4).

    Args:
        image: where the index leads to.
        reference: where it comes from.
        transform: world of the reference to world of the image, (4, 4), RAS in mm; None where they are the same.
    """
    world = affine_of(reference) if transform is None else transform @ affine_of(reference)
    return np.linalg.solve(affine_of(image), world)


def overlap(
    anatomy: MetaTensor, overlay: MetaTensor, content: np.ndarray, transform: np.ndarray | None = None
) -> float:
    """Share of the anatomy's content that lies in the overlay's field of view, 0 to 1.

    The field of view reaches half a voxel beyond the centres of the outermost voxels.

    Args:
        anatomy: (C, H, W[, D]).
        overlay: likewise.
        content: (H, W[, D]), true where the anatomy shows something, see :func:`fusion_nets.registration.foreground`.
        transform: world of the anatomy to world of the overlay, (4, 4), RAS in mm.
    """
    between = voxels_between(overlay, anatomy, transform)
    size = np.array((*overlay.shape[1:], 1)[:3])
    shown = inside = 0
    for index in places(content.reshape((*content.shape, 1)[:3])):
        there = index @ between[:3, :3].T + between[:3, 3]
        shown += len(index)
        inside += int(((there >= -0.5) & (there <= size - 0.5)).all(axis=1).sum())
    return inside / shown if shown else 0.0
