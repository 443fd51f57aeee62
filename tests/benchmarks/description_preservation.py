"""How much of the sources' descriptions the fused images keep, one row per fusion method.

    python tests/benchmarks/description_preservation.py --dataset_dir AANLIB [--published_dir IMAGES]
        [--method NAME=FOLDER ...] [--encoder [FOLDER]] [--specific] [--describer FOLDER] [--example NAME]

A method's folder holds its fused pictures as the bundles write them, PET-MRI_25015_fused.png, or as PET-MRI/25015.jpg.
Both sources and every fused image are described by `fusion_nets.text.MeasuredText`, or with --describer by the
image-to-text checkpoint in a folder. Prints Markdown: over the pairs of
the section that every method has, and over those of them for which the authors of DM-FNet published fused images; and
whether the claim holds that a method keeps at least 15 % more findings than the pointwise mean. With --specific only
findings count that say where or how large: others, such as the mean level, stand in every one and cannot be lost.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.stats import wilcoxon

from evaluation.functional import quantise
from fusion_nets.clinical import read_image
from fusion_nets.datalists import AANLIB_PAIRS, aanlib_pairs
from fusion_nets.text import Describer, Finding, GeneratedText, MeasuredText, parse_findings
from fusion_nets.text.text_encoder import TextEncoder
from fusion_nets.transforms import luminance
from fusion_nets.workflows import DescriptionPreservation

MEAN, MAXIMUM, PUBLISHED = "pointwise mean", "pointwise maximum", "DM-FNet (published images)"
TITLES = {"finding_recall": "recall", "finding_precision": "precision", "rouge_l": "ROUGE-L", "similarity": "cosine"}
CLAIM, LEVEL = 1.15, 0.05
Pair = Mapping[str, str]
Scores = dict[str, dict[str, dict[str, float]]]
"""Method, name of the pair, score."""


def grey(path: str | Path, modality: str) -> MetaTensor:
    """8-bit luminance, (1, H, W), in [0, 1]."""
    image = read_image(path)
    levels = quantise(luminance(image.as_tensor()), data_range=255) / 255
    return MetaTensor(levels, affine=image.affine, meta={"modality": modality})


def pictures(folder: str | Path, pairs: Sequence[Pair]) -> dict[str, Path]:
    """The fused pictures a folder has of these pairs, by the pair's name."""
    found = {}
    for pair in pairs:
        stem = Path(pair["anatomy"]).stem
        names = (f"{pair['name']}_fused.png", f"{pair['name']}.png", f"{pair['pair']}/{stem}.jpg")
        there = [Path(folder) / name for name in names if (Path(folder) / name).is_file()]
        if there:
            found[pair["name"]] = there[0]
    if not found:
        raise SystemExit(f"{folder}: holds none of the {len(pairs)} pairs; {' or '.join(names)} would be one of them")
    return found


def score(
    preservation: DescriptionPreservation, pairs: Sequence[Pair], methods: Mapping[str, Mapping[str, Path]]
) -> Scores:
    """Every score of the pointwise mean and maximum, and of each method where it has the pair."""
    texts = descriptions(preservation.describer, pairs, methods)
    return {
        row: {
            name: preservation.compare(text, texts["anatomy"][name], texts["overlay"][name])
            for name, text in texts[row].items()
        }
        for row in (MEAN, MAXIMUM, *methods)
    }


def descriptions(
    describer: Describer, pairs: Sequence[Pair], methods: Mapping[str, Mapping[str, Path]]
) -> dict[str, dict[str, str]]:
    """What is said of "anatomy", "overlay", the pointwise mean and maximum, and each method, of every pair there is."""
    images: dict[tuple[str, str], MetaTensor] = {}
    for pair in pairs:
        name = pair["name"]
        anatomy, overlay = (grey(pair[key], pair[f"{key}_modality"]) for key in ("anatomy", "overlay"))
        images |= {("anatomy", name): anatomy, ("overlay", name): overlay}
        fused = {MEAN: quantise((anatomy + overlay) / 2) / 255, MAXIMUM: torch.maximum(anatomy, overlay)}
        fused |= {row: grey(found[name], "fused") for row, found in methods.items() if name in found}
        for row, image in fused.items():
            known = {"affine": anatomy.affine, "meta": {"modality": "fused"}}
            images[row, name] = MetaTensor(image.as_subclass(torch.Tensor), **known)
    texts: dict[str, dict[str, str]] = {row: {} for row, _ in images}
    for (row, name), text in zip(images, describer(list(images.values())), strict=True):
        texts[row][name] = text
    return texts


def specific(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that say where or how large."""
    return [finding for finding in findings if finding.side or finding.place or finding.size is not None]


def common(scores: Scores) -> list[str]:
    """The pairs that every method has."""
    first, *others = scores.values()
    return [name for name in first if all(name in other for other in others)]


def values(scores: Scores, row: str, score: str, names: Sequence[str]) -> np.ndarray:
    """One score of one method, pair by pair."""
    return np.array([scores[row][name][score] for name in names])


def mean(numbers: np.ndarray) -> float:
    """Mean of what is no NaN; NaN of nothing."""
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if len(numbers) else float("nan")


def compare(better: np.ndarray, than: np.ndarray) -> tuple[float, float]:
    """How many times as high a mean is, and the p of a one-sided Wilcoxon signed-rank test that it is higher.

    Pair by pair; pairs without both values are left out.
    """
    both = ~(np.isnan(better) | np.isnan(than))
    better, than = better[both], than[both]
    if not len(better):
        return float("nan"), float("nan")
    ratio = float(better.mean() / than.mean()) if than.any() else float("inf") if better.any() else float("nan")
    p = 1.0 if np.array_equal(better, than) else float(wilcoxon(better, than, alternative="greater").pvalue)
    return ratio, p


def table(scores: Scores, names: Sequence[str]) -> list[str]:
    """Markdown: the mean of every score over each modality pair and over all of them, and findings against the mean."""
    groups = {pair: [name for name in names if name.startswith(f"{pair}_")] for pair in AANLIB_PAIRS}
    groups = {pair: group for pair, group in groups.items() if group} | {"all": list(names)}
    kinds = list(scores[MEAN][names[0]])
    heads = [f"{group} {TITLES[kind]}" for group in groups for kind in kinds]
    lines = ["| | " + " | ".join([*heads, "recall / mean's", "p"]) + " |", "|---|" + "---|" * (len(heads) + 2)]
    for row in scores:
        cells = [f"{mean(values(scores, row, kind, group)):.4f}" for group in groups.values() for kind in kinds]
        ratio, p = compare(*(values(scores, each, "finding_recall", names) for each in (row, MEAN)))
        cells += ["", ""] if row == MEAN else [f"{ratio:.3f}", f"{p:.2g}"]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def verdicts(scores: Scores, names: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Whether each method keeps 15 % more findings than the mean, and more than the published images, if any."""
    lines = []
    for row in methods:
        for other, wanted in ((MEAN, CLAIM), (PUBLISHED, 1.0)):
            if other not in scores or row == other:
                continue
            ratio, p = compare(*(values(scores, each, "finding_recall", names) for each in (row, other)))
            holds = (ratio >= wanted if wanted > 1 else ratio > wanted) and p < LEVEL
            claim = f"at least {wanted:g} times" if wanted > 1 else "more than"
            lines.append(
                f"{row} keeps {claim} the findings of {other}: {'the claim holds' if holds else 'does not hold'} "
                f"({ratio:.3f} times, p = {p:.2g}, {len(names)} pairs)"
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--published_dir", help="the images that the authors of DM-FNet published")
    parser.add_argument("--section", default="test")
    parser.add_argument("--method", action="append", default=[], metavar="NAME=FOLDER", help="may be given repeatedly")
    parser.add_argument("--encoder", nargs="?", const="", help="folder of a text encoder, the default one if bare")
    parser.add_argument("--specific", action="store_true", help="count only findings that say where or how large")
    parser.add_argument("--describer", help="folder of an image-to-text checkpoint that writes the descriptions")
    parser.add_argument("--example", help="name of a pair whose descriptions are printed, too")
    given = parser.parse_args(arguments)

    methods = {}
    pairs = aanlib_pairs(given.dataset_dir, given.section)
    for method in given.method:
        name, _, folder = method.partition("=")
        if not folder or name in (*methods, MEAN, MAXIMUM, PUBLISHED):
            parser.error(f"--method {method!r}: a name of its own, = and a folder are accepted")
        methods[name] = pictures(folder, pairs)
    encoder = None if given.encoder is None else TextEncoder(given.encoder or None)
    parse = (lambda text: specific(parse_findings(text))) if given.specific else parse_findings
    describer: Describer = GeneratedText(given.describer, batch_size=16) if given.describer else MeasuredText()
    preservation = DescriptionPreservation(describer, encoder, parse)
    published = {PUBLISHED: pictures(given.published_dir, pairs)} if given.published_dir else {}

    scores = score(preservation, pairs, methods | published)
    ours = {row: cases for row, cases in scores.items() if row != PUBLISHED}
    tables = {f"Section {given.section}": ours} | ({"Of these with a published image": scores} if published else {})
    for title, rows in tables.items():
        names = common(rows)
        if not names:
            raise SystemExit(f"{title}: no pair that every method has")
        print(f"{title}: {len(names)} pairs (of {len(pairs)}) that every method has\n")
        lines = [*table(rows, names), "", *verdicts(rows, names, [row for row in rows if row not in (MEAN, MAXIMUM)])]
        print(*lines, sep="\n", end="\n\n")
    for pair in pairs:
        if pair["name"] == given.example:
            of_pair = {row: {pair["name"]: found[pair["name"]]} for row, found in methods.items()}
            for row, texts in descriptions(describer, [pair], of_pair).items():
                print(f"{row}: {texts[pair['name']]}")


if __name__ == "__main__":
    main()
