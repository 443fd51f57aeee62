"""The head that simulated slices are cut from: the MNI152 tissue maps and a modelled head, packed to be cut fast."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fusion_nets.files import whole_file

from . import head_model as model
from .head_model import Grid

__all__ = ["CHANNELS", "LABELS", "PackedHead", "packed_head"]

CHANNELS = ("grey", "white", "brain", "t1", "striatum", "height", "face", "base")
"""What a voxel holds, one byte each: fractions of tissue and the template's T1 signal (of 255); then distances in
quarters of a millimetre from -32 to 31: height above the inner surface of the skull, depth under the skin of the face,
and depth inside the bone of the skull's base."""
LABELS = ("", "bone", "fat", "muscle", "vitreous", "lens", "air")
"""Parts of the face and of the skull's base."""

_BOX = ((-100, 100), (-135, 115), (-95, 110))
_SPACING = 1.25
_VERSION = 1
# Centre and radii (mm, x mirrored) of caudate head and putamen, after their extent in the MNI152 template.
_STRIATUM = (((12, 12, 9), (5, 11, 9)), ((25, 4, 1), (6, 15, 9)))


@dataclass(frozen=True)
class PackedHead:
    """The head on isotropic voxels along the world's axes (RAS).

    Args:
        words: (X, Y, Z) uint64, the bytes of :data:`CHANNELS`.
        labels: (X, Y, Z) uint8, of :data:`LABELS`.
        spacing: of the voxels in mm.
        origin: centre of the first voxel in mm.
    """

    words: np.ndarray
    labels: np.ndarray
    spacing: float
    origin: tuple[float, float, float]

    def sample(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Channels between voxels, linearly, and the label of the nearest voxel.

        Args:
            points: (3, ...) world coordinates in mm; outside of the box, the nearest point of it is taken.

        Returns:
            (8, ...) float32, in fractions and millimetres, and (...) uint8.
        """
        limits = np.array(self.words.shape, dtype=np.float32).reshape(3, *[1] * (points.ndim - 1)) - 1.001
        origin = np.array(self.origin, dtype=np.float32).reshape(limits.shape)
        voxels = np.clip((points - origin) / self.spacing, 0, limits).astype(np.float32)
        first = voxels.astype(np.int32)
        part = voxels - first
        strides = np.array([self.words.shape[1] * self.words.shape[2], self.words.shape[2], 1])
        index = sum(stride * axis for stride, axis in zip(strides, first, strict=True))
        words, found = self.words.reshape(-1), np.zeros((*points.shape[1:], 8), dtype=np.float32)
        for corner in np.ndindex(2, 2, 2):
            weight = np.ones(points.shape[1:], dtype=np.float32)
            for side, fraction in zip(corner, part, strict=True):
                weight *= fraction if side else 1 - fraction
            packed = words[index + int(strides @ corner)]
            found += weight[..., None] * packed[..., None].view(np.uint8)
        found = np.ascontiguousarray(np.moveaxis(found, -1, 0))
        found[:5] /= 255
        found[5:] = found[5:] / 4 - 32
        nearest = index + sum(stride * (axis > 0.5) for stride, axis in zip(strides, part, strict=True))
        return found, self.labels.reshape(-1)[nearest]


@functools.cache
def packed_head() -> PackedHead:
    """The head, mapped into memory: processes share it.

    The first call on a machine makes it, which takes half a minute, and keeps it in a folder `fusion_nets` beside
    torch's hub (`torch.hub.get_dir()`, which follows TORCH_HOME and XDG_CACHE_HOME).

    Raises:
        ModuleNotFoundError: the extra `fusion-nets[sample]`, which carries the template, is not installed.
    """
    path = Path(torch.hub.get_dir()).parent / "fusion_nets" / f"head-{_VERSION}.npy"
    if not path.is_file():
        words, labels = _made()
        with whole_file(path) as partial, open(partial, "wb") as file:
            np.save(file, np.concatenate([words.view(np.uint8), labels.reshape(-1)]))
            file.flush()
            os.fsync(file.fileno())
    packed = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = _grid().shape
    size = int(np.prod(shape))
    words = np.asarray(packed[: 8 * size]).view(np.uint64).reshape(shape)
    return PackedHead(words, np.asarray(packed[8 * size :]).reshape(shape), _SPACING, _grid().origin)


def _grid(spacing: float = _SPACING) -> Grid:
    return Grid.covering(_BOX, spacing)


def _made() -> tuple[np.ndarray, np.ndarray]:
    """Words and labels of the head, from the template's maps and the model around them."""
    from scipy import ndimage

    grid, coarse = _grid(), _grid(2 * _SPACING)

    def refined(values: np.ndarray) -> np.ndarray:
        """From the coarse grid onto the fine one, whose first voxel's centre lies a quarter of a voxel before."""
        return ndimage.affine_transform(values, np.full(3, 0.5), -0.25, grid.shape, order=1, mode="nearest")

    t1, brain, grey, white = model.template_maps(grid)
    outline = ndimage.zoom(brain, 0.5, order=1, grid_mode=True, mode="nearest", output=np.float32) > 0.5
    height = refined(model.signed_distance(model.closed(outline, 14.0, coarse), coarse) - 2.0)
    face = refined(-model.signed_distance(model.within_hulls(coarse, model.FACE), coarse))
    striatum = np.zeros(grid.shape, dtype=np.float32)
    for centre, radii in _STRIATUM:
        for side in (-1, 1):
            striatum = np.maximum(striatum, grid.ball((side * centre[0], *centre[1:]), radii))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    base = np.zeros(grid.shape, dtype=bool)
    for parts, in_base in ((model.FACE_PARTS, False), (model.BASE_PARTS, True)):
        for name, part in model.ellipsoids(grid, parts):
            name = "bone" if name == "diploe" else name
            labels[part > 0.5] = LABELS.index(name)
            if in_base:
                base |= part > 0.5
    depth = ndimage.gaussian_filter(
        ndimage.distance_transform_edt(base, _SPACING) - ndimage.distance_transform_edt(~base, _SPACING), 1.0
    )
    fractions = [np.clip(np.rint(255 * a), 0, 255).astype(np.uint8) for a in (grey, white, brain, t1, striatum)]
    distances = [np.clip(np.rint(4 * (a + 32)), 0, 255).astype(np.uint8) for a in (height, face, depth)]
    packed = np.ascontiguousarray(np.stack([*fractions, *distances], axis=-1))
    return packed.view(np.uint64).reshape(-1), labels
