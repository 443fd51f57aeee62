"""How much of the sources' descriptions survives in the description of the fused image."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from evaluation.functional import finding_precision, finding_recall, rouge_l, text_similarity
from fusion_nets.files import whole_file
from fusion_nets.overlays import SOURCES
from fusion_nets.text import Describer, Finding, parse_findings
from fusion_nets.transforms import luminance

from .cases import CaseRecords, is_first_process

__all__ = ["DescriptionPreservation", "DescriptionSaver", "PairDescriptions"]


@dataclass(frozen=True)
class PairDescriptions:
    """The descriptions of a pair and of its fused image, and what the one kept of the others.

    Args:
        anatomy_text: description of the anatomy.
        overlay_text: description of the overlay.
        fused_text: description of the fused image.
        scores: by name, see :class:`DescriptionPreservation`; NaN where there is nothing to score.
        overlay2_text: description of a second overlay, where there is one.
        overlay3_text: likewise.
    """

    anatomy_text: str
    overlay_text: str
    fused_text: str
    scores: dict[str, float]
    overlay2_text: str | None = None
    overlay3_text: str | None = None


class DescriptionPreservation:
    """Describe all sources and the fused image, and score what the fused image's description kept.

    The scores, all the better the higher:

    - "finding_recall", 0 to 1: share of a source's findings that the fused image's description has, mean over the
      sources that have any;
    - "finding_precision", 0 to 1: share of the fused image's findings that any source has;
    - "rouge_l", 0 to 1: ROUGE-L, mean over the sources;
    - "similarity", -1 to 1: cosine of text embeddings, mean over the sources; only with an encoder.

    Args:
        describer: describes all images; a text model that is told the modality should not write in another style
            for "fused", or style is what the scores measure.
        encoder: a :class:`fusion_nets.text.TextEncoder`, or any callable whose result for a list of texts has a
            ``vector``, (B, D).
        parse: reads the findings of a description.

    Source: Xiang et al., SMFusion, arXiv 2505.12251, 2025; see :mod:`evaluation.functional` for each score.
    """

    def __init__(
        self,
        describer: Describer,
        encoder: Callable[[list[str]], Any] | None = None,
        parse: Callable[[str], Sequence[Finding]] = parse_findings,
    ) -> None:
        self.describer = describer
        self.encoder = encoder
        self.parse = parse

    def __call__(
        self,
        fused: torch.Tensor,
        anatomy: torch.Tensor,
        overlay: torch.Tensor,
        anatomy_text: str | None = None,
        overlay_text: str | None = None,
        others: Sequence[tuple[torch.Tensor, str | None]] = (),
    ) -> PairDescriptions:
        """Describe and score one pair.

        Args:
            fused: fused image, (1 | 3, H, W[, D]) in [0, 1], on the grid of the anatomy; its luminance is described.
            anatomy: the anatomical source, (1 | 3, H, W[, D]) in [0, 1]; its ``meta`` goes to the describer.
            overlay: the overlay, likewise.
            anatomy_text: description of the anatomy, if there is one already; it should be the describer's.
            overlay_text: description of the overlay, likewise.
            others: up to two further overlays, each with its description or None.
        """
        fused_text = self.describe(fused, like=anatomy)
        anatomy_text = anatomy_text or self.describe(anatomy)
        overlay_text, *texts = (text or self.describe(one) for one, text in [(overlay, overlay_text), *others])
        scores = self.compare(fused_text, anatomy_text, overlay_text, *texts)
        return PairDescriptions(anatomy_text, overlay_text, fused_text, scores, *texts)

    def describe(self, image: torch.Tensor, like: torch.Tensor | None = None) -> str:
        """Describe an image as it is, or as one fused on the grid of the image it is ``like``."""
        if like is not None:
            affine = like.affine if isinstance(like, MetaTensor) else None
            plain = luminance(image.as_subclass(torch.Tensor))
            image = MetaTensor(plain, affine=affine, meta={"modality": "fused"})
        elif not isinstance(image, MetaTensor):
            image = MetaTensor(image)
        (text,) = self.describer([image])
        return text

    def compare(self, fused_text: str, *sources: str) -> dict[str, float]:
        """Score the description of a fused image against those of its sources, the anatomy first."""
        fused, *of_sources = (list(self.parse(text)) for text in (fused_text, *sources))
        recalls = [finding_recall(fused, findings) for findings in of_sources if findings]
        scores = {
            "finding_recall": sum(recalls) / len(recalls) if recalls else math.nan,
            "finding_precision": finding_precision(fused, [finding for findings in of_sources for finding in findings]),
            "rouge_l": sum(rouge_l(fused_text, text) for text in sources) / len(sources),
        }
        if self.encoder is not None:
            vectors = torch.as_tensor(self.encoder([fused_text, *sources]).vector)
            scores["similarity"] = text_similarity(vectors[:1].expand(len(sources), -1), vectors[1:]).mean().item()
        return scores


class DescriptionSaver:
    """Describe every case of an evaluation run.

    Beside its fused image, ``{name}_description.json`` holds "anatomy_text", "overlay_text", "fused_text" and "scores"
    (null where there is nothing to score); the table ``descriptions.csv`` has one row of scores per case and no text.
    Cases are known by "name" alone.

    The engine's items, taken apart as MONAI's engines do by default, need "image" (S, H, W[, D]), "pred"
    (1, H, W[, D]) and "name". Modalities are told by "anatomy_modality" and "overlay_modality", or else by the ``meta``
    of "anatomy" and "overlay". "anatomy_text" and "overlay_text" are the sources' descriptions, where there are any;
    lists, one text per slice, are not.

    Args:
        output_dir: folder to write to.
        describer: as for :class:`DescriptionPreservation`.
        encoder: likewise.
        parse: likewise.
        records: of the cases, earlier among the handlers; the table has all of them, whichever process or earlier run
            did them. Without, it has those of this process and run.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        describer: Describer,
        encoder: Callable[[list[str]], Any] | None = None,
        parse: Callable[[str], Sequence[Finding]] = parse_findings,
        records: CaseRecords | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.preservation = DescriptionPreservation(describer, encoder, parse)
        self.records = records
        self.scores: dict[str, dict[str, float]] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.scores.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save_table)

    def __call__(self, engine: Engine) -> None:
        """Describe the cases of a batch.

        Raises:
            KeyError: for an item without "image", "pred" or "name".
        """
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for given, made in zip(batch, output, strict=True):
            item = {**given, **made}
            keys = SOURCES[: len(item["image"])]
            anatomy, overlay, *images = (_source(item, key, k) for k, key in enumerate(keys))
            texts = [text if isinstance(text := item.get(f"{key}_text"), str) else None for key in keys]
            others = list(zip(images, texts[2:], strict=True))
            description = self.preservation(item["pred"].cpu(), anatomy, overlay, texts[0], texts[1], others)
            self.scores[item["name"]] = description.scores
            if self.records is not None:
                self.records.note(item["name"], "description", description.scores)
            scores = {name: None if math.isnan(value) else value for name, value in description.scores.items()}
            file = self.output_dir / f"{item['name']}_description.json"
            with whole_file(file) as partial:
                told = {key: value for key, value in asdict(description).items() if value is not None}
                partial.write_text(json.dumps({**told, "scores": scores}, indent=1, ensure_ascii=False), "utf-8")
            made["saved"] = [*made.get("saved", []), file.name]

    def save_table(self) -> None:
        """Write the scores of all cases."""
        if not is_first_process():
            return
        scores = self.scores if self.records is None else self.records.noted("description")
        rows = [{"name": name, **of_case} for name, of_case in scores.items()]
        if not rows:
            return
        with whole_file(self.output_dir / "descriptions.csv") as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def _source(item: Mapping[str, Any], key: str, channel: int) -> MetaTensor:
    image = item["image"][channel : channel + 1].cpu()
    modality = item.get(f"{key}_modality") or getattr(item.get(key), "meta", {}).get("modality")
    affine = image.affine if isinstance(image, MetaTensor) else None
    known = {"modality": modality} if modality else {}
    return MetaTensor(image.as_subclass(torch.Tensor), affine=affine, meta=known)
