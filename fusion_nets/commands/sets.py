"""Commands that make sets of images, and a model of the weights of others."""

from __future__ import annotations

import argparse

from .checks import overlap, window

__all__ = ["import_weights", "sample", "simulate", "slices"]


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


def slices(arguments: argparse.Namespace) -> None:
    """Make a training set of studies."""
    from fusion_nets.datalists import load_pairs
    from fusion_nets.workflows import slice_pairs

    windows = {key: window(getattr(arguments, f"{key}_window")) for key in ("anatomy", "overlay")}
    pairs = load_pairs(arguments.datalist)
    how = arguments.section, windows, arguments.register
    print(slice_pairs(pairs, arguments.dataset_dir, *how, **overlap(arguments)))


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
