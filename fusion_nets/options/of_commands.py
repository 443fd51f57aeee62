"""The options of each command of `fusion-nets`, in one entry each of `build_parser`."""

from __future__ import annotations

import argparse
from typing import Any

from fusion_nets import __version__, commands

from .parsers import CommandParser, Once, Parser

__all__ = ["build_parser"]


REGISTRATIONS = ("none", "rigid", "affine", "deformable", "auto")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = Parser(prog="fusion-nets", description="Multimodal medical image fusion.")
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="print Python's traceback where something fails, as FUSION_NETS_TRACEBACK=1 in the environment does",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)

    command = parsers.add_parser("sample", help="write the sample study: MRI, FDG-PET and CT of a simulated head")
    command.add_argument("--output_dir", required=True, help="folder to write into")
    command.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    command.add_argument("--spacing", type=float, default=2.0, help="voxel edge in mm, 1 to 4 (default: %(default)s)")
    command.add_argument(
        "--format", choices=("nifti", "dicom", "bids"), default="nifti", help="nifti, bids: one grid; dicom: three"
    )
    command.set_defaults(run=commands.sample)

    command = parsers.add_parser(
        "simulate",
        help="write pairs whose lesions are known, with texts; a stopped run goes on when it is started again",
    )
    command.add_argument("--output_dir", required=True, metavar="FOLDER", help="set to make or to add to")
    command.add_argument("--count", type=int, default=300, help="number of pairs (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="which pairs (default: %(default)s)")
    command.add_argument("--size", type=int, default=256, help="pixels along both axes (default: %(default)s)")
    command.add_argument(
        "--modalities",
        nargs="+",
        default=["CT", "PT", "NM"],
        metavar="CODE",
        help="of overlays: CT, PT, NM; default: all",
    )
    command.add_argument("--shapes_share", type=float, default=0.4, help="pairs without anatomy (default: %(default)s)")
    command.add_argument("--upright", type=float, default=1.0, help="share of heads not turned (default: %(default)s)")
    command.add_argument("--lesions", type=int, default=3, help="most in each pair (default: %(default)s)")
    command.set_defaults(run=commands.simulate)

    command = parsers.add_parser(
        "fuse",
        help="fuse two series, or up to four: DICOM, NIfTI, NRRD, MHA or pictures in and out; or a BIDS dataset",
        epilog="--overlay may be given up to three times; what is said of overlays (--overlay_..., --register and "
        "--transform) is then given once for all, or as often, in the same order; '' is the default.",
    )
    for name, action in (("anatomy", Once), ("overlay", "append")):
        _add_source(command, name, required=False, action=action)
        command.add_argument(
            f"--{name}_window",
            nargs="+",
            action=action,
            metavar="VALUE",
            help="LOW HIGH in HU, SUV or as stored; or brain, subdural, bone, soft_tissue, header, percentiles",
        )
    command.add_argument(
        "--regions", metavar="FILE", help="label image, one whole number a lesion: tells what is kept of their contrast"
    )
    command.add_argument(
        "--bids_dir", metavar="FOLDER", help="BIDS dataset whose pairs are fused, instead of anatomy and overlay"
    )
    for name, which in (("participant", "participants"), ("session", "sessions of the overlays")):
        command.add_argument(f"--{name}_label", nargs="+", metavar="LABEL", help=f"which {which}; default: all")
    command.add_argument(
        "--anatomy_suffix", nargs="+", metavar="SUFFIX", help="which image is the anatomy; default: T1w, T2w, FLAIR"
    )
    command.add_argument(
        "--overlay_suffix", nargs="+", metavar="SUFFIX", help="which images are fused onto it; default: pet, ct"
    )
    command.add_argument("--output_dir", required=True, metavar="FOLDER", help="folder to write into")
    command.add_argument("--method", choices=("dmfnet", "smfusion"), default="dmfnet", help="default: %(default)s")
    command.add_argument("--register", choices=REGISTRATIONS, action="append", help="default: auto")
    command.add_argument("--register_fallback", action="store_true", help="go on where registration fails")
    command.add_argument(
        "--register_limits", type=float, metavar="TIMES", help="how far registration may go; default: 1, 45 degrees"
    )
    _add_least_overlap(command)
    command.add_argument("--transform", metavar="TFM", action="append", help="a registration that was made before")
    command.add_argument(
        "--overlay_palette", metavar="NAME", action="append", help="colours of a grey overlay, or none; default: auto"
    )
    command.add_argument(
        "--keep_bone", type=float, metavar="SHARE", help="0 to 1, how far bone is drawn to the CT; default: 0"
    )
    command.add_argument(
        "--keep_anatomy", type=float, metavar="SHARE", help="0 to 1, how much more of the MRI under a PET; default: 0"
    )
    command.add_argument("--format", help="one or more of dicom, nifti, nrrd, mha, png, html, with commas")
    command.add_argument(
        "--save",
        nargs="+",
        action="extend",
        choices=("overlay", "anatomy"),
        help="what else is written: the overlay on the anatomy's grid in its own units (HU, SUV), or the anatomy",
    )
    command.add_argument("--name", help="what the results are called")
    command.add_argument("--deidentify", action="store_true", help="write DICOM without what tells the patient")
    command.add_argument("--describe", action="store_true", help="of smfusion: describe the sources first")
    command.add_argument("--evaluate", action="store_true", help="save the metrics of the result, too")
    command.add_argument("--instant", action="store_true", help="by a small network that the method has taught")
    command.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, or one of several, such as cuda:1"
    )
    command.add_argument(
        "--engine",
        choices=("auto", "torch", "openvino", "onnxruntime"),
        default="auto",
        help="what runs the network; auto: the fastest that is installed and keeps the result",
    )
    command.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the engine (default: auto)"
    )
    command.add_argument("--settings", metavar="JSON", help="record of an earlier result, whose settings are taken")
    command.add_argument("--bundle_root", metavar="FOLDER", help="of the method's bundle")
    command.set_defaults(run=commands.fuse)

    command = parsers.add_parser(
        "view",
        help="open the page of a fused study, which `fuse --format html` writes",
        epilog="--overlay is given as often as it was to `fuse`, in the same order.",
    )
    command.add_argument("output_dir", metavar="OUT_DIR", help="its folder, or the page; of several the first")
    command.add_argument("--name", help="of the case")
    command.add_argument("--no_browser", action="store_true", help="say where the page is, and open nothing")
    for name, action in (("anatomy", Once), ("overlay", "append")):  # of which the page is made, where there is none
        _add_source(command, name, required=False, action=action)
    command.set_defaults(run=commands.view)

    command = parsers.add_parser("convert", help="write an image in another form: DICOM, NIfTI, NRRD, MHA or pictures")
    command.add_argument("source", metavar="IN", help="folder of a DICOM series, or a file")
    command.add_argument(
        "destination",
        metavar="OUT",
        help="name ending in .nii, .nii.gz, .nrrd, .mha, .png (slices of a volume), .tif or .bmp, "
        "or a folder's without an ending for DICOM",
    )
    command.add_argument("--series_uid", metavar="UID", help="of the series, or its fingerprint")
    command.add_argument("--volume", metavar="WHICH", help="of several: 2, echo=30, b=1000, mean ...")
    command.add_argument("--modality", metavar="CODE", help="MR, CT, PT or NM; picks among several series, or tells it")
    command.add_argument("--units", metavar="UNIT", help="of values whose file does not tell: HU, SUV, Bq/ml or stored")
    command.add_argument("--reference", metavar="FOLDER", help="DICOM series whose study the result joins")
    command.add_argument("--reference_series_uid", metavar="UID", help="of that series, or its fingerprint")
    command.add_argument("--window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="black and white of pictures")
    command.add_argument("--deidentify", action="store_true", help="write DICOM without what tells the patient")
    command.add_argument("--key_file", metavar="FILE", help="with a secret, which keeps new UIDs the same in every run")
    command.set_defaults(run=commands.convert)

    command = parsers.add_parser("montage", help="draw anatomy, overlay and fused image, slice by slice, as a PNG")
    for name in ("anatomy", "overlay", "fused"):
        several: dict[str, Any] = {"nargs": "+"} if name == "fused" else {}
        command.add_argument(
            f"--{name}",
            required=True,
            metavar="FILE",
            action=Once if name == "overlay" else "store",
            help="NIfTI volume or 2-D picture; of fused ones several",
            **several,
        )
        command.add_argument(
            f"--{name}_window", nargs=2, type=float, metavar=("LOW", "HIGH"), help="values shown black and white"
        )
    command.add_argument("--transform", metavar="TFM", help="registration of the overlay, as `fuse` writes it")
    command.add_argument("--output", required=True, metavar="PNG", help="picture to write")
    command.add_argument(
        "--mip", metavar="PNG", help="maximum intensity projections of a PET or SPECT overlay, in its overlay_window"
    )
    command.add_argument(
        "--titles",
        nargs="+",
        default=("Anatomy", "Overlay", "Fused"),
        metavar="TITLE",
        help="what the rows are called",
    )
    command.add_argument(
        "--description", metavar="JSON", help="description of the last fused image, to be written below"
    )
    command.add_argument("--slices", type=int, default=5, help="number of axial slices (default: %(default)s)")
    command.add_argument("--overlay_cmap", default="gray", help="matplotlib colour map of a grey overlay")
    command.set_defaults(run=commands.montage)

    command = parsers.add_parser("evaluate", help="compare methods by their fused images of the same pairs")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--datalist", metavar="JSON", help="the pairs")
    source.add_argument("--dataset_dir", metavar="FOLDER", help="an AANLIB folder instead of a datalist")
    source.add_argument(
        "--lesions", metavar="FOLDER", help="what `lesions` wrote: what became of the lesions is judged, too"
    )
    command.add_argument("--section", nargs="+", help="of the AANLIB folder, one or more; default: test")
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
            f"--{name}_window",
            nargs="+",
            action=Once,
            metavar="VALUE",
            help="display range under which they were fused, as of fuse",
        )
    command.add_argument("--register", choices=REGISTRATIONS, default="auto", help="overlays")
    _add_least_overlap(command)
    command.add_argument(
        "--fused_white", type=float, metavar="VALUE", help="of fused images whose files do not say it, such as 4095"
    )
    command.add_argument("--metrics", nargs="+", metavar="NAME", help="such as MI SSIM Qabf VIF; default: all")
    command.add_argument(
        "--device", default="auto", metavar="DEVICE", help="of the metrics; as of fuse (default: %(default)s)"
    )
    command.set_defaults(run=commands.evaluate)

    command = parsers.add_parser(
        "lesions", help="put lesions into registered 2-D pairs, to be fused by any method and judged by `evaluate`"
    )
    _add_pairs(command, "the pairs", section="test")
    command.add_argument(
        "--output_dir", required=True, metavar="FOLDER", help="folder to write pairs and datalist.json into"
    )
    command.add_argument(
        "--makes",
        nargs="+",
        metavar="NAME",
        help="discs, small, large, faint, strong, rings, ragged; the first is that of the headline (default: the "
        "first five)",
    )
    command.add_argument("--most", type=int, default=5, help="lesions in a pair at most (default: %(default)s)")
    command.add_argument(
        "--pairs_of_kind", type=int, metavar="N", help="pairs of each kind at most, evenly spaced (default: all)"
    )
    command.add_argument("--seed", type=int, default=0, help="where lesions lie (default: %(default)s)")
    _add_preparation(command)
    command.set_defaults(run=commands.lesions)

    command = parsers.add_parser(
        "slices", help="make a training set of studies; a stopped run goes on when it is started again"
    )
    command.add_argument("--datalist", required=True, metavar="JSON", help="the pairs")
    command.add_argument("--dataset_dir", required=True, metavar="FOLDER", help="training set to make or to add to")
    command.add_argument("--section", default="train", help="train, val or another (default: %(default)s)")
    _add_preparation(command)
    command.set_defaults(run=commands.slices)

    command = parsers.add_parser("import-weights", help="make a bundle's model.pt of DM-FNet's two released files")
    command.add_argument("--stage1", required=True, metavar="FILE", help="the diffusion wrapper's state dict")
    command.add_argument("--stage2", required=True, metavar="FILE", help="the fusion network's state dict")
    command.add_argument("--output", required=True, metavar="FILE", help="weights to write, such as models/model.pt")
    command.set_defaults(run=commands.import_weights)

    command = parsers.add_parser(
        "describe", help="put the images of a datalist into words; a stopped run goes on when it is started again"
    )
    _add_pairs(command, "pairs to describe", section="train")
    command.add_argument("--output", required=True, metavar="JSON", help="datalist with texts to write")
    command.add_argument(
        "--describer",
        choices=tuple(commands.DESCRIBERS),
        default="measured",
        help="measured: computed from the image (default); given: only what came with it; generated: by a model",
    )
    command.add_argument("--model", help="of generated: folder of an image-to-text checkpoint, or name on the hub")
    command.add_argument("--revision", metavar="COMMIT", help="of a name on the hub: commit hash of 40 digits")
    command.add_argument("--prompt", help='what the model is asked; "{modality}" in it becomes MRI, CT, PET or SPECT')
    command.add_argument("--max_new_tokens", type=int, help="length of a text (default: 256; of BiomedGPT 128)")
    command.add_argument("--batch_size", type=int, default=1, help="images described together (default: %(default)s)")
    command.add_argument(
        "--device", default="auto", metavar="DEVICE", help="of the model; as of fuse (default: %(default)s)"
    )
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32")
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
    command.set_defaults(run=commands.describe)

    _add_receive(parsers)
    return parser


def _add_receive(parsers: Any) -> None:
    command = parsers.add_parser(
        "receive", help="a DICOM node that fuses what it is sent, or finds in an archive, and sends the results on"
    )
    command.add_argument("--spool", required=True, metavar="FOLDER", help="of all that is received, for this alone")
    command.add_argument("--rules", metavar="JSON", help="which series are fused")
    command.add_argument(
        "--to",
        nargs="+",
        metavar="ADDRESS",
        help="archives: dicom://TITLE@HOST:PORT, dicoms:// likewise, DICOMweb's https://",
    )
    command.add_argument("--port", type=int, help="to listen at, 0 for a free one; without it, nothing is listened to")
    command.add_argument("--host", default="127.0.0.1", help="to listen at; 0.0.0.0 for all (default: %(default)s)")
    command.add_argument("--aet", default="FUSION", metavar="TITLE", help="AE title (default: %(default)s)")
    command.add_argument("--allow", nargs="+", default=[], metavar="TITLE", help="AE titles that may send")
    command.add_argument("--poll", metavar="URL", help="of an Orthanc that is asked for what is new")
    command.add_argument("--poll_interval", type=float, default=10, help="seconds (default: %(default)s)")
    command.add_argument("--poll_from_start", action="store_true", help="ask for all that it holds, the first time")
    command.add_argument(
        "--quiet",
        type=float,
        default=60,
        help="seconds without a new object of a study, then it is fused (default: %(default)s)",
    )
    for name, about in (("cert", "certificate of this node"), ("key", "of it"), ("ca", "who signs for the others")):
        command.add_argument(f"--tls_{name}", metavar="PEM", help=about)
    for limit, unit, default, about in (
        ("object", "MIB", 512.0, "of one object"),
        ("spool", "GIB", 100.0, "of all in the spool; beyond, objects are refused"),
    ):
        command.add_argument(
            f"--max_{limit}", type=float, default=default, metavar=unit, help=f"{about} (default: %(default)s)"
        )
    command.add_argument(
        "--max_associations", type=int, default=8, metavar="N", help="at a time (default: %(default)s)"
    )
    command.add_argument("--max_rate", type=float, metavar="N", help="objects a second of one address; default: any")
    command.add_argument(
        "--keep_days",
        type=float,
        default=7,
        help="then a study without a pair that failed is removed (default: %(default)s)",
    )
    command.add_argument("--health_port", type=int, metavar="PORT", help="of /metrics and /health, at 127.0.0.1")
    command.add_argument("--device", default="auto", metavar="DEVICE", help="as of fuse (default: %(default)s)")
    command.add_argument(
        "--once", action="store_true", help="end when something came, all is sent, or failed, and no sender is left"
    )
    command.add_argument("--list", action="store_true", help="show the pairs of the spool, and receive nothing")
    command.add_argument(
        "--retry",
        nargs="*",
        metavar="ID",
        help="have pairs that failed, or these of them, tried again, and end",
    )
    command.set_defaults(run=commands.receive)


def _add_source(command: argparse.ArgumentParser, name: str, required: bool = True, action: Any = Once) -> None:
    for detail, metavar, about in (
        ("", "PATH", "folder of a DICOM series, or a file"),
        ("_modality", "CODE", "MR, CT, PT or NM; picks among several series"),
        ("_series_uid", "UID", "of the series, or its fingerprint"),
        ("_volume", "WHICH", "of several: 2, echo=30, b=1000, mean ..."),
    ):
        is_needed = required and not detail
        command.add_argument(f"--{name}{detail}", required=is_needed, action=action, metavar=metavar, help=about)


def _add_pairs(command: argparse.ArgumentParser, about: str, section: str) -> None:
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--datalist", metavar="JSON", help=about)
    source.add_argument("--dataset_dir", metavar="FOLDER", help="an AANLIB folder instead of a datalist")
    command.add_argument("--section", nargs="+", help=f"of the AANLIB folder, one or more; default: {section}")


def _add_preparation(command: argparse.ArgumentParser) -> None:
    """How sources are brought onto one grid, and shown."""
    command.add_argument("--register", choices=REGISTRATIONS, default="auto", help="overlays")
    _add_least_overlap(command)
    for name in ("anatomy", "overlay"):
        command.add_argument(
            f"--{name}_window", nargs="+", action=Once, metavar="VALUE", help="display range, as of fuse"
        )


def _add_least_overlap(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--least_overlap", type=float, metavar="SHARE", help="of the sources, or they are refused; default: 0.25"
    )
