"""What a page takes from the code: `<!-- generated: command line -->` and `<!-- generated: options NAME.json -->`."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"^<!-- generated: (command line|options (\w+\.json)) -->$", re.MULTILINE)

BUNDLES = {"dmfnet": "DM-FNet", "smfusion": "SMFusion"}

WIRING = {
    "attention",
    "average",
    "network",
    "network_def",
    "smallest",
    "tokenizer",
    "pairs",
    "key_metric",
    "additional_metrics",
    "bundle_root",
}
"""Entries of the upper level that no user sets; `bundle_root` is told once for all configurations."""

SAID = {
    None: "",
    "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')": "first GPU, else CPU",
    "$torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()": "where it is fast",
    "$'bfloat16' if @amp else 'auto'": "`auto`",
    "$torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()": "where it is fast",
}

MEANINGS = {
    "amp": "compute in bfloat16 where that is safe: for GPUs and processors with AMX or AVX512-BF16; in inference the "
    "same as `precision bfloat16`",
    "anatomy": "the anatomical image of a single pair: DICOM (folder or file), NIfTI, NRRD, MHA or a picture",
    "anatomy_modality": "`MR`, `CT`, `PT` or `NM`: picks among several DICOM series, or tells what a file does not say",
    "anatomy_series_uid": "SeriesInstanceUID, or its fingerprint as messages give it: picks among several DICOM series",
    "anatomy_suffix": "of a BIDS dataset, which image is the anatomy, the preferred first, as "
    "`\"['ce-gad_T1w', 'T1w']\"`; by default `T1w`, `T2w`, `FLAIR`",
    "anatomy_text": "what is said of the anatomy of a single pair; patients' texts belong in a datalist, because MONAI "
    "prints the arguments of a command",
    "anatomy_volume": "which of several volumes: a number from 1, `echo=30`, `b=1000`, `mean`, or what the message "
    "lists; several of them parted by commas",
    "anatomy_window": '`"[low, high]"` in HU, SUV or as stored, or `brain`, `subdural`, `bone`, `soft_tissue` (CT), '
    "`header`, `percentiles`; by default by modality and part of the body, see "
    "[What is shown](../fuse.md#what-is-shown)",
    "batch_size": "pairs (of the first stage: images) in a step",
    "bids_dir": "BIDS dataset instead of a datalist, see [BIDS datasets](../bids.md); the results are derivatives",
    "checkpoint": "folder to start from, such as one of BiomedGPT; none trains from scratch",
    "critic_weights": "what `train_critic.json` wrote",
    "crop_size": "side of the squares that are cut out of a slice, in pixels; smaller slices are padded with black; "
    "`train_diffusion.json` takes multiples of 16 from 32, `train.json` 41 or more, the others 32 or more",
    "datalist": "JSON list of pairs, see [datalists](../concepts.md#datalists); paths start from its folder",
    "dataset_dir": "folder of slices, as `fusion-nets slices` makes it; without one, training is on simulated pairs; "
    "inference fuses a section of it in place of a datalist",
    "deidentify": "write DICOM by the basic profile of PS3.15, without what tells the patient",
    "describe": "put the sources that have no text into words first",
    "describe_per": "`series` for one text an image, `slice` for one text a slice",
    "device": "where to compute, such as `cpu` or `cuda:1`",
    "early_stop_patience": "validations without a better one after which training ends; 0 never",
    "engine": "what runs the network: `torch`, `openvino`, `onnxruntime`, or `auto`, the fastest that is installed and "
    "keeps the result, see [How fast](../fuse.md#how-fast)",
    "epoch_iterations": "steps in an epoch",
    "fresh_pairs": "pairs loaded at each step; the rest of a batch comes from the pool",
    "grounding_weights": "what `train_grounding.json` wrote",
    "images_at_once": "images given to the describer together",
    "initial_weights": "weights to go on from, such as the shipped ones; none trains from scratch",
    "keep_anatomy": "share, 0 to 1, by which grey shows more of the anatomy's contrast, and less of a PET's, where "
    "that is bright, see [Under a PET](../fuse.md#under-a-pet)",
    "keep_bone": "share, 0 to 1, by which the fused image is drawn to a CT where that is nearly white, so that bone "
    "shows no marrow of the MRI, see [Bone](../fuse.md#bone)",
    "learning_rate": "at the start, or after `warmup_iterations`; it falls to 0 along a cosine",
    "least_overlap": "share of what one of two volumes shows that must lie in the field of view of the other; below it "
    "the pair is refused, below half it is warned of; 0 takes any",
    "lesions_in_a_pair": "the most lesions put into a pair",
    "makes": "of lesions: `discs`, `small`, `large`, `faint`, `strong`, `rings`, `ragged`; as `\"['discs', 'faint']\"`",
    "max_epochs": "epochs in all",
    "monitoring": "progress bar, log lines and TensorBoard",
    "output": "datalist to write",
    "output_dir": "folder to write into; of training: TensorBoard, and `last.pt` from which a stopped run goes on",
    "output_format": "of `dicom`, `nifti`, `nrrd`, `mha`, `png`, `html` one or a list; default: NIfTI, PNG of pictures",
    "overlay": "the overlay of a single pair, or a list of up to three, see "
    "[Several overlays](../fuse.md#several-overlays); then each may have its own of `overlay_...`, `register` and "
    "`transform`, as a list",
    "overlay_modality": "as of the anatomy",
    "overlay_palette": "colours of a grey overlay: `ember`, `hot`, `hot_iron`, `pet`, `hot_metal_blue`, "
    "`pet_20_step`, `cold`, `green`, `none`; `auto` is `ember` for PET and SPECT, of two `hot` and `cold`",
    "overlay_series_uid": "as of the anatomy",
    "overlay_suffix": "likewise, which images are fused onto it, each; by default `pet`, `ct`",
    "overlay_text": "as of the anatomy",
    "overlay_volume": "as of the anatomy",
    "overlay_window": "as of the anatomy",
    "overwrite": "describe images that have a text, too",
    "participant_label": "which participants of a BIDS dataset, as `01` or `\"['01', '02']\"`; by default all",
    "per": "`series` for one text an image, `slice` for one text a slice",
    "pieces": "the most pieces that a new describer's vocabulary may have",
    "pool_size": "pairs whose features are kept and used again",
    "precision": "`float32`, `bfloat16`, or what the engine is fastest in; what is lost by it, the model card says",
    "progress": "show a progress bar",
    "prompt": "what the describer is asked",
    "regions": "label image of a single pair, one whole number above 0 for each lesion, in the anatomy's coordinates: "
    "what is kept of their contrast goes into the record and `NAME_regions.csv`, a loss is warned of",
    "register": "`auto` (rigid, unless both lie on one grid or share a frame of reference), `none`, `rigid`, `affine`, "
    "`deformable` (B-splines on top of the affine one)",
    "register_fallback": "where registration fails, warn and go on without it, instead of refusing the pair",
    "register_limits": "how many times as far as usual a registration may go: a turn by 45 degrees, a shift from where "
    "it started by half the longest side of what is shown; a stretch by 1.25 is taken to this power",
    "resume": "pass over cases whose results are there, none empty or shorter than it was, made by the same settings, "
    "weights and versions from the same files; `False` does all again",
    "save": "`overlay`, `anatomy` or a list of both: written beside the fused image as they lie on the common grid, in "
    "their own units (HU, SUV), see [The registered overlay itself](../fuse.md#the-registered-overlay-itself)",
    "section": "which part of `dataset_dir`, one or a list: `train`, `val`, `test` or another of its `splits.json`",
    "seed": "of everything drawn at random",
    "session_label": "which sessions of a BIDS dataset, those of the overlays; by default all",
    "slices_at_once": "slices of a volume that go through the network together; `auto`: as many as fit a processor's "
    "cache, or a GPU's memory",
    "text_cache": "folder that keeps encoded texts; keep it where the texts are kept",
    "text_encoder_model": "folder or local name of another text encoder; by default all-MiniLM-L6-v2",
    "text_encoder_revision": "commit of a text encoder that is named",
    "texts": "datalist with a text on each image, as `fusion-nets describe` writes it",
    "transform": "a registration made before, `.tfm`",
    "unet_weights": "what `train_diffusion.json` wrote",
    "val_batch_size": "images described together in validation",
    "val_datalist": "as `datalist`, for validation",
    "val_interval": "epochs between validations",
    "warmup_iterations": "steps over which the learning rate rises",
    "weight_decay": "of AdamW",
    "val_pairs": "simulated pairs to validate on, where there is no `dataset_dir`",
    "weights": "the network's weights; training writes the best here, of a describer a checkpoint folder",
    "workers": "processes beside the one that trains, which load and change images",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated in the place of the marks."""
    return MARK.sub(lambda mark: options(mark[2]) if mark[2] else command_line(), markdown)


def options(name: str) -> str:
    """The options of one configuration in every bundle that has it, as a table.

    Raises:
        ValueError: for an option that has no meaning here.
    """
    chosen = {bundle: chosen_by_user(ROOT / "bundles" / bundle / "configs" / name) for bundle in BUNDLES}
    there = {bundle: entries for bundle, entries in chosen.items() if entries}
    names = list(dict.fromkeys(option for entries in there.values() for option in entries))
    unknown = [option for option in names if option not in MEANINGS]
    if unknown:
        raise ValueError(f"{name}: MEANINGS says nothing of {', '.join(unknown)}")
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for option in names:
        defaults = {
            BUNDLES[bundle]: _default(entries[option]) for bundle, entries in there.items() if option in entries
        }
        first, *others = defaults.items()
        told = first[1] + "".join(f" ({bundle}: {default})" for bundle, default in others if default != first[1])
        only = f" ({first[0]} alone)" if len(defaults) < len(there) else ""
        lines.append(f"| `{option}` | {told} | {MEANINGS[option]}{only} |")
    return "\n".join(lines)


def chosen_by_user(config: Path) -> dict[str, Any]:
    """The options of a configuration with their defaults: what stands at its upper level and is no component."""
    if not config.is_file():
        return {}
    entries = json.loads(config.read_text(encoding="utf-8"))
    return {
        name: value
        for name, value in entries.items()
        if name not in WIRING and name.isidentifier() and (_is_plain(value) or name in ("section", "makes"))
    }


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _default(value: Any) -> str:
    if isinstance(value, (str, type(None))) and value in SAID:
        return SAID[value]
    if isinstance(value, str) and (path := re.fullmatch(r"\$@(\w+) \+ '(.+)'", value)):
        return f"`{'' if path[1] == 'bundle_root' else path[1] + '/'}{path[2].lstrip('/')}`"
    return f"`{' '.join(value) if isinstance(value, list) else value}`"


def command_line() -> str:
    """Every command of `fusion-nets` with its options, from the parser itself."""
    from fusion_nets.cli import build_parser

    parts = []
    for name, command, about in _commands(build_parser()):
        parts += [
            f"## {name}",
            "",
            f"{about[0].upper()}{about[1:]}.",
            "",
            "| option | default | meaning |",
            "|---|---|---|",
        ]
        shown = (action for action in command._actions if action.help != argparse.SUPPRESS)
        parts += [_row(action) for action in shown if not isinstance(action, argparse._HelpAction)]
        parts.append("")
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for listed in commands._choices_actions:
        yield listed.dest, commands.choices[listed.dest], listed.help or ""


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    name = action.option_strings[0] if action.option_strings else ""
    needed = "required" if action.required and name else _told(action.default)
    about = re.sub(r" \(default: %\(default\)s\)$|^default: %\(default\)s$|; default: .*$", "", action.help or "")
    return f"| `{' '.join(filter(None, (name, value)))}` | {needed} | {about.replace('|', chr(92) + '|')} |"


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    metavar = action.metavar or action.dest.upper()
    if isinstance(metavar, tuple):
        return " ".join(metavar)
    return f"{metavar} ..." if action.nargs == "+" else metavar


def _told(default: object) -> str:
    if default is None or default is False:
        return ""
    return f"`{' '.join(default) if isinstance(default, (list, tuple)) else default}`"
