"""Networks: DM-FNet and its diffusion UNet, SMFusion and its critic, and what the bundles ship of them."""

from fusion_nets.moved import tell_moved

from .attention_fusion import FusionDecoder
from .diffusion_unet import DiffusionUNet
from .dmfnet import DMFNet
from .fusion_unet import FusionUNet
from .image_text_critic import ImageTextCritic
from .released import load_released
from .schedules import cosine_alpha_bar, linear_alpha_bar, noise_level_range
from .smfusion import SMFusion
from .text_grounding import TextGrounding
from .text_guided_unet import TextGuidedUNet
from .text_parts import SemanticInteraction, TextInjection

__all__ = [
    "DMFNet",
    "DiffusionUNet",
    "FusionDecoder",
    "FusionUNet",
    "ImageTextCritic",
    "SMFusion",
    "SemanticInteraction",
    "TextGrounding",
    "TextGuidedUNet",
    "TextInjection",
    "cosine_alpha_bar",
    "linear_alpha_bar",
    "load_released",
    "noise_level_range",
]

tell_moved(__name__)
