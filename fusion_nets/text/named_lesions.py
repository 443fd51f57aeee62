"""Training items for phrase grounding: a simulated source, a text on it, and where what the text names lies."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from fusion_nets.simulation.places import in_picture

from .findings import Finding
from .phrases import phrase_finding, unremarkable
from .truths import VISIBLE, truth_findings

__all__ = ["RandNameLesionsd"]

_NAMES = {"CT": "CT", "PT": "PET", "NM": "SPECT"}
_PLACES = ("frontal", "parietal", "temporal", "occipital", "cerebellar", "basal")
_PLACES_IN_PICTURES = ("anterior", "central", "posterior")
_OPPOSITE = {"left": "right", "right": "left", "bright": "dark", "dark": "bright"}


class RandNameLesionsd(Randomizable, MapTransform):
    """Of an item of :class:`~fusion_nets.simulation.SimulatedPairs` with its truth, name some lesions of one source.

    Writes "image" (1, H, W), a source; "text", which names some of its lesions, or what is not there; and "named"
    (2, H, W) float32, 1 where a lesion lies that the text names, and where any lies that is bright or dark as one that
    the text names, both within half of their height.

    Args:
        keys: of the truth, as JSON.
        right: share of the texts that name what is there, where something is.
        allow_missing_keys: leave items without it as they are.
    """

    def __init__(self, keys: KeysCollection = "truth", right: float = 0.6, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.right = right

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Name lesions."""
        d = dict(data)
        for key in self.key_iterator(d):
            rng = np.random.default_rng(self.R.randint(2**31))
            d.update(self._named(d, json.loads(d[key]), rng))
        return d

    def _named(self, d: Mapping[Hashable, Any], truth: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        shown = [
            [lesion["label"] for lesion in truth["lesions"] if abs(lesion["contrast"][which]) >= VISIBLE]
            for which in range(2)
        ]
        which = int(rng.integers(2)) if all(shown) or not any(shown) else int(bool(shown[1]))
        visible = shown[which]
        source = ("anatomy", "overlay")[which]
        name = "MRI" if which == 0 else _NAMES[truth["modality"]]
        told = [label for label in visible if rng.random() < 0.7]
        clean, changed = (torch.as_tensor(d[image])[which] for image in ("image", "lesion_image"))
        image, is_there = changed, False
        findings = [_as_seen(finding, clean, truth, rng) for finding in truth_findings(truth, source, told)]
        if told and rng.random() < self.right:
            is_there = True
        elif findings and rng.random() < 0.5:
            image = clean  # what is named is not there
        else:
            there = truth_findings(truth, source)
            findings = [_another(finding, there, truth, rng) for finding in findings or [_any_finding(truth, rng)]]
        sentences = [phrase_finding(finding, name, rng) for finding in findings]
        sentences += [unremarkable(rng) for _ in range(int(rng.integers(3)))]
        rng.shuffle(sentences)
        tones = {finding.kind.partition(" ")[0] for finding in findings}
        alike = [
            lesion["label"]
            for lesion in truth["lesions"]
            if lesion["label"] in visible and ("bright" if lesion["contrast"][which] > 0 else "dark") in tones
        ]

        def where(labels: list[int]) -> torch.Tensor:
            there = torch.zeros_like(clean)
            for label in labels:
                change = (image - clean).abs() * (torch.as_tensor(d["lesion_map"])[0] == label)
                there = torch.maximum(there, (change > 0.5 * change.max()).to(there))
            return there

        named = torch.stack([where(told if is_there else []), where(alike)])
        title = [f"{truth['plane'].capitalize()} {name}.".strip()] if rng.random() < 0.5 else []
        return {"image": image[None], "text": " ".join([*title, *sentences]), "named": named}


def _as_seen(finding: Finding, image: torch.Tensor, truth: Mapping[str, Any], rng: np.random.Generator) -> Finding:
    """Now and then, where it lies in the head as it is shown, in place of the lobe."""
    rows, columns = (torch.nonzero((image > 0.08).sum(axis) > 2)[:, 0] for axis in (1, 0))
    if truth["plane"] != "axial" or len(rows) < 2 or len(columns) < 2 or rng.random() > 0.3:
        return finding
    lesion = next(lesion for lesion in truth["lesions"] if round(lesion["size"], 1) == finding.size)
    row, column = (
        (centre - int(of[0])) / int(of[-1] - of[0])
        for centre, of in zip(lesion["centre"], (rows, columns), strict=True)
    )
    side, place = in_picture(row, column)
    return replace(finding, side=side, place=place)


def _another(finding: Finding, there: list[Finding], truth: Mapping[str, Any], rng: np.random.Generator) -> Finding:
    """A finding like it that is not there: of the other tone, on the other side, or at another place."""
    tone, _, noun = finding.kind.partition(" ")
    places = [place for place in _places(truth) if place != finding.place]
    others = [
        replace(finding, kind=f"{_OPPOSITE[tone]} {noun}"),
        *([replace(finding, side=_OPPOSITE[finding.side])] if finding.side in _OPPOSITE else []),
        replace(finding, place=str(rng.choice(places))),
    ]
    taken = {(other.kind.partition(" ")[0], other.side, other.place) for other in there}
    free = [one for one in others if (one.kind.partition(" ")[0], one.side, one.place) not in taken]
    return free[int(rng.integers(len(free)))] if free else replace(finding, kind=f"{_OPPOSITE[tone]} {noun}")


def _any_finding(truth: Mapping[str, Any], rng: np.random.Generator) -> Finding:
    sided = not truth["is_head"] or truth["plane"] in ("axial", "coronal")
    return Finding(
        kind=f"{rng.choice(['bright', 'dark'])} region",
        side=str(rng.choice(["left", "right"])) if sided else "",
        place=str(rng.choice(_places(truth))),
        size=float(np.round(rng.uniform(4, 20), 1)),
        unit="mm",
    )


def _places(truth: Mapping[str, Any]) -> tuple[str, ...]:
    return _PLACES if truth["is_head"] else _PLACES_IN_PICTURES
