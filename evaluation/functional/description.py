from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

_ROUNDING = 1e-9


class Finding(Protocol):
    """One statement of a description, as far as it is compared."""

    @property
    def kind(self) -> str:
        """What it is, such as "bright region"."""

    @property
    def side(self) -> str:
        """Where: "left", "right", "both", "midline" or ""."""

    @property
    def size(self) -> float | None:
        """How large; None where nothing is said."""

    @property
    def unit(self) -> str:
        """Of the size: "%", "mm" or ""."""


def finding_recall(
    fused: Sequence[Finding], source: Sequence[Finding], size_tolerance: float = 0.25, size_floor: float = 0.5
) -> float:
    """How much of a source's description survives: the share of its findings that the fused image's has, 0 to 1.

    Two findings match if kind and side are equal and both are without a size, or both have one in the same unit and
    the sizes lie within `size_tolerance` of the larger, or within `size_floor` of each other. Place and intensity are
    left out: fusion shifts grey levels by design. Every finding has one match at most, chosen so that as many as
    possible match; whatever is said twice must be found twice.

    Args:
        fused: findings of the fused image.
        source: findings of one source.
        size_tolerance: largest difference of two sizes as a share of the larger one. With 0.25, a region of 4 matches
            one of 3: a quarter is what its outline moves by when another modality lies over it, and far less than what
            tells two regions apart.
        size_floor: difference that is always let pass, in the unit of the sizes (percent of the head, or mm), because a
            quarter of a small size is less than a pixel or than what rounding in a text takes away.

    Returns:
        The share; NaN for a source without findings, where there is nothing to keep.

    Raises:
        ValueError: for a negative or infinite tolerance or floor.

    Source: the evaluation by generated reports in Xiang et al., SMFusion, arXiv 2505.12251, 2025; the matching is this
    library's.

    Examples:
        >>> from collections import namedtuple
        >>> Statement = namedtuple("Statement", ["kind", "side", "size", "unit"])
        >>> tumour, spot = Statement("tumour", "left", 12.0, "mm"), Statement("bright spot", "right", None, "")
        >>> finding_recall([tumour._replace(size=10.5)], [tumour, spot])
        0.5
    """
    for name, value in (("size_tolerance", size_tolerance), ("size_floor", size_floor)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number, 0 or more, got {value}")
    if not source:
        return math.nan
    matches = np.array([[_match(a, b, size_tolerance, size_floor) for b in fused] for a in source], dtype=float)
    return float(matches[linear_sum_assignment(matches, maximize=True)].sum() / len(source))


def finding_precision(
    fused: Sequence[Finding], source: Sequence[Finding], size_tolerance: float = 0.25, size_floor: float = 0.5
) -> float:
    """How little is invented: the share of the fused image's findings that a source has, 0 to 1.

    Give the findings of both sources together, as a finding of either is none of the fused image's invention. Matching,
    arguments, errors and source as for `finding_recall`; NaN for a description without findings.

    Examples:
        >>> from collections import namedtuple
        >>> Statement = namedtuple("Statement", ["kind", "side", "size", "unit"])
        >>> tumour, spot = Statement("tumour", "left", 12.0, "mm"), Statement("bright spot", "right", None, "")
        >>> finding_precision([tumour, spot], [tumour])
        0.5
    """
    return finding_recall(source, fused, size_tolerance, size_floor)


def _match(a: Finding, b: Finding, tolerance: float, floor: float) -> bool:
    if (a.kind, a.side) != (b.kind, b.side):
        return False
    if a.size is None or b.size is None:
        return a.size is b.size
    allowed = max(tolerance * max(abs(a.size), abs(b.size)), floor)
    return a.unit == b.unit and abs(a.size - b.size) <= allowed + _ROUNDING


def rouge_l(fused: str, source: str) -> float:
    """ROUGE-L of a fused image's description and a source's: F1 of their longest common subsequence of words, 0 to 1.

    Words are runs of the letters a to z (case ignored) and digits, as in the usual programs (rouge-score,
    torchmetrics), so that the figures compare with theirs; "12.5" is two words there, and so it is here. A text without
    a word scores 0.

    Source: C.-Y. Lin, ROUGE: a package for automatic evaluation of summaries, ACL workshop on text summarization
    branches out, 2004, section 3.1, with beta = 1.

    Examples:
        >>> rouge_l("police kill the gunman", "police killed the gunman")
        0.75
    """
    # torchmetrics.text.ROUGEScore gives the same in float32; its package is no dependency of what runs, for nine lines
    words, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (fused, source))
    # lengths[j]: of the longest common subsequence of the words so far and the first j wanted ones
    lengths = [0] * (len(wanted) + 1)
    for word in words:
        before = lengths
        lengths = [0]
        for j, other in enumerate(wanted):
            lengths.append(before[j] + 1 if word == other else max(before[j + 1], lengths[j]))
    return 2 * lengths[-1] / max(len(words) + len(wanted), 1)


def text_similarity(fused: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Likeness in meaning of a fused image's description and a source's: the cosine of their embeddings, -1 to 1.

    Args:
        fused: embeddings of the fused images' descriptions, (B, D), of any floating type.
        source: those of one source's descriptions, (B, D), by the same text encoder.

    Returns:
        One value per pair of texts, (B,); 0 where an embedding is zero.

    Raises:
        ValueError: if the shapes differ or are not (B, D).

    Examples:
        >>> text_similarity(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
        tensor([1.0000, 0.7071])
    """
    if fused.ndim != 2 or fused.shape != source.shape:
        raise ValueError(f"expected two (B, D) of one shape, got {tuple(fused.shape)} and {tuple(source.shape)}")
    dtype = torch.promote_types(torch.promote_types(fused.dtype, source.dtype), torch.float32)
    return torch.cosine_similarity(fused.to(dtype), source.to(dtype), dim=1)
