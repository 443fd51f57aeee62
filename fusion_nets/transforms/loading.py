"""Load a pair's images as transforms."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.cautions import about, caution
from fusion_nets.clinical import RASTER_SUFFIXES, ImageError, Reason, read_image, source_sha256
from fusion_nets.datalists import check_texts
from fusion_nets.overlays import as_list, each_of
from fusion_nets.stages import stage

__all__ = [
    "CheckSources",
    "CheckSourcesD",
    "CheckSourcesDict",
    "CheckSourcesd",
    "LoadStudyImage",
    "LoadStudyImageD",
    "LoadStudyImageDict",
    "LoadStudyImaged",
]


class LoadStudyImage(Transform):
    """Load any image the library reads, see :func:`fusion_nets.clinical.read_image`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.linear_gradient("L").save(f"{folder}/a.png")
        ...     image = LoadStudyImage()(f"{folder}/a.png")
        >>> tuple(image.shape), image.meta["units"], image.meta["white"]
        ((1, 256, 256), 'grey', 255)
    """

    backend = [TransformBackends.TORCH]

    def __call__(
        self,
        path: PathLike,
        series_uid: str | None = None,
        modality: str | None = None,
        volume: str | int | None = None,
    ) -> MetaTensor:
        """Load (1 | 3, H, W[, D]); of several series of DICOM, or several volumes, the one that is meant."""
        return read_image(path, series_uid, modality, volume)


class LoadStudyImaged(MapTransform):
    """Dictionary twin of :class:`LoadStudyImage`, for images that belong together; the grid of the first will count.

    ``{key}_series_uid`` and ``{key}_modality`` of the pair say which series of DICOM is meant, and of which modality an
    image is that does not say it; ``{key}_volume`` says which of several volumes.
    :class:`~fusion_nets.transforms.CommonGridd` brings the others onto the first one's grid.
    ``meta["sha256"]`` tells by :func:`fusion_nets.clinical.source_sha256` what was read.

    Args:
        keys: what to load, the image whose grid counts first.
        grey_keys: which of them must have one channel.
        smallest: number of pixels that a slice of the first image must have along both axes.
        output_format: what the result is to be written as, see :class:`SaveFusedd`; a first image that cannot become
            that is refused before anything is fused.
        allow_missing_keys: load those that are there.
    """

    backend = LoadStudyImage.backend

    def __init__(
        self,
        keys: KeysCollection = ("anatomy", "overlay"),
        grey_keys: KeysCollection = (),
        smallest: int = 32,
        output_format: str | Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.grey_keys = ensure_tuple(grey_keys)
        self.smallest = smallest
        self.formats = [name.lower() for name in ensure_tuple(output_format or ())]
        self.load = LoadStudyImage()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key.

        Raises:
            ImageError: for an image that cannot be used, or a pair with what is no text in its name or texts.
        """
        stage("reading")
        d = dict(data)
        check_texts(d, (*self.keys, "regions"))
        is_first = True
        for key in self.key_iterator(d):
            path, which = d[key], [d.get(f"{key}_{detail}") for detail in ("series_uid", "modality", "volume")]
            with about(key):
                image = self.load(path, *which)
            size = tuple(image.shape[1:])
            if key in self.grey_keys and image.shape[0] != 1:
                raise ImageError(
                    Reason.SHAPE, f"{path}: has {image.shape[0]} channels (colour); a grey image is accepted here"
                )
            if is_first and min(size[:2]) < self.smallest:
                raise ImageError(
                    Reason.TOO_SMALL,
                    f"{path}: size {size}; slices of {self.smallest} x {self.smallest} or more are accepted",
                )
            if is_first:
                self._check_format(path, image)
            image.meta["sha256"] = source_sha256(path, image.meta.get("series"))
            d[key], is_first = image, False
        return d

    def _check_format(self, path: PathLike, image: MetaTensor) -> None:
        if "dicom" in self.formats and "series" not in image.meta:
            raise ImageError(
                Reason.OUTPUT,
                f"{path}: is no DICOM series, whose study a DICOM result would join; one is accepted here",
            )
        pictures = [name for name in self.formats if name in RASTER_SUFFIXES and name != ".png"]
        if pictures and image.ndim == 4:
            raise ImageError(
                Reason.OUTPUT,
                f"{path}: is a volume, which cannot become a picture ({pictures[0]}); png, for a picture of each "
                "slice, or a single slice is accepted here",
            )


class CheckSources(Transform):
    """Warn where two DICOM series may not belong together, see :func:`fusion_nets.clinical.dicom.check_pair`.

    Args:
        register: the mode of registration; but for "none", their coordinates may differ.
        transform: a registration made before, with which they may differ, too.

    Examples:
        >>> anatomy, overlay = MetaTensor(torch.zeros(1, 4, 4)), MetaTensor(torch.ones(1, 4, 4))
        >>> CheckSources()(anatomy, overlay)[1] is overlay  # of no DICOM series, no doubt
        True
    """

    backend = LoadStudyImage.backend

    def __init__(self, register: str = "none", transform: Any = None) -> None:
        is_given = transform is not None and not (isinstance(transform, str) and not transform)
        self.registered = register != "none" or is_given

    def __call__(  # type: ignore[override]
        self, anatomy: MetaTensor, overlay: MetaTensor, name: str = "pair"
    ) -> tuple[MetaTensor, MetaTensor]:
        """Log a warning, which names the pair, for each doubt; the images, as loaded, stay as they are."""
        series, other = source_series(anatomy), source_series(overlay)
        if series and other:
            from fusion_nets.clinical.dicom import check_pair

            for doubt in check_pair(series, other, self.registered):
                caution(logging.getLogger(__name__), name, "%s", doubt)
        return anatomy, overlay


class CheckSourcesd(MapTransform):
    """Dictionary twin of :class:`CheckSources`: of several overlays, each is held against the anatomy.

    Args:
        keys: the images, the anatomy first, as :class:`LoadStudyImaged` left them.
        register: the mode of registration; but for "none", their coordinates may differ. A list: one for each overlay.
        name_key: whose value the warning names.
        transform: a registration made before, with which they may differ, too; or a list likewise.
        allow_missing_keys: check the overlays that are there.
    """

    backend = CheckSources.backend

    def __init__(
        self,
        keys: KeysCollection = ("anatomy", "overlay"),
        register: str | Sequence[str] = "none",
        name_key: str = "name",
        transform: Any = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.register, self.transform = as_list("register", register), as_list("transform", transform)
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Log a warning for each doubt; the data stay as they are."""
        d = dict(data)
        anatomy, *overlays = self.key_iterator(d)
        modes = each_of("register", self.register, len(overlays))
        given = each_of("transform", self.transform, len(overlays))
        for key, register, transform in zip(overlays, modes, given, strict=True):
            name = d.get(self.name_key, "pair")
            several = len(overlays) > 1
            with about(key) if several else nullcontext():
                CheckSources(register, transform)(d[anatomy], d[key], f"{name}: {key}" if several else name)
        return d


CheckSourcesD = CheckSourcesDict = CheckSourcesd
LoadStudyImageD = LoadStudyImageDict = LoadStudyImaged


def source_series(image: MetaTensor) -> Any:
    """The DICOM series that a loaded image came from, of several volumes (the first of) those that are meant.

    None where it came from another kind of file.
    """
    from fusion_nets.clinical.dicom import pick_series, pick_volumes

    meta = image.meta
    if "series" not in meta:
        return None
    return pick_volumes(pick_series(meta["filename_or_obj"], meta["series"]), meta.get("volume"))[0]
