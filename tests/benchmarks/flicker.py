"""Volumes fused slice by slice: how they flicker, and lesions of one to five slices.

    python tests/benchmarks/flicker.py --bundles bundles/dmfnet bundles/smfusion [--spacing 1.5] [--output_dir FOLDER]

Of the simulated study (`fusion_nets.simulation`), MRI with PET and MRI with CT, fused by each bundle and by pointwise
rules. Printed are two tables: through-plane flicker, in grey levels, beside the mean step from slice to slice of
whichever source steps further there (so much a fused volume may step without flicker), the same measure within the
slices (voxels are cubes: so much comes of raised contrast, and only what is more is of slices fused apart), and SSIM in
blocks; and what is kept of lesions by how many slices they span: the median recovery of the kind that keeps least, and
the share lost of the kind that loses most. Lesions are the discs of the headline, in one source, bright or dark, in as
many slices one behind the other; windows are 41 x 41 pixels and one slice beyond either end. Into the folder go
pictures of coronal and sagittal planes, in which flicker shows as bands.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from card_tables import markdown
from judged_pairs import RULES, Fuse, bundle_fuse

from evaluation.functional import flicker, quantise, ssim_3d
from evaluation.observers import (
    LESION_KINDS,
    Lesion,
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


def placed_in(volume: np.ndarray, modality: str) -> list[Placed]:
    """Lesions of every span in turns, from the lowest slice that has a place for one to the highest."""
    placed: list[Placed] = []
    generator, first = np.random.default_rng(0), 0
    while first + max(SPANS) < volume.shape[-1]:
        span = SPANS[len(placed) % len(SPANS)]
        anatomy, overlay = volume[..., first + span // 2]
        lesions = draw_lesions(anatomy, overlay, generator, modality == "CT")
        if lesions:
            placed.append(Placed(first, span, lesions))
        first += span + APART if lesions else 1
    return placed


def changes_of(placed: Sequence[Placed], shape: Sequence[int], blur: float) -> np.ndarray:
    change = np.zeros(shape)
    for one in placed:
        change[..., one.first : one.first + one.span] = lesion_change(one.lesions, tuple(shape[:2]), blur)[..., None]
    return change


def recoveries(
    fuse: Fuse, volume: torch.Tensor, modality: str, placed: Sequence[Placed]
) -> dict[int, list[torch.Tensor]]:
    """By span, of every kind the recovery of each lesion."""
    clean, found = fused_by(fuse, volume), {span: [] for span in SPANS}
    changes = [changes_of(placed, volume.shape[1:], blur) for blur in BLURS[modality]]
    for signs in KINDS.values():
        changed = torch.tensor(insert_lesions(volume.numpy(), signs, changes))
        fused, followed = fused_by(fuse, changed), 1 if signs[1] else 0
        for span, of_kinds in found.items():
            spots = [[0, one.row, one.column, at.middle] for at in placed if at.span == span for one in at.lesions]
            images = fused, clean, changed[[followed]], volume[[followed]]
            given = [image[None] for image in images]
            half = (HALF, HALF, span // 2 + 1)
            of_kinds.append(contrast_recovery(*given, torch.tensor(spots).view(-1, 4), half))
    return found


def picture(planes: Mapping[str, torch.Tensor]) -> bytes:
    """Coronal and sagittal planes through the middle of every volume, (H, W, D)."""
    with figure_of((2 * len(planes), 4), dark=False) as figure:
        panels = figure.subplots(2, len(planes), squeeze=False)
        for column, (name, volume) in enumerate(planes.items()):
            for row, plane in enumerate((volume[:, volume.shape[1] // 2], volume[volume.shape[0] // 2])):
                panels[row, column].imshow(plane.T.flip(0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                panels[row, column].set_axis_off()
            panels[0, column].set_title(name)
        return png_of(figure)


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--bundles", type=Path, nargs="*", default=[])
    parser.add_argument("--spacing", type=float, default=1.5, help="of the study, in mm, from 1 to 4")
    parser.add_argument("--output_dir", type=Path, help="for pictures")
    arguments = parser.parse_args(argv)
    methods = dict(map(bundle_fuse, arguments.bundles)) | {f"pointwise {rule}": fuse for rule, fuse in RULES.items()}
    of_volumes, of_lesions = [], []
    with tempfile.TemporaryDirectory() as folder:
        study = write_sample_study(folder, spacing=arguments.spacing)
        volumes = {modality: sources_of(study["mri"], study[modality.lower()]) for modality in BLURS}
    for modality, volume in volumes.items():
        anatomy, overlay = volume[None, :1], volume[None, 1:]
        own = 255 * volume.diff(dim=-1).abs().amax(0).mean().item()
        placed = placed_in(volume.numpy(), modality)
        planes = {"MRI": volume[0], modality: volume[1]}
        for method, fuse in methods.items():
            fused = fused_by(fuse, volume)[None]
            planes[method] = fused[0, 0]
            images = fused, anatomy, overlay
            along = [flicker(*(image.movedim(axis, -1) for image in images)).item() for axis in (4, 2, 3)]
            cells = [f"{along[0]:.3f}", f"{(along[1] + along[2]) / 2:.3f}", f"{ssim_3d(*images).item():.3f}"]
            of_volumes.append([f"MRI and {modality}", method, f"{own:.2f}", *cells])
            kept = recoveries(fuse, volume, modality, placed)
            cells = []
            for of_kinds in kept.values():
                least = min(recovery.nanmedian().item() for recovery in of_kinds)
                cells.append(f"{least:.2f}, {100 * max(lost(one).nanmean().item() for one in of_kinds):.0f} %")
            of_lesions.append([f"MRI and {modality}", method, *cells])
        counts = {span: sum(len(one.lesions) for one in placed if one.span == span) for span in SPANS}
        print(
            f"MRI and {modality}: {tuple(volume.shape[1:])} voxels; lesions of each kind by span: {counts}", flush=True
        )
        if arguments.output_dir:
            with whole_file(arguments.output_dir / f"{modality}.png") as partial:
                partial.write_bytes(picture(planes))
    print("\n" + markdown(["", "", "steps of the sources", "flicker", "within slices", "SSIM in blocks"], of_volumes))
    print("\n" + markdown(["", "", *(f"{span} slice{'s' * (span > 1)}" for span in SPANS)], of_lesions))


if __name__ == "__main__":
    main()
