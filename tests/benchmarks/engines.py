"""What each engine and precision makes of the shipped networks, against torch in float32: the cards' tables.

    taskset -c 1 python tests/benchmarks/engines.py --dataset_dir AANLIB [--section published] [--pairs 52]
        [--backgrounds 8] [--bundle dmfnet smfusion] [--published_size]

Every pair goes through all engines in turns, on one thread, so that a busy machine hardly shows: times are a core's
seconds for one pair, the median over the pairs, and how many times as fast as torch in float32. Differences are of the
fused luminance in 8-bit levels; Qabf, VIF and SSIM are those of the pairs. Lesions of every kind are put into evenly
spaced backgrounds. Fails where an engine that "auto" takes departs by more than .3 levels in the mean or 6 anywhere,
Qabf, VIF or SSIM by more than .002, or lesions lost by more than a point. Whether "auto" is as fast as it should be is
printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scores import grey

from evaluation.functional import fusion_metrics, quantise
from evaluation.observers import lesion_cases, lost
from evaluation.report import lesion_recoveries
from fusion_nets.datalists import aanlib_pairs
from fusion_nets.networks import DMFNet
from fusion_nets.workflows import EngineNetwork, SlicewiseInferer, kept_network
from fusion_nets.workflows.engines import EngineChoice, engine_choices

METRICS = ("Qabf", "VIF", "SSIM")
GOALS = {"dmfnet": 3.3, "smfusion": 2.5}
EVERY = [
    EngineChoice("torch", "float32"),
    EngineChoice("torch", "bfloat16"),
    EngineChoice("onnxruntime", "float32"),
    EngineChoice("openvino", "float32"),
    EngineChoice("openvino", "bfloat16"),
]


def networks_of(bundle: str) -> dict[EngineChoice, EngineNetwork]:
    """A bundle's network by every engine that is installed, ready to run."""
    network = kept_network(bundle, engine="torch", precision="float32")["network_def"]
    ready = {}
    for choice in EVERY:
        try:
            ready[choice] = EngineNetwork(network, "cpu", *choice)
            ready[choice].told()
        except (ModuleNotFoundError, ValueError) as error:
            print(f"{choice}: not measured: {error}", file=sys.stderr)
    return ready


def fused_by_all(
    networks: dict[EngineChoice, EngineNetwork], image: torch.Tensor, seconds: dict[EngineChoice, list[float]]
) -> dict[EngineChoice, torch.Tensor]:
    """One pair (1, 2, H, W) as the bundles fuse it, by each."""
    fused = {}
    for choice, network in networks.items():
        start = time.process_time()
        fused[choice] = SlicewiseInferer()(image, network)
        seconds[choice].append(time.process_time() - start)
    return fused


def recoveries(networks: dict[EngineChoice, EngineNetwork], image: np.ndarray, seed: int, ct: bool) -> dict:
    """Of lesions of every kind in one pair (2, H, W), by each engine: which are lost."""
    found: dict[EngineChoice, list[bool]] = defaultdict(list)
    clean: dict[EngineChoice, torch.Tensor] = {}
    plain = torch.from_numpy(image)
    for case in lesion_cases(image[0], image[1], np.random.default_rng(seed), ct):
        shown = torch.from_numpy(case.images)
        fused = fused_by_all(networks, shown[None].float(), defaultdict(list))
        levels = {choice: quantise(one[0].double()) / 255 for choice, one in fused.items()}
        if case.kind == "none":
            clean, plain = levels, shown
            continue
        for choice, one in levels.items():
            values = lesion_recoveries(one, clean[choice], shown, plain, case.signs, case.lesions)
            is_opposite = case.signs[0] * case.signs[1] < 0
            found[choice] += lost(torch.tensor(values), is_opposite).tolist()
    return found


@torch.no_grad()
def measure(bundle: str, pairs: list[dict[str, str]], backgrounds: int) -> bool:
    """Print a bundle's table; whether what "auto" takes keeps the result."""
    networks = networks_of(bundle)
    seconds: dict[EngineChoice, list[float]] = defaultdict(list)
    apart: dict[EngineChoice, list[tuple[float, float]]] = defaultdict(list)
    metrics: dict[EngineChoice, list[list[float]]] = defaultdict(list)
    gone: dict[EngineChoice, list[bool]] = defaultdict(list)
    torch32 = EVERY[0]
    for number, pair in enumerate(pairs):
        sources = [grey(pair[key]) for key in ("anatomy", "overlay")]
        image = torch.cat(sources, dim=1) / 255
        if number == 0:
            fused_by_all(networks, image, defaultdict(list))  # the first call of a size makes room
        fused = {choice: quantise(one) for choice, one in fused_by_all(networks, image, seconds).items()}
        for choice, one in fused.items():
            difference = (one - fused[torch32]).abs()
            apart[choice].append((difference.mean().item(), difference.max().item()))
            if choice != torch32 and difference.max() == 0:
                metrics[choice].append(metrics[torch32][-1])
                continue
            given = (plane.double() for plane in (one, *sources))
            scores = fusion_metrics(*given, METRICS, data_range=255)
            metrics[choice].append([scores[name].item() for name in METRICS])
        print(f"\r{bundle}: {number + 1} of {len(pairs)}", end="", file=sys.stderr)
    for number, pair in enumerate(pairs[:: max(1, len(pairs) // backgrounds)][:backgrounds] if backgrounds else []):
        plain = np.stack([grey(pair[key])[0, 0].numpy() / 255 for key in ("anatomy", "overlay")])
        for choice, values in recoveries(networks, plain, number, pair["pair"] == "CT-MRI").items():
            gone[choice] += values
    print(f"\n{bundle}: {len(pairs)} pairs, {len(gone[torch32])} lesions\n")
    print("| engine, precision | mean | most | Qabf | VIF | SSIM | lost | a core's seconds | times as fast |")
    print("|---|---|---|---|---|---|---|---|---|")
    automatic, good = engine_choices(), True
    means = {choice: np.mean(metrics[choice], axis=0) for choice in networks}
    for choice in networks:
        mean, most = np.mean(apart[choice], axis=0)[0], np.max(apart[choice], axis=0)[1]
        changes = means[choice] - means[torch32]
        share = np.mean(gone[choice]) if gone[choice] else np.nan
        keeps = mean <= 0.3 and most <= 6 and np.abs(changes).max() <= 0.002
        keeps = keeps and not abs(share - np.mean(gone[torch32] or [np.nan])) > 0.01
        taken = np.median(seconds[choice])
        times = np.median(np.divide(seconds[torch32], seconds[choice]))
        print(
            f"| {choice.engine}, {choice.precision} | {mean:.3f} | {most:.0f} | "
            + " | ".join(f"{change:+.4f}" for change in changes)
            + f" | {share:.1%} | {taken:.2f} | {times:.2f} |"
        )
        good = good and (keeps or choice not in automatic)
        if choice == automatic[0]:
            reached = f"auto takes {choice}: {times:.2f} times as fast, {GOALS[bundle]} is the goal"
    print(f"\n{reached}", flush=True)
    return bool(good)


@torch.no_grad()
def published_size() -> None:
    """How long the published DM-FNet takes as it is built here, float32, beside what is shipped by "auto"."""
    large = DMFNet().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shipped = kept_network("dmfnet")["network"]
    image, taken = torch.rand(1, 2, 256, 256), {}
    shipped(image)
    for name, network in (("published", large), ("shipped", shipped)):
        start = time.process_time()
        network(image)
        taken[name] = time.process_time() - start
    print(
        f"\npublished size in torch float32 {taken['published']:.1f} s, shipped by auto {taken['shipped']:.2f} s: "
        f"{taken['published'] / taken['shipped']:.0f} times as fast, 50 against the released program is the goal"
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", required=True, type=Path)
    parser.add_argument("--section", default="published")
    parser.add_argument("--pairs", type=int, default=1000, help="at most, evenly spaced")
    parser.add_argument("--backgrounds", type=int, default=8, help="pairs that lesions are put into")
    parser.add_argument("--bundle", nargs="+", default=["dmfnet", "smfusion"])
    parser.add_argument("--published_size", action="store_true", help="time the published DM-FNet, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pairs = aanlib_pairs(arguments.dataset_dir, arguments.section)
    pairs = pairs[:: max(1, round(len(pairs) / arguments.pairs))]
    good = [measure(bundle, pairs, arguments.backgrounds) for bundle in arguments.bundle]
    if arguments.published_size:
        published_size()
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
