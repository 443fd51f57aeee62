"""What a simulated pair's truth says in words: of every lesion that a source shows, a finding."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from fusion_nets.clinical.raster import RASTER_AFFINE

from .findings import Finding, write_findings

__all__ = ["RandTakeTruthd", "WriteTruthd", "truth_findings", "write_truth"]

VISIBLE = 0.02
"""Least mean change, in parts of the display range, of a lesion that a text tells of: five grey levels of 255."""

_SOURCES = ("anatomy", "overlay")
_MODALITIES = {"CT": "CT", "PT": "PET", "NM": "SPECT"}
_WORDS = {
    "blob": "region",
    "infarct": "infarct",
    "haemorrhage": "hemorrhage",
    "oedema": "edema",
    "tumour": "mass",
    "calcification": "calcification",
    "hypometabolism": "uptake",
    "hypermetabolism": "uptake",
    "spots": "lesion",
}


def truth_findings(truth: Mapping[str, Any], source: str, labels: Collection[int] | None = None) -> list[Finding]:
    """The findings of one source of a simulated pair, from what was drawn, the largest first.

    A lesion is told of where the source shows it: with its tone there, its diameter in mm and its mean level. Its side
    is the patient's, and left out where a reader could not tell it: in sagittal planes, and in heads that are turned.

    Args:
        truth: :meth:`fusion_nets.simulation.SimulatedPair.truth`.
        source: "anatomy" or "overlay".
        labels: of the lesions to tell of; None tells of all.

    Raises:
        ValueError: for another source.
    """
    if source not in _SOURCES:
        raise ValueError(f"source is {source!r}; accepted are {', '.join(_SOURCES)}")
    which = _SOURCES.index(source)
    has_sides = not truth["is_head"] or truth["plane"] in ("axial", "coronal")
    findings = []
    for lesion in sorted(truth["lesions"], key=lambda lesion: -lesion["size"]):
        contrast = lesion["contrast"][which]
        if abs(contrast) >= VISIBLE and (labels is None or lesion["label"] in labels):
            tone = "bright" if contrast > 0 else "dark"
            findings.append(
                Finding(
                    kind=f"{tone} {_WORDS[lesion['kind']]}",
                    side=lesion["side"] if has_sides else "",
                    place=lesion["place"],
                    size=round(lesion["size"], 1),
                    unit="mm",
                    intensity=round(100 * lesion["level"][which], 1),
                )
            )
    return findings


def write_truth(truth: Mapping[str, Any], source: str, labels: Collection[int] | None = None) -> str:
    """The text of one source of a simulated pair: plane and modality, then :func:`truth_findings` in sentences.

    :func:`~fusion_nets.text.parse_findings` reads the findings back. Arguments are those of :func:`truth_findings`.
    """
    findings = truth_findings(truth, source, labels)
    name = "MRI" if source == "anatomy" else _MODALITIES[truth["modality"]]
    title = f"{truth['plane']} {name}".strip()
    return " ".join([f"{title[:1].upper()}{title[1:]}.", write_findings(findings) or "No lesion."])


def _as_mapping(truth: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return json.loads(truth) if isinstance(truth, str) else truth


class WriteTruthd(MapTransform):
    """Put "anatomy_text" and "overlay_text" to an item of :class:`~fusion_nets.simulation.SimulatedPairs`.

    Args:
        keys: of the truth, a mapping or its JSON; it stays.
        allow_missing_keys: leave items without it as they are.
    """

    def __init__(self, keys: KeysCollection = "truth", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write both texts."""
        d = dict(data)
        for key in self.key_iterator(d):
            truth = _as_mapping(d[key])
            d |= {f"{source}_text": write_truth(truth, source) for source in _SOURCES}
        return d


class RandTakeTruthd(Randomizable, MapTransform):
    """Of an item of :class:`~fusion_nets.simulation.SimulatedPairs` with its truth, take either source with its text.

    What comes out is what :class:`~fusion_nets.transforms.TakeSourced` makes of a source that was read: "image", a
    MetaTensor (1, H, W) with the lesions, the patient's right at its left, and its modality in ``meta``; and "text", by
    :func:`write_truth`.

    Args:
        keys: of the truth, a mapping or its JSON.
        allow_missing_keys: leave items without it as they are.
    """

    def __init__(self, keys: KeysCollection = "truth", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take one."""
        d = dict(data)
        for key in self.key_iterator(d):
            truth = _as_mapping(d[key])
            which = int(self.R.randint(2))
            modality = ("MR", truth["modality"])[which]
            image = torch.as_tensor(d["lesion_image"])[which][None]
            affine = torch.from_numpy(RASTER_AFFINE)
            return {
                "image": MetaTensor(image, affine=affine, meta={"modality": modality}),
                "text": write_truth(truth, _SOURCES[which]),
            }
        return d
