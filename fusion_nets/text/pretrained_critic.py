"""A pretrained image-text model as a critic."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .model_folders import find_checkpoint

__all__ = ["PretrainedCritic"]


class PretrainedCritic(nn.Module):
    """Any CLIP-type model of ``transformers`` as the critic of :class:`fusion_nets.losses.SemanticLoss`.

    Such a model has ``get_image_features`` and ``get_text_features`` (CLIP, SigLIP, ...). Its text half is a
    :class:`fusion_nets.text.TextEncoder` on the same checkpoint, whose vectors are text features already.

    Args:
        model: a local folder, or the name of a model in the local Hugging Face cache.
        revision: commit of a model in the cache; needed for one.

    Raises:
        FileNotFoundError: if the model is not there, with how to get it.
        ValueError: for no name, a name without a revision, or a model that is not of CLIP type.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: str | os.PathLike[str] | None, revision: str | None = None) -> None:
        super().__init__()
        from transformers import AutoModel

        if not model:
            raise ValueError(
                "name a model of CLIP type as critic: a folder, or a model in the local Hugging Face cache with its "
                "revision"
            )
        folder = find_checkpoint(model, revision)
        self.model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32
        )
        if not hasattr(self.model, "get_image_features"):
            raise ValueError(f"{model}: a {self.model.config.model_type} model; one of CLIP type is accepted")
        self.size = int(self.model.config.vision_config.image_size)
        self.model.requires_grad_(False).eval()
        settings: dict[str, Any] = {}
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (folder / name).is_file():
                stored = json.loads((folder / name).read_text())
                settings = stored.get("image_processor", stored)
                break
        for name, default in (("mean", 0.5), ("std", 0.5)):
            values = torch.tensor(settings.get(f"image_{name}", [default] * 3), dtype=torch.float32)
            self.register_buffer(name, values.reshape(1, -1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> PretrainedCritic:
        """The model is frozen and stays in evaluation mode."""
        return super().train(False)

    def image_features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) in [0, 1], any size, brought to the model's -> (B, E); differentiable."""
        size = [self.size, self.size]
        image = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        features = self.model.get_image_features(pixel_values=(image - self.mean) / self.std)
        return F.normalize(features.pooler_output, dim=1)

    def text_features(self, vector: torch.Tensor) -> torch.Tensor:
        """Text vectors (B, E) of the same model's text half -> the same, of length 1."""
        return F.normalize(vector, dim=1)
