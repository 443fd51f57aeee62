"""What an image-to-text model is shown of an image."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

__all__ = ["displayed"]

_DISPLAY_AXES = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "L": "IP", "R": "IP"}
"""Where rows and columns of a slice point on a screen, by where its normal points (radiological)."""


def displayed(image: MetaTensor) -> Image.Image:
    """8-bit RGB picture of a (1 | 3, H, W[, D]) image in [0, 1], as it is shown on a screen.

    In radiological display, whatever the order of the voxels: the affine decides. Of a volume it shows the slice (along
    the last axis) whose values have the largest sum.
    """
    values = image.as_tensor().detach().float().cpu()
    if values.ndim == 4:
        values = values[..., int(values.sum(dim=(0, 1, 2), dtype=torch.float64).argmax())]
    affine = np.asarray(image.affine, dtype=np.float64)
    normal = nib.aff2axcodes(affine)[2]
    turn = ornt_transform(io_orientation(affine), axcodes2ornt((*_DISPLAY_AXES[normal], normal)))
    array = (values.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1).movedim(0, -1)
    return Image.fromarray(np.ascontiguousarray(apply_orientation(array.numpy()[:, :, None], turn)[:, :, 0]))
