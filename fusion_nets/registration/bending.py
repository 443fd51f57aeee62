"""Deformable registration: B-splines on top of a linear registration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from fusion_nets.clinical import Reason
from fusion_nets.clinical.grids import affine_of, thinned
from fusion_nets.slabs import some_places

from .elastix import bend
from .foreground import foreground
from .mutual_information import similarity
from .plausibility import ENOUGH, MOST_PLACES
from .transform_files import Registration, RegistrationError
from .warp import Warp

__all__ = ["bending_of", "bent"]

MOST_BENT = 30.0
"""In mm, at any place of what is shown: breathing moves a liver's dome that far."""

STIFFNESS = (100.0, 1000.0, 10000.0)
"""Weights of the bending energy against mutual information; the next where tissue is folded or fits hardly better."""

SPACING = 30.0
"""Of the finest control points, in mm."""

LEAST_GAIN = 0.002
"""Of normalised mutual information: less is found where nothing is bent, by moving what is no landmark."""

ACCEPTED = "--register affine, or --register_fallback to go on without registration, is accepted"
"""Instead of a bending that is refused."""


def bent(anatomy: MetaTensor, overlay: MetaTensor, linear: Registration, limits: float, pair: str) -> Registration:
    """Bend on top of a linear registration so that mutual information is greatest.

    Where that folds what the anatomy shows, or fits hardly better, it is done again with ten, and a hundred, times the
    bending energy.

    Args:
        anatomy: (1, H, W, D).
        overlay: likewise.
        linear: how the overlay lies before it is bent.
        limits: how many times as far as usual, 30 mm, any place may be moved.
        pair: which images these are, for the message.

    Raises:
        RegistrationError: if tissue is folded still, moved further, or fits worse than without.
    """
    thin = thinned(anatomy, ENOUGH)
    content = foreground(thin)
    points = apply_affine(affine_of(thin), some_places(content, MOST_PLACES))
    before, why = similarity(thin, overlay, content, linear.matrix), ""
    for stiffness in STIFFNESS:
        try:
            warp = bend(anatomy, overlay, content, affine_of(thin), linear.matrix, SPACING, stiffness)
        except RuntimeError as error:
            why = "could not be done by elastix"
            raise RegistrationError(
                Reason.REGISTRATION, f"{pair}, deformable on top of it, {why}; {ACCEPTED}"
            ) from error
        told = {"spacing_mm": SPACING, "stiffness": stiffness, **bending_of(warp, points)}
        after = similarity(thin, overlay, content, warp)
        if told["folded"]:
            why = f"folds {100 * told['folded']:.2g} % of what the anatomy shows"
        elif after < before + LEAST_GAIN:
            why = f"made it hardly better (normalised mutual information {before:.4f} before, {after:.4f} after)"
        else:
            break
    else:
        raise RegistrationError(Reason.REGISTRATION, f"{pair}, deformable on top of it, {why}; {ACCEPTED}")
    if told["most_mm"] > limits * MOST_BENT:
        why = f"moves a place by {told['most_mm']:.0f} mm (up to {limits * MOST_BENT:.0f} can be right)"
        raise RegistrationError(
            Reason.REGISTRATION, f"{pair}, deformable on top of it, {why}; larger register_limits, or {ACCEPTED}"
        )
    return replace(linear, mode="deformable", warp=warp, after=after, bending={**told, "before": before})


def bending_of(warp: Warp, points: np.ndarray) -> dict[str, Any]:
    """What a warp does at points (N, 3), for the record: displacements in mm, volumes, and the share that is folded."""
    if not len(points):
        return {"mean_mm": 0.0, "most_mm": 0.0, "least_volume": 1.0, "most_volume": 1.0, "folded": 0.0}
    moved = np.linalg.norm(warp.displacement(points), axis=1)
    volumes = warp.jacobians(points)
    return {
        "mean_mm": round(float(moved.mean()), 3),
        "most_mm": round(float(moved.max()), 3),
        "least_volume": round(float(volumes.min()), 4),
        "most_volume": round(float(volumes.max()), 4),
        "folded": float((volumes <= 0).mean()),
    }
