"""Pairs of the atlas fused in memory, and what became of inserted lesions and of edges in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from evaluation.functional import FUSION_METRICS, fusion_metrics, quantise
from evaluation.observers import LESION_MAKES
from evaluation.report import Comparison, LesionComparison, Score, source_of
from fusion_nets.clinical import read_image
from fusion_nets.datalists import aanlib_pairs
from fusion_nets.transforms import KeepAnatomy, MergeChroma, PaletteChroma, luminance
from fusion_nets.workflows import InsertLesions, KnownCase, SlicewiseInferer, kept_network, lesion_scores

# (K, 2, H, W) in [0, 1] -> (K, 1, H, W)
Fuse = Callable[[torch.Tensor], torch.Tensor]
# a pair and its sources (1, 2, H, W) -> what was made of it, (1, 1, H, W)
FuseOne = Callable[[Mapping[str, Any], torch.Tensor], torch.Tensor]

RULES: dict[str, Fuse] = {
    "maximum": lambda images: images.amax(1, keepdim=True),
    "mean": lambda images: images.mean(1, keepdim=True),
}
METRICS = ("Qabf", "VIF", "SSIM", "MI", "Nabf")
PALETTE = "auto"  # of both bundles
HEADLINE, *OTHERS = LESION_MAKES


def bundle_fuse(bundle: str | Path, engine: str = "auto", precision: str = "auto") -> tuple[str, Fuse]:
    """The name of a bundle's method, and its network as its own command runs it, or by another engine."""
    network = kept_network(bundle_root=bundle, engine=engine, precision=precision)["network"]
    inferer = SlicewiseInferer("auto")
    about = json.loads((Path(bundle) / "configs" / "inference.json").read_text(encoding="utf-8"))

    @torch.no_grad()
    def fuse(images: torch.Tensor) -> torch.Tensor:
        fused: torch.Tensor = inferer(images.float().movedim(0, -1)[None], network)
        return fused[0].movedim(-1, 0)

    return about["made_by"]["method"], fuse


def keeping(fuse: Fuse, share: float) -> Fuse:
    """The same, with so much more of the anatomy under the overlay; a pixel is taken as 1 mm."""
    keep = KeepAnatomy(share)

    def kept(images: torch.Tensor) -> torch.Tensor:
        anatomy, overlay = (images[:, k].movedim(0, -1)[None] for k in range(2))
        return keep(fuse(images)[:, 0].movedim(0, -1)[None], anatomy, overlay)[0].movedim(-1, 0)[:, None]

    return kept


def grey(path: str | Path) -> torch.Tensor:
    """Luminance of a picture, (H, W) float64 in [0, 1]."""
    return luminance(read_image(path).as_tensor().double())[0] / 255


def atlas(
    dataset_dir: str | Path, sections: Sequence[str], most: int | None = None, modality: str | None = None
) -> list[dict[str, str]]:
    """Pairs of sections by name, or at most so many of each kind, evenly spaced as the reference judge takes them.

    With a modality, those of such overlays alone.
    """
    found = aanlib_pairs(dataset_dir, sections)
    pairs = {pair["name"]: pair for pair in found if modality in (None, pair["overlay_modality"])}
    kinds: dict[str, list[dict[str, str]]] = {}
    for name in sorted(pairs):
        kinds.setdefault(pairs[name]["pair"], []).append(pairs[name])
    return [pair for of in kinds.values() for pair in (of if most is None else of[:: max(1, len(of) // most)][:most])]


def sources(pair: Mapping[str, Any]) -> torch.Tensor:
    """(2, H, W), anatomy first."""
    return torch.stack([grey(pair[key]) for key in ("anatomy", "overlay")])


def judged(
    method: str, fuse: Fuse, pairs: Iterable[dict[str, str]], makes: Sequence[str] = (HEADLINE,)
) -> tuple[LesionComparison, LesionComparison | None]:
    """What became of lesions in grey; and, of the headline's make under PET and SPECT, in colour.

    Of other makes only lesions of one source are fused.
    """
    insert, palette, merge = InsertLesions(makes), PaletteChroma(PALETTE), MergeChroma()
    scores, coloured = [], []
    for pair in tqdm(pairs, desc=f"lesions, {method}", unit="pair"):
        inserted = insert({**pair, "image": sources(pair)})
        told = [KnownCase.from_plain(case) for case in json.loads(inserted["lesions"])]
        kept = [k for k, case in enumerate(told) if case.make in ("", HEADLINE) or source_of(case.signs) != "both"]
        if not kept:
            continue
        cases, whose = [told[k] for k in kept], (method, pair["pair"], pair["subject"])
        images = inserted["image"][..., kept].movedim(-1, 0)
        fused = fuse(images)
        scores += lesion_scores(cases, images, quantise(fused) / 255, *whose)
        if pair["overlay_modality"] == "CT":
            continue
        seen = [k for k, case in enumerate(cases) if case.make in ("", HEADLINE)]
        overlays = MetaTensor(images[seen, 1][None], meta={"modality": pair["overlay_modality"]})
        colours = merge(fused[seen, 0][None], palette(overlays)).as_subclass(torch.Tensor).movedim(1, 0)
        coloured += lesion_scores([cases[k] for k in seen], images[seen], quantise(colours) / 255, *whose)
    return LesionComparison([method], scores), LesionComparison([method], coloured) if coloured else None


def by_pair(comparison: LesionComparison) -> LesionComparison:
    """The same with every pair as a subject of its own: the observer's folds are then those of the reference judge."""
    return LesionComparison(comparison.methods, [score._replace(subject="") for score in comparison.scores])


def measured(methods: Mapping[str, FuseOne], pairs: Sequence[dict[str, str]]) -> Comparison:
    """Every metric of every pair, of 8-bit luminances in float64, by kind of pair and subject."""
    scores = []
    for pair in tqdm(pairs, desc="metrics", unit="pair"):
        image = sources(pair)[None]
        anatomy, overlay = quantise(image).split(1, dim=1)
        results = torch.cat([quantise(fuse(pair, image)).double() for fuse in methods.values()])
        given = results, anatomy.expand_as(results), overlay.expand_as(results)
        values = fusion_metrics(*given, METRICS, data_range=255)
        for number, method in enumerate(methods):
            of = {name: value[number].item() for name, value in values.items()}
            scores.append(Score(pair["name"], method, of, pair["pair"], subject=pair["subject"]))
    return Comparison(list(methods), {name: FUSION_METRICS[name].higher_is_better for name in METRICS}, scores)


def of_levels(rule: Fuse) -> FuseOne:
    """A rule on grey levels, rounded half to even: what the golden values of the metrics call average."""
    return lambda pair, image: rule(quantise(image)).round() / 255


def published(folder: str | Path) -> FuseOne:
    """Images that others made of the same pairs, KIND/NUMBER.jpg."""
    return lambda pair, image: grey(Path(folder) / pair["pair"] / f"{Path(pair['anatomy']).stem}.jpg")[None, None]
