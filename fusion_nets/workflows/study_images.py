"""The images of a comparison: sources prepared as the bundles do, and any method's fused images on their grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation
from nibabel.orientations import aff2axcodes

from fusion_nets.clinical import ImageError, Reason, check_same_grid, read_image
from fusion_nets.registration import RegistrationMode
from fusion_nets.transforms import CommonGridd, LoadStudyImaged, ScaleToDisplayRange, ScaleToDisplayRanged
from fusion_nets.transforms.display import Window

from .inference import image_error
from .matching import FusedImages

__all__ = ["StudyImages", "StudySources", "read_fused", "study_rows"]

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

    Raises:
        ValueError: if a folder is missing.
    """

    def __init__(
        self,
        pairs: Sequence[Mapping[str, Any]],
        methods: Mapping[str, str | os.PathLike[str]],
        windows: Mapping[str, Window | None],
        register: RegistrationMode,
    ) -> None:
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
        except (ImageError, RuntimeError) as error:
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
        image = read_fused(self.methods[method].find(pair))
        if image.ndim == sources.anatomy.ndim == 4:
            axes = "".join(map(str, aff2axcodes(sources.anatomy.affine.numpy())))
            image = cast(MetaTensor, Orientation(axes, labels=_AXES)(image))
        check_same_grid(image, sources.anatomy)
        return image


def read_fused(path: str | os.PathLike[str]) -> MetaTensor:
    """Read a fused image and bring it to [0, 1]: (1 | 3, H, W[, D]) float64.

    Where the file does not say which value is white, as a grey volume, it is the least of 1, 255 and 65535 that no
    value exceeds.

    Raises:
        ImageError: for an image that cannot be read, or one with values that are no grey levels.
    """
    image = cast(MetaTensor, read_image(path).double())
    if "white" not in image.meta:
        low, high = image.min().item(), image.max().item()
        # scale factors in headers are rounded
        white = next((white for white in (1, 255, 65535) if high <= white * 1.0001), None)
        if white is None or low < -0.0001:
            raise ImageError(
                Reason.VALUES, f"{path}: values from {low:g} to {high:g}; 0 to 1, to 255 or to 65535 are accepted"
            )
        image.meta["white"] = white
    return cast(MetaTensor, ScaleToDisplayRange()(image))


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
