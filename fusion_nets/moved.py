"""Names of version 0.1 that stand elsewhere now: who asks for one is told where, instead of that it is not there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

__all__ = ["MODULES", "NAMES", "tell_moved"]

_NAMES = {
    "datalists": "AANLIB_PAIRS MODALITY_NAMES aanlib_pairs balanced_weights load_pairs single_images single_sources "
    "with_texts",
    "files": "file_sha256 remove_partials whole_file whole_folder",
    "registration": "Registration RegistrationError RegistrationMode foreground read_transform register resample_onto "
    "similarity write_transform",
    "drawing": "write_checkerboard write_montage",
    "simulation": "write_sample_study",
}
"""Rooms that were one with ``clinical``, and what they took with them."""
_RENAMED = {
    "workflows.PairReport": "workflows.PairDescriptions",
    "workflows.ReportPreservation": "workflows.DescriptionPreservation",
    "workflows.ReportSaver": "workflows.DescriptionSaver",
}
_MODULES = {
    "clinical.checkerboard": "drawing.checkerboard",
    "clinical.datalist": "datalists",
    "clinical.dicom.geometry": "clinical.dicom.stacking",
    "clinical.dicom.registration": "clinical.dicom.registration_object",
    "clinical.elastix": "registration.elastix",
    "clinical.geometry": "clinical.grids",
    "clinical.head_model": "simulation.head_model",
    "clinical.montage": "drawing.montage",
    "clinical.pictures": "clinical.raster",
    "clinical.registration": "registration.search",
    "clinical.resampling": "registration.resampling",
    "clinical.sample": "simulation.sample_study",
    "clinical.sample_scan": "simulation.sample_scans",
    "clinical.volumes": "clinical.volume_files",
    "clinical.whole_files": "files",
    "losses.fusion": "losses.image_losses",
    "networks.critic": "networks.image_text_critic",
    "text.checkpoints": "text.model_folders",
    "text.critic": "text.pretrained_critic",
    "text.describers": "text.protocol",
    "text.encoder": "text.text_encoder",
    "text.ofa.registration": "text.ofa.auto_classes",
    "text.pictures": "text.screen",
    "transforms.redescribing": "transforms.training_texts",
    "transforms.text": "transforms.source_texts",
    "workflows.described": "workflows.batches",
    "workflows.diffusion": "workflows.batches",
    "workflows.fusion": "workflows.batches",
}
NAMES = {
    **{
        f"fusion_nets.clinical.{name}": f"fusion_nets.{room}.{name}" for room in _NAMES for name in _NAMES[room].split()
    },
    **{f"fusion_nets.{old}": f"fusion_nets.{new}" for old, new in _RENAMED.items()},
}
"""Where what a room offered in version 0.1 is now."""
MODULES = {f"fusion_nets.{old}": f"fusion_nets.{new}" for old, new in _MODULES.items()}
"""The same of its modules."""


def tell_moved(room: str) -> None:
    """Let a room, by its ``__name__``, tell where its names went.

    Who asks for one gets a `ModuleNotFoundError`, and no `AttributeError`, which those who look up a name by its path
    take for silence.
    """

    def told(name: str) -> NoReturn:
        if (path := f"{room}.{name}") in NAMES | MODULES:
            raise ModuleNotFoundError(_where(path), name=path)
        raise AttributeError(f"module {room!r} has no attribute {name!r}")

    vars(sys.modules[room])["__getattr__"] = told


class _Finder:
    """Asked last for a module, when nobody has it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if fullname in MODULES:
            raise ModuleNotFoundError(_where(fullname))


def _where(name: str) -> str:
    return (
        f"{name}: a name of fusion-nets 0.1, now {(NAMES | MODULES)[name]}. A configuration that has it belongs to a "
        "bundle of version 0.1: take the bundle's version 0.2, or write the new name"
    )


if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
    sys.meta_path.append(_Finder())
