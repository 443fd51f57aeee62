"""Networks: DM-FNet and its diffusion UNet."""

from .attention_fusion import FusionDecoder
from .diffusion_unet import DiffusionUNet
from .dmfnet import DMFNet
from .released import load_released
from .schedules import cosine_alpha_bar, linear_alpha_bar, noise_level_range

__all__ = [
    "DMFNet",
    "DiffusionUNet",
    "FusionDecoder",
    "cosine_alpha_bar",
    "linear_alpha_bar",
    "load_released",
    "noise_level_range",
]
