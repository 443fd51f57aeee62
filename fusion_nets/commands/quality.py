"""Commands that judge images, and describe them."""

from __future__ import annotations

import argparse
from typing import Any

from .checks import methods, overlap, window

__all__ = ["DESCRIBERS", "describe", "evaluate", "lesions"]

DESCRIBERS = {"measured": "MeasuredText", "given": "GivenText", "generated": "GeneratedText"}
"""By what `describe` describes, and the names of these classes in `fusion_nets.text`."""


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
        methods(arguments.method),
        arguments.output_dir,
        windows={key: window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")},
        register=arguments.register,
        **overlap(arguments),
        metrics=arguments.metrics,
        device=arguments.device,
        lesions=arguments.lesions,
        fused_white=arguments.fused_white,
    ):
        print(path)


def _pairs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from fusion_nets.datalists import aanlib_pairs, load_pairs

    if arguments.dataset_dir:
        return aanlib_pairs(arguments.dataset_dir, arguments.section or "test")
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
            windows={key: window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")},
            **overlap(arguments),
            **{name: getattr(arguments, name) for name in names},
        )
    )


def describe(arguments: argparse.Namespace) -> None:
    """Put the images of a datalist into words."""
    import os

    from fusion_nets import text
    from fusion_nets.datalists import aanlib_pairs, load_pairs
    from fusion_nets.workflows import describe_pairs

    if arguments.dataset_dir:
        pairs = aanlib_pairs(arguments.dataset_dir, arguments.section or "train")
    else:
        pairs = load_pairs(os.path.relpath(arguments.datalist))  # what is relative in it stays relative
    how: dict[str, Any] = {}
    if arguments.describer == "generated":
        how = {name: getattr(arguments, name) for name in ("model", "revision", "prompt", "batch_size", "device")}
        if arguments.max_new_tokens is not None:
            how |= {"generation": {"max_new_tokens": arguments.max_new_tokens}}
        how |= {name: getattr(arguments, name) for name in ("download", "accept_research_licence")}
        how |= {"dtype": arguments.dtype or "float32"}
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
