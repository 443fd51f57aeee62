"""Teaching a describer: batches of pictures and texts, generating, scoring, and the best checkpoint folder."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.metrics import Average
from monai.engines import PrepareBatch
from monai.inferers import Inferer

from fusion_nets.text.biomedgpt import PROMPT

from .checkpoints import BestCheckpoint

__all__ = ["BestDescriber", "CaptionBatch", "GeneratingInferer", "TextScore", "warmup_cosine"]

_IGNORED = -100


class CaptionBatch(PrepareBatch):
    """Prepare pictures with their texts for an OFA describer.

    From "image" (B, 3, H, W), as the processor makes it of a picture, and "text", B texts: to train, prompt (B, L),
    labels (B, T), (), {"attention_mask", "pixel_values", "labels"}; to generate, the texts in place of the labels.

    Args:
        tokenizer: of the describer.
        prompt: what the describer is asked.
        generating: for :class:`GeneratingInferer`.
    """

    def __init__(self, tokenizer: Any, prompt: str = PROMPT, generating: bool = False) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.generating = generating

    def __call__(self, batchdata, device=None, non_blocking=False, **kwargs):  # type: ignore[no-untyped-def]
        """Prepare a batch."""
        pixels = torch.as_tensor(batchdata["image"]).as_subclass(torch.Tensor)
        pixels = pixels.to(device=device, non_blocking=non_blocking, **kwargs)
        asked = self.tokenizer([self.prompt] * len(pixels), return_tensors="pt").to(device)
        inputs = {"attention_mask": asked["attention_mask"], "pixel_values": pixels}
        texts = list(batchdata["text"])
        if self.generating:
            return asked["input_ids"], texts, (), inputs
        # the first piece, which begins a text, is the decoder's own
        wanted = self.tokenizer([f" {text}" for text in texts], return_tensors="pt", padding=True).to(device)
        labels = wanted["input_ids"].masked_fill(wanted["attention_mask"] == 0, _IGNORED)[:, 1:]
        return asked["input_ids"], labels, (), {**inputs, "labels": labels}


class GeneratingInferer(Inferer):
    """Let a network generate texts as its generation configuration says: a list of B texts.

    Args:
        tokenizer: of the describer.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
        """Generate."""
        plain: Any = getattr(network, "module", network)  # of a distributed one
        tokens = plain.generate(inputs, *args, **kwargs)
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


class TextScore(Average):
    """Mean of a score over generated texts and those they should be, as an Ignite metric.

    Args:
        score: of a generated text and the wanted one; NaN, where there is nothing to score, counts as 0.
        parse: what to make of both before they are scored, such as their findings.
    """

    def __init__(self, score: Callable[[Any, Any], float], parse: Callable[[str], Any] = str) -> None:
        def scores(output: Any) -> torch.Tensor:
            pairs = zip(output["pred"], output["label"], strict=True)
            scored = torch.tensor([[score(parse(made), parse(wanted))] for made, wanted in pairs], dtype=torch.float64)
            return scored.nan_to_num(0)

        super().__init__(output_transform=scores)

    def compute(self) -> float:
        """The mean."""
        return float(super().compute())


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Share of the learning rate at a step: up along a line, down to 0 along the cosine of the whole run.

    As ``LambdaLR`` takes it. The cosine begins with the run, that of :class:`monai.optimizers.WarmupCosineSchedule`
    after the warm-up; the describer's figures were got with this one.

    Args:
        step: from 0.
        warmup: steps on the way up.
        total: steps of the run.
    """
    return min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(step / total, 1)))


class BestDescriber(BestCheckpoint):
    """Save a describer whenever a validation metric is better than ever before: a checkpoint folder.

    Only the weights change from one to the next, and each file is replaced as a whole, so that the folder can be used
    at any time.

    Args:
        path: the folder.
        describer: what to save, a :class:`fusion_nets.text.ofa.LearningDescriber`.
        metric: its name in the evaluator's metrics.
    """

    def __init__(self, path: str | os.PathLike[str], describer: Any, metric: str) -> None:
        super().__init__(path, describer.network, metric)
        self.describer = describer

    def write(self) -> None:
        """Save the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".partial-*"):  # by a process that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=self.path) as folder:
            self.describer.save(folder)
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.suffix == ".safetensors"):
                os.replace(file, self.path / file.name)
