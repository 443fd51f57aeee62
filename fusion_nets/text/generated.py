"""Text that an image-to-text model writes: any checkpoint of `transformers`, by folder or by name and revision."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from PIL import Image

from . import biomedgpt
from .model_folders import folder_sha256
from .screen import displayed

__all__ = ["GeneratedText"]

_MODALITIES = {"MR": "MRI", "CT": "CT", "PT": "PET", "NM": "SPECT", "fused": "fused"}
_SEEDED = threading.Lock()


class GeneratedText:
    """Asks an image-to-text model: any checkpoint that ``transformers`` has an image-text-to-text class for.

    Captioners (BLIP, GIT), chat models (LLaVA, Gemma, Qwen-VL), vision encoder-decoders, and BiomedGPT
    (:mod:`fusion_nets.text.ofa`), whose weights are for research only. It is loaded at the first call. The same image
    gives the same text, whatever else is in its batch; batches are padded on the left, so that this holds up to the
    rounding of the arithmetic. No code that comes with a checkpoint is run.

    The model sees 8-bit RGB pictures in radiological display, whatever the order of the voxels: the affine decides. Of
    a volume it sees the slice (along the last axis) whose values have the largest sum.

    Args:
        model: a folder that has the checkpoint, or its name on the Hugging Face hub.
        revision: commit hash of a checkpoint of the hub, 40 digits.
        prompt: what the model is asked or has to continue; "{modality}" in it becomes "MRI", "CT", "PET", "SPECT" or
            "fused" (``meta["modality"]``), or "medical" where it is unknown. Chat models need one; it is put into
            their template behind the image. By default BiomedGPT is asked " what does the image describe?".
        generation: arguments of ``generate``; by default {"max_new_tokens": 256, "do_sample": False, "num_beams": 1}.
            BiomedGPT's are what its checkpoint says, or 16 to 128 new tokens by 5 beams that repeat no three tokens.
        seed: needed for sampling ("do_sample"); every image is sampled from it anew.
        batch_size: images that go through the model together.
        device: where the model runs.
        dtype: what it computes in: "float32", "bfloat16" or "float16".
        download: get a checkpoint of the hub that is not in the local cache.
        accept_research_licence: needed for BiomedGPT by its name on the hub, whose authors forbid commercial and
            clinical use. A folder needs none.

    Raises:
        ValueError: for a name without a commit hash, sampling without a seed, a licence that is not accepted, or
            another malformed argument.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        revision: str | None = None,
        prompt: str | None = None,
        generation: Mapping[str, Any] | None = None,
        seed: int | None = None,
        batch_size: int = 1,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        download: bool = False,
        accept_research_licence: bool = False,
    ) -> None:
        self.model = str(model)
        self.is_folder = os.path.isdir(self.model)
        if self.is_folder and revision is not None:
            raise ValueError(f"{self.model}: a folder has no revision; leave it out")
        if not self.is_folder and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", self.model):
            raise ValueError(f"{self.model}: no such folder; one with a checkpoint is accepted, or a name on the hub")
        if not self.is_folder and not re.fullmatch("[0-9a-f]{40}", revision or ""):
            raise ValueError(
                f"{self.model}: no such folder; of a checkpoint of the hub, the revision must be a commit hash of 40 "
                f"digits, which never changes, got {revision!r}"
            )
        biomedgpt.check_licence(self.model, accept_research_licence)
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {dtype!r}; accepted are 'float32', 'bfloat16' and 'float16'")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is accepted")
        defaults: dict[str, Any] = {"max_new_tokens": 256, "do_sample": False, "num_beams": 1}
        if self.is_folder and biomedgpt.is_ofa(Path(self.model)):
            defaults, prompt = biomedgpt.generation_of(Path(self.model)), prompt or biomedgpt.PROMPT
        elif not self.is_folder and biomedgpt.is_biomedgpt(self.model):
            defaults, prompt = biomedgpt.GENERATION, prompt or biomedgpt.PROMPT
        self.generation = {**defaults, **(generation or {})}
        if self.generation["do_sample"] and seed is None:
            raise ValueError("sampling needs a seed, so that the same image gives the same text")
        self.revision = revision
        self.prompt = prompt
        self.seed = seed
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.dtype = dtype
        self.download = download
        self.accept_research_licence = accept_research_licence

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Model (of a folder its name and a SHA-256 over its files), revision, prompt, and how text is generated."""
        return {
            "kind": "generated",
            "model": Path(self.model).resolve().name if self.is_folder else self.model,
            "revision": self.revision,
            "sha256": folder_sha256(Path(self.model)) if self.is_folder else None,
            "prompt": self.prompt,
            "generation": self.generation,
            "seed": self.seed,
            "dtype": self.dtype,
            "transformers": version("transformers"),
        }

    def __call__(self, images: Sequence[MetaTensor]) -> list[str]:
        """One text per image, in order.

        Raises:
            FileNotFoundError: if the checkpoint is not there; the message says how to get it.
            ValueError: if it is no image-to-text model, or a chat model without a prompt.
        """
        pictures = [displayed(image) for image in images]
        prompts = [self._prompt(image) for image in images]
        size = 1 if self.generation["do_sample"] else self.batch_size
        texts: dict[int, str] = {}
        for prompt in dict.fromkeys(prompts):  # one prompt a batch: not every model takes padding between words
            indices = [index for index, other in enumerate(prompts) if other == prompt]
            for batch in (indices[start : start + size] for start in range(0, len(indices), size)):
                texts.update(zip(batch, self._generate([pictures[i] for i in batch], prompt), strict=True))
        return [texts[index] for index in range(len(images))]

    def _prompt(self, image: MetaTensor) -> str | None:
        modality = str(image.meta.get("modality") or "medical")
        return self.prompt and self.prompt.replace("{modality}", _MODALITIES.get(modality, modality))

    def _generate(self, pictures: list[Image.Image], prompt: str | None) -> list[str]:
        from transformers import LogitsProcessorList

        checkpoint = self._checkpoint
        inputs = {
            name: value.to(self.device, checkpoint.network.dtype if value.is_floating_point() else None)
            for name, value in checkpoint.inputs(pictures, prompt).items()
        }
        asked = _LengthAsked()
        devices = [self.device] if self.device.type == "cuda" else []
        seeded = self.seed is not None
        with ExitStack() as stack:
            if seeded:  # by torch's own generators, which are those of all threads
                stack.enter_context(_SEEDED)
            stack.enter_context(torch.random.fork_rng(devices, enabled=seeded))
            stack.enter_context(torch.inference_mode())
            if self.seed is not None:
                torch.manual_seed(self.seed)
            tokens = checkpoint.network.generate(
                **inputs, **self.generation, logits_processor=LogitsProcessorList([asked])
            )
        texts = checkpoint.tokenizer.batch_decode(tokens[:, asked.length :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @cached_property
    def _checkpoint(self) -> _Checkpoint:
        try:
            checkpoint = _load(
                self.model,
                self.dtype,
                self.accept_research_licence,
                revision=self.revision or "main",
                local_files_only=not self.download,
                trust_remote_code=False,
            )
        except OSError as error:
            reason = str(error).strip().partition("\n")[0]
            if self.is_folder:
                raise FileNotFoundError(f"{self.model}: not a whole checkpoint ({reason})") from error
            raise FileNotFoundError(
                f"{self.model}, revision {self.revision}, is not whole in the local cache; "
                f"`hf download {self.model} --revision {self.revision}` gets it, and so does download=True ({reason})"
            ) from error
        except (ValueError, ImportError) as error:
            raise ValueError(f"{self.model}: cannot be loaded ({' '.join(str(error).split())})") from error
        if checkpoint.is_chat and not self.prompt:
            raise ValueError(f"{self.model}: is a chat model, which needs a prompt, such as 'Describe this image.'")
        checkpoint.network.to(self.device)
        return checkpoint


class _Checkpoint(NamedTuple):
    network: Any
    processor: Any
    image_processor: Any
    tokenizer: Any

    @property
    def is_chat(self) -> bool:
        return bool(getattr(self.processor, "chat_template", None))

    def inputs(self, pictures: list[Image.Image], prompt: str | None) -> Mapping[str, torch.Tensor]:
        texts = None if prompt is None else [prompt] * len(pictures)
        if self.processor is None:  # a vision encoder beside a text decoder, which goes on from the prompt
            inputs = dict(self.image_processor(pictures, return_tensors="pt"))
            if texts:
                words = self.tokenizer(texts, add_special_tokens=False, return_tensors="pt")
                inputs["decoder_input_ids"] = words["input_ids"]
            return inputs
        if not self.is_chat:
            return self.processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        return self.processor.apply_chat_template(
            [
                [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]}]
                for picture in pictures
            ],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _load(model: str, dtype: str, accept_research_licence: bool, **source: Any) -> _Checkpoint:
    from transformers import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
        ProcessorMixin,
        VisionEncoderDecoderConfig,
    )

    from .ofa import OFAConfig  # makes the auto classes take it

    config = AutoConfig.from_pretrained(model, **source)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(f"a {config.model_type} model; one that makes text of images is accepted")
    processor = AutoProcessor.from_pretrained(model, **source)
    if not isinstance(processor, ProcessorMixin) or isinstance(config, VisionEncoderDecoderConfig):
        processor = None
    image_processor = processor.image_processor if processor else AutoImageProcessor.from_pretrained(model, **source)
    tokenizer = processor.tokenizer if processor else AutoTokenizer.from_pretrained(model, **source)
    if isinstance(config, OFAConfig):
        source["accept_research_licence"] = accept_research_licence
    network = AutoModelForImageTextToText.from_pretrained(model, config=config, dtype=dtype, **source)
    if not config.is_encoder_decoder:
        tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _Checkpoint(network.eval(), processor, image_processor, tokenizer)


class _LengthAsked:
    """Notes how many tokens there were before the first new one, which models count differently."""

    length: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.length is None:
            self.length = input_ids.shape[1]
        return scores
