"""Display range: from stored values to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple
from scipy import ndimage

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.clinical.errors import check_window
from fusion_nets.clinical.quantities import BODY_UPTAKE, CT_WINDOWS, UPTAKE
from fusion_nets.overlays import as_list, each_of
from fusion_nets.registration import BodyRegion, body_region, foreground, ranked, selected
from fusion_nets.slabs import extremes, filtered, slabs, slabwise, zeros

__all__ = [
    "CT_WINDOWS",
    "ScaleToDisplayRange",
    "ScaleToDisplayRangeD",
    "ScaleToDisplayRangeDict",
    "ScaleToDisplayRanged",
    "Window",
]

Window = str | Sequence[float]

_MOST_UPTAKE = 99.99

_RIM = 2
"""Voxels at the patient's surface, partly air, that do not count for percentiles."""

_NAMES = (*CT_WINDOWS, "header", "percentiles")


class ScaleToDisplayRange(Transform):
    """Map an image's display range to [0, 1]; values outside it are clamped.

    Without a ``window``, what the image is decides, by ``meta["white"]``, ``meta["units"]`` and ``meta["modality"]``:

    - a picture or coloured image: black to white;
    - CT: the brain window, 0 to 80 HU; of a body the soft tissue window, -160 to 240 HU;
    - PET in SUV of a body: 0 to 7, by lean body mass 0 to 5 (:data:`fusion_nets.clinical.quantities.BODY_UPTAKE`), as
      the bladder would set the range else;
    - other PET and SPECT: 0 to the 99.99th percentile inside the patient, beyond which there is no lesion to be seen,
      while the ``percentiles`` of other images would make one of a millilitre white, and all alike;
    - MR: between the percentiles inside the patient;
    - what is not known: between the percentiles of what is above the lowest value (air or background, which would
      otherwise decide the percentile), and so too where no patient is found.

    ``meta["display_range"]`` records the range, ``meta["display"]`` also by which rule it was taken and its units:
    {"window", "range", "units"}, where "window" is a name of a window, "given", "white", "uptake", "body_uptake" or
    "percentiles"; and "shows" where that was asked, "head", "body" or "unknown", which is taken for a head, with what
    it is known by, see :func:`fusion_nets.registration.body_region`. The range as ``window`` gives the same image
    again, exactly. ``meta["white"]`` is 1 from there on.

    Args:
        window: (low, high) in stored units, such as (0, 80) HU or (0, 10) SUV; or a name: one of :data:`CT_WINDOWS`,
            for images that may be CT; "header", what the image itself recommends in ``meta["window"]``; "percentiles",
            inside the patient for any measured values.
        percentiles: (lower, upper), in percent.

    Raises:
        ValueError: for a window or percentiles out of order or not finite, or an unknown name.

    Examples:
        >>> ScaleToDisplayRange("brain")(torch.tensor([[[-1000.0, 0, 40, 80, 1000]]])).tolist()
        [[[0.0, 0.0, 0.5, 1.0, 1.0]]]
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, window: Window | None = None, percentiles: tuple[float, float] = (0.5, 99.5)) -> None:
        self.window = None if window is None else window if isinstance(window, str) else ensure_tuple(window)
        if isinstance(self.window, str):
            if self.window not in _NAMES:
                raise ValueError(f"window is {window!r}; accepted are (low, high) and {', '.join(_NAMES)}")
        elif self.window is not None:
            check_window(self.window)
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles must be (lower, upper) within 0 to 100, got {percentiles}")
        self.percentiles = percentiles

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Scale (C, ...) to [0, 1].

        Raises:
            ImageError: if the values are all the same and no window is given, or a named window does not suit the
                image.
        """
        region = self._region(img)
        rule, low, high = self._range(img, region is not None and region.shows == "body")
        scaled = slabwise(lambda part: ((part - low) / (high - low)).clamp_(0, 1), img)
        if isinstance(scaled, MetaTensor):
            display = {"window": rule, "range": [low, high], "units": str(scaled.meta.get("units") or "stored")}
            display |= {} if region is None else {"shows": str(region)}
            scaled.meta |= {"display_range": [low, high], "display": display, "white": 1}
        return scaled

    def _region(self, img: torch.Tensor) -> BodyRegion | None:
        """What the image shows, where its range follows that."""
        meta = getattr(img, "meta", {})
        asks = meta.get("units") in ("HU", *BODY_UPTAKE) or meta.get("modality") == "CT"
        if self.window is not None or meta.get("white") is not None or not asks or not isinstance(img, MetaTensor):
            return None
        return body_region(img)

    def _range(self, img: torch.Tensor, is_body: bool) -> tuple[str, float, float]:
        """Which rule was taken, low and high."""
        meta = getattr(img, "meta", {})
        modality, units, white = meta.get("modality"), meta.get("units"), meta.get("white")
        is_ct = units == "HU" or modality == "CT"
        if isinstance(self.window, tuple):
            return "given", float(self.window[0]), float(self.window[1])
        if self.window == "header":
            if meta.get("window") is None:
                raise ImageError(
                    Reason.INCOMPLETE, f"{_name(img)}: its header has no window; a range or a name of one is accepted"
                )
            low, high = (float(value) for value in meta["window"])
            return "header", low, high
        if self.window in CT_WINDOWS:
            if not is_ct and (white is not None or modality or units not in (None, "stored")):
                what = modality or units or "a picture"
                raise ImageError(
                    Reason.UNITS,
                    f"{_name(img)}: is {what}, and window {self.window!r} is for CT; (low, high), 'header' or "
                    "'percentiles' is accepted",
                )
            return str(self.window), *CT_WINDOWS[str(self.window)]
        if self.window is None and white is not None:
            return "white", 0.0, float(white)
        if self.window is None and is_ct:
            name = "soft_tissue" if is_body else "brain"
            return name, *CT_WINDOWS[name]
        if self.window is None and is_body and units in BODY_UPTAKE:
            return "body_uptake", 0.0, BODY_UPTAKE[units]
        is_uptake = self.window is None and (units in UPTAKE or modality in ("PT", "NM"))
        values = self._inside(img, self.window == "percentiles" or is_uptake or modality == "MR")
        if is_uptake and (most := _percentile(values, _MOST_UPTAKE)) > 0:
            return "uptake", 0.0, most
        lower, upper = (_percentile(values, p) for p in self.percentiles)
        return "percentiles", (min(lower, extremes(img)[0]) if lower >= upper else lower), upper

    @staticmethod
    def _inside(img: torch.Tensor, in_patient: bool) -> np.ndarray:
        """The values that percentiles are taken of, (N,), for :func:`fusion_nets.registration.ranked`."""
        values = convert_to_tensor(img, track_meta=False).detach().cpu().numpy()
        lowest = values.min()
        if lowest == values.max():
            raise ImageError(
                Reason.EMPTY,
                f"{_name(img)}: every value is {lowest.item():g}; without a window, an image with content is accepted",
            )
        if in_patient:
            patient = _inner(foreground(img if isinstance(img, MetaTensor) else MetaTensor(img)))
            inside = selected(values, np.broadcast_to(patient, values.shape))
            if len(inside) and inside.min() < inside.max():
                return inside
        above = zeros(values.shape, bool)
        for slab in slabs(values.shape):
            np.greater(values[..., slab], lowest, out=above[..., slab])
        return selected(values, above)


def _inner(patient: np.ndarray) -> np.ndarray:
    """Without the rim."""
    return filtered(lambda part: ndimage.binary_erosion(part, iterations=_RIM, border_value=1), patient, _RIM)


def _name(img: torch.Tensor) -> str:
    return str(getattr(img, "meta", {}).get("filename_or_obj", "image"))


def _percentile(values: np.ndarray, percent: float) -> float:
    return ranked(values, round(percent / 100 * (values.size - 1)) + 1)


class ScaleToDisplayRanged(MapTransform):
    """Dictionary twin of :class:`ScaleToDisplayRange`; ``window`` may be a list, one for each key that is there."""

    backend = ScaleToDisplayRange.backend

    def __init__(
        self,
        keys: KeysCollection,
        window: Window | Sequence[Window | None] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.option = f"{self.keys[0]}_window"  # as configurations and commands call it
        self.scales = [ScaleToDisplayRange(one, percentiles) for one in as_list("window", window)]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Scale every key."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        for key, scale in zip(keys, each_of(self.option, self.scales, len(keys)), strict=True):
            d[key] = scale(d[key])
        return d


ScaleToDisplayRangeD = ScaleToDisplayRangeDict = ScaleToDisplayRanged
