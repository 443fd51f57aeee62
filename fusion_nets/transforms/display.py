"""Display range: from stored values to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple

__all__ = ["ScaleToDisplayRange", "ScaleToDisplayRanged"]


class ScaleToDisplayRange(Transform):
    """Map an image's display range to [0, 1]; values outside it are clamped.

    The range is, in this order: ``window`` if given; black to white of a picture or RGB image; for measured values,
    ``percentiles`` of what is above the lowest value (air or background, which would otherwise decide the percentile).
    The range taken is recorded in ``meta["display_range"]``, and ``meta["white"]`` is 1 from there on.

    Args:
        window: (low, high) in stored units, such as (0, 80) HU for a brain window.
        percentiles: (lower, upper), in percent.

    Raises:
        ValueError: for a window or percentiles out of order, or measured values that are all the same.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, window: Sequence[float] | None = None, percentiles: tuple[float, float] = (0.5, 99.5)) -> None:
        self.window = None if window is None else ensure_tuple(window)
        if self.window is not None and not (len(self.window) == 2 and self.window[0] < self.window[1]):
            raise ValueError(f"window must be (low, high) with low < high, got {window}")
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles must be (lower, upper) within 0 to 100, got {percentiles}")
        self.percentiles = percentiles

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Scale (C, ...) to [0, 1]."""
        low, high = self._range(img)
        scaled = ((img - low) / (high - low)).clamp(0, 1)
        if isinstance(scaled, MetaTensor):
            scaled.meta |= {"display_range": [low, high], "white": 1}
        return scaled

    def _range(self, img: torch.Tensor) -> tuple[float, float]:
        if self.window is not None:
            return float(self.window[0]), float(self.window[1])
        white = getattr(img, "meta", {}).get("white")
        if white is not None:
            return 0.0, float(white)
        values = convert_to_tensor(img, dtype=torch.float64).flatten()
        lowest = values.min()
        inside = values[values > lowest]
        if not len(inside):
            raise ValueError(f"every value is {lowest.item():g}; without a window, an image with content is accepted")
        lower, upper = (_percentile(inside, p) for p in self.percentiles)
        return (min(lower, float(lowest)) if lower >= upper else lower), upper


def _percentile(values: torch.Tensor, percent: float) -> float:
    rank = round(percent / 100 * (values.numel() - 1)) + 1
    return float(values.kthvalue(rank).values)


class ScaleToDisplayRanged(MapTransform):
    """Dictionary twin of :class:`ScaleToDisplayRange`."""

    backend = ScaleToDisplayRange.backend

    def __init__(
        self,
        keys: KeysCollection,
        window: Sequence[float] | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScaleToDisplayRange(window, percentiles)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Scale every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.scale(d[key])
        return d
