"""Whether an image shows a head or another part of the body."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from monai.data import MetaTensor

from fusion_nets.clinical.grids import affine_of, thinned

from .foreground import foreground
from .starts import height

__all__ = ["BodyRegion", "body_region"]

HEADS = (
    "HEAD BRAIN SKULL ORBIT EYE EAR FACE JAW MANDIBLE MAXILLA SINUS PITUITARY IAC TMJ ZYGOMA SELLA NOSE TEMPORALBONE "
    "CEREBRUM CEREBELLUM"
)

TRUNKS = (
    "ABDOMEN ABDOMENPELVIS AORTA BLADDER BREAST CHEST CHESTABDOMEN CHESTABDPELVIS COLON HEADNECK HEADANDNECK HEART HIP "
    "KIDNEY LIVER LUNG MEDIASTINUM NECK NECKCHEST NECKCHESTABDPELV NECKCHESTABDOMEN OVARY PANCREAS PELVIS PROSTATE "
    "RECTUM SHOULDER SPLEEN STOMACH THORAX THYROID UTERUS CSPINE TSPINE LSPINE SSPINE SPINE ANKLE ARM CALF ELBOW "
    "EXTREMITY FEMUR FOOT HAND KNEE LEG THIGH WRIST"
)
"""Of the terms of DICOM's Body Part Examined (PS3.16 Annex L), in capitals and without anything between them. Of the
whole body a head alone may be read, so that it says nothing."""

LONGEST_HEAD = 300.0
"""Extent from feet to head, in mm, beyond which a volume shows more than a head: one, with its chin, has 250."""

WIDEST_HEAD = 450.0
"""Area of the middle one of a CT's axial slices, in square centimetres: a head's is below 300, and a rest lies near."""

COARSE = 4.0
"""Distance in mm of the voxels by which the area is measured."""


class BodyRegion(NamedTuple):
    """What part of the body an image shows, and by what it is known."""

    shows: Literal["head", "body", "unknown"]
    because: str

    def __str__(self) -> str:
        """In words, for the record."""
        return f"{self.shows}: {self.because}"


def body_region(image: MetaTensor) -> BodyRegion:
    """Tell a head from the rest of the body: by what is said of the image, then by its size.

    In this order: ``meta["body_region"]``, as :class:`fusion_nets.transforms.CommonGrid` leaves it of the image whose
    grid counts; ``meta["body_part"]``, DICOM's Body Part Examined, where it names a part; a volume that reaches more
    than 300 mm from feet to head, or a CT whose patient fills more than 450 square centimetres of its middle slice, is
    one of the body. What is smaller may be a head as well as a part of the body, and is "unknown".

    Args:
        image: (C, H, W[, D]).
    """
    meta = image.meta
    if isinstance(meta.get("body_region"), str):
        shows, _, because = meta["body_region"].partition(": ")
        if shows in ("head", "body"):
            return BodyRegion(shows, because)
    part = "".join(letter for letter in str(meta.get("body_part") or "").upper() if letter.isalpha())
    if part in HEADS.split() or part in TRUNKS.split():
        return BodyRegion("head" if part in HEADS.split() else "body", f"BodyPartExamined is {part}")
    if image.ndim != 4 or not meta.get("placed", True):
        return BodyRegion("unknown", "neither its header nor its size says it")
    if (length := height(image)) > LONGEST_HEAD:
        return BodyRegion("body", f"{length:.0f} mm from feet to head")
    if meta.get("units") == "HU" or meta.get("modality") == "CT":
        area = _area(image)
        if area > WIDEST_HEAD:
            return BodyRegion("body", f"{area:.0f} square centimetres in the middle slice")
    return BodyRegion("unknown", "its header does not say it, and it is no larger than a head")


def _area(image: MetaTensor) -> float:
    """Of the patient in the middle one of the axial slices that show something, in square centimetres."""
    thin = thinned(image, COARSE)
    affine = affine_of(thin)
    axis = int(np.abs(affine[2, :3]).argmax())
    counts = np.count_nonzero(foreground(thin), axis=tuple(i for i in range(3) if i != axis))
    across = np.delete(affine[:3, :3], axis, axis=1)
    pixel = float(np.linalg.norm(np.cross(across[:, 0], across[:, 1]))) / 100
    return float(np.median(counts[counts > 0])) * pixel if counts.any() else 0.0
