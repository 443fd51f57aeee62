"""Does the text matter? SMFusion's weights with right, shuffled and no descriptions: metrics and descriptions.

    python tests/benchmarks/text_matters.py --dataset_dir AANLIB [--section test] [--bundle bundles/smfusion]

Describes the section, fuses it three times by the bundle's evaluation (texts of the pair itself; of another pair of the
section, drawn over all modalities; none), and prints Markdown: the fusion metrics, what the fused image's description
keeps of the sources' (right) ones, and how far each fused image is from the one with the right texts, in grey levels.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from description_preservation import TITLES, grey, mean, pictures, score, values
from scores import means_of, print_table, run_bundle

from fusion_nets.datalists import aanlib_pairs, with_texts
from fusion_nets.text import MeasuredText, TextEncoder
from fusion_nets.workflows import DescriptionPreservation, describe_pairs

TEXTS = ("anatomy_text", "overlay_text")


def shuffled(pairs: list[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Every pair with the texts of another one."""
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)
    # neighbours in a random order: nobody keeps its own
    others = {order[i]: order[i - 1] for i in range(len(order))}
    return [{**pair, **{key: pairs[others[i]][key] for key in TEXTS}} for i, pair in enumerate(pairs)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--section", default="test")
    parser.add_argument("--bundle", default=str(Path(__file__).resolve().parents[2] / "bundles" / "smfusion"))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pairs = aanlib_pairs(arguments.dataset_dir, arguments.section)
        right = with_texts(pairs, describe_pairs(pairs, MeasuredText(), root / "texts.json"))
        variants = {"right texts": right, "shuffled texts": shuffled(right), "no texts": pairs}
        metrics = {}
        for name, variant in variants.items():
            (root / "pairs.json").write_text(json.dumps(variant))
            metrics[name] = means_of(run_bundle(arguments.bundle, root / name, datalist=str(root / "pairs.json")))
        print_table(metrics)

        found = {name: pictures(root / name, pairs) for name in variants}
        descriptions = score(DescriptionPreservation(MeasuredText(), TextEncoder()), pairs, found)
        names = [pair["name"] for pair in pairs]
        print("\n| | " + " | ".join(TITLES.values()) + " | mean difference | largest difference |")
        print("|---|" + "---|" * (len(TITLES) + 2))
        for name in variants:
            cells = [f"{mean(values(descriptions, name, kind, names)):.4f}" for kind in TITLES]
            apart = [
                255 * (grey(found[name][case], "fused") - grey(found["right texts"][case], "fused")).abs()
                for case in names
            ]
            levels = sum(float(each.mean()) for each in apart) / len(apart), max(float(each.max()) for each in apart)
            print(f"| {name} | " + " | ".join(cells) + f" | {levels[0]:.2f} | {levels[1]:.0f} |")


if __name__ == "__main__":
    main()
