"""What a request may ask for beside its images, and what of that cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.utils.others.generic import device_list, name_to_device

from fusion_nets.clinical.dicom import PALETTES
from fusion_nets.names import perhaps
from fusion_nets.overlays import as_list, each_of
from fusion_nets.registration import LEAST_OVERLAP
from fusion_nets.transforms import ScaleToDisplayRange

__all__ = ["FORMATS", "FROM_BATCHES", "FROM_CLIENTS", "check_tag", "parameters", "read_parameters"]

FORMATS = {".nii.gz": "nifti", ".nrrd": "nrrd", ".mha": "mha"}
"""What a result may be, by its extension."""

ON_GRID = ("overlay", "anatomy")
"""Sources that can be saved as they lie on the common grid."""

FROM_CLIENTS = ("client_id", "result_dtype", "result_compress", "restore_label_idx", "label_info", "logging")
"""What MONAI Label's viewers and clients add to requests of their own accord; made for label maps, unused here."""

FROM_BATCHES = ("multi_gpu", "gpus", "max_workers", "max_batch_size", *FROM_CLIENTS)
"""What they add to batches."""


TAG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
"""Of labels, which are folders of the server."""


def check_tag(tag: str) -> str:
    """A tag that may be one.

    Raises:
        HTTPException: 422.
    """
    if not re.fullmatch(TAG, tag):
        raise HTTPException(422, "tag: up to 64 letters, digits, - and _ are accepted")
    return tag


def parameters(model: str, takes_text: bool) -> dict[str, Any]:
    """The parameters of a model with their defaults, as a viewer shows them; of a list the first, others may be taken.

    Args:
        model: its name, under which results are saved.
        takes_text: whether texts on the sources have an influence.
    """
    texts = {"describe": False, "anatomy_text": "", "overlay_text": ""} if takes_text else {}
    return {
        "overlay": "",
        "registration": ["auto", "none", "rigid", "affine", "deformable"],
        "overlay_palette": ["auto", "none", "ember", "hot", *PALETTES],
        "anatomy_window": "",
        "overlay_window": "",
        "anatomy_modality": ["", "MR", "CT"],
        "overlay_modality": ["", "CT", "PT", "NM"],
        "anatomy_volume": "",
        "overlay_volume": "",
        "least_overlap": LEAST_OVERLAP,
        "regions": "",
        **texts,
        "result_extension": list(FORMATS),
        "save": ["", *ON_GRID],
        "save_label": False,
        "label_tag": model,
        "page": False,
        "device": device_list(),
    }


def read_parameters(
    known: Mapping[str, Any], asked: Mapping[str, Any], ignored: Collection[str] = FROM_CLIENTS
) -> dict[str, Any]:
    """The value of every parameter: what was asked for, or the default.

    Args:
        known: as :func:`parameters` gives them.
        asked: from the request; None and "", which viewers send of a field that was not filled in, are not asked for.
            With a list of overlays, what is asked of each is a list of as many, or one for all; so are the values.
        ignored: what else may stand there.

    Raises:
        HTTPException: 422, for a parameter that is not known, or a value that is not accepted.
    """
    unknown = sorted(str(name) for name in set(asked) - set(known) - set(ignored))
    if unknown:
        meant = perhaps(unknown[0], known)
        raise HTTPException(422, f"unknown parameter {unknown[0]!r}{meant}; accepted are {', '.join(known)}")
    overlays = asked.get("overlay")
    several = len(overlays) if isinstance(overlays, list) and "overlay" in known else 0
    values = {}
    for name, shown in known.items():
        value = asked.get(name)
        default = shown[0] if isinstance(shown, list) else shown
        try:
            if several and (name == "registration" or name.startswith("overlay")):
                each = [
                    default if one is None or one == "" else one for one in each_of(name, as_list(name, value), several)
                ]
                values[name] = [_read(name, one, shown) for one in each]
            else:
                values[name] = _read(name, default if value is None or value == "" else value, shown)
        except ValueError as error:
            raise HTTPException(422, f"{name}: {str(error).removeprefix(name).strip()}") from error
    return values


def _read(name: str, value: Any, shown: Any) -> Any:
    if name == "device":
        return _device(value)
    if name.endswith("_window"):
        return _window(value)
    if isinstance(shown, float):
        return _share(value)
    if name == "save":
        return _sources(value)
    if isinstance(shown, list):
        if value not in shown:
            raise ValueError(f"is {value!r}; accepted are {', '.join(filter(None, shown))}")
    elif isinstance(shown, bool):
        value = {"true": True, "false": False}.get(str(value).lower())
        if value is None:
            raise ValueError("true or false is accepted")
    elif name.endswith("_text") and isinstance(value, list) and all(isinstance(text, str) for text in value):
        pass  # one for each slice
    elif name.endswith("_volume") and type(value) is int:
        pass
    elif not isinstance(value, str):
        raise ValueError(f"is a {type(value).__name__}; a text is accepted")
    elif name in ("label_tag", "regions") and value and not re.fullmatch(TAG, value):
        raise ValueError("up to 64 letters, digits, - and _ are accepted")
    return value


def _device(value: Any) -> str:
    """A device of torch; the processor where a GPU is asked for and none is there, as everywhere in MONAI Label."""
    accepted = ["cpu", *("cuda" if i is None else f"cuda:{i}" for i in (None, *range(torch.cuda.device_count())))]
    device = name_to_device(value) if isinstance(value, str) else value
    if device not in accepted:
        raise ValueError(f"is {value!r}; accepted are {', '.join(dict.fromkeys((*accepted, *device_list())))}")
    return device


def _sources(value: Any) -> list[str]:
    """None, one or both, which may come as a text."""
    given = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(given, list) or any(one not in ON_GRID for one in given):
        meant = perhaps(value, ON_GRID) if isinstance(value, str) else ""
        raise ValueError(f"is {value!r}{meant}; overlay, anatomy or both are accepted")
    return [one for one in ON_GRID if one in given]


def _share(value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise ValueError(f"is {value!r}; a share from 0 to 1 is accepted")
    return share


def _window(value: Any) -> Any:
    """A name, or two numbers, which may come as a text; None for the image's own."""
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not words:
        return None
    if isinstance(value, str) and len(words) == 1:
        window = words[0]
    else:
        try:
            window = [float(word) for word in words]
        except (TypeError, ValueError) as error:
            raise ValueError(f"is {value!r}; LOW HIGH or a name is accepted") from error
        if not all(map(math.isfinite, window)):
            raise ValueError(f"is {value!r}; finite numbers are accepted")
    ScaleToDisplayRange(window)  # refuses what is no window
    return window
