"""The command line: `fusion-nets COMMAND ...`, or `python -m fusion_nets.cli COMMAND ...`.

A command is one function that takes the parsed arguments, and one entry in `build_parser`. It imports what it needs
itself, so that `--help` answers at once, prints what it wrote, and raises `ValueError`, `OSError` or
`ModuleNotFoundError` for what the user can mend; `main` makes one line of that and exit code 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["build_parser", "main"]

DESCRIBERS = {"measured": "MeasuredText", "given": "GivenText", "generated": "GeneratedText"}
"""By what `describe` describes, and the names of these classes in `fusion_nets.text`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 where the user is asked to mend something.

    A command that is told to end (SIGTERM) removes the file that it is writing, as one that is interrupted does.
    """
    arguments = build_parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
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
    command.add_argument("--format", choices=("nifti", "dicom"), default="nifti", help="nifti: one grid; dicom: three")
    command.set_defaults(run=_sample)

    command = commands.add_parser("simulate", help="write pairs whose lesions are known; a stopped run can go on")
    command.add_argument("--output_dir", required=True, metavar="FOLDER", help="set to make or to add to")
    command.add_argument("--modalities", nargs="+", default=["CT", "PT", "NM"], metavar="CODE", help="CT, PT, NM")
    for name, value, what in (("count", 300, "pairs"), ("seed", 0, "which pairs"), ("size", 256, "pixels of a side")):
        command.add_argument(f"--{name}", type=int, default=value, help=f"{what} (default: %(default)s)")
    command.add_argument("--lesions", type=int, default=3, help="most in each pair (default: %(default)s)")
    command.add_argument("--shapes_share", type=float, default=0.4, help="pairs without anatomy (default: %(default)s)")
    command.set_defaults(run=_simulate)

    command = commands.add_parser("fuse", help="fuse two series: DICOM, NIfTI, NRRD, MHA or pictures in and out")
    for name in ("anatomy", "overlay"):
        command.add_argument(f"--{name}", required=True, metavar="PATH", help="folder of a DICOM series, or a file")
        command.add_argument(f"--{name}_modality", metavar="CODE", help="MR, CT, PT or NM; picks among several series")
        command.add_argument(f"--{name}_series_uid", metavar="UID", help="of the series, or its fingerprint")
        command.add_argument(
            f"--{name}_window",
            nargs="+",
            metavar="VALUE",
            help="LOW HIGH in HU, SUV or as stored; or brain, subdural, bone, soft_tissue, header, percentiles",
        )
    command.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder to write into")
    command.add_argument("--method", choices=("dmfnet", "smfusion"), default="dmfnet", help="default: %(default)s")
    command.add_argument("--register", choices=("none", "rigid", "affine", "auto"), help="default: auto")
    command.add_argument("--register_fallback", action="store_true", help="go on where registration fails")
    command.add_argument("--transform", metavar="TFM", help="a registration that was made before")
    command.add_argument("--overlay_palette", metavar="NAME", help="colours of a grey overlay, or none; default: auto")
    command.add_argument("--format", help="one or more of dicom, nifti, nrrd, mha, png, parted by commas")
    command.add_argument("--name", help="what the results are called")
    command.add_argument("--deidentify", action="store_true", help="write DICOM without what tells the patient")
    command.add_argument("--describe", action="store_true", help="of smfusion: describe the sources first")
    command.add_argument("--evaluate", action="store_true", help="save the metrics of the result, too")
    command.add_argument("--settings", metavar="JSON", help="record of an earlier result, whose settings are taken")
    command.add_argument("--bundle_root", metavar="FOLDER", help="of the method's bundle")
    command.set_defaults(run=_fuse)

    command = commands.add_parser("convert", help="write an image in another form: DICOM, NIfTI, NRRD, MHA or pictures")
    command.add_argument("source", metavar="IN", help="folder of a DICOM series, or a file")
    command.add_argument(
        "destination",
        metavar="OUT",
        help="name ending in .nii, .nii.gz, .nrrd, .mha, .png (slices of a volume), .tif or .bmp, "
        "or a folder's without an ending for DICOM",
    )
    command.add_argument("--series_uid", metavar="UID", help="of the series, or its fingerprint")
    command.add_argument("--modality", metavar="CODE", help="MR, CT, PT or NM; picks among several series, or tells it")
    command.add_argument("--units", metavar="UNIT", help="of values whose file does not tell: HU, SUV, Bq/ml or stored")
    command.add_argument("--reference", metavar="FOLDER", help="DICOM series whose study the result joins")
    command.add_argument("--reference_series_uid", metavar="UID", help="of that series, or its fingerprint")
    command.add_argument("--window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="black and white of pictures")
    command.add_argument("--deidentify", action="store_true", help="write DICOM without what tells the patient")
    command.add_argument("--key_file", metavar="FILE", help="with a secret, which keeps new UIDs the same in every run")
    command.set_defaults(run=_convert)

    command = commands.add_parser("montage", help="draw anatomy, overlay and fused image, slice by slice, as a PNG")
    for name in ("anatomy", "overlay", "fused"):
        several: dict[str, Any] = {"nargs": "+"} if name == "fused" else {}
        command.add_argument(
            f"--{name}",
            required=True,
            metavar="FILE",
            help="NIfTI volume or 2-D picture; of fused ones several",
            **several,
        )
        command.add_argument(
            f"--{name}_window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="values shown black and white"
        )
    command.add_argument("--transform", metavar="TFM", help="registration of the overlay, as `fuse` writes it")
    command.add_argument("--output", required=True, metavar="PNG", help="picture to write")
    command.add_argument(
        "--titles",
        nargs="+",
        default=("Anatomy", "Overlay", "Fused"),
        metavar="TITLE",
        help="what the rows are called",
    )
    command.add_argument("--report", metavar="JSON", help="report of the last fused image, to be written below")
    command.add_argument("--slices", type=int, default=5, help="number of axial slices (default: %(default)s)")
    command.add_argument("--overlay_cmap", default="gray", help="matplotlib colour map of a grey overlay")
    command.set_defaults(run=_montage)

    command = commands.add_parser("evaluate", help="compare methods by their fused images of the same pairs")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--datalist", metavar="JSON", help="the pairs")
    source.add_argument("--dataset_dir", metavar="FOLDER", help="an AANLIB folder instead of a datalist")
    command.add_argument("--section", nargs="+", default=["test"], help="of the AANLIB folder, one or more")
    command.add_argument(
        "--method",
        required=True,
        action="append",
        metavar="NAME=FOLDER",
        help="a method and where its fused images lie, called NAME_fused or NAME of the pair; the first is the "
        "one that others are tested against",
    )
    command.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder to write the report into")
    for name in ("anatomy", "overlay"):
        command.add_argument(
            f"--{name}_window", nargs="+", metavar="VALUE", help="display range under which they were fused, as of fuse"
        )
    command.add_argument("--register", choices=("none", "rigid", "affine", "auto"), default="auto", help="overlays")
    command.add_argument("--metrics", nargs="+", metavar="NAME", help="such as MI SSIM Qabf VIF; default: all")
    command.add_argument("--device", default="cpu", help="where the metrics are computed (default: %(default)s)")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("slices", help="make a training set of studies; a stopped run can go on")
    command.add_argument("--datalist", required=True, metavar="JSON", help="the pairs")
    command.add_argument("--dataset_dir", required=True, metavar="FOLDER", help="training set to make or to add to")
    command.add_argument("--section", default="train", help="train, val or another (default: %(default)s)")
    command.add_argument("--register", choices=("none", "rigid", "affine", "auto"), default="auto", help="overlays")
    for name in ("anatomy", "overlay"):
        command.add_argument(f"--{name}_window", nargs="+", metavar="VALUE", help="display range, as of fuse")
    command.set_defaults(run=_slices)

    command = commands.add_parser("import-weights", help="make a bundle's model.pt of DM-FNet's two released files")
    command.add_argument("--stage1", required=True, metavar="FILE", help="the diffusion wrapper's state dict")
    command.add_argument("--stage2", required=True, metavar="FILE", help="the fusion network's state dict")
    command.add_argument("--output", required=True, metavar="FILE", help="weights to write, such as models/model.pt")
    command.set_defaults(run=_import_weights)

    command = commands.add_parser(
        "describe", help="put the images of a datalist into words; a stopped run goes on when it is started again"
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--datalist", metavar="JSON", help="pairs to describe")
    source.add_argument("--dataset_dir", metavar="FOLDER", help="an AANLIB folder instead of a datalist")
    command.add_argument("--section", nargs="+", default=["train"], help="of the AANLIB folder, one or more")
    command.add_argument("--output", required=True, metavar="JSON", help="datalist with texts to write")
    command.add_argument(
        "--describer",
        choices=tuple(DESCRIBERS),
        default="measured",
        help="measured: computed from the image (default); given: only what came with it; generated: by a model",
    )
    command.add_argument("--model", help="of generated: folder of an image-to-text checkpoint, or name on the hub")
    command.add_argument("--revision", metavar="COMMIT", help="of a name on the hub: commit hash of 40 digits")
    command.add_argument("--prompt", help='what the model is asked; "{modality}" in it becomes MRI, CT, PET or SPECT')
    command.add_argument("--max_new_tokens", type=int, help="length of a text (default: 256; of BiomedGPT 128)")
    command.add_argument("--batch_size", type=int, default=1, help="images described together (default: %(default)s)")
    command.add_argument("--device", default="cpu", help="where the model runs (default: %(default)s)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    command.add_argument("--download", action="store_true", help="get a model of the hub that is not here yet")
    command.add_argument(
        "--accept_research_licence",
        action="store_true",
        help="of BiomedGPT by its name on the hub: its weights are for research, not for commercial or clinical use",
    )
    command.add_argument("--per", choices=("series", "slice"), default="series", help="one text, or one per slice")
    command.add_argument("--overwrite", action="store_true", help="describe images that have a text, too")
    for name in ("anatomy", "overlay"):
        command.add_argument(f"--{name}_window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="display range")
    command.set_defaults(run=_describe)

    return parser


def _sample(arguments: argparse.Namespace) -> None:
    from fusion_nets.simulation import write_sample_study

    written = write_sample_study(arguments.output_dir, arguments.seed, arguments.spacing, arguments.format)
    print(*written.values(), sep="\n")


def _simulate(arguments: argparse.Namespace) -> None:
    from fusion_nets.workflows import write_simulated_set

    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "run")}
    print(*write_simulated_set(**options).values(), sep="\n")


def _fuse(arguments: argparse.Namespace) -> None:
    from fusion_nets.workflows import fuse_pair

    if arguments.describe and arguments.method != "smfusion":
        raise ValueError("--describe belongs to --method smfusion")
    chosen = {
        name: getattr(arguments, name)
        for name in ("register", "transform", "overlay_palette", "name", "settings", "bundle_root")
    }
    for key in ("anatomy", "overlay"):
        for detail in ("modality", "series_uid"):
            chosen[f"{key}_{detail}"] = getattr(arguments, f"{key}_{detail}")
        chosen[f"{key}_window"] = _window(getattr(arguments, f"{key}_window"))
    for path in fuse_pair(
        arguments.anatomy,
        arguments.overlay,
        arguments.output_dir,
        method=arguments.method,
        output_format=arguments.format.split(",") if arguments.format else None,
        evaluate=arguments.evaluate,
        register_fallback=arguments.register_fallback,
        deidentify=arguments.deidentify,
        describe=arguments.describe or None,
        **chosen,
    ):
        print(path)


def _window(words: Sequence[str] | None) -> Any:
    """A named window, or two numbers; None for none."""
    if not words or len(words) == 1:
        return words[0] if words else None
    try:
        low, high = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"a window is LOW HIGH or a name, got {' '.join(words)}") from error
    return [low, high]


def _convert(arguments: argparse.Namespace) -> None:
    from pathlib import Path

    from fusion_nets.clinical import convert_image

    names = ("series_uid", "modality", "units", "reference", "reference_series_uid", "deidentify")
    written = convert_image(
        arguments.source,
        arguments.destination,
        window=tuple(arguments.window) if arguments.window else None,
        key=Path(arguments.key_file).read_bytes().strip() if arguments.key_file else None,
        **{name: getattr(arguments, name) for name in names},
    )
    print(written[0] if len(written) == 1 else f"{written[0].parent}: {len(written)} files")


def _montage(arguments: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    import torch

    from fusion_nets.clinical import RASTER_SUFFIXES, read_image
    from fusion_nets.drawing import write_montage
    from fusion_nets.registration import read_transform

    images, windows = [], []
    names = ["anatomy", "overlay", *["fused"] * len(arguments.fused)]
    for name, path in zip(names, [arguments.anatomy, arguments.overlay, *arguments.fused], strict=True):
        image: Any = read_image(path)
        black_to_white = (0, image.meta["white"]) if "white" in image.meta else None
        windows.append(getattr(arguments, f"{name}_window") or black_to_white)
        if path.lower().endswith(RASTER_SUFFIXES):
            images.append(image.as_tensor())  # without an affine: drawn flat, rows and columns as they are
        else:
            images.append(image[..., None] if image.ndim == 3 else image)
    if arguments.transform:
        images[1].affine = torch.linalg.inv(torch.from_numpy(read_transform(arguments.transform))) @ images[1].affine
    notes = []
    if arguments.report:
        report = json.loads(Path(arguments.report).read_text(encoding="utf-8"))
        titles = {"anatomy": arguments.titles[0], "overlay": arguments.titles[1], "fused": arguments.titles[-1]}
        notes = [f"{title}: {report[f'{image}_text']}" for image, title in titles.items()]
    written = write_montage(
        arguments.output,
        anatomy=images[0],
        overlay=images[1],
        fused=images[2:],
        names=arguments.titles,
        slices=arguments.slices,
        windows=windows,
        overlay_cmap=arguments.overlay_cmap,
        notes=notes,
    )
    print(written)


def _evaluate(arguments: argparse.Namespace) -> None:
    from fusion_nets.datalists import aanlib_pairs, load_pairs
    from fusion_nets.workflows import evaluate_methods

    methods: dict[str, str] = {}
    for method in arguments.method:
        name, equals, folder = method.partition("=")
        if not (name.strip() and equals and folder):
            raise ValueError(f"--method is {method!r}; NAME=FOLDER is accepted")
        if name in methods:
            raise ValueError(f"--method {name!r} is given twice; give each a name of its own")
        methods[name] = folder
    pairs = (
        aanlib_pairs(arguments.dataset_dir, arguments.section)
        if arguments.dataset_dir
        else load_pairs(arguments.datalist)
    )
    for path in evaluate_methods(
        pairs,
        methods,
        arguments.output_dir,
        windows={key: _window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")},
        register=arguments.register,
        metrics=arguments.metrics,
        device=arguments.device,
    ):
        print(path)


def _slices(arguments: argparse.Namespace) -> None:
    from fusion_nets.datalists import load_pairs
    from fusion_nets.workflows import slice_pairs

    windows = {key: _window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")}
    pairs = load_pairs(arguments.datalist)
    print(slice_pairs(pairs, arguments.dataset_dir, arguments.section, windows, arguments.register))


def _import_weights(arguments: argparse.Namespace) -> None:
    import torch

    from fusion_nets.files import whole_file
    from fusion_nets.networks import DMFNet

    network = DMFNet.load_released(arguments.stage1, arguments.stage2)
    with whole_file(arguments.output) as partial:
        torch.save(network.state_dict(), partial)
    print(f"{arguments.output}; run the bundle with configs/published.json on top, which names the published network")


def _describe(arguments: argparse.Namespace) -> None:
    import os

    from fusion_nets import text
    from fusion_nets.datalists import aanlib_pairs, load_pairs
    from fusion_nets.workflows import describe_pairs

    if arguments.describer == "generated" and not arguments.model:
        raise ValueError("--describer generated needs a --model")
    if arguments.describer != "generated" and (arguments.model or arguments.prompt):
        raise ValueError("--model and --prompt belong to --describer generated")
    if arguments.dataset_dir:
        pairs = aanlib_pairs(arguments.dataset_dir, arguments.section)
    else:
        pairs = load_pairs(os.path.relpath(arguments.datalist))  # what is relative in it stays relative
    how: dict[str, Any] = {}
    if arguments.describer == "generated":
        how = {name: getattr(arguments, name) for name in ("model", "revision", "prompt", "batch_size", "device")}
        if arguments.max_new_tokens is not None:
            how |= {"generation": {"max_new_tokens": arguments.max_new_tokens}}
        how |= {name: getattr(arguments, name) for name in ("dtype", "download", "accept_research_licence")}
    describer = getattr(text, DESCRIBERS[arguments.describer])(**how)
    written = describe_pairs(
        pairs,
        describer,
        arguments.output,
        per=arguments.per,
        windows={"anatomy": arguments.anatomy_window, "overlay": arguments.overlay_window},
        overwrite=arguments.overwrite,
        batch_size=arguments.batch_size,
    )
    print(written)


if __name__ == "__main__":
    sys.exit(main())
