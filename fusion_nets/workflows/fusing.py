"""Fuse one pair, or a dataset, in one call, by running a method's bundle."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

import fusion_nets
from fusion_nets.bids import bids_pairs
from fusion_nets.cautions import noting
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.datalists import load_pairs
from fusion_nets.names import is_result
from fusion_nets.overlays import OVERLAYS, overlays_in
from fusion_nets.quiet import silence

from .derivatives import BidsDerivatives
from .engines import engine_choices
from .settings import repeated_settings
from .user_values import check_options, check_values, only_one, set_values

__all__ = ["find_bundle", "fuse_dataset", "fuse_pair", "kept_network"]

DETAILS = (
    *("name", "regions"),
    *(f"{key}_{detail}" for key in ("anatomy", "overlay") for detail in ("modality", "series_uid", "volume", "text")),
)
"""What an option says of the pair, not of the run."""

_LABELS = ("participant_label", "session_label", "anatomy_suffix", "overlay_suffix")

KEYWORDS = ("method", "output_format", "settings", "bundle_root", "evaluate", "instant")
"""What is an argument of its own."""


def fuse_pair(
    anatomy: str | os.PathLike[str],
    overlay: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    method: str = "dmfnet",
    output_format: Sequence[str] | None = None,
    settings: str | os.PathLike[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
    evaluate: bool = False,
    instant: bool = False,
    regions: str | os.PathLike[str] | None = None,
    save: str | Sequence[str] | None = None,
    **options: Any,
) -> list[Path]:
    """Run the inference of a method's bundle on one pair.

    Strings are data, whatever they begin with; the bundle's configuration files are code.

    Args:
        anatomy: the structural image: DICOM, NIfTI, NRRD, MHA or a picture.
        overlay: what is brought onto it; or a list of two or three images, each brought there on its own. What is said
            of the overlay is then a list of as many, or one for all: ``overlay_modality``, ``overlay_series_uid``,
            ``overlay_volume``, ``overlay_text``, ``overlay_window``, ``overlay_palette``, ``register``, ``transform``.
        output_dir: folder to write into.
        method: name of the bundle, "dmfnet" or "smfusion".
        output_format: any of "dicom", "nifti", "nrrd", "mha", "png", "html"; by default NIfTI, PNG of pictures.
        settings: the JSON record of an earlier result, whose settings are taken where no option says otherwise. Of
            other sources its registration is not, and no display range of other units; both are warned of.
        bundle_root: folder of the bundle; by default what :func:`find_bundle` finds.
        evaluate: save the metrics of the result as well, and what the bundle says of it.
        instant: by the bundle's small network (``configs/instant.json``), which was taught by the one it ships.
        regions: a label image, one whole number above 0 for each lesion: what becomes of their contrast is told in the
            record and in ``NAME_regions.csv``, and logged as a warning where it is lost; see
            :class:`fusion_nets.transforms.JudgeRegions`.
        save: "overlay", "anatomy" or both: written beside the fused image as they lie on the common grid, in their own
            units (HU, SUV); see :class:`fusion_nets.transforms.SaveOnGrid`.
        options: what else is known of the pair, as :func:`fusion_nets.datalists.load_pairs` takes it, and other
            entries of the bundle's inference configuration, such as ``register="rigid"``: values and objects. None is
            the configuration's own choice. ``resume=True`` leaves a pair as it is that an earlier call with the same
            files and options has done, as a scheduler needs that calls again (:class:`CaseRecords`).

    Returns:
        What lies in ``output_dir`` of this pair.

    Raises:
        ImageError: if an image cannot be used; the message names it.
        ValueError: if the settings or an option cannot be used, or there is no such option.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from fusion_nets.clinical import write_image
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("mri", "ct"):
        ...         picture = write_image(f"{folder}/{name}.png", torch.rand(1, 40, 40))
        ...     written = fuse_pair(f"{folder}/mri.png", f"{folder}/ct.png", f"{folder}/out", method="smfusion")
        >>> [path.name for path in written]
        ['mri_fused.png']
    """
    root = _root(method, bundle_root)
    where: dict[str, Any] = {} if regions is None else {"regions": str(regions)}
    where |= {"save": [save] if isinstance(save, str) else list(save)} if save else {}
    asked = {key: value for key, value in options.items() if value is not None} | where
    if not isinstance(overlay, (str, os.PathLike)) and len(overlay) == 1:  # its values may come in lists, too
        asked = {key: only_one(key, value) for key, value in asked.items()}
    details = {key: value for key, value in asked.items() if key in DETAILS}
    (pair,) = load_pairs(anatomy=anatomy, overlay=overlay, most_overlays=len(OVERLAYS), **details)
    if save and (key := next((key for key in OVERLAYS[1:] if key in where["save"]), None)):
        raise ValueError(f"save is {key!r}; 'overlay' is accepted, which saves all overlays")
    chosen = {key: value for key, value in asked.items() if key not in details}

    def values() -> dict[str, Any]:
        repeated = repeated_settings(settings, pair, chosen)
        return {**repeated, "progress": True, "resume": False, **chosen, "datalist": [pair]}

    _run(root, evaluate, instant, chosen, values, output_dir, output_format, len(overlays_in(pair)))
    return sorted(path for path in Path(output_dir).glob("*") if is_result(pair["name"], path.name))


def fuse_dataset(
    bids_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    method: str = "dmfnet",
    output_format: Sequence[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
    evaluate: bool = False,
    instant: bool = False,
    **options: Any,
) -> list[Path]:
    """Run the inference of a method's bundle on a BIDS dataset.

    Pairs that an earlier call has done, by the same settings from the same files, are passed over.

    Args:
        bids_dir: the dataset; :func:`fusion_nets.bids.bids_pairs` says which of its images belong together.
        output_dir: folder to write derivatives into, see :class:`BidsDerivatives`.
        method: name of the bundle, "dmfnet" or "smfusion".
        output_format: any of "nifti", "png", "html"; by default NIfTI.
        bundle_root: folder of the bundle; by default what :func:`find_bundle` finds.
        evaluate: save the metrics of the results as well.
        instant: by the bundle's small network.
        options: ``participant_label``, ``session_label``, ``anatomy_suffix`` and ``overlay_suffix``, as
            :func:`fusion_nets.bids.bids_pairs` takes them, modality and volume of all anatomies or overlays, and other
            entries of the bundle's inference configuration. None is the configuration's own choice.

    Returns:
        What lies in ``output_dir`` of the pairs that are done.

    Raises:
        ImageError: if pairs could not be fused, after all others were; the log has the reasons.
        ValueError: if the dataset, or an option, cannot be used.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    for key in ("transform", "regions", "name"):
        if key in chosen:
            raise ValueError(f"{key} is of one pair; it is accepted without bids_dir")
    root = _root(method, bundle_root)
    # what these say is for the user, not what MONAI makes of it
    pairs = bids_pairs(bids_dir, *(chosen.get(key) for key in _LABELS))
    BidsDerivatives(bids_dir, output_dir, output_format)
    values = {"progress": True, **chosen, "bids_dir": str(bids_dir), "bids": pairs}
    workflow = _run(root, evaluate, instant, chosen, lambda: values, output_dir, output_format)
    return workflow.parser.get_parsed_content("records").files()


def _run(
    root: Path,
    evaluate: bool,
    instant: bool,
    chosen: Mapping[str, Any],
    values: Callable[[], dict[str, Any]],
    output_dir: str | os.PathLike[str],
    output_format: str | Sequence[str] | None,
    overlays: int = 1,
) -> Any:
    """Run a bundle's inference.

    Args:
        root: of the bundle.
        evaluate: with metrics.
        instant: by its small network.
        chosen: options of the user.
        values: these and the others, asked for when the options are known to be there.
        output_dir: folder to write into.
        output_format: one or more.
        overlays: of the pair.

    Raises:
        ImageError: the only reason why a pair could not be fused, or that several could not.
        ValueError: if an option cannot be used.
    """
    from monai.bundle import ConfigWorkflow

    configs = _configs(root, instant) + ([root / "configs" / "evaluate.json"] if evaluate else [])
    _check_configs(configs)
    failures: list[ImageError] = []
    # without MONAI's words that a configuration is code and that none is there for logging, both as they should be
    with silence(("monai.bundle.workflows",), below=logging.ERROR), silence(("ignite.engine.engine",)), noting():
        try:
            workflow = ConfigWorkflow(
                [str(config) for config in configs], workflow_type="inference", logging_file=False
            )
            check_options(workflow.parser, chosen, (*DETAILS, *KEYWORDS))
            given = {
                **values(),
                "bundle_root": str(root),
                "output_dir": str(output_dir),
                "output_format": [output_format] if isinstance(output_format, str) else output_format,
            }
            check_values(given, overlays)
            set_values(workflow.parser, given)
            workflow.initialize()
            failures = workflow.parser.get_parsed_content("dataset").failures
            workflow.run()
            workflow.finalize()
        except (SystemExit, RuntimeError, ValueError) as error:
            if isinstance(error, SystemExit) and isinstance(error.code, int):  # told to end from outside
                raise
            if failures and "datalist" in given:
                raise failures[0] from failures[0].__cause__  # what it came of, not that the run ended
            if failures and isinstance(error, SystemExit):
                message = f"{output_dir}: {error}"
                raise ImageError(Reason.SEVERAL, message) from error
            raise _for_the_user(error, chosen.get("weights", root)) from error
    return workflow


def kept_network(
    method: str = "dmfnet",
    bundle_root: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    engine: str = "auto",
    precision: str = "auto",
    instant: bool = False,
) -> dict[str, Any]:
    """Load a bundle's network once for many pairs.

    Args:
        method: name of the bundle, "dmfnet" or "smfusion".
        bundle_root: folder of the bundle; by default where this library's lie.
        device: where the network shall run.
        engine: what runs it, see :func:`fusion_nets.workflows.engines.engine_choices`.
        precision: likewise.
        instant: the bundle's small network.

    Returns:
        Options of :func:`fuse_pair` with which it uses this network instead of loading one. It is not changed by that;
        pairs may be fused with it at the same time.

    Raises:
        ValueError: if there is no such bundle or engine.
        ModuleNotFoundError: for an engine that is not installed.
    """
    from monai.bundle import ConfigParser

    root = _root(method, bundle_root)
    configs = _configs(root, instant)
    _check_configs(configs)
    parser = ConfigParser(ConfigParser.load_config_files([str(config) for config in configs]))
    chosen = {"device": torch.device(device), "engine": engine, "precision": precision}
    engine_choices(engine, precision, device)  # its words are for the user, not what MONAI makes of them
    set_values(parser, {"bundle_root": str(root), **chosen})
    fast = parser.get_parsed_content("network").eval()
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(parser.get_parsed_content("weights"), map_location=device, weights_only=True))
    loader = next(i for i, handler in enumerate(parser["handlers"]) if handler["_target_"] == "CheckpointLoader")
    return {**chosen, "network_def": network, "network": fast, f"handlers#{loader}#_disabled_": True}


def find_bundle(method: str) -> Path:
    """The folder of a method's bundle: beside the library in a checkout, else where MONAI downloads bundles to.

    Raises:
        ValueError: if it lies in neither.
    """
    from torch.hub import get_dir

    beside = Path(fusion_nets.__file__).resolve().parents[1] / "bundles"
    downloads = Path(get_dir()) / "bundle"
    for folder in (beside, downloads):
        if (folder / method / "configs").is_dir():
            return folder / method
    raise ValueError(
        f"{method}: no such bundle in {beside} or {downloads}; the installed package holds none. Get it by `python -m "
        f"monai.bundle download --name {method} --url URL` (or file:///PATH, of {method}_vVERSION.zip), or give the "
        "folder of an unpacked one as bundle_root"
    )


def _configs(root: Path, instant: bool) -> list[Path]:
    return [root / "configs" / name for name in ("inference.json", "instant.json")[: 1 + instant]]


def _root(method: str, bundle_root: str | os.PathLike[str] | None) -> Path:
    return find_bundle(method) if bundle_root is None else Path(bundle_root)


def _check_configs(configs: Sequence[Path]) -> None:
    for config in configs:
        if not config.is_file():
            raise ValueError(f"{config}: no such file; bundle_root must be the folder of a bundle of this project")


def _for_the_user(error: BaseException, weights: object) -> BaseException:
    """The first cause that a user can mend, or the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (ValueError, OSError, ModuleNotFoundError, UnpicklingError)):
        cause = cause.__cause__
    if isinstance(cause, UnpicklingError):
        return ValueError(f"{weights}: its weights hold more than tensors; a state dict of tensors alone is accepted")
    return cause or error
