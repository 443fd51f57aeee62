"""Commands on images: two are fused, converted, looked at."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from .checks import OF_DATASETS, OF_EACH, window, windows

__all__ = ["convert", "fuse", "montage", "view"]


def fuse(arguments: argparse.Namespace) -> None:
    """Fuse two series, or a dataset."""
    from fusion_nets import elastix_process
    from fusion_nets.stages import shown_stages

    with shown_stages():
        if _may_register(arguments):
            elastix_process.begin()  # before torch and MONAI, beside which it loads
        written = _fused(arguments)
    for path in written:
        print(path)


def _may_register(arguments: argparse.Namespace) -> bool:
    """Whether it was asked for, or two scans may need it, and there is a processor that has nothing else to do."""
    asked = set(arguments.register or ["auto"]) - {"none"}
    scans = [os.path.isdir(scan) for scan in (arguments.anatomy, *(arguments.overlay or [])) if scan]
    is_likely = bool(asked - {"auto"}) or ("auto" in asked and len(scans) > 1 and all(scans))
    return is_likely and not arguments.transform and (os.cpu_count() or 1) > 1


def _fused(arguments: argparse.Namespace) -> list[Path]:
    import torch

    from fusion_nets.workflows import fuse_dataset, fuse_pair

    common = (
        "register",
        "register_limits",
        "least_overlap",
        "overlay_palette",
        "keep_bone",
        "keep_anatomy",
        "save",
        "bundle_root",
        "engine",
        "precision",
    )
    of_pair = ("transform", "name", "regions", "settings")
    chosen = {name: getattr(arguments, name) for name in (*common, *(OF_DATASETS if arguments.bids_dir else of_pair))}
    for key in ("anatomy", "overlay"):
        for detail in ("modality", "volume") if arguments.bids_dir else ("modality", "series_uid", "volume"):
            chosen[f"{key}_{detail}"] = getattr(arguments, f"{key}_{detail}")
    chosen |= {
        "anatomy_window": window(arguments.anatomy_window),
        "overlay_window": [window(words) for words in windows(arguments.overlay_window)],
    }
    for name in OF_EACH:
        if name in chosen and chosen[name] is not None:
            chosen[name] = _each_or_one(chosen[name])
    chosen |= {
        "method": arguments.method,
        "output_format": arguments.format.split(",") if arguments.format else None,
        "evaluate": arguments.evaluate,
        "instant": arguments.instant,
        "register_fallback": arguments.register_fallback,
        "deidentify": arguments.deidentify,
        "describe": arguments.describe or None,
        "device": torch.device(arguments.device),
    }
    if arguments.bids_dir:
        return fuse_dataset(arguments.bids_dir, arguments.output_dir, **chosen)
    return fuse_pair(arguments.anatomy, _each_or_one(arguments.overlay), arguments.output_dir, **chosen)


def _each_or_one(given: list[Any]) -> Any:
    return given[0] if len(given) == 1 else given


def view(arguments: argparse.Namespace) -> None:
    """Open the page of a fused study."""
    import webbrowser

    if arguments.anatomy:
        from fusion_nets.workflows import write_page

        details = {}
        for detail in ("modality", "series_uid", "volume"):
            details[f"anatomy_{detail}"] = getattr(arguments, f"anatomy_{detail}")
            details[f"overlay_{detail}"] = _each_or_one(getattr(arguments, f"overlay_{detail}") or [None])
        overlay = _each_or_one(arguments.overlay)
        pages = [write_page(arguments.output_dir, arguments.anatomy, overlay, name=arguments.name, **details)]
    else:
        from fusion_nets.drawing import pages_in

        pages = pages_in(arguments.output_dir, arguments.name)
    for page in pages:
        print(page)
    if not arguments.no_browser:
        webbrowser.open(pages[0].absolute().as_uri())


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
    from typing import cast

    import torch
    from monai.data import MetaTensor

    from fusion_nets.clinical import RASTER_SUFFIXES, read_image
    from fusion_nets.drawing import window_words, write_montage, write_projections
    from fusion_nets.names import check_destination
    from fusion_nets.registration import Warp, read_transform, resample_onto
    from fusion_nets.transforms import ScaleToDisplayRange

    read = arguments.anatomy, arguments.overlay, *arguments.fused, arguments.transform, arguments.description
    for picture in filter(None, (arguments.output, arguments.mip)):
        check_destination(picture, read)
    if arguments.mip and arguments.overlay.lower().endswith(RASTER_SUFFIXES):
        raise ValueError(f"{arguments.overlay}: a picture has no projections; --mip takes a volume")
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
        transform = read_transform(arguments.transform)
        if isinstance(transform, Warp):
            images[1] = resample_onto(images[1], images[0], transform)
        else:
            images[1].affine = torch.linalg.inv(torch.from_numpy(transform)) @ images[1].affine
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
    if arguments.mip:
        shown = cast(MetaTensor, ScaleToDisplayRange(arguments.overlay_window)(images[1]))
        print(write_projections(arguments.mip, shown, words=window_words(shown.meta["display"])))
