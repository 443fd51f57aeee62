"""Display range: from stored values to [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

__all__ = ["ScaleToDisplayRange", "ScaleToDisplayRanged"]


class ScaleToDisplayRange(Transform):
    """Map an image's display range to [0, 1]; values outside it are clamped.

    The range is, in this order: ``window`` if given; black to white of a picture or RGB image; for measured values,
    ``percentiles`` of what is above the lowest value (air or background, which would otherwise decide the percentile).
    The range taken is recorded in ``meta["display_range"]``.

    Args:
        window: (low, high) in stored units, such as (0, 80) HU for a brain window.
        percentiles: (lower, upper), in percent.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, window: Sequence[float] | None = None, percentiles: tuple[float, float] = (0.5, 99.5)) -> None:
        if window is not None and not (len(window) == 2 and window[0] < window[1]):
            raise ValueError(f"window must be (low, high) with low < high, got {window}")
        self.window = window
        self.percentiles = percentiles

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Scale (C, ...) to [0, 1]."""
        low, high = self._range(img)
        scaled = ((img - low) / (high - low)).clamp(0, 1)
        if isinstance(scaled, MetaTensor):
            scaled.meta["display_range"] = [low, high]
        return scaled

    def _range(self, img: torch.Tensor) -> tuple[float, float]:
        if self.window is not None:
            return float(self.window[0]), float(self.window[1])
        white = getattr(img, "meta", {}).get("white")
        if white is not None:
            return 0.0, float(white)
        values = torch.as_tensor(img).as_subclass(torch.Tensor).double().flatten()
        lowest = values.min()
        inside = values[values > lowest]
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
