"""Bring an image onto the grid of another by physical coordinates."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.layers import AffineTransform
from monai.networks.utils import to_norm_affine
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.fft import next_fast_len
from scipy.special import ive

from fusion_nets.clinical.grids import affine_of, as_volume, is_one_grid, on_cpu, voxels_between
from fusion_nets.clinical.quantities import UPTAKE
from fusion_nets.slabs import extremes, is_large, release, slabs, zeros

from .field_of_view import outside_of, outside_of_places
from .warp import Warp, WorldTransform, linear_part

__all__ = ["air", "resample_labels", "resample_onto"]

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Of a Gaussian, in standard deviations."""

REACH = 4.0
"""Of a Gaussian, in standard deviations: what is further off does not count."""

LEAST_BLUR = 0.15
"""Standard deviation, in voxels of the overlay, below which smoothing changes nothing that is seen."""

AT_ONCE = 2**19
"""Voxels that are looked up together where a transform bends."""

SPREAD = 0.02
"""Share of the smoothing's variance that is added in every direction where the grids are oblique to each other: a
lattice cannot carry a blur along a line that passes between its points."""


def air(image: MetaTensor) -> float:
    """The value of nothing: -1000 HU in CT, 0 in PET, SPECT and what has a white, else the image's minimum."""
    units, modality = image.meta.get("units"), image.meta.get("modality")
    if units == "HU":
        return -1000.0
    if units in UPTAKE or modality in ("PT", "NM") or image.meta.get("white") is not None:
        return 0.0
    return extremes(image)[0]


def resample_onto(overlay: MetaTensor, anatomy: MetaTensor, transform: WorldTransform | None = None) -> MetaTensor:
    """Resample an image onto the grid of another, by where both lie in the world.

    Linear interpolation, channel by channel. Where the anatomy's voxels are larger than the overlay's, the overlay is
    smoothed first, as far as, and along the directions in which, they are: by a Gaussian whose covariance is the
    difference of those of the two grids' point spread functions, each a voxel wide at half maximum (Cardoso et al.,
    "Scale factor point spread function matching", MICCAI 2015); the grids may be oblique to each other. Within half a
    voxel of the overlay's outermost voxels, their values hold; beyond, :func:`air` fills.

    Args:
        overlay: (C, H, W[, D]); a single slice is as thick as its affine says.
        anatomy: (C', H', W'[, D']), of which only the grid counts.
        transform: anatomy's world to overlay's world, (4, 4), RAS in mm, or one that bends, whose matrix alone says how
            the overlay is smoothed; by default they are the same.

    Returns:
        (C, H', W'[, D']) float32 on the overlay's device, with the anatomy's affine and the overlay's other metadata;
        ``meta["outside"]`` is what fills, where the grids are not one.
        Where the grids are one (to a tenth of a voxel) and no transform is given, the values are the overlay's, bit for
        bit. On a GPU they are those of the CPU, where all is computed.
    """
    meta = {**overlay.meta, "affine": anatomy.affine.clone(), "spatial_shape": np.array(anatomy.shape[1:])}
    matrix, warp = linear_part(transform), transform if isinstance(transform, Warp) else None
    if warp is None and _is_identity(matrix) and is_one_grid(overlay, anatomy):
        values = overlay.as_tensor().float()
        return MetaTensor(values if is_large(values.shape) else values.clone(), meta=meta)
    device, overlay = overlay.device, on_cpu(overlay)
    source, target = as_volume(overlay), as_volume(anatomy)
    size, outside = tuple(target.shape[1:]), air(overlay)
    meta["outside"] = outside
    between = voxels_between(source, target, matrix)
    covariance = _blur(affine_of(source), affine_of(target), matrix)
    reach = REACH * np.sqrt(covariance.diagonal())
    if warp is not None:
        reach = reach + _bent_by(warp, affine_of(source))
    box = _box(between, size, source.shape[1:], reach)
    if box is None:
        moved = _filled((source.shape[0], *size), outside)
    else:
        part = (slice(None), *box)
        values = source.as_tensor().float()[part]
        values = _smoothed(values, covariance) if covariance.any() else values
        first = np.eye(4)
        first[:3, 3] = [-part.start for part in box]
        if warp is not None:
            moved = _bent(values, warp, box, source, target, outside)
        else:
            moved = _interpolated(values, first @ between, size)
            for slab in slabs(moved.shape):
                moved[..., slab][:, outside_of(between, size, source.shape[1:], slab)] = outside
    return MetaTensor(moved.reshape(source.shape[0], *anatomy.shape[1:]).to(device), meta=meta)


def _bent_by(warp: Warp, source: np.ndarray) -> np.ndarray:
    """By how many voxels of the source, along each axis, a place may be moved: splines stay between their numbers."""
    most = np.abs(warp.coefficients).max(axis=(1, 2, 3))
    return np.abs(np.linalg.inv(source)[:3, :3] @ warp.matrix[:3, :3]) @ most


def _bent(
    values: torch.Tensor,
    warp: Warp,
    box: tuple[slice, ...],
    source: MetaTensor,
    target: MetaTensor,
    outside: float,
) -> torch.Tensor:
    """Values (C, X, Y, Z) of a box of the source, where a warp leads from the target's voxels, linearly, by slabs."""
    size, to_voxels = tuple(target.shape[1:]), np.linalg.inv(affine_of(source))
    moved = torch.from_numpy(zeros((len(values), *size)))
    each = max(1, AT_ONCE // math.prod(size[:2]))
    for start in range(0, size[2], each):
        lines = np.arange(size[0]), np.arange(size[1]), np.arange(start, min(start + each, size[2]))
        index = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
        there = apply_affine(to_voxels, warp(apply_affine(affine_of(target), index.reshape(-1, 3))))
        beyond = outside_of_places(there, source.shape[1:])
        there -= [part.start for part in box]
        for one, into in zip(values.numpy(), moved, strict=True):
            found = ndimage.map_coordinates(one, there.T, order=1, mode="nearest")
            found[beyond] = outside
            into[..., start : start + each] = torch.from_numpy(found.reshape(index.shape[:3]))
        release()
    return moved


def _filled(shape: tuple[int, ...], value: float) -> torch.Tensor:
    made = torch.from_numpy(zeros(shape))
    for slab in slabs(shape):
        made[..., slab] = value
    return made


def _interpolated(values: torch.Tensor, between: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """Values (C, X, Y, Z) at the voxels of a grid (C, *size), linearly, those of the border beyond it.

    MONAI's ``AffineTransform``, whose grid alone takes three times the memory of the result, slab by slab; bit for bit.

    Args:
        values: (C, X, Y, Z).
        between: voxel index of the grid to voxel index of the values, (4, 4).
        size: of the grid.
    """
    theta = torch.from_numpy(between).float()[None]
    theta = to_norm_affine(theta, values.shape[1:], size, align_corners=False, zero_centered=False)[0, :3]
    theta = theta.flip(0)[:, [2, 1, 0, 3]]  # the sampler's first axis is the last
    lines = [torch.linspace(-1, 1, n) * (n - 1) / n if n > 1 else torch.zeros(n) for n in size]
    moved = torch.from_numpy(zeros((len(values), *size)))
    for slab in slabs(moved.shape):
        deep = lines[2][slab]
        places = torch.ones(*size[:2], len(deep), 4)
        for axis, line in enumerate((deep, lines[1][:, None], lines[0][:, None, None])):
            places[..., axis] = line
        grid = (places.reshape(1, -1, 4) @ theta.T[None]).reshape(1, *places.shape[:3], 3)
        for one, into in zip(values, moved[..., slab], strict=True):
            sampled = torch.nn.functional.grid_sample(
                one[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
            )
            into.copy_(sampled[0, 0])
    return moved


def resample_labels(labels: MetaTensor, anatomy: MetaTensor) -> MetaTensor:
    """Bring labels onto the grid of an image by where both lie in the world: each voxel takes that of the nearest.

    Args:
        labels: (1, H, W[, D]), whole numbers below 2 ** 24.
        anatomy: (C, H', W'[, D']), of which only the grid counts.

    Returns:
        (1, H', W'[, D']) int32 on the labels' device, with the anatomy's affine; 0 further than half a voxel outside
        the labels' grid. The labels themselves where the grids are one (to a tenth of a voxel).
    """
    values = labels.as_tensor()
    if not is_one_grid(labels, anatomy):
        source, target = as_volume(on_cpu(labels)), as_volume(anatomy)
        resample = AffineTransform(
            normalized=False, mode="nearest", padding_mode="zeros", align_corners=False, reverse_indexing=True
        )
        theta = torch.from_numpy(voxels_between(source, target)).float()
        values = resample(source.as_tensor().float()[None], theta, tuple(target.shape[1:]))[0]
    return MetaTensor(
        values.to(labels.device, torch.int32).reshape(1, *anatomy.shape[1:]), affine=anatomy.affine.clone()
    )


def _is_identity(transform: np.ndarray | None) -> bool:
    return transform is None or np.array_equal(transform, np.eye(4))


def _blur(source: np.ndarray, target: np.ndarray, transform: np.ndarray | None) -> np.ndarray:
    """Covariance of the smoothing in voxels of the source, (3, 3); zero where none is needed."""
    cells = target[:3, :3] if transform is None else transform[:3, :3] @ target[:3, :3]
    variances, axes = np.linalg.eigh(cells @ cells.T - source[:3, :3] @ source[:3, :3].T)
    world = (axes * variances.clip(0)) @ axes.T / FWHM**2
    to_voxels = np.linalg.inv(source[:3, :3])
    covariance = to_voxels @ world @ to_voxels.T
    total = covariance.trace()
    if np.linalg.eigvalsh(covariance).max() <= LEAST_BLUR**2:
        return np.zeros((3, 3))
    across = covariance - np.diag(covariance.diagonal())
    if np.abs(across).max() <= 1e-6 * total:
        return np.diag(covariance.diagonal().clip(0))
    return covariance + SPREAD * total * np.eye(3)


def _box(between: np.ndarray, size: tuple[int, ...], shape: torch.Size, reach: np.ndarray) -> tuple[slice, ...] | None:
    """The part of the source that counts for the target; None where they do not meet."""
    ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in size), indexing="ij")).reshape(3, -1)
    there = between[:3, :3] @ ends + between[:3, 3:]
    box = []
    for low, high, n, beyond in zip(there.min(1), there.max(1), shape, reach, strict=True):
        start, stop = max(int(np.floor(low - beyond)) - 1, 0), min(int(np.ceil(high + beyond)) + 2, n)
        if start >= stop:
            return None
        box.append(slice(start, stop))
    return tuple(box)


def _smoothed(values: torch.Tensor, covariance: np.ndarray) -> torch.Tensor:
    """Values (C, X, Y, Z) under the discrete Gaussian of a covariance in voxels squared.

    Along the axes alone it is one of each axis after another. Else a large volume is done slab by slab, with twice the
    reach beside each: the same but for what of the first and the last slices comes round to each other, some 1e-5 of
    the values' range.
    """
    if not (covariance - np.diag(covariance.diagonal())).any():
        return _along_axes(values, covariance.diagonal())
    if not is_large(values.shape):
        return _convolved(values, covariance)
    beside = 2 * int(np.ceil(REACH * np.sqrt(covariance[2, 2])))
    depth = values.shape[-1]
    each = max(-(-depth // sum(1 for _ in slabs(values.shape))), 2 * beside)
    made = torch.from_numpy(zeros(values.shape))
    for start in range(0, depth, each):
        first, stop = max(start - beside, 0), min(start + each, depth)
        part = _convolved(values[..., first : stop + beside], covariance)
        made[..., start:stop] = part[..., start - first : stop - first]
        release()
    return made


def _along_axes(values: torch.Tensor, variances: np.ndarray) -> torch.Tensor:
    """Values (C, X, Y, Z) under the discrete Gaussian of a variance along each axis, in voxels squared.

    Of a variance t it has the weights exp(-t) I_n(t), modified Bessel functions (Lindeberg, IEEE Trans PAMI 12:234,
    1990), here those above 1e-7.
    """
    kernels = []
    for variance in variances:
        weights = ive(np.arange(100 + 10 * math.ceil(variance)), variance)
        weights = weights[: np.count_nonzero(weights > 1e-7)]
        kernels.append((weights / (2 * weights.sum() - weights[0])).tolist())
    across, down, through = kernels
    made = torch.from_numpy(zeros(values.shape))
    planes, done = values.movedim(-1, 0), made.movedim(-1, 0)
    for slab in slabs(made.shape):
        numbers = torch.arange(len(planes))[slab]
        beside = len(through) - 1
        near = torch.arange(int(numbers[0]) - beside, int(numbers[-1]) + beside + 1).clamp(0, len(planes) - 1)
        part = _weighted(planes[near], through, 0)
        beside_x, beside_y = len(across) - 1, len(down) - 1
        sides = (beside_y, beside_y, beside_x, beside_x)  # pad begins with the last axis
        part = torch.nn.functional.pad(part, sides, mode="replicate")
        done[slab] = _weighted(_weighted(part, across, 2), down, 3)
    return made


def _weighted(values: torch.Tensor, weights: list[float], dim: int) -> torch.Tensor:
    """Sums over neighbours along an axis, by weights from the middle outwards; what has none on a side is left out."""
    beside = len(weights) - 1
    if not beside:
        return values
    size = values.shape[dim] - 2 * beside
    made = values.narrow(dim, beside, size) * weights[0]
    for step in range(1, beside + 1):
        for start in (beside - step, beside + step):
            made.add_(values.narrow(dim, start, size), alpha=weights[step])
    return made


def _convolved(values: torch.Tensor, covariance: np.ndarray) -> torch.Tensor:
    """Values (C, X, Y, Z) under the discrete Gaussian of a covariance in voxels squared, all at once.

    Its spectrum is a product of exp(weight (cos(2 pi step . f) - 1)) over steps between voxels (Lindeberg, IEEE Trans
    PAMI 12:234, 1990): unlike a Gaussian sampled in space or in frequency, it is never negative and has exactly this
    covariance, however narrow.
    """
    reach = np.ceil(REACH * np.sqrt(covariance.diagonal())).astype(int)
    shape = values.shape[1:]
    sides = [(int(r), next_fast_len(n + 2 * int(r), real=True) - n - int(r)) for n, r in zip(shape, reach, strict=True)]
    padding = [width for side in reversed(sides) for width in side]
    padded = torch.nn.functional.pad(values[None], padding, mode="replicate")[0]
    full = padded.shape[1:]
    frequencies = (
        torch.fft.fftfreq(full[0])[:, None, None],
        torch.fft.fftfreq(full[1])[None, :, None],
        torch.fft.rfftfreq(full[2])[None, None, :],
    )
    damping = torch.ones(1, 1, 1)
    for weight, step in _steps(covariance):
        along = sum(int(n) * f for n, f in zip(step, frequencies, strict=True) if n)
        damping = damping * (weight * (torch.cos(2 * torch.pi * along) - 1)).exp()
    inside = tuple(slice(before, before + n) for (before, _), n in zip(sides, shape, strict=True))
    return torch.stack([torch.fft.irfftn(torch.fft.rfftn(one) * damping, s=full)[inside] for one in padded])


def _steps(covariance: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The covariance as a sum of weight * step step^T over at most six steps between voxels, all weights positive.

    Selling's decomposition (J. reine angew. Math. 77:143, 1874): of a basis of the lattice and minus its sum, those two
    that form the sharpest angle are turned until none is sharp.
    """
    base = np.vstack([np.eye(3), -np.ones(3)])
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for _ in range(100):
        products = base @ covariance @ base.T
        i, j = max(pairs, key=lambda pair: products[pair])
        if products[i, j] <= 1e-9 * covariance.trace():
            break
        k, m = {0, 1, 2, 3} - {i, j}
        base[[k, m]] += base[i]
        base[i] *= -1
    products = base @ covariance @ base.T
    steps = []
    for i, j in pairs:
        k, m = {0, 1, 2, 3} - {i, j}
        if products[i, j] < 0:
            steps.append((-float(products[i, j]), np.cross(base[k], base[m])))
    return steps
