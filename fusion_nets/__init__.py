"""Multimodal medical image fusion for MONAI: what the bundles' configurations name."""

from . import moved as moved
from . import quiet as quiet

__version__ = "0.2.0"
