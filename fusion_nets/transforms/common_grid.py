"""Bring an overlay onto the anatomy's grid, registered if asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends
from nibabel.affines import apply_affine

from fusion_nets.cautions import about, caution
from fusion_nets.clinical import check_same_grid, is_picture
from fusion_nets.clinical.grids import affine_of, as_volume, thinned
from fusion_nets.drawing import write_checkerboard
from fusion_nets.overlays import OVERLAYS, as_list, each_of, numbered
from fusion_nets.registration import (
    LEAST_OVERLAP,
    Registration,
    RegistrationMode,
    Warp,
    WorldTransform,
    bending_of,
    body_region,
    check_overlap,
    field_of_view,
    foreground,
    read_transform,
    register,
    resample_onto,
    similarity,
    write_transform,
)
from fusion_nets.registration.plausibility import MOST_PLACES
from fusion_nets.slabs import some_places
from fusion_nets.stages import stage

from .colour import luminance

Transforms = str | os.PathLike[str] | Sequence[Sequence[float]] | None

COARSE = 2.0
"""Distance in mm of the places at which a given transform is looked at."""

COVERS_WELL = 0.95
"""Share of what the anatomy shows in the overlay's field of view, from which nothing is said of it."""

__all__ = ["CommonGrid", "CommonGridD", "CommonGridDict", "CommonGridd"]


class CommonGrid(Transform):
    """Register an image to a reference if asked, and resample it onto the reference's grid.

    See :func:`fusion_nets.registration.register` and :func:`fusion_nets.registration.resample_onto`; of coloured
    images, luminance is registered and the three channels are resampled. Pictures have no place in a patient: they
    must be of one size, and lie alike with what they are fused with.

    Args:
        register: "none", "rigid", "affine", "deformable" or "auto".
        register_fallback: where registration fails, warn and go on without it.
        transform: a registration made before, to use instead: an ITK transform file, or the (4, 4) matrix from the
            reference's world to the image's, RAS in mm, that ``meta["registration"]`` has.
        register_limits: how many times as far as usual a registration may turn and shift, see
            :func:`fusion_nets.registration.register`.
        least_overlap: share of what one of two volumes shows that must lie in the field of view of the other, 0 to 1,
            see :func:`fusion_nets.registration.check_overlap`.

    Raises:
        ValueError: for another mode, or a matrix that is none.
        RegistrationError: if the transform file cannot be read.

    Examples:
        >>> anatomy = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4))
        >>> overlay = MetaTensor(torch.ones(1, 2, 2, 2), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
        >>> moved = CommonGrid(register="none")(overlay, anatomy)
        >>> tuple(moved.shape), moved.max().item()
        ((1, 4, 4, 4), 1.0)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        register: RegistrationMode = "none",
        register_fallback: bool = False,
        transform: Transforms = None,
        register_limits: float = 1.0,
        least_overlap: float = LEAST_OVERLAP,
    ) -> None:
        if register not in get_args(RegistrationMode):
            raise ValueError(f"register is {register!r}; accepted are {', '.join(get_args(RegistrationMode))}")
        if not 0 < register_limits < float("inf"):
            raise ValueError(f"register_limits is {register_limits}; a number above 0 is accepted")
        if not 0 <= least_overlap <= 1:
            raise ValueError(f"least_overlap is {least_overlap}; a share from 0 to 1 is accepted")
        self.register = register
        self.register_fallback = register_fallback
        self.register_limits = register_limits
        self.least_overlap = least_overlap
        self.given = None if transform is None or (isinstance(transform, str) and not transform) else _matrix(transform)

    def __call__(self, img: MetaTensor, ref: MetaTensor) -> MetaTensor:  # type: ignore[override]
        """Bring an image onto the grid of another.

        Args:
            img: (1 | 3, H', W'[, D']).
            ref: (1 | 3, H, W[, D]).

        Returns:
            (1 | 3, H, W[, D]) float32 with the affine of ``ref`` and the other metadata of ``img``, and in
            ``meta["registration"]`` what was done, as :meth:`fusion_nets.registration.Registration.as_dict` tells it;
            where what ``ref`` shows lies beyond the border of ``img``, ``meta["field_of_view"]``, see
            :func:`fusion_nets.registration.field_of_view`, and ``meta["covers"]``, its share that does not;
            in ``meta["body_region"]``, where it is known, what ``ref`` shows, as an image on its grid does.

        Raises:
            ImageError: for a picture of another size or place than the reference, or the other way round.
            RegistrationError: if the images cannot be registered, if the result cannot be right, or if they do not show
                one place.
        """
        return self.registered(img, ref)[0]

    def registered(self, img: MetaTensor, ref: MetaTensor) -> tuple[MetaTensor, Registration]:
        """The image on the grid of the reference, and how it came there."""
        if is_picture(img) or is_picture(ref):
            check_same_grid(img, ref)
        grey, grey_ref = _grey(img), _grey(ref)
        stage("registration")
        registration = self._registration(grey, grey_ref)
        stage("resampling")
        moved = resample_onto(img, ref, registration.transform)
        check_overlap(grey_ref, grey, moved, registration.matrix, self.least_overlap)
        view = field_of_view(grey, grey_ref, registration.transform)
        if view is not None:
            moved.meta["field_of_view"], moved.meta["covers"] = view, round(view.covers, 4)
            if view.covers < COVERS_WELL:
                words = "%.0f %% of what the anatomy shows lie beyond its field of view, and show the anatomy alone"
                name = img.meta.get("filename_or_obj", "image")
                caution(logging.getLogger(__name__), name, words, 100 * (1 - view.covers))
        moved.meta["registration"] = registration.as_dict()
        region = body_region(grey_ref)
        if region.shows != "unknown":  # what lies in its field of view is what the image shows there, too
            moved.meta["body_region"] = str(region)
        return moved, registration

    def _registration(self, img: MetaTensor, ref: MetaTensor) -> Registration:
        if self.given is None:
            return register(ref, img, self.register, self.register_fallback, self.register_limits)
        warp = self.given if isinstance(self.given, Warp) else None
        matrix = self.given.matrix if isinstance(self.given, Warp) else self.given
        if warp is None and np.array_equal(matrix, np.eye(4)):
            return Registration(matrix, self.register, "none", None, None, "a transform that moves nothing")
        content = foreground(ref)
        before, after = (similarity(ref, img, content, one) for one in (None, self.given))
        told = None
        if warp is not None:
            thin = thinned(as_volume(ref), COARSE)
            told = bending_of(warp, apply_affine(affine_of(thin), some_places(foreground(thin), MOST_PLACES)))
            if told["folded"]:
                logging.getLogger(__name__).warning(
                    "%s: the transform folds %.2g %% of what the anatomy shows",
                    img.meta.get("filename_or_obj", "image"), 100 * told["folded"],
                )  # fmt: skip
        return Registration(matrix, self.register, "given", before, after, "a transform made before", warp, told)


class CommonGridd(MapTransform):
    """Dictionary twin of :class:`CommonGrid`: every key comes onto the grid of ``ref_key``, each on its own.

    What was registered leaves the transform, ``{name}_registration.tfm``, and a picture to judge it by,
    ``{name}_checkerboard.png``, in a folder; see :func:`fusion_nets.registration.write_transform` and
    :func:`fusion_nets.drawing.write_checkerboard`. Of a second overlay they are ``{name}_registration2.tfm`` and
    ``{name}_checkerboard2.png``.

    Args:
        keys: what to bring onto the grid.
        ref_key: whose grid it is.
        register: "none", "rigid", "affine", "deformable" or "auto"; or a list, one for each key that is there.
        register_fallback: where registration fails, warn and go on without it.
        transform: a registration made before, to use instead: an ITK transform file, or the (4, 4) matrix from the
            reference's world to the image's, RAS in mm, that ``meta["registration"]`` has; or a list likewise.
        output_dir: the folder; by default nothing is written.
        name_key: whose value names the files.
        allow_missing_keys: pass over keys that are not there.
        register_limits: how many times as far as usual a registration may turn and shift, see
            :func:`fusion_nets.registration.register`.
        least_overlap: share of what one of two volumes shows that must lie in the field of view of the other, 0 to 1,
            see :func:`fusion_nets.registration.check_overlap`.
    """

    backend = CommonGrid.backend

    def __init__(
        self,
        keys: KeysCollection = "overlay",
        ref_key: Hashable = "anatomy",
        register: RegistrationMode | Sequence[RegistrationMode] = "none",
        register_fallback: bool = False,
        transform: Transforms | Sequence[Transforms] = None,
        output_dir: str | os.PathLike[str] | None = None,
        name_key: str = "name",
        allow_missing_keys: bool = False,
        register_limits: float = 1.0,
        least_overlap: float = LEAST_OVERLAP,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ref_key = ref_key
        modes, transforms = as_list("register", register), as_list("transform", transform)
        count = max(len(modes), len(transforms))
        self.several = "register" if len(modes) == count else "transform"
        each = zip(each_of("register", modes, count), each_of("transform", transforms, count), strict=True)
        self.grids = [CommonGrid(mode, register_fallback, one, register_limits, least_overlap) for mode, one in each]
        self.read = [os.path.realpath(one) for one in transforms if isinstance(one, (str, os.PathLike)) and one]
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring every key onto the grid."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        for key, common_grid in zip(keys, each_of(self.several, self.grids, len(keys)), strict=True):
            with about(key) if len(keys) > 1 else nullcontext():
                d[key], registration = common_grid.registered(d[key], d[self.ref_key])
            if registration.mode != "none":
                name = d.get(self.name_key, key)
                logging.getLogger(__name__).info(
                    "%s: %s registered (%s), normalised mutual information %.4f before, %.4f after",
                    name, key, registration.mode, registration.before, registration.after,
                )  # fmt: skip
                stem = str(name) if key in OVERLAYS or len(keys) == 1 else f"{name}_{key}"
                self._write(stem, numbered(str(key)), d[key], d[self.ref_key], registration)
        return d

    def _write(
        self, name: str, number: str, image: MetaTensor, reference: MetaTensor, registration: Registration
    ) -> None:
        if self.output_dir is None:
            return
        path = self.output_dir / f"{name}_registration{number}.tfm"
        if os.path.realpath(path) not in self.read:  # it is there already, and may be somebody's work
            write_transform(path, registration)
        write_checkerboard(self.output_dir / f"{name}_checkerboard{number}.png", _grey(reference), _grey(image))


def _matrix(transform: str | os.PathLike[str] | Sequence[Sequence[float]]) -> WorldTransform:
    if isinstance(transform, (str, os.PathLike)):
        return read_transform(transform)
    matrix = np.array(transform, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise ValueError(f"transform is {transform}; a .tfm file or a (4, 4) matrix of an affine map is accepted")
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError(f"transform is {transform}; a matrix that can be inverted is accepted")
    return matrix


def _grey(image: MetaTensor) -> MetaTensor:
    return cast(MetaTensor, luminance(image))


CommonGridD = CommonGridDict = CommonGridd
