"""Makes OFA known to the auto classes of `transformers`."""

from __future__ import annotations

import transformers

from .configuration import OFAConfig
from .modeling import OFAForConditionalGeneration
from .processing import OFAImageProcessor, OFAProcessor
from .tokenization import OFATokenizer

__all__ = ["register"]


def register() -> None:
    """From now on ``AutoConfig``, ``AutoModelForImageTextToText``, ``AutoProcessor`` and so on take OFA checkpoints."""
    transformers.AutoConfig.register("ofa", OFAConfig, exist_ok=True)
    for name in ("AutoModel", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText"):
        getattr(transformers, name).register(OFAConfig, OFAForConditionalGeneration, exist_ok=True)
    transformers.AutoTokenizer.register(OFAConfig, OFATokenizer, exist_ok=True)
    transformers.AutoImageProcessor.register(OFAConfig, OFAImageProcessor, exist_ok=True)
    transformers.AutoProcessor.register(OFAConfig, OFAProcessor, exist_ok=True)
