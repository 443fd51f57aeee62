"""Texts as the findings that they name, in figures: what a network looks for."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from .findings import PLACES, Finding, parse_findings
from .text_encoder import EncodedText

__all__ = ["FindingEncoder"]

_SIDES = ("left", "right", "midline", "both")
_TONES = {"bright": 1.0, "dark": -1.0}
_LOCAL = {"region", "lesion", "mass", "hemorrhage", "edema", "infarct", "ischemia", "uptake", "calcification", "cyst"}
_LOCAL |= {"abscess", "aneurysm", "collection", "enhancement", "defect", "fracture"}
"""Nouns of what lies at one place."""
_LARGEST = 25.0
"""Diameter in mm that is written as 1."""


_MOST = 32
"""Findings of one text that are looked for: each is an image of its own to the network, and takes memory like one."""


class FindingEncoder:
    """Encode texts by the findings that :func:`~fusion_nets.text.parse_findings` reads in them; no model is needed.

    In place of a word's state stands a finding that lies somewhere, such as a bright region or a hemorrhage, as
    figures: its tone (1 bright, -1 dark, 0 not said), its side (left, right, midline, both: 1 or 0 each), its place (1
    or 0 for each of the words for one), whether its size in mm is known, and its logarithm. What is denied, or holds of
    the whole image, is no finding of this kind; what is said twice is one, and those behind the first 32 are left out
    with a warning.

    Examples:
        >>> states, mask, _ = FindingEncoder()(["Small bright region, right frontal, in the CT.", "No hemorrhage."])
        >>> tuple(states.shape), mask.tolist(), states[0, 0, :3].tolist()
        ((2, 1, 30), [[True], [False]], [1.0, 0.0, 1.0])
    """

    width = 1 + len(_SIDES) + len(PLACES) + 2
    """D of a finding's figures."""
    vector_width = width
    """The same of a text's vector."""

    def __call__(self, texts: Sequence[str]) -> EncodedText:
        """Encode B texts; L is the largest number of findings, the vector of a text their sum.

        Raises:
            ValueError: for a single string instead of several.
        """
        if isinstance(texts, str):
            raise ValueError("expected a sequence of texts, got a single one")
        named = [_named(text) for text in texts]
        length = max(map(len, named), default=0)
        states = torch.zeros(len(texts), length, self.width)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, findings in enumerate(named):
            for column, figures in enumerate(findings):
                states[row, column] = torch.tensor(figures)
                mask[row, column] = True
        return EncodedText(states, mask, states.sum(dim=1))


def _named(text: str) -> list[list[float]]:
    named = list(dict.fromkeys(tuple(_figures(finding)) for finding in parse_findings(text) if _is_local(finding)))
    if len(named) > _MOST:
        logging.getLogger(__name__).warning("a text names %d findings; the first %d are looked for", len(named), _MOST)
    return [list(figures) for figures in named[:_MOST]]


def _is_local(finding: Finding) -> bool:
    return finding.kind.split()[-1] in _LOCAL and not (finding.unit == "%" and (finding.size or 0) > 60)


def _figures(finding: Finding) -> list[float]:
    tone = _TONES.get(finding.kind.split()[0], 0.0)
    sides = [float(finding.side == side) for side in _SIDES]
    places = [float(place in finding.place.split()) for place in PLACES]
    size = finding.size if finding.unit == "mm" and finding.size else 0.0
    return [tone, *sides, *places, float(size > 0), math.log(max(size, 1.0)) / math.log(_LARGEST)]
