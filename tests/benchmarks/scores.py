"""The table of a model card: a bundle's weights against the published images and other programs.

    python tests/benchmarks/scores.py --bundle bundles/smfusion --dataset_dir AANLIB --published_dir IMAGES
        [--scoreboard scoreboard.json] [--option describe=True ...]

Runs the bundle's evaluation over the section "published" of the test pairs, scores the published images and the
pointwise maximum and mean of the sources in the same way, and prints a Markdown table of the mean of each modality.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import run

from evaluation.functional import fusion_metrics, quantise
from fusion_nets.clinical import read_image
from fusion_nets.datalists import AANLIB_PAIRS, aanlib_pairs
from fusion_nets.transforms import luminance

METRICS = ("MI", "SSIM", "Qabf", "VIF")
Scores = dict[str, dict[str, list[float]]]
Means = dict[str, dict[str, float]]


def grey(path: str | Path) -> torch.Tensor:
    """8-bit luminance, (1, 1, H, W), 0..255."""
    return quantise(luminance(read_image(path).as_tensor())[None], data_range=255)


def score(images: dict[str, torch.Tensor], sources: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Scores:
    """Every metric of every image, by modality pair."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for name, fused in images.items():
        anatomy, overlay = (source.double() for source in sources[name])
        for metric, value in fusion_metrics(fused.double(), anatomy, overlay, METRICS, data_range=255).items():
            scores[name.rsplit("_", 1)[0]][metric].append(value.item())
    return scores


def run_bundle(bundle: str | Path, folder: str | Path, **options: Any) -> Scores:
    """Fuse and evaluate by the bundle into a folder; what its own evaluation saves."""
    configs = [str(Path(bundle) / "configs" / name) for name in ("inference.json", "evaluate.json")]
    run(config_file=configs, bundle_root=str(bundle), output_dir=str(folder), **options)
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for metric in METRICS:
        with (Path(folder) / f"{metric}_raw.csv").open() as file:
            for row in csv.DictReader(file):
                scores[row["filename"].rsplit("_", 1)[0]][metric].append(float(row["mean"]))
    return scores


def means_of(scores: Scores) -> Means:
    """The mean of every metric over the pairs of each modality."""
    return {
        pair: {metric: sum(values) / len(values) for metric, values in scores[pair].items()} for pair in AANLIB_PAIRS
    }


def print_table(means: Mapping[str, Means]) -> None:
    """Markdown: a row for each method."""
    print("| | " + " | ".join(f"{pair} {metric}" for pair in AANLIB_PAIRS for metric in METRICS) + " |")
    print("|---|" + "---|" * (len(AANLIB_PAIRS) * len(METRICS)))
    for row, scores in means.items():
        values = (f"{scores[pair][metric]:.4f}" for pair in AANLIB_PAIRS for metric in METRICS)
        print(f"| {row} | " + " | ".join(values) + " |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--published_dir", required=True)
    parser.add_argument("--scoreboard", help="other programs' scores of the same pairs, as JSON")
    parser.add_argument("--section", default="published")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the bundle's inference")
    arguments = parser.parse_args()

    pairs = aanlib_pairs(arguments.dataset_dir, arguments.section)
    sources = {pair["name"]: (grey(pair["anatomy"]), grey(pair["overlay"])) for pair in pairs}
    published = {
        pair["name"]: Path(arguments.published_dir) / pair["pair"] / f"{Path(pair['anatomy']).stem}.jpg"
        for pair in pairs
    }
    options: dict[str, Any] = dict(option.split("=", 1) for option in arguments.option)
    options = {name: {"True": True, "False": False}.get(value, value) for name, value in options.items()}
    with tempfile.TemporaryDirectory() as folder:
        fused = run_bundle(
            arguments.bundle, folder, dataset_dir=arguments.dataset_dir, section=arguments.section, **options
        )
    rows = {
        "**this bundle**": fused,
        "pointwise maximum": score({name: torch.maximum(*pair) for name, pair in sources.items()}, sources),
        "pointwise mean": score({name: ((a + b) / 2).round() for name, (a, b) in sources.items()}, sources),
    }
    if arguments.section == "published":
        images = {name: grey(path) for name, path in published.items()}
        rows["DM-FNet (published images)"] = score(images, sources)
    means = {row: means_of(scores) for row, scores in rows.items()}
    if arguments.scoreboard:
        board = json.loads(Path(arguments.scoreboard).read_text())["scores"]
        for row in board["CT-MRI"]:
            means.setdefault(row, {pair: board[pair][row] for pair in AANLIB_PAIRS})
    print_table(means)


if __name__ == "__main__":
    main()
