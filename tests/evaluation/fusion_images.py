"""Images that fusion metrics are tested on, and the metrics by what they take."""

import numpy as np
import torch

from evaluation import functional

# the functions of the names that papers print
FUNCTIONS = {
    "MI": functional.mutual_information,
    "NMI": functional.normalised_mutual_information,
    "FMI": functional.fmi,
    "SSIM": functional.ssim,
    "MS-SSIM": functional.ms_ssim,
    "Qabf": functional.qabf,
    "Nabf": functional.nabf,
    "VIF": functional.vif,
    "EN": functional.entropy,
    "SD": functional.standard_deviation,
    "SF": functional.spatial_frequency,
    "AG": functional.average_gradient,
    "PSNR": functional.psnr,
    "MSE": functional.mean_squared_error,
    "CC": functional.correlation,
    "SCD": functional.scd,
}
OF_FUSED_ALONE = ("EN", "SD", "SF", "AG")
# sides that the windows need; 1 for all others
SMALLEST = {"Nabf": 2, "FMI": 3, "SSIM": 7, "VIF": 41, "MS-SSIM": 176}
KINDS = ["noise", "black", "grey", "white", "binary", "faint", "step", "dot"]


def taken(name, images):
    """What a metric takes of (fused, anatomy, overlay)."""
    return images[:1] if name in OF_FUSED_ALONE else images


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def triple(batch=1, side=48, seed=0, dtype=torch.float64):
    """A fused image and two sources that share some of its structure."""
    anatomy, overlay, own = noise(3, batch, 1, side, side, seed=seed, dtype=dtype)
    return 0.5 * anatomy + 0.3 * overlay + 0.2 * own, anatomy, overlay


def levels(kind, side, seed=0):
    """Images of whole grey levels that a metric may stumble over."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (side, side)).astype(float)
    if kind == "black":
        return np.zeros((side, side))
    if kind == "grey":
        return np.full((side, side), 77.0)
    if kind == "white":
        return np.full((side, side), 255.0)
    if kind == "binary":
        return np.where(image > 127, 255.0, 0.0)
    if kind == "faint":
        return 100 + image % 2
    if kind == "step":
        return np.where(np.arange(side) < side // 2, 0.0, 255.0) * np.ones((side, 1))
    if kind == "dot":
        dot = np.zeros((side, side))
        dot[side // 2, side // 2] = 255
        return dot
    return image
