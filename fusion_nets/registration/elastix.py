"""Linear and deformable registration by elastix, on worlds of this library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fusion_nets.clinical.grids import affine_of, on_cpu
from fusion_nets.elastix_process import Placed, find_transforms
from fusion_nets.slabs import filtered

from .resampling import resample_onto
from .warp import Warp

__all__ = ["align", "bend"]

FINEST = 2.0
"""Spacing in mm to which finer images are brought: finer ones cost time and tell no more of six or twelve numbers."""

MOST = 2**23
"""Voxels: elastix holds each image a few times, and of a long one larger voxels tell as much of where it lies."""

FEWEST = 8
"""Voxels that are left along every axis that has them."""

MARGIN = 6.0
"""In mm: what is that near to the patient counts too, since it holds the edge against air. It is told on voxels of at
most two thirds of that."""

TO_LPS = np.array([-1.0, -1.0, 1.0])

PARAMETERS = {
    "Registration": "MultiResolutionRegistration",
    "FixedInternalImagePixelType": "float",
    "MovingInternalImagePixelType": "float",
    "FixedImagePyramid": "FixedSmoothingImagePyramid",
    "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "ComputePyramidImagesPerResolution": "true",
    "NumberOfResolutions": "3",
    "Metric": "AdvancedMattesMutualInformation",
    "NumberOfHistogramBins": "32",
    "ImageSampler": "RandomCoordinate",
    "NumberOfSpatialSamples": "4000",
    "NewSamplesEveryIteration": "true",
    "RequiredRatioOfValidSamples": "0.05",
    "Interpolator": "LinearInterpolator",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "MaximumNumberOfIterations": "300",
    "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitialization": "false",
    "HowToCombineTransforms": "Compose",
    "Resampler": "DefaultResampler",
    "ResampleInterpolator": "FinalLinearInterpolator",
    "ErodeMask": "false",
    "RandomSeed": "0",
    "WriteResultImage": "false",
}

BENDING = {
    "Registration": "MultiMetricMultiResolutionRegistration",
    "Transform": "BSplineTransform",
    "Metric0Weight": "1",
    "AutomaticScalesEstimation": "false",
    "UseExplicitPDFDerivatives": "false",
    "NumberOfSpatialSamples": "2000",
    "MaximumNumberOfIterations": "100",
}
"""What of them differs where thousands of numbers are looked for."""


def align(
    fixed: MetaTensor,
    moving: MetaTensor,
    content: np.ndarray,
    grid: np.ndarray,
    start: np.ndarray,
    centre: np.ndarray,
    affine: bool,
) -> np.ndarray:
    """Map the fixed image's world to the moving image's, so that their mutual information is greatest.

    Args:
        fixed: (1, H, W, D).
        moving: (1, H', W', D').
        content: (X, Y, Z) bool, where the fixed image counts; something is true.
        grid: (4, 4), affine of these voxels, which may be fewer than the image's.
        start: (4, 4), a first guess of the result.
        centre: (3,) in mm of the fixed image's world, to turn about.
        affine: look for scaling and shear too, after rotation and shift.

    Returns:
        (4, 4) float64, RAS in mm.

    Raises:
        RuntimeError: if elastix gives up.
    """
    images = _as_itk(on_cpu(fixed)), _as_itk(on_cpu(moving), np.linalg.inv(start)), _mask(content, grid)
    about = [str(value) for value in centre * TO_LPS]
    maps = [
        {**{key: [value] for key, value in PARAMETERS.items()}, "Transform": [kind], "CenterOfRotationPoint": about}
        for kind in ("EulerTransform", "AffineTransform")[: 2 if affine else 1]
    ]
    matrix = np.eye(4)
    for found in find_transforms(*images, maps):
        matrix = _matrix(found) @ matrix
    return start @ matrix


def bend(
    fixed: MetaTensor,
    moving: MetaTensor,
    content: np.ndarray,
    grid: np.ndarray,
    matrix: np.ndarray,
    spacing: float,
    stiffness: float,
) -> Warp:
    """Bend the fixed image's world before it is mapped to the moving image's, so that mutual information is greatest.

    Args:
        fixed: (1, H, W, D).
        moving: (1, H', W', D').
        content: (X, Y, Z) bool, where the fixed image counts; something is true.
        grid: (4, 4), affine of these voxels.
        matrix: (4, 4), from the fixed image's world to the moving image's, which stays.
        spacing: of the finest control points, in mm.
        stiffness: weight of the bending energy (Rueckert et al. 1999), whose unit is 1 / mm ** 2.

    Raises:
        RuntimeError: if elastix gives up.
    """
    fixed_image, moving_image = _as_itk(on_cpu(fixed)), _as_itk(on_cpu(moving), np.linalg.inv(matrix))
    values = {key: [value] for key, value in {**PARAMETERS, **BENDING}.items()}
    values |= {"FinalGridSpacingInPhysicalUnits": [str(spacing)], "Metric1Weight": [str(stiffness)]}
    values["Metric"] = ["AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty"]
    (found,) = find_transforms(fixed_image, moving_image, _mask(content, grid), [values])
    size, edges, origin = ([float(one) for one in found[f"Grid{name}"]] for name in ("Size", "Spacing", "Origin"))
    numbers = np.array([float(value) for value in found["TransformParameters"]])
    coefficients = numbers.reshape(3, *(int(n) for n in reversed(size))).swapaxes(1, 3)  # x runs fastest
    control = np.eye(4)
    control[:3, :3] = TO_LPS[:, None] * fixed_image.direction * edges
    control[:3, 3] = TO_LPS * origin
    return Warp(matrix, coefficients * TO_LPS[:, None, None, None], control)


def _as_itk(image: MetaTensor, world: np.ndarray | None = None) -> Placed:
    """The image in ITK's world, its voxels made large enough, and moved."""
    affine, sizes = affine_of(image), np.array(image.shape[1:])
    for finest in FINEST * 1.05 ** np.arange(100):
        scale = np.clip(finest / voxel_sizes(affine), 1, np.maximum(sizes / FEWEST, 1))
        if (sizes / scale).prod() <= MOST:
            break
    if (scale > 1.25).any():
        coarse = affine @ np.diag([*scale, 1.0])
        coarse[:3, 3] += affine[:3, :3] @ ((scale - 1) / 2)
        size = np.floor(sizes / scale + 1e-6).astype(int)
        image = resample_onto(image, MetaTensor(torch.zeros(1, *size), affine=torch.from_numpy(coarse)))
        affine = coarse
    return _placed(image[0].numpy(), affine if world is None else world @ affine)


def _placed(values: np.ndarray, affine: np.ndarray) -> Placed:
    spacing = voxel_sizes(affine)
    direction = affine[:3, :3] * TO_LPS[:, None] / spacing
    return Placed(values.T, spacing, affine[:3, 3] * TO_LPS, direction)  # x runs fastest


def _mask(content: np.ndarray, affine: np.ndarray) -> Placed:
    """Where the fixed image counts, with a margin."""
    every = np.maximum(2 * MARGIN / 3 // voxel_sizes(affine), 1).astype(int)
    content, affine = content[:: every[0], :: every[1], :: every[2]], affine @ np.diag([*every, 1.0])
    sizes = voxel_sizes(affine)

    def near(part: np.ndarray) -> np.ndarray:
        return ndimage.distance_transform_edt(~part, sampling=sizes) <= MARGIN if part.any() else part

    return _placed(filtered(near, content, int(np.ceil(MARGIN / sizes[2]))).view(np.uint8), affine)


def _matrix(parameters: Mapping[str, Sequence[str]]) -> np.ndarray:
    """What a transform of elastix does, (4, 4) RAS."""
    numbers = np.array([float(value) for value in parameters["TransformParameters"]])
    centre = np.array([float(value) for value in parameters["CenterOfRotationPoint"]])
    if parameters["Transform"][0] == "EulerTransform":
        x, y, z = numbers[:3]
        is_zyx = parameters["ComputeZYX"][0] == "true"
        linear = Rotation.from_euler("ZYX" if is_zyx else "ZXY", [z, y, x] if is_zyx else [z, x, y]).as_matrix()
    else:
        linear = numbers[:9].reshape(3, 3)
    lps = np.eye(4)
    lps[:3, :3] = linear
    lps[:3, 3] = centre + numbers[-3:] - linear @ centre
    flip = np.diag([*TO_LPS, 1.0])
    return flip @ lps @ flip
