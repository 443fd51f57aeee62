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
    """One statement of a report, as far as it is compared."""

    @property
    def kind(self) -> str: ...
    @property
    def side(self) -> str: ...
    @property
    def size(self) -> float | None: ...
    @property
    def unit(self) -> str: ...


def finding_recall(
    report: Sequence[Finding], source: Sequence[Finding], size_tolerance: float = 0.25, size_floor: float = 0.5
) -> float:
    """How much of a source's report survives: the share of its findings that the fused image's report has, 0 to 1.

    Two findings match if kind and side are equal and both are without a size, or both have one in the same unit and
    the sizes lie within `size_tolerance` of the larger, or within `size_floor` of each other. Place and intensity are
    left out: fusion shifts grey levels by design. Every finding has one match at most, chosen so that as many as
    possible match; whatever is said twice must be found twice.

    Args:
        report: findings of the fused image.
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

    Source: the evaluation by reports in Xiang et al., SMFusion, arXiv 2505.12251, 2025; the matching is this library's.
    """
    for name, value in (("size_tolerance", size_tolerance), ("size_floor", size_floor)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number, 0 or more, got {value}")
    if not source:
        return math.nan
    matches = np.array([[_match(a, b, size_tolerance, size_floor) for b in report] for a in source], dtype=float)
    return float(matches[linear_sum_assignment(matches, maximize=True)].sum() / len(source))


def finding_precision(
    report: Sequence[Finding], source: Sequence[Finding], size_tolerance: float = 0.25, size_floor: float = 0.5
) -> float:
    """How little is invented: the share of the fused image's findings that a source's report has, 0 to 1.

    Give the findings of both sources together, as a finding of either is none of the fused image's invention. Matching,
    arguments, errors and source as for `finding_recall`; NaN for a report without findings.
    """
    return finding_recall(source, report, size_tolerance, size_floor)


def _match(a: Finding, b: Finding, tolerance: float, floor: float) -> bool:
    if (a.kind, a.side) != (b.kind, b.side):
        return False
    if a.size is None or b.size is None:
        return a.size is b.size
    allowed = max(tolerance * max(abs(a.size), abs(b.size)), floor)
    return a.unit == b.unit and abs(a.size - b.size) <= allowed + _ROUNDING


def rouge_l(report: str, source: str) -> float:
    """ROUGE-L of a fused image's report against a source's: F1 of their longest common subsequence of words, 0 to 1.

    Words are runs of the letters a to z (case ignored) and digits, as in the usual programs (rouge-score,
    torchmetrics), so that the figures compare with theirs; "12.5" is two words there, and so it is here. A text without
    a word scores 0.

    Source: C.-Y. Lin, ROUGE: a package for automatic evaluation of summaries, ACL workshop on text summarization
    branches out, 2004, section 3.1, with beta = 1.
    """
    words, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (report, source))
    # lengths[j]: of the longest common subsequence of the words so far and the first j wanted ones
    lengths = [0] * (len(wanted) + 1)
    for word in words:
        before = lengths
        lengths = [0]
        for j, other in enumerate(wanted):
            lengths.append(before[j] + 1 if word == other else max(before[j + 1], lengths[j]))
    return 2 * lengths[-1] / max(len(words) + len(wanted), 1)


def text_similarity(report: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Likeness in meaning of a fused image's report and a source's: the cosine of their embeddings, -1 to 1.

    Args:
        report: embeddings of the fused images' reports, (B, D), of any floating type.
        source: those of one source's reports, (B, D), by the same text encoder.

    Returns:
        One value per pair of texts, (B,); 0 where an embedding is zero.

    Raises:
        ValueError: if the shapes differ or are not (B, D).
    """
    if report.ndim != 2 or report.shape != source.shape:
        raise ValueError(f"expected two (B, D) of one shape, got {tuple(report.shape)} and {tuple(source.shape)}")
    dtype = torch.promote_types(torch.promote_types(report.dtype, source.dtype), torch.float32)
    return torch.cosine_similarity(report.to(dtype), source.to(dtype), dim=1)
