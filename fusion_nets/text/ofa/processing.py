"""What OFA is given: pictures as numbers, prompts as tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import make_flat_list_of_images

from ..biomedgpt import PROMPT
from .configuration import OFAConfig
from .tokenization import OFATokenizer

__all__ = ["OFAImageProcessor", "OFAProcessor"]

_SOURCE = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class OFAImageProcessor(BaseImageProcessor):
    """RGB pictures, brought to a square by bicubic interpolation, v / 127.5 - 1.

    Args:
        size: side of the square in pixels, or {"height", "width"}.
        **kwargs: of ``BaseImageProcessor``.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, size: int | Mapping[str, int] = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = {"height": size, "width": size} if isinstance(size, int) else dict(size)

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Pictures (8-bit PIL images, arrays or tensors) -> "pixel_values", (B, 3, height, width) in [-1, 1]."""
        pixels = []
        flat: Any = make_flat_list_of_images(images)
        for image in flat:
            picture = (image if isinstance(image, Image.Image) else to_pil_image(image)).convert("RGB")
            resized = picture.resize((self.size["width"], self.size["height"]), Image.Resampling.BICUBIC)
            pixels.append(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
        return BatchFeature({"pixel_values": np.stack(pixels)}, tensor_type=return_tensors)


class OFAProcessor(ProcessorMixin):
    """Pictures and prompts together.

    Args:
        image_processor: for pictures.
        tokenizer: for prompts.
    """

    def __init__(self, image_processor: OFAImageProcessor, tokenizer: OFATokenizer) -> None:
        super().__init__(image_processor, tokenizer)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> OFAProcessor:
        """Load what belongs to a checkpoint; the authors' have no image processor, their configuration gives the size.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the hub.
            **kwargs: where it is looked for (revision, local_files_only, cache_dir, ...).

        Raises:
            ValueError: for a tokenizer with more pieces than the configuration's table has.
        """
        source = {name: kwargs[name] for name in _SOURCE if name in kwargs}
        config = OFAConfig.from_pretrained(pretrained_model_name_or_path, **source)
        tokenizer = OFATokenizer.from_pretrained(pretrained_model_name_or_path, **source)
        if len(tokenizer) > config.vocab_size:
            raise ValueError(
                f"{pretrained_model_name_or_path}: vocab.json makes {len(tokenizer)} pieces, and config.json has room "
                f"for {config.vocab_size}"
            )
        try:
            image_processor = OFAImageProcessor.from_pretrained(pretrained_model_name_or_path, **source)
        except OSError:
            image_processor = OFAImageProcessor(config.image_size)
        return cls(image_processor, tokenizer)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Inputs of the network.

        Args:
            images: pictures, B of them; None for text alone.
            text: prompts, B of them; None asks " what does the image describe?" of every picture.
            return_tensors: "pt" for tensors, "np" for arrays.
            padding: of the tokenizer.
            **kwargs: other arguments of the tokenizer.

        Returns:
            "input_ids" and "attention_mask", (B, L); with pictures "pixel_values", (B, 3, H, W).

        Raises:
            ValueError: if there is nothing, or not one prompt a picture.
        """
        if images is None and text is None:
            raise ValueError("neither images nor text; one of them is needed")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, return_tensors=return_tensors))
            count = len(data["pixel_values"])
            texts = [PROMPT] * count if text is None else [text] if isinstance(text, str) else list(text)
            if len(texts) != count:
                raise ValueError(f"{len(texts)} prompts for {count} pictures; one for each is accepted")
            text = texts
        data.update(self.tokenizer(text, return_tensors=return_tensors, padding=padding, **kwargs))
        return BatchFeature(data)
