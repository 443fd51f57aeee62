"""Several overlays fused at once: what is kept of lesions of every source, and what their order and number change.

    python tests/benchmarks/several.py --bundles bundles/dmfnet bundles/smfusion [--pairs 12] [--seed 20261126]
        [--output_dir FOLDER] [--cards]

Simulated sets (`fusion_nets.simulation.simulate_sources`: upright heads, 256 x 256, from the seed and a number, those
without a place for a lesion passed over) of an MRI with CT and PET, and with CT, PET and SPECT, so many of each.
Lesions, the discs of the headline, are put into one source at a time, bright or dark; all is fused in memory and judged
in 8 bit. Beside each bundle stand the same bundle's pairs fused one after the other, MRI with the first overlay and
what comes of it with the next, in 8 bit, in the order of the overlays and in the reverse; pointwise rules; and for the
observer each source by itself. Printed are two tables:

    several   by source the share lost, the median recovery, and the observer's area (the mean of bright and dark, each
              trained on other sets; none of fewer than 40 lesions of a kind); mean Qabf, VIF and SSIM of the sets
              without lesions against all their sources: weighted by the edges of each, the sum, the sum
    order     in 8-bit levels, mean and largest difference of the fused image where overlays change places, where one
              is given twice, and between both orders of fusing one after the other; and whether a pair is to the bit
              what it is without the attention over sources. Of the first three sets, in torch and float32

Into the folder go several.csv, with every lesion, and pictures of the first set of each. `--cards` puts the tables into
the bundles' cards.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from card_tables import markdown, put_into
from judged_pairs import HEADLINE, RULES, Fuse, bundle_fuse
from torch import nn
from tqdm import tqdm

from evaluation.functional import fusion_metrics, quantise
from evaluation.observers import LesionCase, lesion_cases, lesion_kinds, source_names
from evaluation.report import LesionComparison, LesionScore, lesion_tables, source_of
from evaluation.report.figures import figure_of, png_of
from fusion_nets.files import whole_file
from fusion_nets.networks.fusion_unet import SourceAttention
from fusion_nets.simulation import simulate_sources
from fusion_nets.workflows import KnownCase, kept_network, lesion_scores

SETS = (("CT", "PT"), ("CT", "PT", "NM"))
NAMES = {"CT": "CT", "PT": "PET", "NM": "SPECT"}
SOURCES = ("MRI", *NAMES.values())
METRICS = ("Qabf", "VIF", "SSIM")
LEAST = 40  # lesions of a kind for an observer of ten channels
COMPARED = 3
ITSELF = "each source by itself"


class Sources(NamedTuple):
    """One set without and with lesions in one source at a time."""

    name: str
    modalities: Sequence[str]
    cases: Sequence[LesionCase]

    @property
    def group(self) -> str:
        return ", ".join(["MRI", *(NAMES[modality] for modality in self.modalities)])

    @property
    def images(self) -> torch.Tensor:
        """(cases, 1 + overlays, H, W) float64, the first without lesions."""
        return torch.tensor(np.stack([case.images for case in self.cases]))


def simulated(seed: int, modalities: Sequence[str], size: int = 256) -> Iterator[Sources]:
    """Sets without end."""
    are_ct = [modality == "CT" for modality in modalities]
    kinds = {kind: signs for kind, signs in lesion_kinds(1 + len(modalities)).items() if sum(map(bool, signs)) == 1}
    for number in count():
        images = simulate_sources([seed, number], modalities, size, is_head=True, upright=1.0).astype(float)
        generator = np.random.default_rng([seed, number, 1])
        if cases := list(lesion_cases(images[0], list(images[1:]), generator, are_ct, kinds=kinds)):
            yield Sources(f"{'-'.join(modalities)}-{number}", modalities, cases)


def in_turns(fuse: Fuse, order: Sequence[int]) -> Fuse:
    """Pairs one after the other: the anatomy with one overlay, and what comes of it with the next."""

    def fused(images: torch.Tensor) -> torch.Tensor:
        so_far = images[:, :1]
        for place in order:
            so_far = quantise(fuse(torch.cat([so_far, images[:, place, None].to(so_far)], dim=1))) / 255
        return so_far

    return fused


def methods_of(name: str, fuse: Fuse, modalities: Sequence[str]) -> dict[str, Fuse]:
    """A bundle, and the same one pair after the other in both orders."""
    places = range(1, 1 + len(modalities))
    told = {order: ", ".join(NAMES[modalities[place - 1]] for place in order) for order in (places, places[::-1])}
    return {name: fuse} | {
        f"{name} one after the other: {words}": in_turns(fuse, order) for order, words in told.items()
    }


class Judged(NamedTuple):
    """What became of the lesions of one set, and its metrics without them, by method."""

    scores: list[LesionScore]
    metrics: dict[str, dict[str, float]]
    fused: dict[str, torch.Tensor]


def judged(of: Sources, methods: Mapping[str, Fuse]) -> Judged:
    """One set by every method; fused is without lesions, (H, W) in [0, 1]."""
    images, clean = of.images, f"{of.name}-none"
    known = [
        KnownCase(f"{of.name}-{case.kind}", clean, case.kind, HEADLINE, case.signs, tuple(case.lesions) if k else ())
        for k, case in enumerate(of.cases)
    ]
    scores, metrics, shown = [], {}, {}
    for method, fuse in methods.items():
        fused = quantise(fuse(images)).double() / 255
        scores += lesion_scores(known, images, fused, method, of.group)
        given = fused[:1], images[:1, :1], list(images[:1, 1:].split(1, dim=1))
        metrics[method] = {name: value.item() for name, value in fusion_metrics(*given, METRICS).items()}
        shown[method] = fused[0, 0]
    for k, case in enumerate(known[1:], start=1):
        alone = images[[0, k]]
        place = next(place for place, sign in enumerate(case.signs) if sign)
        scores += lesion_scores([known[0], case], alone, alone[:, place, None], ITSELF, of.group)
    # of all sources side by side an observer has more channels than there are lesions to train it on
    return Judged([s._replace(responses={"grey": s.responses["grey"]}) for s in scores], metrics, shown)


def cells_of(scores: Sequence[LesionScore], modalities: Sequence[str]) -> list[str]:
    """Share lost, median recovery and area of the lesions of each of :data:`SOURCES`, as one method fused them."""
    cells = dict.fromkeys(SOURCES, "-")
    kinds = LesionComparison([scores[0].method], scores).summaries
    names = ["MRI", *(NAMES[modality] for modality in modalities)]
    for name, source in zip(names, source_names(len(names)), strict=True):
        here = [score for score in scores if source_of(score.signs) == source]
        share, recovery = np.nanmean([s.lost for s in here]), np.nanmedian([s.recovery for s in here])
        areas = [kind.grey for kind in kinds if source_of(kind.signs) == source and kind.lesions >= LEAST]
        area = f", {np.mean(areas):.2f}" if areas else ""
        cells[name] = f"{100 * share:.0f} %, {recovery:.2f}{area}"
    return list(cells.values())


def table(found: Sequence[tuple[Sources, Judged]], methods: Sequence[Sequence[str]]) -> str:
    """A row for every method, by the overlays that there are."""
    rows = []
    for modalities, of_these in zip(SETS, methods, strict=True):
        here = [(of, result) for of, result in found if of.modalities == modalities]
        for method in (*of_these, ITSELF):
            scores = [score for _, result in here for score in result.scores if score.method == method]
            values = [result.metrics[method] for _, result in here if method in result.metrics]
            means = [f"{np.mean([of[name] for of in values]):.3f}" if values else "-" for name in METRICS]
            rows.append(
                [here[0][0].group if method == of_these[0] else "", method, *cells_of(scores, modalities), *means]
            )
    return markdown(["", "", *(f"{name}: lost, recovery, area" for name in SOURCES), *METRICS], rows)


def difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """In 8-bit levels."""
    levels = (quantise(one).double() - quantise(other).double()).abs()
    return f"{levels.mean().item():.3f}, {levels.max().item():.0f}"


def order_table(fuse: Fuse, sets: Sequence[Sources]) -> list[list[str]]:
    """Mean and largest difference where overlays change places, or one is given twice."""
    rows = []
    for modalities in SETS:
        images = torch.cat([of.images[:1] for of in sets if of.modalities == modalities])
        names, places = ["MRI", *(NAMES[modality] for modality in modalities)], range(1, 1 + len(modalities))

        def fused(order: Iterable[int], images: torch.Tensor = images) -> torch.Tensor:
            return torch.cat([fuse(one[None, [0, *order]]) for one in images])

        def told(order: Iterable[int], names: Sequence[str] = names) -> str:
            return ", ".join(["MRI", *(names[place] for place in order)])

        plain = fused(places)
        rows.append([told(places), told(places[::-1]), difference(plain, fused(places[::-1]))])
        if len(places) == 2:
            for place in places:
                rows.append([told([place]), told([place] * 2), difference(fused([place]), fused([place] * 2))])
            for again in ([1, 1, 2], [1, 2, 2]):
                rows.append([told(places), told(again), difference(plain, fused(again))])
        turns = [in_turns(fuse, order)(images) for order in (places, places[::-1])]
        rows.append([f"one after the other: {told(places)}", "the reverse", difference(*turns)])
    return rows


@torch.no_grad()
def has_no_part_in_pairs(network: nn.Module, fuse: Fuse, pairs: torch.Tensor) -> bool:
    """Whether pairs (B, 2, H, W) are the same, to the bit, where the network's attention over sources is not a number.

    The network is of no use afterwards.
    """
    before = fuse(pairs)
    for module in network.modules():
        if isinstance(module, SourceAttention):
            for value in module.parameters():
                value.fill_(torch.nan)
    return torch.equal(fuse(pairs), before)


def order_of(bundle: Path, sets: Sequence[Sources]) -> str:
    """The table of a bundle's network in torch and float32."""
    _, fuse = bundle_fuse(bundle, engine="torch", precision="float32")
    rows = order_table(fuse, sets)
    kept = kept_network(bundle_root=bundle, engine="torch", precision="float32")
    network = kept["network"]
    pairs = torch.cat([of.images[:1, [0, place]] for of in sets for place in range(1, 1 + len(of.modalities))])

    def in_torch(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([network(image[None].float()) for image in images])

    same = has_no_part_in_pairs(kept["network_def"], in_torch, pairs)
    rows.append([f"{len(pairs)} pairs", "without the attention over sources", "the same bits" if same else "others"])
    return markdown(["fused of", "against", "mean, largest difference in levels"], rows)


def picture(of: Sources, fused: Mapping[str, torch.Tensor]) -> bytes:
    """A set and what was made of it."""
    sources = dict(zip(of.group.split(", "), of.images[0], strict=True))
    panels = {**sources, **fused}
    columns = 4
    with figure_of((3 * columns, 3.2 * -(-len(panels) // columns)), dark=False) as figure:
        axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, image) in zip(axes, panels.items(), strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(name.replace(": ", ":\n"))
        return png_of(figure)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--bundles", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=12, help="sets of each number of overlays")
    parser.add_argument("--seed", type=int, default=20261126, help="of no training, whose seeds are small")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--output_dir", type=Path, help="for CSV and pictures")
    parser.add_argument("--cards", action="store_true", help="put the tables into the bundles' cards")
    arguments = parser.parse_args(argv)
    of_bundles = {bundle: bundle_fuse(bundle) for bundle in arguments.bundles}
    rules = {f"pointwise {rule}": fuse for rule, fuse in RULES.items()}
    sets = [of for these in SETS for of in islice(simulated(arguments.seed, these, arguments.size), arguments.pairs)]
    found = []
    for of in tqdm(sets, desc="several", unit="set"):
        methods = {}
        for name, fuse in of_bundles.values():
            methods |= methods_of(name, fuse, of.modalities)
        found.append((of, judged(of, methods | rules)))
    for bundle, (name, fuse) in of_bundles.items():
        firsts = [of for these in SETS for of in [one for one in sets if one.modalities == these][:COMPARED]]
        tables = {
            "several": table(found, [[*methods_of(name, fuse, these), *rules] for these in SETS]),
            "order": order_of(bundle, firsts),
        }
        for title, told in tables.items():
            print(f"\n{title}, {name}\n\n{told}", flush=True)
            if arguments.cards and not put_into(bundle / "docs" / "README.md", title, told):
                print(f"\nthe card of {bundle} has no place for {title}")
    if not of_bundles:
        print(f"\nseveral\n\n{table(found, [list(rules)] * len(SETS))}")
    for these in SETS:
        here = [of for of in sets if of.modalities == these]
        print(f"{here[0].group}: {len(here)} sets, {sum(len(of.cases[0].lesions) for of in here)} lesions of each kind")
    if arguments.output_dir:
        scores = [score for _, result in found for score in result.scores]
        comparison = LesionComparison(list(dict.fromkeys(score.method for score in scores)), scores)
        contents = {"several.csv": lesion_tables(comparison)["lesions.csv"].encode()}
        for these in SETS:
            of, result = next(one for one in found if one[0].modalities == these)
            contents[f"{'-'.join(these)}.png"] = picture(of, result.fused)
        for name, content in contents.items():
            with whole_file(arguments.output_dir / name) as partial:
                partial.write_bytes(content)


if __name__ == "__main__":
    main()
