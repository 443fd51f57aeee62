"""What each command of `fusion-nets` does with its parsed arguments.

A command imports what it needs itself, so that `--help` and errors of options answer at once, prints what it wrote, and
raises `ValueError`, `OSError` or `ModuleNotFoundError` for what the user can mend.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "DESCRIBERS",
    "check_options",
    "convert",
    "describe",
    "evaluate",
    "fuse",
    "import_weights",
    "lesions",
    "montage",
    "sample",
    "simulate",
    "slices",
    "view",
]

DESCRIBERS = {"measured": "MeasuredText", "given": "GivenText", "generated": "GeneratedText"}
"""By what `describe` describes, and the names of these classes in `fusion_nets.text`."""


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of a command that do not go together, before torch and MONAI are imported, which takes seconds."""
    given = vars(arguments)
    for name in ("anatomy_window", "overlay_window"):
        _window(given.get(name))
    if given.get("command") == "fuse" and arguments.describe and arguments.method != "smfusion":
        raise ValueError("--describe belongs to --method smfusion")
    if given.get("command") == "view" and bool(arguments.anatomy) != bool(arguments.overlay):
        raise ValueError("--anatomy and --overlay go together: the page shows the values of both")
    if given.get("command") == "evaluate":
        _methods(arguments.method)
    if given.get("command") == "describe":
        if arguments.describer == "generated" and not arguments.model:
            raise ValueError("--describer generated needs a --model")
        if arguments.describer != "generated" and (arguments.model or arguments.prompt):
            raise ValueError("--model and --prompt belong to --describer generated")


def sample(arguments: argparse.Namespace) -> None:
    """Write the sample study."""
    from fusion_nets.simulation import write_sample_study

    written = write_sample_study(arguments.output_dir, arguments.seed, arguments.spacing, arguments.format)
    for path in written.values():
        print(path)


def simulate(arguments: argparse.Namespace) -> None:
    """Write a set of simulated pairs."""
    from fusion_nets.workflows import write_simulated_set

    names = ("count", "seed", "size", "modalities", "shapes_share", "upright", "lesions")
    written = write_simulated_set(arguments.output_dir, **{name: getattr(arguments, name) for name in names})
    for path in written.values():
        print(path)


def fuse(arguments: argparse.Namespace) -> None:
    """Fuse two series."""
    from fusion_nets.stages import shown_stages

    with shown_stages():
        written = _fused(arguments)
    for path in written:
        print(path)


def _fused(arguments: argparse.Namespace) -> list[Path]:
    import torch

    from fusion_nets.workflows import fuse_pair

    chosen = {
        name: getattr(arguments, name)
        for name in (
            *("register", "register_limits", "least_overlap", "transform", "overlay_palette"),
            *("name", "regions", "settings", "bundle_root", "engine", "precision"),
        )
    }
    for key in ("anatomy", "overlay"):
        for detail in ("modality", "series_uid", "volume"):
            chosen[f"{key}_{detail}"] = getattr(arguments, f"{key}_{detail}")
        chosen[f"{key}_window"] = _window(getattr(arguments, f"{key}_window"))
    return fuse_pair(
        arguments.anatomy,
        arguments.overlay,
        arguments.output_dir,
        method=arguments.method,
        output_format=arguments.format.split(",") if arguments.format else None,
        evaluate=arguments.evaluate,
        instant=arguments.instant,
        register_fallback=arguments.register_fallback,
        deidentify=arguments.deidentify,
        describe=arguments.describe or None,
        device=torch.device(arguments.device),
        **chosen,
    )


def view(arguments: argparse.Namespace) -> None:
    """Open the page of a fused study."""
    import webbrowser

    if arguments.anatomy:
        from fusion_nets.workflows import write_page

        details = {
            f"{key}_{detail}": getattr(arguments, f"{key}_{detail}")
            for key in ("anatomy", "overlay")
            for detail in ("modality", "series_uid", "volume")
        }
        pages = [write_page(arguments.output_dir, arguments.anatomy, arguments.overlay, name=arguments.name, **details)]
    else:
        from fusion_nets.drawing import pages_in

        pages = pages_in(arguments.output_dir, arguments.name)
    for page in pages:
        print(page)
    if not arguments.no_browser:
        webbrowser.open(pages[0].absolute().as_uri())


def _window(words: Sequence[str] | None) -> Any:
    """A named window, or two numbers; None for none."""
    if not words or len(words) == 1:
        return words[0] if words else None
    try:
        low, high = (float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"a window is LOW HIGH or a name, got {' '.join(words)}") from error
    return [low, high]


def _overlap(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, or nothing."""
    return {} if arguments.least_overlap is None else {"least_overlap": arguments.least_overlap}


def convert(arguments: argparse.Namespace) -> None:
    """Write an image in another form."""
    from fusion_nets.clinical import convert_image
    from fusion_nets.names import check_destination

    check_destination(arguments.destination, [arguments.key_file])
    names = ("series_uid", "volume", "modality", "units", "reference", "reference_series_uid", "deidentify")
    written = convert_image(
        arguments.source,
        arguments.destination,
        window=tuple(arguments.window) if arguments.window else None,
        key=Path(arguments.key_file).read_bytes().strip() if arguments.key_file else None,
        **{name: getattr(arguments, name) for name in names},
    )
    print(written[0] if len(written) == 1 else f"{written[0].parent}: {len(written)} files")


def montage(arguments: argparse.Namespace) -> None:
    """Draw anatomy, overlay and fused images."""
    import json

    import torch

    from fusion_nets.clinical import RASTER_SUFFIXES, read_image
    from fusion_nets.drawing import write_montage
    from fusion_nets.names import check_destination
    from fusion_nets.registration import read_transform

    read = arguments.anatomy, arguments.overlay, *arguments.fused, arguments.transform, arguments.description
    check_destination(arguments.output, read)
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
    if arguments.description:
        titles = {"anatomy": arguments.titles[0], "overlay": arguments.titles[1], "fused": arguments.titles[-1]}
        try:
            description = json.loads(Path(arguments.description).read_text(encoding="utf-8"))
            notes = [f"{title}: {description[f'{image}_text']}" for image, title in titles.items()]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{arguments.description}: no description ({error}); what a run with --evaluate writes is accepted"
            ) from error
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


def evaluate(arguments: argparse.Namespace) -> None:
    """Compare methods by their fused images."""
    from fusion_nets.workflows import evaluate_methods, read_lesion_pairs

    if arguments.lesions:
        of_folder, cases = read_lesion_pairs(arguments.lesions)
        clean = {case.clean for case in cases}
        pairs = [pair for pair in of_folder if pair["name"] in clean]
    else:
        pairs = _pairs(arguments)
    for path in evaluate_methods(
        pairs,
        _methods(arguments.method),
        arguments.output_dir,
        windows={key: _window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")},
        register=arguments.register,
        **_overlap(arguments),
        metrics=arguments.metrics,
        device=arguments.device,
        lesions=arguments.lesions,
        fused_white=arguments.fused_white,
    ):
        print(path)


def _methods(given: Sequence[str]) -> dict[str, str]:
    """The folder of each method."""
    methods: dict[str, str] = {}
    for method in given:
        name, equals, folder = method.partition("=")
        if not (name.strip() and equals and folder):
            raise ValueError(f"--method is {method!r}; NAME=FOLDER is accepted")
        if name in methods:
            raise ValueError(f"--method {name!r} is given twice; give each a name of its own")
        methods[name] = folder
    return methods


def _pairs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from fusion_nets.datalists import aanlib_pairs, load_pairs

    if arguments.dataset_dir:
        return aanlib_pairs(arguments.dataset_dir, arguments.section)
    return load_pairs(arguments.datalist)


def lesions(arguments: argparse.Namespace) -> None:
    """Write pairs without and with inserted lesions."""
    from fusion_nets.workflows import write_lesion_pairs

    names = ("seed", "most", "pairs_of_kind", "register")
    print(
        write_lesion_pairs(
            _pairs(arguments),
            arguments.output_dir,
            **({"makes": arguments.makes} if arguments.makes else {}),
            windows={key: _window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")},
            **_overlap(arguments),
            **{name: getattr(arguments, name) for name in names},
        )
    )


def slices(arguments: argparse.Namespace) -> None:
    """Make a training set of studies."""
    from fusion_nets.datalists import load_pairs
    from fusion_nets.workflows import slice_pairs

    windows = {key: _window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")}
    pairs = load_pairs(arguments.datalist)
    how = arguments.section, windows, arguments.register
    print(slice_pairs(pairs, arguments.dataset_dir, *how, **_overlap(arguments)))


def import_weights(arguments: argparse.Namespace) -> None:
    """Make DM-FNet's weights of its released files."""
    import torch

    from fusion_nets.files import whole_file
    from fusion_nets.names import check_destination
    from fusion_nets.networks import DMFNet

    check_destination(arguments.output, [arguments.stage1, arguments.stage2])
    network = DMFNet.load_released(arguments.stage1, arguments.stage2)
    with whole_file(arguments.output) as partial:
        torch.save(network.state_dict(), partial)
    print(f"{arguments.output}; run the bundle with configs/published.json on top, which names the published network")


def describe(arguments: argparse.Namespace) -> None:
    """Put the images of a datalist into words."""
    import os

    from fusion_nets import text
    from fusion_nets.datalists import aanlib_pairs, load_pairs
    from fusion_nets.workflows import describe_pairs

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
