"""How near the instant networks come to those that taught them, on simulated pairs that neither has seen.

    python tests/benchmarks/instant.py [--pairs 60] [--backgrounds 6] [--bundle dmfnet smfusion]

Both fuse by the engine that "auto" takes, on one thread: Qabf, VIF and SSIM are means over the pairs; lost are lesions
of every kind put into the first of them; times are a core's seconds for a pair of 256 x 256. Fails where the instant
network is more than .01 of Qabf, VIF or SSIM below, loses more than 2 lesions in a hundred besides, or takes more than
.1 s.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict

import numpy as np
import torch
from engines import METRICS, fused_by_all, recoveries

from evaluation.functional import fusion_metrics, quantise
from fusion_nets.simulation import SimulatedPairs
from fusion_nets.workflows import kept_network


@torch.no_grad()
def measure(bundle: str, count: int, backgrounds: int) -> bool:
    """Print a bundle's table; whether its instant network is near enough."""
    kept = {name: kept_network(bundle, instant=name == "instant") for name in ("own", "instant")}
    networks = {name: one["network"] for name, one in kept.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, list[list[float]]] = defaultdict(list)
    gone: dict[str, list[bool]] = defaultdict(list)
    fused_by_all(networks, torch.rand(1, 2, 256, 256), defaultdict(list))  # the first call of a size makes room
    pairs = SimulatedPairs(seed=20261126, length=count, size=256)
    for number in range(count):
        item = pairs[number]
        image = item["image"][None]
        sources = [plane.double() * 255 for plane in image.split(1, dim=1)]
        for name, one in fused_by_all(networks, image, seconds).items():
            found = fusion_metrics(quantise(one).double(), *sources, METRICS, data_range=255)
            scores[name].append([found[metric].item() for metric in METRICS])
        if number < backgrounds:
            plain = item["image"].numpy().astype(np.float64)
            for name, values in recoveries(networks, plain, number, item["pair"] == "CT-MRI").items():
                gone[name] += values
        print(f"\r{bundle}: {number + 1} of {count}", end="", file=sys.stderr)
    print(f"\n{bundle}: {count} pairs, {len(gone['own'])} lesions\n")
    print("| network | parameters | Qabf | VIF | SSIM | lost | a core's seconds |\n|---|---|---|---|---|---|---|")
    means = {name: np.mean(one, axis=0) for name, one in scores.items()}
    for name, network in networks.items():
        size = sum(value.numel() for value in network.parameters())
        row = [f"{value:.4f}" for value in means[name]] + [f"{np.mean(gone[name] or [np.nan]):.1%}"]
        print(f"| {name} | {size:,} | " + " | ".join(row) + f" | {np.median(seconds[name]):.3f} |", flush=True)
    near = (means["own"] - means["instant"]).max() <= 0.01 and np.median(seconds["instant"]) <= 0.1
    return bool(near and np.sum(gone["instant"]) - np.sum(gone["own"]) <= 0.02 * len(gone["own"]))


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--backgrounds", type=int, default=6, help="pairs that lesions are put into")
    parser.add_argument("--bundle", nargs="+", default=["dmfnet", "smfusion"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    good = [measure(bundle, arguments.pairs, arguments.backgrounds) for bundle in arguments.bundle]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
