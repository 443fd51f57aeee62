"""The pictures of README and documentation that show what is promised, from simulated pairs.

    python tests/benchmarks/pictures.py --metrics_alone WEIGHTS [--output_dir docs]

Writes lesion.png, an inserted CT lesion and what becomes of it, patchwork.png, what the best metrics look like, and
text.png, one pair fused by SMFusion without a text, with one that names its lesion, and with one that names the other
side.
WEIGHTS are those of SMFusion in version 0.1, which was trained on the metrics alone: `git show
COMMIT:bundles/smfusion/models/model.pt` of a commit before 0.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from monai.bundle import ConfigParser

from evaluation.functional import qabf, vif
from evaluation.observers import Lesion, LesionCase, contrast_recovery, lesion_cases
from fusion_nets.networks import SMFusion
from fusion_nets.simulation import simulate_pair
from fusion_nets.text import FindingEncoder

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
Fuse = Callable[[torch.Tensor], torch.Tensor]


def shipped(bundle: str) -> torch.nn.Module:
    """A bundle's network with its weights."""
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLES / bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    weights = torch.load(BUNDLES / bundle / "models" / "model.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network


def fused(fuse: Fuse, images: torch.Tensor) -> torch.Tensor:
    """(B, 2, H, W) -> (B, H, W), in 8-bit levels."""
    with torch.no_grad():
        return (fuse(images)[:, 0] * 255).round() / 255


def head(seed: int, modality: str, plane: str = "axial") -> np.ndarray:
    """The first upright head of a plane from this seed on, without lesions, (2, 256, 256)."""
    while True:
        pair = simulate_pair(seed, modality, 256, is_head=True, upright=1.0, lesions=0, distractors=0)
        if pair.plane == plane:
            return np.rint(pair.image * 255) / 255
        seed += 1


def draw(path: Path, panels: list[tuple[str, str, np.ndarray]], marked: tuple[int, int] | None = None) -> None:
    """A row of panels with titles and figures below; a lesion is ringed, and shown larger in a corner."""
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 10}):
        figure, axes = plt.subplots(1, len(panels), figsize=(2.5 * len(panels), 3.05), layout="constrained")
        for axis, (title, below, image) in zip(axes, panels, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=10, fontweight="bold")
            axis.set_xlabel(below, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
            if marked:
                row, column = marked
                axis.add_patch(plt.Circle((column, row), 13, fill=False, color="#ffb000", linewidth=1.2))
                inset = axis.inset_axes((0.64, 0.0, 0.36, 0.36))
                inset.imshow(image[row - 20 : row + 21, column - 20 : column + 21], cmap="gray", vmin=0, vmax=1)
                inset.set_xticks([])
                inset.set_yticks([])
                for side in inset.spines.values():
                    side.set_color("#ffb000")
        figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})
        plt.close(figure)


def lesion_picture(path: Path, methods: dict[str, Fuse], seed: int) -> None:
    """One bright lesion of the CT, as the judge puts them in, and what each method leaves of it."""
    anatomy, overlay = head(seed, "CT")
    cases = list(lesion_cases(anatomy, overlay, np.random.default_rng(seed), ct=True, most=1))
    plain, bright = with_and_without(cases)
    (lesion,) = cases[0].lesions
    panels = [("MRI", "", anatomy), ("CT with a lesion", "", bright[1].numpy())]
    for name, fuse in methods.items():
        before, after = fused(fuse, torch.stack([plain, bright]).float())
        kept = recovery(after, before, bright[1], plain[1], lesion)
        panels.append((name, f"keeps {100 * kept:.0f} % of its contrast", after.numpy()))
    draw(path, panels, (lesion.row, lesion.column))


def text_picture(path: Path, network: torch.nn.Module, seed: int) -> None:
    """What a text changes: the lesion of the CT named, named wrongly, and not at all."""
    anatomy, overlay = head(seed, "CT")
    cases = list(lesion_cases(anatomy, overlay, np.random.default_rng(seed), ct=True, most=1))
    plain, bright = with_and_without(cases)
    (lesion,) = cases[0].lesions
    rows, columns = (np.flatnonzero((anatomy > 0.08).sum(axis) > 2) for axis in (1, 0))
    third = 3 * (lesion.row - rows[0]) / (rows[-1] - rows[0])
    side = ["right", "left"][int(lesion.column > columns.mean())]  # as a reader sees it
    where = ["frontal", "parietal", "occipital"][int(np.clip(third, 0, 2))]
    other = {"right": "left", "left": "right"}[side]
    texts = [
        "",
        *(f"Small bright region, {one} {where}, in the CT, {2 * lesion.radius:.0f} mm." for one in (side, other)),
    ]

    def fuse(images: torch.Tensor, text: str) -> torch.Tensor:
        states, mask, _ = FindingEncoder()(["", text])
        return fused(lambda given: network(given, states[None], mask[None]), images[None].float())[0]

    panels = [("MRI", "", anatomy), ("CT with a lesion", "", bright[1].numpy())]
    before = fuse(plain, "")
    for title, text in zip(("no text", f'"{side} {where}"', f'"{other} {where}"'), texts, strict=True):
        after = fuse(bright, text)
        kept = recovery(after, before, bright[1], plain[1], lesion)
        panels.append((title, f"keeps {100 * kept:.0f} % of its contrast", after.numpy()))
    draw(path, panels, (lesion.row, lesion.column))


def recovery(after: torch.Tensor, before: torch.Tensor, shown: torch.Tensor, plain: torch.Tensor, at: Lesion) -> float:
    """Of one lesion, between images (H, W) with and without."""
    images = (image[None, None].float() for image in (after, before, shown, plain))
    return contrast_recovery(*images, torch.tensor([[0, at.row, at.column]])).item()


def with_and_without(cases: list[LesionCase]) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair (2, H, W) without lesions, and with the bright one of the overlay."""
    plain, bright = (next(c.images for c in cases if c.kind == kind) for kind in ("none", "overlay bright"))
    return torch.from_numpy(plain), torch.from_numpy(bright)


def patchwork_picture(path: Path, methods: dict[str, Fuse], seed: int) -> None:
    """A PET pair, and the metrics of each method beside what it looks like."""
    anatomy, overlay = head(seed, "PT")
    image = torch.from_numpy(np.stack([anatomy, overlay]))[None].float()
    panels = [("MRI", "", anatomy), ("PET", "", overlay)]
    for name, fuse in methods.items():
        result = fused(fuse, image)
        q, v = (metric(result[:, None], image[:, :1], image[:, 1:]).item() for metric in (qabf, vif))
        panels.append((name, f"Qabf {q:.3f}, VIF {v:.2f}", result[0].numpy()))
    draw(path, panels)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--metrics_alone", required=True)
    parser.add_argument("--output_dir", default=str(BUNDLES.parent / "docs"))
    parser.add_argument("--seeds", type=int, nargs=3, default=(121, 121, 121), help="of the pictures")
    arguments = parser.parse_args()
    folder = Path(arguments.output_dir)
    alone = SMFusion(widths=(16, 48, 96), blocks=(1, 2, 3)).eval()
    alone.load_state_dict(torch.load(arguments.metrics_alone, map_location="cpu", weights_only=True))
    dmfnet, smfusion = shipped("dmfnet"), shipped("smfusion")
    maximum: Fuse = lambda image: image.amax(1, keepdim=True)  # noqa: E731
    trained = {"trained on metrics alone": alone, "DM-FNet": dmfnet, "SMFusion": smfusion}
    lesion_picture(folder / "lesion.png", {"maximum": maximum, **trained}, arguments.seeds[0])
    patchwork_picture(folder / "patchwork.png", trained, arguments.seeds[1])
    text_picture(folder / "text.png", smfusion, arguments.seeds[2])


if __name__ == "__main__":
    main()
