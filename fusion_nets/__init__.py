"""Multimodal medical image fusion for MONAI: what the bundles' configurations name."""

__version__ = "0.1.0"
