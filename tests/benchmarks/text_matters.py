"""Does the text matter? What SMFusion keeps of a lesion that a text names, does not name, or names wrongly.

    python tests/benchmarks/text_matters.py [--dataset_dir AANLIB --section test] [--pairs 24] [--thresholds .5 .9]

Lesions are put into pairs of a folder, or into simulated ones of a seed that no training uses, one a pair, as the judge
of lesions puts them in. Each is fused four times: without a text, with one that names it (by tone, side, place and
size), with one that names the other side, and, in the pair without the lesion, with the text that names it. Prints
Markdown: recovery by text; and by how many grey levels a wrong text, and one that names what is not there, change the
image. With --thresholds, the curve between both instead: how sure the search for what is named must be.
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
from fusion_nets.networks import TextGuidedUNet
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
            pair = simulate_pair(seed, modality, 256, is_head=True, upright=1.0, lesions=0, distractors=0)
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


class Measured:
    """What became of the lesions of one threshold, by kind of pair and text."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.changed: dict[tuple[str, str], list[float]] = defaultdict(list)

    def recovery(self, kind: str, text: str) -> np.ndarray:
        """Of every lesion; of all kinds of pairs for ""."""
        return np.concatenate([of for (pair, said), of in self.kept.items() if said == text and kind in ("", pair)])

    def change(self, kind: str, text: str) -> np.ndarray:
        """Largest change in grey levels, likewise."""
        return np.concatenate([of for (pair, said), of in self.changed.items() if said == text and kind in ("", pair)])


def measure(
    network: TextGuidedUNet, pairs: Iterator[tuple[str, np.ndarray]], thresholds: list[float]
) -> list[Measured]:
    """Put lesions into pairs, and fuse each with every text, at every threshold."""
    encoder, found = FindingEncoder(), [Measured() for _ in thresholds]

    def plain_fuse(image: torch.Tensor) -> torch.Tensor:
        return (network.fusion(image) * 255).round() / 255

    def fuse(image: torch.Tensor, before: torch.Tensor, source: int, text: str) -> torch.Tensor:
        states, mask, _ = encoder([text if which == source else "" for which in range(2)])
        emphasised = network.emphasise(image, states[None], mask[None])
        return before if torch.equal(emphasised, image) else plain_fuse(emphasised)

    for number, (kind, image) in enumerate(pairs):
        rng = np.random.default_rng([SEED, number])
        cases = {case.kind: case for case in lesion_cases(image[0], image[1], rng, kind == "CT-MRI", most=1)}
        for lesion_kind, (source, tone) in TONES.items() if cases else ():
            (lesion,) = cases["none"].lesions
            plain, shown = (torch.from_numpy(cases[which].images[None]).float() for which in ("none", lesion_kind))
            finding = finding_of(lesion, tone, image[0], rng)
            name = "MRI" if source == 0 else kind.split("-")[0]
            right = phrase_finding(finding, name, rng)
            other = {"left": "right", "right": "left", "midline": "left"}[finding.side]
            wrong = right.replace(finding.side, other).replace(finding.side.capitalize(), other.capitalize())
            without, before = plain_fuse(plain), plain_fuse(shown)
            place = torch.tensor([[0, lesion.row, lesion.column]])
            for threshold, of in zip(thresholds, found, strict=True):
                network.grounding.threshold = threshold
                images = {
                    "named": fuse(shown, before, source, right),
                    "named wrongly": fuse(shown, before, source, wrong),
                    "unnamed": before,
                }
                for text, fused in images.items():
                    one, two = shown[:, source : source + 1], plain[:, source : source + 1]
                    of.kept[kind, text].append(contrast_recovery(fused, without, one, two, place).item())
                elsewhere = (images["named"] - before).abs()[0, 0]
                around = (slice(max(at - 20, 0), at + 21) for at in (lesion.row, lesion.column))
                elsewhere[tuple(around)] = 0
                changes = {
                    "named wrongly": images["named wrongly"] - before,
                    "not there": fuse(plain, without, source, right) - without,
                    "named, elsewhere": elsewhere,
                }
                for text, change in changes.items():
                    of.changed[kind, text].append(255 * change.abs().max().item())
    return found


def tables(of: Measured) -> None:
    """What is kept, and what is changed, by kind of pair."""
    kinds = [kind for kind in AANLIB_PAIRS if (kind, "named") in of.kept]
    print("| median recovery (share lost, share above 1.1) | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for text in ("named", "unnamed", "named wrongly"):
        each = [of.recovery(kind, text) for kind in kinds]
        cells = [f"{np.median(some):.2f} ({np.mean(some < 0.25):.0%}, {np.mean(some > 1.1):.0%})" for some in each]
        print(f"| {text} | " + " | ".join(cells) + " |")
    print("\n| largest change in grey levels: mean (share above 1) | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for text in ("named wrongly", "not there", "named, elsewhere"):
        cells = [f"{some.mean():.1f} ({np.mean(some > 1):.0%})" for some in (of.change(kind, text) for kind in kinds)]
        print(f"| {text} | " + " | ".join(cells) + " |")


def curve(found: list[Measured], thresholds: list[float]) -> None:
    """Of all kinds of pairs together, what is kept of what is named against what wrong texts change."""
    print("| threshold | named: median, mean, above 1.1 | unnamed: median, mean, above 1.1 | ", end="")
    print("named wrongly, changed | not there, changed |")
    print("|---" * 5 + "|")
    for threshold, of in zip(thresholds, found, strict=True):
        each = [of.recovery("", text) for text in ("named", "unnamed")]
        kept = [f"{np.median(some):.2f}, {some.mean():.2f}, {np.mean(some > 1.1):.0%}" for some in each]
        changed = [f"{np.mean(of.change('', text) > 1):.0%}" for text in ("named wrongly", "not there")]
        print(f"| {threshold:g} | " + " | ".join([*kept, *changed]) + " |")


@torch.no_grad()
def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", help="an AANLIB folder; by default simulated pairs")
    parser.add_argument("--section", default="test")
    parser.add_argument("--pairs", type=int, default=24, help="of each kind, at most")
    parser.add_argument("--bundle", default=str(Path(__file__).resolve().parents[2] / "bundles" / "smfusion"))
    parser.add_argument("--thresholds", type=float, nargs="+", help="of the search; by default the bundle's alone")
    arguments = parser.parse_args()
    config = ConfigParser(ConfigParser.load_config_file(Path(arguments.bundle) / "configs" / "inference.json"))
    network = config.get_parsed_content("network_def").eval()
    weights = Path(arguments.bundle) / "models" / "model.pt"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    if arguments.dataset_dir:
        pairs = of_folder(arguments.dataset_dir, arguments.section, arguments.pairs)
    else:
        pairs = simulated(arguments.pairs)
    if arguments.thresholds:
        curve(measure(network, pairs, arguments.thresholds), arguments.thresholds)
    else:
        tables(*measure(network, pairs, [network.grounding.threshold]))


if __name__ == "__main__":
    main()
