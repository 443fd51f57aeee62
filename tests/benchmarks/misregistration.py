"""What is lost where the sources do not lie on each other: bundles and pointwise rules against shifts and turns.

    python tests/benchmarks/misregistration.py --dataset_dir AANLIB --bundles bundles/dmfnet bundles/smfusion
        [--pairs 8] [--shifts 1 2 3] [--turns 1 2 3] [--pixel 1.0] [--output_dir FOLDER] [--cards]

Lesions are put into pairs of the atlas that lie on each other, so many of each kind of pair, evenly spaced: discs, in
the overlay or in the MRI, bright or dark. Then the overlay is moved, with its lesions, by each shift in mm, or turned
about the middle by each angle in degrees (to one of four sides, and one of two ways, in turns from pair to pair; cubic
splines, 8 bit), and all is fused anew. A lesion is followed in its own source as that was fused, moved or not. Printed
is a table of each bundle beside the rules: of every displacement the share lost of the kind of lesion that is lost
most, by kind of pair, the median recovery of the kind that keeps least in any, and Qabf, VIF and SSIM against the
sources as they were fused, mean over all pairs. Into the folder go misregistration.csv, with every pair, and curves,
misregistration.png. `--cards` puts the tables into the bundles' cards.

A pixel of the atlas is taken as 1 mm: its pictures do not say.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from card_tables import markdown, put_into
from judged_pairs import RULES, Fuse, atlas, bundle_fuse, sources
from scipy.ndimage import affine_transform
from tqdm import tqdm

from evaluation.functional import fusion_metrics, quantise
from evaluation.observers import LESION_KINDS, Lesion, lesion_cases, lost
from evaluation.report import lesion_recoveries, source_of
from evaluation.report.figures import COLOURS, figure_of, png_of
from evaluation.report.tables import csv_text
from fusion_nets.files import whole_file

METRICS = ("Qabf", "VIF", "SSIM")
KINDS = {kind: signs for kind, signs in LESION_KINDS.items() if source_of(signs) != "both"}
NAME = "misregistration"


class Displacement(NamedTuple):
    """How far the overlay lies from where it should: mm, or degrees."""

    shift: float = 0.0
    turn: float = 0.0

    def __str__(self) -> str:
        return f"{self.shift:g} mm" if self.shift else f"{self.turn:g}°" if self.turn else "none"


class Found(NamedTuple):
    """Of one pair as one method fused it: metrics, and the recovery of each lesion by kind."""

    method: str
    displacement: Displacement
    group: str
    pair: str
    subject: str
    metrics: dict[str, float]
    recovery: dict[str, list[float]]


class Move:
    """Shifts and turns images (H, W) about their middle, and places in them."""

    def __init__(self, displacement: Displacement, number: int, shape: Sequence[int], pixel: float) -> None:
        towards, angle = number % 4 * math.pi / 2, math.radians(displacement.turn) * (1 if number % 2 else -1)
        self.matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        # a whole number of pixels stays one
        self.shift = np.round(displacement.shift / pixel * np.array([math.sin(towards), math.cos(towards)]), 9)
        self.middle = (np.array(shape) - 1) / 2
        self.is_none = displacement == Displacement()

    def image(self, image: np.ndarray) -> np.ndarray:
        if self.is_none:
            return image
        back = self.matrix.T
        moved = affine_transform(image, back, self.middle - back @ (self.middle + self.shift), order=3)
        return np.rint(np.clip(moved, 0, 1) * 255) / 255

    def lesion(self, lesion: Lesion) -> Lesion:
        place = self.matrix @ (np.array([lesion.row, lesion.column]) - self.middle) + self.middle + self.shift
        row, column = np.rint(place).astype(int).tolist()
        return lesion._replace(row=row, column=column)


def judged(
    methods: Mapping[str, Fuse], pair: dict[str, str], number: int, displacements: Sequence[Displacement], pixel: float
) -> list[Found]:
    """One pair without and with lesions, under every displacement, by every method; none without a place for any."""
    anatomy, overlay = sources(pair).numpy()
    generator = np.random.default_rng([0, *pair["name"].encode()])
    cases = list(lesion_cases(anatomy, overlay, generator, pair["overlay_modality"] == "CT", kinds=KINDS))
    found = []
    for displacement in displacements if cases else ():
        move = Move(displacement, number, anatomy.shape, pixel)
        images = torch.tensor(np.stack([[case.images[0], move.image(case.images[1])] for case in cases]))
        for method, fuse in methods.items():
            fused = quantise(fuse(images)).double() / 255
            values = fusion_metrics(fused[:1], images[:1, :1], images[:1, 1:], METRICS)
            kept = {}
            for place, case in enumerate(cases[1:], start=1):
                lesions = [move.lesion(lesion) if case.signs[1] else lesion for lesion in case.lesions]
                given = fused[place], fused[0], images[place], images[0]
                kept[case.kind] = lesion_recoveries(*given, case.signs, lesions)
            named = method, displacement, pair["pair"], pair["name"], pair["subject"]
            found.append(Found(*named, {name: value.item() for name, value in values.items()}, kept))
    return found


class Summary(NamedTuple):
    """Of one method and displacement: share lost of the kind lost most, by pair; least recovery; mean metrics."""

    lost: dict[str, float]
    recovery: float
    metrics: dict[str, float]


def summary(found: Sequence[Found], method: str, displacement: Displacement) -> Summary:
    here = [one for one in found if (one.method, one.displacement) == (method, displacement)]
    shares, medians = {}, []
    for group in dict.fromkeys(one.group for one in here):
        kinds = [torch.tensor([r for one in here if one.group == group for r in one.recovery[kind]]) for kind in KINDS]
        shares[group] = max(lost(recovery).nanmean().item() for recovery in kinds)
        medians.append(min(recovery.nanmedian().item() for recovery in kinds))
    return Summary(
        shares, min(medians), {name: float(np.mean([one.metrics[name] for one in here])) for name in METRICS}
    )


def table(found: Sequence[Found], methods: Sequence[str], displacements: Sequence[Displacement]) -> str:
    """A row for every method and displacement."""
    rows = []
    for method in methods:
        for displacement in displacements:
            of = summary(found, method, displacement)
            cells = [*(f"{100 * share:.0f} %" for share in of.lost.values()), f"{of.recovery:.2f}"]
            cells += [f"{value:.3f}" for value in of.metrics.values()]
            rows.append([method if displacement == displacements[0] else "", str(displacement), *cells])
    groups = dict.fromkeys(one.group for one in found)
    return markdown(
        ["", "overlay moved by", *(f"{group} worst lost" for group in groups), "least recovery", *METRICS], rows
    )


def curves(found: Sequence[Found], methods: Sequence[str], displacements: Sequence[Displacement]) -> bytes:
    """Against shifts above and turns below: the worst share lost and least recovery of any kind of pair; metrics."""
    with figure_of((11, 5), dark=False) as figure:
        panels = figure.subplots(2, 2 + len(METRICS), squeeze=False, sharey="col")
        for row, axis in zip(panels, Displacement._fields, strict=True):
            along = [one for one in displacements if getattr(one, axis) or str(one) == "none"]
            for number, method in enumerate(methods):
                told = [summary(found, method, one) for one in along]
                lines = [[100 * max(of.lost.values()) for of in told], [of.recovery for of in told]]
                lines += [[of.metrics[name] for of in told] for name in METRICS]
                for panel, values in zip(row, lines, strict=True):
                    places = [getattr(one, axis) for one in along]
                    panel.plot(places, values, marker="osD^vP*"[number % 7], color=COLOURS[number], label=method)
            for panel, title in zip(row, ("worst lost, %", "least recovery", *METRICS), strict=True):
                panel.set_title(title, loc="left", fontweight="bold")
                panel.set_xlabel("shift, mm" if axis == "shift" else "turn, degrees")
                panel.grid(axis="y", linewidth=0.5, alpha=0.25)
                panel.spines[["top", "right"]].set_visible(False)
            row[0].set_ylim(-3, 103)
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        return png_of(figure)


def rows_of(found: Sequence[Found]) -> str:
    """CSV: of every pair, method and displacement the metrics, and the median recovery of each kind of lesion."""
    head = ["pair", "subject", "kind of pair", "method", "shift_mm", "turn_degrees", *METRICS, "lesions"]
    rows = [
        [
            *(one.pair, one.subject, one.group, one.method, *one.displacement, *one.metrics.values()),
            *(len(next(iter(one.recovery.values()))), *(float(np.nanmedian(kept)) for kept in one.recovery.values())),
        ]
        for one in found
    ]
    return csv_text([[*head, *(f"recovery: {kind}" for kind in KINDS)], *rows])


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--bundles", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=8, help="of each kind of pair, at most")
    parser.add_argument("--shifts", type=float, nargs="*", default=[1, 2, 3], help="in mm")
    parser.add_argument("--turns", type=float, nargs="*", default=[1, 2, 3], help="in degrees")
    parser.add_argument("--pixel", type=float, default=1.0, help="mm of the atlas's pixels")
    parser.add_argument("--output_dir", type=Path, help="for CSV and curves")
    parser.add_argument("--cards", action="store_true", help="put the tables into the bundles' cards")
    arguments = parser.parse_args(argv)
    of_bundles = {bundle: bundle_fuse(bundle) for bundle in arguments.bundles}
    methods = dict(of_bundles.values()) | {f"pointwise {rule}": fuse for rule, fuse in RULES.items()}
    shifts, turns = ([one for one in given if one] for given in (arguments.shifts, arguments.turns))
    displacements = [
        Displacement(),
        *(Displacement(shift=one) for one in shifts),
        *(Displacement(turn=one) for one in turns),
    ]
    pairs = atlas(arguments.dataset_dir, ("train", "val", "test"), arguments.pairs)
    found = [
        one
        for number, pair in enumerate(tqdm(pairs, desc="moved", unit="pair"))
        for one in judged(methods, pair, number, displacements, arguments.pixel)
    ]
    rules = [method for method in methods if method.startswith("pointwise")]
    for bundle, (name, _) in of_bundles.items():
        told = table(found, [name, *rules], displacements)
        print(f"\n{NAME}, {name}\n\n{told}", flush=True)
        if arguments.cards and not put_into(bundle / "docs" / "README.md", NAME, told):
            print(f"\nthe card of {bundle} has no place for it")
    if not of_bundles:
        print(f"\n{NAME}\n\n{table(found, rules, displacements)}")
    for group in dict.fromkeys(one.group for one in found):
        here = [one for one in found if (one.group, one.method, str(one.displacement)) == (group, rules[0], "none")]
        lesions = sum(len(one.recovery["overlay bright"]) for one in here)
        print(f"{group}: {len(here)} pairs, {len({one.subject for one in here})} subjects, {lesions} lesions a kind")
    if arguments.output_dir:
        contents = {f"{NAME}.csv": rows_of(found).encode(), f"{NAME}.png": curves(found, list(methods), displacements)}
        for name, content in contents.items():
            with whole_file(arguments.output_dir / name) as partial:
                partial.write_bytes(content)


if __name__ == "__main__":
    main()
