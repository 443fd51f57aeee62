"""How well a generated describer says what a measured one would: the texts of a section against measured ones.

    python tests/benchmarks/describer.py --dataset_dir AANLIB --model FOLDER [--section test] [--examples 1]
    python tests/benchmarks/describer.py --simulated 300 --model FOLDER [--examples 1]

The second has simulated pairs of a seed of their own in place of the section, and what was drawn in place of what is
measured; it tells, too, how the largest lesion of both texts compares.

Beside the generated texts stand three that know nothing of the image: the most frequent training description, the most
frequent one of the same modality, and training descriptions drawn at random: of several, equally frequent ones too, the
mean over --draws of them for every image. And, for what can be reached, the measured text itself with every figure off
by 10 % (standard deviation). Prints Markdown, the mean over all images and over each modality of

- ROUGE-L: the library's, F1 of the longest common subsequence of words;
- ROUGE-L of what is not frame: the same after the words that stand in more than 90 % of all training descriptions were
  taken out of both texts; printed too;
- recall and precision of findings, all of them and those that say where or how large.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from description_preservation import mean, specific

from evaluation.functional import finding_precision, finding_recall, rouge_l
from fusion_nets.datalists import aanlib_pairs, load_pairs, with_texts
from fusion_nets.simulation import SimulatedPairs
from fusion_nets.text import Describer, Finding, GeneratedText, MeasuredText, RandTakeTruthd, parse_findings
from fusion_nets.workflows import describe_pairs

FRAME, OFF = 0.9, 0.1
LEARNED, HELD_OUT = 0, 20261127
"""Seeds of simulated pairs; the training's validation has 1."""
Texts = dict[tuple[str, str], str]
"""By name of the pair and role."""
Scores = dict[str, float]


def described(pairs: Sequence[dict[str, str]], describer: Describer, texts: str | None = None) -> Texts:
    """The texts on both sources of every pair, from a datalist where there is one."""
    if texts:
        pairs = with_texts(pairs, texts)
    else:
        with tempfile.TemporaryDirectory() as folder:
            written = describe_pairs(pairs, describer, Path(folder) / "texts.json", batch_size=16)
            pairs = with_texts(pairs, load_pairs(written))
    return {(pair["name"], role): pair[f"{role}_text"] for pair in pairs for role in ("anatomy", "overlay")}


def words(text: str) -> list[str]:
    """As ROUGE-L counts them."""
    return re.findall("[a-z0-9]+", text.lower())


def frame(texts: Iterable[str], share: float = FRAME) -> set[str]:
    """Words that stand in more than this share of the texts."""
    texts = list(texts)
    counts = Counter(word for text in texts for word in set(words(text)))
    return {word for word, count in counts.items() if count > share * len(texts)}


def most_frequent(texts: Iterable[str]) -> list[str]:
    """The most frequent text, or all that are equally frequent."""
    counts = Counter(texts)
    return [text for text, count in counts.items() if count == max(counts.values())]


def inexact(text: str, draw: random.Random, deviation: float = OFF) -> str:
    """The text with other figures."""
    return re.sub(r"\d+\.\d", lambda figure: f"{float(figure[0]) * draw.gauss(1, deviation):.1f}", text)


def scoring(common: set[str]) -> Callable[[str, str], Scores]:
    """Every score of a text against the one it should be, where these words are common to all."""

    def rest(text: str) -> str:
        return " ".join(word for word in words(text) if word not in common)

    def score(made: str, wanted: str) -> Scores:
        findings, all_wanted = parse_findings(made), parse_findings(wanted)
        some, some_wanted = specific(findings), specific(all_wanted)
        return {
            "ROUGE-L": rouge_l(made, wanted),
            "ROUGE-L, not frame": rouge_l(rest(made), rest(wanted)),
            "recall": finding_recall(findings, all_wanted),
            "precision": finding_precision(findings, all_wanted),
            "specific recall": finding_recall(some, some_wanted),
            "specific precision": finding_precision(some, some_wanted),
        }

    return score


def average(scores: Sequence[Scores]) -> Scores:
    """The mean of each score, leaving out NaN."""
    return {name: mean(np.array([one[name] for one in scores])) for name in scores[0]}


def compare(
    made: Texts, wanted: Texts, training: Texts, modality: Mapping[tuple[str, str], str], draws: int, seed: int = 0
) -> dict[str, dict[str, Scores]]:
    """Scores by row (what wrote the texts) and modality ("all" of them first)."""
    score = scoring(frame(training.values()))
    of_modality = defaultdict(list)
    for key, text in training.items():
        of_modality[modality[key]].append(text)
    frequent = most_frequent(training.values())
    frequent_of = {name: most_frequent(texts) for name, texts in of_modality.items()}
    draw, known = random.Random(seed), list(training.values())

    def some(texts: list[str]) -> list[str]:
        return texts if len(texts) <= draws else draw.sample(texts, draws)

    rows: dict[str, Callable[[tuple[str, str]], list[str]]] = {
        "generated": lambda key: [made[key]],
        "most frequent training description": lambda key: some(frequent),
        "most frequent of the modality": lambda key: some(frequent_of[modality[key]]),
        "random training description": lambda key: some(known),
        "measured, figures off by 10 %": lambda key: [inexact(wanted[key], draw)],
    }
    results: dict[str, dict[str, Scores]] = {}
    for row, texts in rows.items():
        by_modality: dict[str, list[Scores]] = {"all": []}
        for key, right in wanted.items():
            scored = average([score(text, right) for text in texts(key)])
            by_modality["all"].append(scored)
            by_modality.setdefault(modality[key], []).append(scored)
        results[row] = {name: average(scores) for name, scores in by_modality.items()}
    return results


def table(results: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    """Markdown, and how many times as high as the most frequent training description's the generated texts' are."""
    first = next(iter(results.values()))
    heads = [*first["all"], *(f"{name} {score}" for name in list(first)[1:] for score in list(first["all"])[:3])]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row, scores in results.items():
        cells = [*scores["all"].values(), *(v for name in list(first)[1:] for v in list(scores[name].values())[:3])]
        lines.append(f"| {row} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    generated, frequent = results["generated"]["all"], results["most frequent training description"]["all"]
    times = ", ".join(f"{name} {generated[name] / frequent[name]:.2f}" for name in generated)
    return [*lines, "", f"generated / most frequent training description: {times}"]


def simulated(count: int, seed: int) -> dict[tuple[str, str], dict[str, Any]]:
    """One source of each of so many simulated pairs, with what was drawn in it."""
    sources = SimulatedPairs(seed, count, 128, truth=True, transform=RandTakeTruthd(), upright=1.0, distractors=0)
    return {(f"{seed} {number}", "source"): source for number, source in enumerate(sources)}


def regions(text: str) -> list[Finding]:
    """What is bright or dark, the largest first."""
    found = [one for one in parse_findings(text) if one.kind.startswith(("bright ", "dark ")) and one.size]
    return sorted(found, key=lambda one: -one.size)


def largest(made: Texts, wanted: Texts) -> str:
    """How the largest region that a text tells of compares with the largest that there is."""
    told, there = ({key: regions(text) for key, text in texts.items() if regions(text)} for texts in (made, wanted))
    both = [(told[key][0], there[key][0]) for key in told.keys() & there.keys()]
    right = {
        "tone": [a.kind.split()[0] == b.kind.split()[0] for a, b in both],
        "side": [a.side == b.side for a, b in both if b.side],
        "place": [a.place == b.place for a, b in both if b.place],
        "size to a quarter": [abs(a.size - b.size) <= b.size / 4 for a, b in both if a.unit == b.unit],
    }
    shares = ", ".join(f"{name} {np.mean(each):.0%} of {len(each)}" for name, each in right.items() if each)
    return (
        f"a region is told of in {len(both)} of {len(there)} images with one and in "
        f"{len(told.keys() - there.keys())} of {len(wanted) - len(there)} without; right of the largest: {shares}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--dataset_dir")
    images.add_argument("--simulated", type=int, metavar="PAIRS")
    parser.add_argument("--model", required=True, help="folder of the generated describer's checkpoint")
    parser.add_argument("--section", default="test")
    parser.add_argument("--texts", help="datalist with the measured texts, as `fusion-nets describe` writes it")
    parser.add_argument(
        "--draws", type=int, default=10, help="training descriptions that an image is compared with in each row"
    )
    parser.add_argument("--examples", type=int, default=0, help="images whose two texts are printed")
    given = parser.parse_args(arguments)

    generated = GeneratedText(given.model, batch_size=16)
    if given.simulated:
        learned, sources = (simulated(given.simulated, seed) for seed in (LEARNED, HELD_OUT))
        training, wanted = ({key: one["text"] for key, one in some.items()} for some in (learned, sources))
        made = dict(zip(sources, generated([one["image"] for one in sources.values()]), strict=True))
        modality = {key: one["image"].meta["modality"] for key, one in (learned | sources).items()}
        name = "Simulated sources"
    else:
        pairs, of_training = (aanlib_pairs(given.dataset_dir, section) for section in (given.section, "train"))
        modality = {
            (pair["name"], role): pair[f"{role}_modality"]
            for pair in pairs + of_training
            for role in ("anatomy", "overlay")
        }
        training = described(of_training, MeasuredText(), given.texts)
        wanted, made = described(pairs, MeasuredText()), described(pairs, generated)
        name = f"Section {given.section}"
    results = compare(made, wanted, training, modality, given.draws)
    print(f"{name}: {len(wanted)} images\n", *table(results), "", largest(made, wanted), sep="\n")
    print(f"\nFrame: {', '.join(sorted(frame(training.values())))}")
    for key in list(wanted)[: given.examples]:
        print(f"\n{' '.join(key)}\n  wanted:    {wanted[key]}\n  generated: {made[key]}")


if __name__ == "__main__":
    main()
