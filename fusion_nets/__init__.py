"""Multimodal medical image fusion for MONAI: what the bundles' configurations name."""
