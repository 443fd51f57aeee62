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
    from fusion_nets.clinical import write_montage

    path = write_montage(
        arguments.output,
        anatomy=_read_image(arguments.anatomy),
        overlay=_read_image(arguments.overlay),
        fused=_read_image(arguments.fused),
        names=arguments.titles,
        slices=arguments.slices,
        windows=(arguments.anatomy_window, arguments.overlay_window, arguments.fused_window),
        overlay_cmap=arguments.overlay_cmap,
    )
    print(path)


def _import_weights(arguments: argparse.Namespace) -> None:
    import torch

    from fusion_nets.clinical import whole_file
    from fusion_nets.networks import DMFNet

    network = DMFNet.load_released(arguments.stage1, arguments.stage2)
    with whole_file(arguments.output) as partial:
        torch.save(network.state_dict(), partial)
    print(f"{arguments.output}; run the bundle with configs/published.json on top, which names the published network")


def _read_image(path: str) -> Any:
    """A volume as nibabel image, a picture as array (rows, columns) or (3, rows, columns)."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    try:
        if path.lower().endswith((".nii", ".nii.gz")):
            volume = nib.nifti1.Nifti1Image.from_filename(path)
            return nib.nifti1.Nifti1Image(np.asanyarray(volume.dataobj), volume.affine, volume.header)
        with Image.open(path) as picture:
            grey = picture.mode in ("L", "I", "I;16", "F")
            return np.asarray(picture) if grey else np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except Exception as error:  # a damaged file can make its parser stumble in any way
        raise ValueError(f"{path} cannot be read as NIfTI (.nii, .nii.gz) or 2-D picture: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
