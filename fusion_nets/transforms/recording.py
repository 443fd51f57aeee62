"""Record what was chosen on the way from two files to one image."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from fusion_nets import __version__
from fusion_nets.cautions import noted
from fusion_nets.overlays import overlays_in

__all__ = ["RecordChoices", "RecordChoicesD", "RecordChoicesDict", "RecordChoicesd"]

_OF_OVERLAYS = ("overlay_window", "overlay_palette", "register", "transform")

_SAID = ("modality", "units", "series", "volume", "sha256", "display", "palette", "on_grid", "covers")


class RecordChoices(Transform):
    """Write down as JSON what loading, registration and display range chose.

    The record is an overlay on the inference configuration: its own entries are the settings that repeat this result
    (``anatomy_window``, ``overlay_window``, ``overlay_palette``, ``register`` and ``transform``, as they were found; of
    a deformable registration ``register`` alone, as it is found again), and ``record`` tells the rest. It names no file
    and no patient; series are named by their fingerprint, and all sources by their digest
    (:func:`fusion_nets.clinical.source_sha256`). Of several overlays, these settings are lists, one value for each, and
    "overlay", "overlay2" and so on tell of each its own registration and colour. ``record["warnings"]`` is what was
    warned of until then, if there was anything (:func:`fusion_nets.cautions.noted`).

    Args:
        details: what else to tell, such as {"method": "DM-FNet"}; a function is asked when it is told, of more than two
            sources by their number.
        settings: what else repeats the result, such as {"keep_bone": 0.5}; what is 0, empty or None is left out.

    Examples:
        >>> display = {"window": "brain", "range": [0, 80], "units": "HU"}
        >>> image = MetaTensor(torch.rand(1, 4, 4), meta={"display": display})
        >>> record = json.loads(RecordChoices({"method": "DM-FNet"})({"anatomy": image}))
        >>> record["anatomy_window"], record["record"]["method"]
        ([0, 80], 'DM-FNet')
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, details: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self.details = dict(details or {})
        self.settings = {name: value for name, value in (settings or {}).items() if value}

    def __call__(self, images: Mapping[Hashable, MetaTensor]) -> str:
        """Record the sources, "anatomy", "overlay" and so on, as dictionaries in their ``meta`` describe them."""
        settings: dict[str, Any] = {}
        told: dict[str, Any] = {"fusion_nets": __version__}
        several = overlays_in(images)[1:] and overlays_in(images)
        asked = [len(images)] if several else []
        told |= {name: value(*asked) if callable(value) else value for name, value in self.details.items()}
        for key, image in images.items():
            said = told[str(key)] = {"size": list(image.shape[1:]), "spacing_mm": _spacing(image)}
            said |= {name: image.meta[name] for name in _SAID if image.meta.get(name) is not None}
            own = {f"{key}_window": said["display"]["range"]} if "display" in said else {}
            own |= {f"{key}_palette": said["palette"]} if "palette" in said else {}
            registration = image.meta.get("registration")
            if registration is not None:
                (said if key in several else told)["registration"] = registration
                own |= _repeating(registration)
            if key in several:
                said["colour"] = said.get("palette") or image.meta.get("colour", "grey")
                own = {name.replace(str(key), "overlay"): value for name, value in own.items()}
                own["overlay_palette"] = said.get("palette", "none")
                for name in _OF_OVERLAYS:
                    settings.setdefault(name, []).append(own.get(name))
            else:
                settings |= own
        for name in _OF_OVERLAYS if several else ():
            if not any(settings[name]):
                del settings[name]
        if warnings := noted():
            told["warnings"] = warnings
        return json.dumps({**settings, **self.settings, "record": told}, indent=2, default=_plain)


class RecordChoicesd(MapTransform):
    """Dictionary twin of :class:`RecordChoices`: the record stands under "record".

    What was recorded goes out of the images' metadata, which MONAI's collation cannot take.

    Args:
        keys: the sources, as dictionaries in their ``meta`` describe them.
        output_key: where the text goes.
        details: what else to tell, such as {"method": "DM-FNet"}.
        allow_missing_keys: record those that are there.
        settings: what else repeats the result, as :class:`RecordChoices` takes it.
    """

    backend = RecordChoices.backend

    def __init__(
        self,
        keys: KeysCollection = ("anatomy", "overlay"),
        output_key: str = "record",
        details: Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_key = output_key
        self.record = RecordChoices(details, settings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Record, and take what was recorded out of the images' metadata."""
        d = dict(data)
        images = {key: d[key] for key in self.key_iterator(d)}
        d[self.output_key] = self.record(images)
        for image in images.values():
            for name in [name for name, value in image.meta.items() if isinstance(value, dict) or value is None]:
                del image.meta[name]
        return d


def _repeating(registration: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that repeat a registration: what bends is found again, the same bit for bit, or lies in a file."""
    if "bending" not in registration:
        return {"register": "none", "transform": registration["matrix_ras_mm"]}
    return {"register": "deformable"} if registration["mode"] == "deformable" else {"register": "none"}


def _spacing(image: MetaTensor) -> list[float]:
    return [round(float(edge), 6) for edge in image.pixdim[: image.ndim - 1]]


def _plain(value: Any) -> Any:
    """What JSON does not know of NumPy and torch."""
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


RecordChoicesD = RecordChoicesDict = RecordChoicesd
