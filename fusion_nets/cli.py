"""The command line: `fusion-nets COMMAND ...`, or `python -m fusion_nets.cli COMMAND ...`.

A command is one function that takes the parsed arguments, and one entry in `build_parser`. It imports what it needs
itself, so that `--help` answers at once, prints what it wrote, and raises `ValueError`, `OSError` or
`ModuleNotFoundError` for what the user can mend; `main` makes one line of that and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 where the user is asked to mend something."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"fusion-nets {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(prog="fusion-nets", description="Multimodal medical image fusion.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("sample", help="write the sample study: MRI, FDG-PET and CT of a simulated head")
    command.add_argument("--output_dir", required=True, help="folder to write into")
    command.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    command.add_argument("--spacing", type=float, default=2.0, help="voxel edge in mm, 1 to 4 (default: %(default)s)")
    command.set_defaults(run=_sample)

    command = commands.add_parser("montage", help="draw anatomy, overlay and fused image, slice by slice, as a PNG")
    for name in ("anatomy", "overlay", "fused"):
        command.add_argument(f"--{name}", required=True, metavar="FILE", help="NIfTI volume or 2-D picture")
        command.add_argument(
            f"--{name}_window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="values shown black and white"
        )
    command.add_argument("--output", required=True, metavar="PNG", help="picture to write")
    command.add_argument(
        "--titles",
        nargs=3,
        default=("Anatomy", "Overlay", "Fused"),
        metavar=("ANATOMY", "OVERLAY", "FUSED"),
        help="what the three rows are called",
    )
    command.add_argument("--slices", type=int, default=5, help="number of axial slices (default: %(default)s)")
    command.add_argument("--overlay_cmap", default="gray", help="matplotlib colour map of a grey overlay")
    command.set_defaults(run=_montage)

    command = commands.add_parser("import-weights", help="make a bundle's model.pt of DM-FNet's two released files")
    command.add_argument("--stage1", required=True, metavar="FILE", help="the diffusion wrapper's state dict")
    command.add_argument("--stage2", required=True, metavar="FILE", help="the fusion network's state dict")
    command.add_argument("--output", required=True, metavar="FILE", help="weights to write, such as models/model.pt")
    command.set_defaults(run=_import_weights)

    return parser


def _sample(arguments: argparse.Namespace) -> None:
    from fusion_nets.clinical import write_sample_study

    for path in write_sample_study(arguments.output_dir, seed=arguments.seed, spacing=arguments.spacing).values():
        print(path)


def _montage(arguments: argparse.Namespace) -> None:
    from fusion_nets.clinical import RASTER_SUFFIXES, read_image, write_montage

    images: dict[str, Any] = {}
    windows = []
    for name in ("anatomy", "overlay", "fused"):
        path = getattr(arguments, name)
        image = read_image(path)
        black_to_white = (0, image.meta["white"]) if "white" in image.meta else None
        windows.append(getattr(arguments, f"{name}_window") or black_to_white)
        if path.lower().endswith(RASTER_SUFFIXES):
            images[name] = image.as_tensor()  # without an affine: drawn flat, rows and columns as they are
        else:
            images[name] = image[..., None] if image.ndim == 3 else image
    written = write_montage(
        arguments.output,
        **images,
        names=arguments.titles,
        slices=arguments.slices,
        windows=windows,
        overlay_cmap=arguments.overlay_cmap,
    )
    print(written)


def _import_weights(arguments: argparse.Namespace) -> None:
    import torch

    from fusion_nets.clinical import whole_file
    from fusion_nets.networks import DMFNet

    network = DMFNet.load_released(arguments.stage1, arguments.stage2)
    with whole_file(arguments.output) as partial:
        torch.save(network.state_dict(), partial)
    print(f"{arguments.output}; run the bundle with configs/published.json on top, which names the published network")


if __name__ == "__main__":
    sys.exit(main())
