"""The images of a comparison: sources prepared as the bundles do, and any method's fused images on their grid."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation
from nibabel.orientations import aff2axcodes

from fusion_nets.clinical import (
    NIFTI_SUFFIXES,
    RASTER_SUFFIXES,
    ImageError,
    Reason,
    check_same_grid,
    read_image,
)
from fusion_nets.registration import RegistrationMode
from fusion_nets.transforms import CommonGridd, LoadStudyImaged, ScaleToDisplayRange, ScaleToDisplayRanged
from fusion_nets.transforms.display import Window

from .inference import image_error
from .matching import FusedImages

__all__ = ["StudyImages", "StudySources", "read_fused", "study_rows"]

WHITES = (1, 255, 4095, 65535)
"""What means white in an image of values from 0 to 1, of 8, 12 and 16 bit."""

_AXES = (("L", "R"), ("P", "A"), ("I", "S"))


class StudySources(NamedTuple):
    """Anatomy and overlay, (1 | 3, H, W[, D]) float64 in [0, 1] on one grid."""

    anatomy: MetaTensor
    overlay: MetaTensor


class StudyImages:
    """The images of all pairs, read when they are asked for.

    Args:
        pairs: as :func:`fusion_nets.datalists.load_pairs` gives them.
        methods: folder of each method's fused images, found as :class:`FusedImages` says.
        windows: display range by "anatomy" and "overlay".
        register: how overlays are brought onto anatomies.
        fused_white: what means white in the fused images, see :func:`read_fused`.

    Attributes:
        whites: by method, how many of its images had which white, and by what rule.

    Raises:
        ValueError: if a folder is missing, or for a white that is not above 0.
    """

    def __init__(
        self,
        pairs: Sequence[Mapping[str, Any]],
        methods: Mapping[str, str | os.PathLike[str]],
        windows: Mapping[str, Window | None],
        register: RegistrationMode,
        fused_white: float | None = None,
    ) -> None:
        if fused_white is not None and not 0 < fused_white < math.inf:
            raise ValueError(f"fused_white is {fused_white}; a number above 0 is accepted, such as 4095 for 12 bit")
        self.fused_white = fused_white
        self.whites: dict[str, Counter[tuple[float, str]]] = {name: Counter() for name in methods}
        self.pairs = {pair["name"]: pair for pair in pairs}
        self.methods = {name: FusedImages(Path(folder), pairs) for name, folder in methods.items()}
        self.prepare = Compose(
            [
                LoadStudyImaged(("anatomy", "overlay"), smallest=2),
                CommonGridd("overlay", "anatomy", register),
                lambda pair: {**pair, **{key: pair[key].double() for key in ("anatomy", "overlay")}},
                *(ScaleToDisplayRanged(key, windows.get(key)) for key in ("anatomy", "overlay")),
            ]
        )

    def sources(self, pair: Mapping[str, Any]) -> StudySources | ImageError:
        """Of a pair, or why it cannot be used."""
        try:
            prepared = self.prepare(pair)
        except Exception as error:
            reason = image_error(error)
            if reason is None:
                raise
            return reason
        return StudySources(prepared["anatomy"], prepared["overlay"])

    def fused(self, method: str, pair: Mapping[str, Any], sources: StudySources) -> MetaTensor:
        """On the anatomy's grid, whatever the order in which the file has its axes.

        Raises:
            ImageError: if it is missing, cannot be read, or lies elsewhere.
        """
        image = read_fused(self.methods[method].find(pair), self.fused_white)
        self.whites[method][image.meta["display_range"][1], image.meta["white_by"]] += 1
        if image.ndim == sources.anatomy.ndim == 4:
            axes = "".join(map(str, aff2axcodes(sources.anatomy.affine.numpy())))
            image = cast(MetaTensor, Orientation(axes, labels=_AXES)(image))
        check_same_grid(image, sources.anatomy)
        return image


def read_fused(path: str | os.PathLike[str], white: float | None = None) -> MetaTensor:
    """Read a fused image and bring it to [0, 1]: (1 | 3, H, W[, D]) float64.

    What means white is asked for, or said by the file: by 8 bit, by colours, by what this library notes in its files,
    by a display maximum (NIfTI's ``cal_max``) or a window from 0 (DICOM) that holds all values. Where nothing says it,
    as of most grey volumes and of pictures of 16 bit, which may hold 12, it is the least of :data:`WHITES` that no
    value exceeds; from 4095 on a warning says so. ``meta["white_by"]`` is "asked", "file" or "inferred".

    Args:
        path: of the image.
        white: what means white, instead of what the file says.

    Raises:
        ImageError: for an image that cannot be read, or one with values below black or above white.
    """
    image = cast(MetaTensor, read_image(path).double())
    low, high = image.min().item(), image.max().item()
    said = _said_white(Path(path), image, high)
    # scale factors in headers are rounded
    chosen = white or said or next((one for one in WHITES if high <= one * 1.0001), None)
    if chosen is None or low < -0.0001 * chosen or high > chosen * 1.0001:
        accepted = f"0 to {white:g}, the white asked for," if white else f"0 to {', to '.join(map(str, WHITES))}"
        raise ImageError(Reason.VALUES, f"{path}: values from {low:g} to {high:g}; {accepted} are accepted")
    by = "asked" if white else "file" if said else "inferred"
    kept = image.meta.get("white", 0)  # what a picture's 16 bit hold, not what is in them
    if by == "inferred" and chosen != kept and max(chosen, kept) > 255:
        logging.getLogger(__name__).warning(
            "%s: does not say what means white; %d is taken, the least of %s that no value exceeds (the highest is "
            "%g); --fused_white says otherwise", path, chosen, ", ".join(map(str, WHITES)), high,
        )  # fmt: skip
    image.meta["white"] = chosen
    scaled = cast(MetaTensor, ScaleToDisplayRange()(image))
    scaled.meta["white_by"] = by
    return scaled


def _said_white(path: Path, image: MetaTensor, high: float) -> float | None:
    """What a file says that means white; None where it does not."""
    said, name = image.meta.get("white"), path.name.lower()
    if said is not None and not (said == WHITES[-1] and name.endswith(RASTER_SUFFIXES)):
        return float(said)
    window = image.meta.get("window")
    if name.endswith(NIFTI_SUFFIXES):
        header: Any = nib.load(path).header
        window = float(header["cal_min"]), float(header["cal_max"])
    if window is None or abs(window[0]) > 0.5 or not 0 < high <= window[1] * 1.0001:
        return None
    white = float(window[1])
    # of 65536 values the highest is 65535
    return next((float(2**bits - 1) for bits in range(8, 17) if abs(white - 2**bits) <= 0.5), white)


def study_rows(image: MetaTensor, k: int) -> tuple[np.ndarray, float]:
    """Slice k as (rows, columns[, 3]) as a radiologist looks at it, and how many times as high as wide a pixel is."""
    from fusion_nets.clinical.dicom import radiological

    one = image if image.ndim == 3 else MetaTensor(image.as_tensor()[..., k], affine=image.affine)
    try:
        array, affine = radiological(one)
        plane = array[:, :, 0]
    except ValueError:  # of axes that are not at right angles no view is a radiologist's
        affine = one.affine.numpy()
        plane = np.moveaxis(one.as_tensor().numpy(), 0, -1)
        plane = plane[..., 0] if plane.shape[-1] == 1 else plane
    across, down = np.linalg.norm(affine[:3, :2], axis=0)
    return plane.swapaxes(0, 1), float(down / across)
