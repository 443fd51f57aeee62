"""Multimodal medical image fusion for MONAI: what the bundles' configurations name."""

from . import moved as moved

__version__ = "0.2.0"
