"""Volumes fused slice by slice: how they flicker, and lesions of one to five slices.

    python tests/benchmarks/flicker.py --bundles bundles/dmfnet bundles/smfusion [--spacing 1.5] [--amplitude 0.16]
        [--smooth] [--output_dir FOLDER]

Of the simulated study (`fusion_nets.simulation`), MRI with PET and MRI with CT, fused by each bundle and by pointwise
rules. Printed are two tables: through-plane flicker, in grey levels, beside the mean step from slice to slice of
whichever source steps further there (so much a fused volume may step without flicker), the same measure within the
slices (voxels are cubes: so much comes of raised contrast, and only what is more is of slices fused apart), SSIM in
blocks, and Qabf by slices; and what is kept of lesions by how many slices they span: the median recovery of the kind
that keeps least, and the share lost of the kind that loses most. Lesions are the discs of the headline, in one source,
bright or dark, in as many slices one behind the other; windows are 41 x 41 pixels and one slice beyond either end. Into
the folder go pictures of coronal and sagittal planes, in which flicker shows as bands.

With `--smooth`, what the bundles made is also smoothed from slice to slice in the ways of `SMOOTHED`, and a third table
tells the change of the median recovery of the kind of lesion that loses most by that.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from card_tables import markdown
from judged_pairs import RULES, Fuse, bundle_fuse

from evaluation import FusionQabfMetric
from evaluation.functional import flicker, quantise, ssim_3d
from evaluation.observers import (
    LESION_KINDS,
    LESION_MAKES,
    Lesion,
    LesionMake,
    contrast_recovery,
    draw_lesions,
    insert_lesions,
    lesion_change,
    lost,
)
from evaluation.report import source_of
from evaluation.report.figures import figure_of, png_of
from fusion_nets.files import whole_file
from fusion_nets.simulation import write_sample_study
from fusion_nets.workflows.study_images import StudyImages, StudySources

KINDS = {kind: signs for kind, signs in LESION_KINDS.items() if source_of(signs) != "both"}
SPANS = (1, 2, 3, 4, 5)
APART = 3  # slices between lesions, so that no window sees two
HALF = 20
BLURS = {"CT": (0.7, 0.7), "PET": (0.7, 2.5)}  # of lesions in anatomy and overlay, in pixels


class Placed(NamedTuple):
    """Lesions that begin in one slice and span so many."""

    first: int
    span: int
    lesions: Sequence[Lesion]

    @property
    def middle(self) -> int:
        return self.first + self.span // 2


def sources_of(anatomy: Path, overlay: Path) -> torch.Tensor:
    """(2, H, W, D) in 8-bit levels, as shares of white."""
    pair = {"name": "study", "anatomy": str(anatomy), "overlay": str(overlay)}
    found = StudyImages([pair], {}, {}, "none").sources(pair)
    if not isinstance(found, StudySources):
        raise found
    return quantise(torch.cat([one.as_tensor() for one in found])) / 255


def fused_by(fuse: Fuse, volume: torch.Tensor) -> torch.Tensor:
    """(2, H, W, D) -> (1, H, W, D), slice by slice."""
    return fuse(volume.movedim(-1, 0)).movedim(0, -1).double()


def placed_in(volume: np.ndarray, modality: str, make: LesionMake = LESION_MAKES["discs"]) -> list[Placed]:
    """Lesions of every span in turns, from the lowest slice that has a place for one to the highest."""
    placed: list[Placed] = []
    generator, first = np.random.default_rng(0), 0
    while first + max(SPANS) < volume.shape[-1]:
        span = SPANS[len(placed) % len(SPANS)]
        anatomy, overlay = volume[..., first + span // 2]
        lesions = draw_lesions(anatomy, overlay, generator, modality == "CT", make)
        if lesions:
            placed.append(Placed(first, span, lesions))
        first += span + APART if lesions else 1
    return placed


def changes_of(placed: Sequence[Placed], shape: Sequence[int], blur: float) -> np.ndarray:
    change = np.zeros(shape)
    for one in placed:
        change[..., one.first : one.first + one.span] = lesion_change(one.lesions, tuple(shape[:2]), blur)[..., None]
    return change


def with_lesions(volume: torch.Tensor, modality: str, placed: Sequence[Placed]) -> dict[str, torch.Tensor]:
    """The sources with the lesions of every kind, and without: "none"."""
    changes = [changes_of(placed, volume.shape[1:], blur) for blur in BLURS[modality]]
    changed = {kind: insert_lesions(volume.numpy(), signs, changes) for kind, signs in KINDS.items()}
    return {"none": volume, **{kind: torch.tensor(one) for kind, one in changed.items()}}


def recoveries(
    fused: Mapping[str, torch.Tensor], volumes: Mapping[str, torch.Tensor], placed: Sequence[Placed]
) -> dict[int, dict[str, torch.Tensor]]:
    """By span and kind, the recovery of each lesion."""
    found: dict[int, dict[str, torch.Tensor]] = {span: {} for span in SPANS}
    for kind, signs in KINDS.items():
        followed = 1 if signs[1] else 0
        for span, of_kinds in found.items():
            spots = [[0, one.row, one.column, at.middle] for at in placed if at.span == span for one in at.lesions]
            images = fused[kind], fused["none"], volumes[kind][[followed]], volumes["none"][[followed]]
            given = [image[None] for image in images]
            half = (HALF, HALF, span // 2 + 1)
            of_kinds[kind] = contrast_recovery(*given, torch.tensor(spots, dtype=torch.long).view(-1, 4), half)
    return found


def as_it_is(sources: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
    return fused


def window(sources: torch.Tensor, fused: torch.Tensor, agree: float = torch.inf) -> torch.Tensor:
    """[1, 2, 1] / 4 of what was added to the maximum; less of it the further a source steps, in shares of white."""
    added = fused - sources.amax(0, keepdim=True)
    share = torch.exp(-((_furthest_step(sources) / agree) ** 2)) / 4
    return (fused + _between(share * added.diff(dim=-1))).clamp(0, 1)


def without_excess(sources: torch.Tensor, fused: torch.Tensor, agree: float) -> torch.Tensor:
    """Of every step what goes beyond the sources' is taken back, half from either side; as above where sources step."""
    step, furthest = fused.diff(dim=-1), _furthest_step(sources)
    share = torch.exp(-((furthest / agree) ** 2)) / 2
    return fused + _between(share * step.sign() * (step.abs() - furthest).clamp_min(0))


def _furthest_step(sources: torch.Tensor) -> torch.Tensor:
    return sources.diff(dim=-1).abs().amax(0, keepdim=True)


def _between(steps: torch.Tensor) -> torch.Tensor:
    """What goes from each slice to the one before, as what comes to each."""
    return F.pad(steps, (0, 1)) - F.pad(steps, (1, 0))


# (2, H, W, D) and what a bundle made of it, (1, H, W, D) -> the latter, smoothed along the slices
SMOOTHED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "window": window,
    "window where sources step less than 5 % of white": partial(window, agree=0.05),
    "window where sources step less than 3 % of white": partial(window, agree=0.03),
    "excess taken back where sources step less than 3 % of white": partial(without_excess, agree=0.03),
}


def picture(planes: Mapping[str, torch.Tensor]) -> bytes:
    """Coronal and sagittal planes through the middle of every volume, (H, W, D)."""
    with figure_of((2 * len(planes), 4), dark=False) as figure:
        panels = figure.subplots(2, len(planes), squeeze=False)
        for column, (name, volume) in enumerate(planes.items()):
            for row, plane in enumerate((volume[:, volume.shape[1] // 2], volume[volume.shape[0] // 2])):
                panels[row, column].imshow(plane.T.flip(0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                panels[row, column].set_axis_off()
            panels[0, column].set_title(fill(name, 20), fontsize=8)
        return png_of(figure)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--bundles", type=Path, nargs="*", default=[])
    parser.add_argument("--spacing", type=float, default=1.5, help="of the study, in mm, from 1 to 4")
    parser.add_argument(
        "--amplitude", type=float, default=LesionMake().amplitude, help="of lesions, as a share of white"
    )
    parser.add_argument("--smooth", action="store_true", help="from slice to slice, in every way of SMOOTHED")
    parser.add_argument("--output_dir", type=Path, help="for pictures")
    arguments = parser.parse_args(argv)
    bundles = dict(map(bundle_fuse, arguments.bundles))
    methods = bundles | {f"pointwise {rule}": fuse for rule, fuse in RULES.items()}
    of_volumes, of_lesions, of_smoothing, qabf = [], [], [], FusionQabfMetric(data_range=255)
    with tempfile.TemporaryDirectory() as folder:
        study = write_sample_study(folder, spacing=arguments.spacing)
        clean = {modality: sources_of(study["mri"], study[modality.lower()]) for modality in BLURS}
    for modality, volume in clean.items():
        own = 255 * volume.diff(dim=-1).abs().amax(0).mean().item()
        placed = placed_in(volume.numpy(), modality, LesionMake(amplitude=arguments.amplitude))
        volumes = with_lesions(volume, modality, placed)
        planes = {"MRI": volume[0], modality: volume[1]}
        for method, fuse in methods.items():
            by_slices = {kind: fused_by(fuse, one) for kind, one in volumes.items()}
            kept_before: dict[int, dict[str, torch.Tensor]] = {}
            ways = SMOOTHED if arguments.smooth and method in bundles else {}
            for way, smooth in {"": as_it_is, **ways}.items():
                name = f"{method}, {way}" if way else method
                fused = {kind: smooth(volumes[kind], one) for kind, one in by_slices.items()}
                planes[name] = fused["none"][0]
                images = fused["none"][None], volume[None, :1], volume[None, 1:]
                along = [flicker(*(image.movedim(axis, -1) for image in images)).item() for axis in (4, 2, 3)]
                qabf.reset()
                qabf(quantise(images[0]), quantise(volume[None]))
                cells = [along[0], (along[1] + along[2]) / 2, ssim_3d(*images).item(), qabf.aggregate().item()]
                of_volumes.append([f"MRI and {modality}", name, f"{own:.2f}", *(f"{cell:.3f}" for cell in cells)])
                kept = recoveries(fused, volumes, placed)
                row = []
                for of_kinds in kept.values():
                    least = min(recovery.nanmedian().item() for recovery in of_kinds.values())
                    worst = max(lost(recovery).nanmean().item() for recovery in of_kinds.values())
                    row.append(f"{least:.2f}, {100 * worst:.0f} %")
                of_lesions.append([f"MRI and {modality}", name, *row])
                if way:
                    changes = [
                        min(
                            (kept[span][kind].nanmedian() - kept_before[span][kind].nanmedian()).item()
                            for kind in KINDS
                        )
                        for span in SPANS
                    ]
                    of_smoothing.append([f"MRI and {modality}", name, *(f"{change:+.3f}" for change in changes)])
                else:
                    kept_before = kept
        counts = {span: sum(len(one.lesions) for one in placed if one.span == span) for span in SPANS}
        print(
            f"MRI and {modality}: {tuple(volume.shape[1:])} voxels; lesions of each kind by span: {counts}", flush=True
        )
        if arguments.output_dir:
            with whole_file(arguments.output_dir / f"{modality}.png") as partial_file:
                partial_file.write_bytes(picture(planes))
    spans = [f"{span} slice{'s' * (span > 1)}" for span in SPANS]
    print(
        "\n"
        + markdown(["", "", "steps of the sources", "flicker", "within slices", "SSIM in blocks", "Qabf"], of_volumes)
    )
    print("\n" + markdown(["", "", *spans], of_lesions))
    if of_smoothing:
        print("\n" + markdown(["", "", *spans], of_smoothing))


if __name__ == "__main__":
    main()
