"""A head to simulate images of: the MNI152 template, and modelled tissues around it, as voxel fractions on a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "BASE_PARTS",
    "FACE",
    "FACE_PARTS",
    "Grid",
    "closed",
    "ellipsoids",
    "model_head",
    "signed_distance",
    "template_maps",
    "within_hulls",
]


@dataclass(frozen=True)
class Grid:
    """Isotropic voxels along the world axes (RAS); `spacing` in mm."""

    shape: tuple[int, int, int]
    spacing: float
    origin: tuple[float, float, float]

    @classmethod
    def covering(cls, box: Sequence[tuple[float, float]], spacing: float) -> Grid:
        """The grid whose voxels fill the world box (mm)."""
        x, y, z = (round((high - low) / spacing) for low, high in box)
        i, j, k = (low + spacing / 2 for low, _ in box)
        return cls((x, y, z), spacing, (i, j, k))

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world mm."""
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = self.origin
        return affine

    def axes(self) -> list[np.ndarray]:
        """World coordinates x, y, z in mm, each broadcastable against an image of this grid."""
        steps = np.ogrid[tuple(slice(n) for n in self.shape)]
        return [start + self.spacing * step for start, step in zip(self.origin, steps, strict=True)]

    def ball(self, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
        """Fraction of each voxel inside the ellipsoid, its rim one voxel wide."""
        unit = sum(((a - c) / r) ** 2 for a, c, r in zip(self.axes(), centre, radii, strict=True))
        return self.soft((1 - np.sqrt(unit)) * min(radii))

    def soft(self, depth: np.ndarray) -> np.ndarray:
        """Fraction of each voxel inside a surface, from the depth of its centre below the surface (mm)."""
        return np.clip(0.5 + depth / self.spacing, 0, 1)


def model_head(grid: Grid) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The template on the grid, and a head around it.

    Returns:
        T1 signal of the brain (template scale 0 to 1, 0 outside it), and the fraction of each voxel that every
        tissue fills; the fractions of a voxel add up to 1.
    """
    t1, brain, grey, white = template_maps(grid)
    x, y, z = grid.axes()
    # Inner surface of the skull: the brain, its fissures closed, and 2 mm of subarachnoid space. Height above it in mm.
    height = signed_distance(closed(brain > 0.5, 14.0, grid), grid) - 2.0
    # Skull of 4 to 8 mm, tables of 2 mm around the diploe; thin at the temples and under the front of the brain.
    temple = x**2 / (x**2 + (y + 16) ** 2 + (z - 10) ** 2)
    base = np.clip((y + 40) / 40, 0, 1) * np.clip((-10 - z) / 20, 0, 1)
    thickness = np.maximum(8 - 2.5 * temple - 3 * base, 4)
    # Scalp of 6 mm, face and neck below, hollows of the temples filled by muscle. Depth below the skin in mm.
    depth = -signed_distance((height < thickness + 6) | within_hulls(grid, FACE), grid)

    tissues = {"air": np.ones(grid.shape, dtype=np.float32)}

    def paint(name: str, part: np.ndarray) -> None:
        part = part.astype(np.float32)
        for below in tissues.values():
            below *= 1 - part
        tissues[name] = tissues[name] + part if name in tissues else part

    paint("skin", grid.soft(depth))
    paint("fat", grid.soft(depth - 2))
    paint("muscle", grid.soft(depth - 5))
    for name, part in ellipsoids(grid, FACE_PARTS):
        paint(name, part * grid.soft(depth - 1.5))
    paint("bone", grid.soft(thickness - height))
    paint("diploe", grid.soft(thickness - 2 - height))
    paint("bone", grid.soft(2 - height))
    paint("subarachnoid", grid.soft(-height))
    for name, part in ellipsoids(grid, BASE_PARTS):
        paint(name, part)
    paint("csf", brain)
    tissues["csf"] = np.maximum(tissues["csf"] - grey - white, 0)
    return t1, tissues | {"grey": grey, "white": white}


# Where things lie in MNI space (mm); x is mirrored. Corners of convex bodies: face with neck, and nose.
FACE = (
    ((0, 86, 5), (40, 74, 5), (64, 50, 5), (78, 20, 5), (82, -20, 5), (74, -60, 5), (38, -104, 5), (16, -117, 5),
     (16, -116, -22), (38, -100, -30), (72, -56, -34), (78, -16, -48), (78, -12, -90), (66, 44, -46), (64, 40, -90),
     (42, 76, -62), (40, 74, -90), (36, 77, -44), (0, 85, -40), (0, 84, -90), (56, -62, -90), (0, -92, -90)),
    ((0, 87, -36), (0, 108, -68), (15, 82, -56), (17, 80, -90), (0, 104, -90)),
)  # fmt: skip

Part = tuple[str, tuple[float, float, float], tuple[float, float, float]]
# Ellipsoids (tissue, centre, radii), painted one over the other: orbits and nose under the skin, ...
FACE_PARTS: tuple[Part, ...] = (
    ("bone", (31, 50, -42), (20, 22, 19)),
    ("fat", (32, 54, -42), (18, 26, 17)),
    ("muscle", (28, 44, -42), (2.5, 18, 2.5)),
    ("vitreous", (33, 62, -42), (12, 12, 12)),
    ("lens", (33, 70.5, -42), (4.5, 2.5, 4.5)),
    ("bone", (0, 56, -52), (15, 30, 26)),
    ("air", (6, 56, -50), (5, 26, 26)),
    ("bone", (27, 50, -74), (16, 19, 17)),
    ("air", (27, 50, -74), (14, 17, 15)),
    ("bone", (0, -100, -18), (14, 10, 18)),
)
# ... and the bone of the skull base with its air cells, which gives way to brain.
BASE_PARTS: tuple[Part, ...] = (
    ("bone", (0, 12, -48), (15, 22, 12)),
    ("diploe", (0, 0, -48), (11, 9, 9)),
    ("air", (0, 20, -46), (10, 10, 8)),
    ("bone", (38, -28, -40), (24, 9, 9)),
    ("air", (54, -36, -46), (7, 8, 9)),
)


def ellipsoids(grid: Grid, parts: Sequence[Part]) -> Iterator[tuple[str, np.ndarray]]:
    """Tissue and voxel fractions of the ellipsoids, each on both sides."""
    for name, (x, y, z), radii in parts:
        for side in (-1, 1) if x else (1,):
            yield name, grid.ball((side * x, y, z), radii)


def template_maps(grid: Grid) -> tuple[np.ndarray, ...]:
    """T1 signal, brain, grey and white matter of the MNI152 template on the grid, all from 0 to 1."""
    try:
        from nilearn import datasets
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing; install it with: pip install fusion-nets[sample]"
        ) from error
    image = datasets.load_mni152_template(resolution=1)
    t1 = np.asarray(image.dataobj, dtype=np.float32)
    brain = (t1 > 0).astype(np.float32)
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32) * brain
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    to_template = np.linalg.inv(image.affine) @ grid.affine
    # Voxels wider than the template's average over their width (Gaussian of that FWHM), not pick single points.
    sigma = np.sqrt(grid.spacing**2 - 1) / (2 * np.sqrt(2 * np.log(2)))

    def resample(volume: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(volume, sigma, truncate=3) if sigma else volume
        return ndimage.affine_transform(smooth, np.diag(to_template)[:3], to_template[:3, 3], grid.shape, order=1)

    return tuple(resample(volume) for volume in (t1, brain, grey, white))


def signed_distance(inside: np.ndarray, grid: Grid) -> np.ndarray:
    """Signed distance to the surface of a mask in mm, positive outside, rounded off over 2 mm."""
    from scipy import ndimage

    outwards, inwards = (ndimage.distance_transform_edt(mask, grid.spacing) for mask in (~inside, inside))
    return ndimage.gaussian_filter(outwards - inwards, 2.0 / grid.spacing, mode="nearest")


def closed(inside: np.ndarray, radius: float, grid: Grid) -> np.ndarray:
    """The mask with every gap filled that a ball of the radius (mm) does not enter."""
    from scipy import ndimage

    grown = ndimage.distance_transform_edt(~inside, grid.spacing) <= radius
    return ndimage.distance_transform_edt(grown, grid.spacing) > radius


def within_hulls(grid: Grid, bodies: Sequence[Sequence[tuple[float, float, float]]]) -> np.ndarray:
    """Mask of the convex hulls of the points (mm) and their mirror images."""
    from scipy.spatial import ConvexHull

    axes = grid.axes()
    inside = np.zeros(grid.shape, dtype=bool)
    for points in bodies:
        facets = ConvexHull([(side * x, y, z) for x, y, z in points for side in (-1, 1)]).equations
        body = np.ones(grid.shape, dtype=bool)
        for *normal, offset in np.unique(facets.round(9), axis=0):
            body &= sum(n * axis for n, axis in zip(normal, axes, strict=True)) + offset <= 0
        inside |= body
    return inside
