"""Does the text matter? What SMFusion keeps of a lesion that a text names, does not name, or names wrongly.

    python tests/benchmarks/text_matters.py [--dataset_dir AANLIB --section test] [--pairs 24]

Lesions are put into pairs of a folder, or into simulated ones of a seed that no training uses, one a pair, as the judge
of lesions puts them in. Each is fused four times: without a text, with one that names it (by tone, side, place and
size), with one that names the other side, and, in the pair without the lesion, with the text that names it. Prints
Markdown: recovery by text; and by how many grey levels a wrong text, and one that names what is not there, change the
image.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from scores import grey

from evaluation.observers import Lesion, contrast_recovery, lesion_cases
from fusion_nets.datalists import AANLIB_PAIRS, aanlib_pairs
from fusion_nets.simulation import MODALITIES, simulate_pair
from fusion_nets.text import Finding, FindingEncoder, phrase_finding

TONES = {"overlay bright": (1, "bright"), "overlay dark": (1, "dark"), "anatomy bright": (0, "bright")}
TONES["anatomy dark"] = (0, "dark")
LOBES = {"anterior": "frontal", "central": "parietal", "posterior": "occipital"}
SEED = 20_000


def of_folder(dataset_dir: str, section: str, most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Kind and sources (2, H, W) of evenly spaced pairs of each kind."""
    for kind in AANLIB_PAIRS:
        pairs = aanlib_pairs(dataset_dir, section, [kind])
        for pair in pairs[:: max(1, len(pairs) // most)][:most]:
            yield kind, np.stack([grey(pair[key])[0, 0].numpy() / 255 for key in ("anatomy", "overlay")])


def simulated(most: int) -> Iterator[tuple[str, np.ndarray]]:
    """The same of upright simulated heads."""
    for kind, modality in zip(AANLIB_PAIRS, MODALITIES, strict=True):
        found, seed = 0, SEED
        while found < most:
            pair = simulate_pair(seed, modality, 256, is_head=True, upright=1.0, lesions=0)
            seed += 1
            if pair.plane == "axial":
                found += 1
                yield kind, np.rint(pair.image * 255) / 255


def finding_of(lesion: Lesion, tone: str, head: np.ndarray, rng: np.random.Generator) -> Finding:
    """What a reader says of a lesion, by where it lies in the head as shown, the patient's right at the left."""
    rows, columns = (np.flatnonzero((head > 0.08).sum(axis) > 2) for axis in (1, 0))
    down = (lesion.row - rows[0]) / (rows[-1] - rows[0])
    across = (lesion.column - columns[0]) / (columns[-1] - columns[0])
    place = "anterior" if down < 1 / 3 else "posterior" if down > 2 / 3 else "central"
    side = "midline" if abs(across - 0.5) < 1 / 12 else "right" if across < 0.5 else "left"
    return Finding(f"{tone} region", side, LOBES[place] if rng.random() < 0.5 else place, 2.0 * lesion.radius, "mm")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", help="an AANLIB folder; by default simulated pairs")
    parser.add_argument("--section", default="test")
    parser.add_argument("--pairs", type=int, default=24, help="of each kind, at most")
    parser.add_argument("--bundle", default=str(Path(__file__).resolve().parents[2] / "bundles" / "smfusion"))
    arguments = parser.parse_args()
    config = ConfigParser(ConfigParser.load_config_file(Path(arguments.bundle) / "configs" / "inference.json"))
    network = config.get_parsed_content("network_def").eval()
    weights = Path(arguments.bundle) / "models" / "model.pt"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    encoder = FindingEncoder()

    def fuse(image: np.ndarray, source: int, text: str) -> torch.Tensor:
        states, mask, _ = encoder([text if which == source else "" for which in range(2)])
        with torch.no_grad():
            fused = network(torch.from_numpy(image[None]).float(), states[None], mask[None])
        return (fused * 255).round() / 255

    kept: dict[tuple[str, str], list[float]] = defaultdict(list)
    changed: dict[tuple[str, str], list[float]] = defaultdict(list)
    if arguments.dataset_dir:
        pairs = of_folder(arguments.dataset_dir, arguments.section, arguments.pairs)
    else:
        pairs = simulated(arguments.pairs)
    for number, (kind, image) in enumerate(pairs):
        rng = np.random.default_rng([SEED, number])
        cases = {case.kind: case for case in lesion_cases(image[0], image[1], rng, kind == "CT-MRI", most=1)}
        for lesion_kind, (source, tone) in TONES.items() if cases else ():
            (lesion,) = cases["none"].lesions
            plain, shown = cases["none"].images, cases[lesion_kind].images
            finding = finding_of(lesion, tone, image[0], rng)
            name = "MRI" if source == 0 else kind.split("-")[0]
            right = phrase_finding(finding, name, rng)
            other = {"left": "right", "right": "left", "midline": "left"}[finding.side]
            wrong = right.replace(finding.side, other).replace(finding.side.capitalize(), other.capitalize())
            without, before = fuse(plain, source, ""), fuse(shown, source, "")
            images = {
                "named": fuse(shown, source, right),
                "named wrongly": fuse(shown, source, wrong),
                "unnamed": before,
            }
            place = torch.tensor([[0, lesion.row, lesion.column]])
            one, two = (torch.from_numpy(case[source][None, None]).float() for case in (shown, plain))
            for text, fused in images.items():
                kept[kind, text].append(contrast_recovery(fused, without, one, two, place).item())
            changed[kind, "named wrongly"].append(255 * (images["named wrongly"] - before).abs().max().item())
            changed[kind, "not there"].append(255 * (fuse(plain, source, right) - without).abs().max().item())
            elsewhere = (images["named"] - before).abs()[0, 0]
            elsewhere[max(lesion.row - 20, 0) : lesion.row + 21, max(lesion.column - 20, 0) : lesion.column + 21] = 0
            changed[kind, "named, elsewhere"].append(255 * elsewhere.max().item())

    kinds = [kind for kind in AANLIB_PAIRS if (kind, "named") in kept]
    print("| median recovery (share lost, share above 1.1) | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for text in ("named", "unnamed", "named wrongly"):
        cells = []
        for kind in kinds:
            values = np.array(kept[kind, text])
            cells.append(f"{np.median(values):.2f} ({np.mean(values < 0.25):.0%}, {np.mean(values > 1.1):.0%})")
        print(f"| {text} | " + " | ".join(cells) + " |")
    print("\n| largest change in grey levels: mean (share above 1) | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for text in ("named wrongly", "not there", "named, elsewhere"):
        cells = [
            f"{np.mean(changed[kind, text]):.1f} ({np.mean(np.array(changed[kind, text]) > 1):.0%})" for kind in kinds
        ]
        print(f"| {text} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
