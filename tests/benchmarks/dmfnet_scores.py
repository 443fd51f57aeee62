"""The table of DM-FNet's model card: the bundle's weights against the published images and other programs.

    python tests/benchmarks/dmfnet_scores.py --dataset_dir AANLIB --published_dir IMAGES [--scoreboard scoreboard.json]

Runs the bundle's evaluation over the section "published" of the test pairs, scores the published images and the
pointwise maximum and mean of the sources in the same way, and prints a Markdown table of the mean of each modality.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from monai.bundle import run

from evaluation.functional import mutual_information, qabf, quantise, ssim, vif
from fusion_nets.clinical import AANLIB_PAIRS, aanlib_pairs, read_image
from fusion_nets.transforms import luminance

METRICS = {"MI": mutual_information, "SSIM": ssim, "Qabf": qabf, "VIF": vif}
BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "dmfnet"
Scores = dict[str, dict[str, list[float]]]


def grey(path: str | Path) -> torch.Tensor:
    """8-bit luminance, (1, 1, H, W), 0..255."""
    return quantise(luminance(read_image(path).as_tensor())[None], data_range=255)


def score(images: dict[str, torch.Tensor], sources: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Scores:
    """Every metric of every image, by modality pair."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for name, fused in images.items():
        for metric, function in METRICS.items():
            value = function(fused.double(), *(s.double() for s in sources[name]), data_range=255)
            scores[name.rsplit("_", 1)[0]][metric].append(value.item())
    return scores


def bundle_scores(dataset_dir: str, section: str) -> Scores:
    """What the bundle's own evaluation saves."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        configs = [str(BUNDLE / "configs" / name) for name in ("inference.json", "evaluate.json")]
        run(config_file=configs, bundle_root=str(BUNDLE), dataset_dir=dataset_dir, section=section, output_dir=folder)
        for metric in METRICS:
            with (Path(folder) / f"{metric}_raw.csv").open() as file:
                for row in csv.DictReader(file):
                    scores[row["filename"].rsplit("_", 1)[0]][metric].append(float(row["mean"]))
    return scores


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--published_dir", required=True)
    parser.add_argument("--scoreboard", help="other programs' scores of the same pairs, as JSON")
    parser.add_argument("--section", default="published")
    arguments = parser.parse_args()

    pairs = aanlib_pairs(arguments.dataset_dir, arguments.section)
    sources = {pair["name"]: (grey(pair["anatomy"]), grey(pair["overlay"])) for pair in pairs}
    published = {
        pair["name"]: Path(arguments.published_dir) / pair["pair"] / f"{Path(pair['anatomy']).stem}.jpg"
        for pair in pairs
    }
    rows = {
        "**this bundle**": bundle_scores(arguments.dataset_dir, arguments.section),
        "pointwise maximum": score({name: torch.maximum(*pair) for name, pair in sources.items()}, sources),
        "pointwise mean": score({name: ((a + b) / 2).round() for name, (a, b) in sources.items()}, sources),
    }
    if arguments.section == "published":
        images = {name: grey(path) for name, path in published.items()}
        rows["DM-FNet (published images)"] = score(images, sources)
    means = {
        row: {
            pair: {metric: sum(values) / len(values) for metric, values in scores[pair].items()}
            for pair in AANLIB_PAIRS
        }
        for row, scores in rows.items()
    }
    if arguments.scoreboard:
        board = json.loads(Path(arguments.scoreboard).read_text())["scores"]
        for row in board["CT-MRI"]:
            means.setdefault(row, {pair: board[pair][row] for pair in AANLIB_PAIRS})

    print("| | " + " | ".join(f"{pair} {metric}" for pair in AANLIB_PAIRS for metric in METRICS) + " |")
    print("|---|" + "---|" * (len(AANLIB_PAIRS) * len(METRICS)))
    for row, scores in means.items():
        values = (f"{scores[pair][metric]:.4f}" for pair in AANLIB_PAIRS for metric in METRICS)
        print(f"| {row} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
