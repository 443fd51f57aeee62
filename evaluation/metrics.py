"""The fusion metrics as MONAI metrics: accumulated over images, slice by slice in volumes, reduced in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import ignite.distributed as idist
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction, evenly_divisible_all_gather

from evaluation import functional
from evaluation.functional import FusionMetric


class GatheredMetric(CumulativeIterationMetric):
    """What MONAI's cumulative metric lacks: processes that had no image, and a reduction with the number of values."""

    # of a row of what is gathered
    width: int = 1

    def __init__(self, reduction: MetricReduction | str = MetricReduction.MEAN, get_not_nans: bool = False) -> None:
        super().__init__()
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def extend(self, *data: Any) -> None:
        """Add rows; none is accepted, too."""
        if all(len(rows) for rows in data):
            super().extend(*data)

    def _sync(self) -> None:
        # As in MONAI, and also of a process that had no image: it has to take part, or the others wait for it forever.
        if self._synced or idist.get_world_size() == 1:
            super()._sync()
            return
        own = torch.stack(self._buffers[0]) if self._buffers else torch.zeros(0, self.width, device=idist.device())
        gathered = evenly_divisible_all_gather(own.double(), concat=True)
        self._synced_tensors = [gathered.to(own)] if len(gathered) else None
        self._synced = True

    def gathered(self) -> torch.Tensor:
        """All rows so far, of all processes.

        Raises:
            ValueError: if nothing has been measured yet.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError(f"{type(self).__name__} has nothing to aggregate: no image has been measured")
        return data

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Reduce the values gathered so far, of all processes, images without a value (NaN) left out.

        Args:
            reduction: how, as in `monai.metrics.utils.do_metric_reduction`; that of the constructor if None.

        Returns:
            The reduced value; with `get_not_nans` also the number of images that have one.

        Raises:
            ValueError: if nothing has been measured yet.
        """
        value, not_nans = do_metric_reduction(self.gathered(), reduction or self.reduction)
        return (value, not_nans) if self.get_not_nans else value


class _FusionMetric(GatheredMetric):
    # of `functional.FUSION_METRICS`
    _name: ClassVar[str]

    def __init__(
        self,
        data_range: float = 1.0,
        quantise: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction, get_not_nans)
        self.data_range = data_range
        self.quantise = quantise

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        images, data_range = self._sources_and_result(y_pred, y), self.data_range
        if self.quantise:
            images, data_range = functional.quantise(images, data_range), 255.0
        batch, _, height, width = images.shape[:4]
        # (B, slices, 1 + S, H, W), one slice where the images are flat
        slices = images.reshape(batch, images.shape[1], height, width, -1).permute(0, 4, 1, 2, 3)
        sources = slices[:, :, 1:].flatten(3)
        # the difference of what is not finite is NaN, which differs from 0
        content = (sources.amax(3) - sources.amin(3) != 0).any(2)
        return self._of_slices(slices, content, data_range)[:, None]

    def _of_slices(self, slices: torch.Tensor, content: torch.Tensor, data_range: float) -> torch.Tensor:
        """(B, slices, 1 + S, H, W), and which of them have content, (B, slices) -> one value for each image, (B,)."""
        fused, anatomy, *overlays = slices[content].split(1, dim=1)
        scores = functional.fusion_metrics(fused, anatomy, overlays, [self._name], data_range)
        summed = slices.new_zeros(content.shape)
        summed[content] = scores[self._name]
        return summed.sum(1) / content.sum(1)

    def _sources_and_result(self, y_pred: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        name = type(self).__name__
        if not isinstance(y_pred, torch.Tensor) or not isinstance(y, torch.Tensor):
            raise ValueError(f"{name} compares a fused image (y_pred) with its sources (y): both must be tensors")
        if y_pred.ndim not in (4, 5) or y_pred.shape[1] != 1:
            raise ValueError(
                f"{name} expects y_pred, the fused images, as (B, 1, H, W[, D]), got {tuple(y_pred.shape)}"
            )
        expected = (y_pred.shape[0], 2, *y_pred.shape[2:])
        if y.ndim != y_pred.ndim or y.shape[1] < 2 or y.shape[:1] + y.shape[2:] != expected[:1] + expected[2:]:
            raise ValueError(
                f"{name} expects y, anatomy and overlay in two channels, as {expected} to match y_pred, or in more "
                f"channels more overlays; got {tuple(y.shape)}"
            )
        images = torch.cat([image.as_subclass(torch.Tensor) for image in (y_pred, y)], dim=1)
        return images if images.dtype == torch.float64 else images.float()


class FusionSlicesMetric(_FusionMetric):
    """How many slices of each volume have content, and were measured by the other metrics; 0 or 1 of a flat image.

    Calls, arguments and errors as for `FusionMIMetric` and the others.
    """

    def _of_slices(self, slices: torch.Tensor, content: torch.Tensor, data_range: float) -> torch.Tensor:
        return content.sum(1).to(slices.dtype)


class _VolumeMetric(_FusionMetric):
    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        images, data_range = self._sources_and_result(y_pred, y), self.data_range
        if images.ndim != 5:
            raise ValueError(
                f"{type(self).__name__} expects y_pred, the fused volumes, as (B, 1, H, W, D), got "
                f"{tuple(y_pred.shape)}"
            )
        if self.quantise:
            images, data_range = functional.quantise(images, data_range), 255.0
        values = self._of_volumes(images.split(1, dim=1), data_range, y)
        sources = images[:, 1:].flatten(2)
        content = (sources.amax(2) - sources.amin(2) != 0).any(1)
        return values.where(content, torch.nan)[:, None]

    def _of_volumes(self, images: Sequence[torch.Tensor], data_range: float, y: torch.Tensor | None) -> torch.Tensor:
        """Fused, anatomy and overlays, and the sources as given -> one value for each volume, (B,)."""
        raise NotImplementedError


class FusionFlickerMetric(_VolumeMetric):
    """How much fused volumes change from slice to slice beyond any of their sources, in grey levels; lower is better.

    `evaluation.flicker` as a MONAI metric, of volumes (B, 1, H, W, D). Calls, arguments and errors otherwise as for
    `FusionMIMetric` and the others. A volume of one slice, or whose sources are constant, has no value.
    """

    def _of_volumes(self, images: Sequence[torch.Tensor], data_range: float, y: torch.Tensor | None) -> torch.Tensor:
        return functional.flicker(images[0], images[1], images[2:], data_range)


class FusionSSIM3DMetric(_VolumeMetric):
    """Structural similarity of fused volumes to their sources in blocks, not slices, summed; higher is better.

    `evaluation.ssim_3d` as a MONAI metric, of volumes (B, 1, H, W, D). Calls and errors otherwise as for
    `FusionMIMetric` and the others. A volume whose sources are constant has no value.

    Args:
        data_range: the value that stands for white.
        quantise: measure what a saved 8-bit image would hold; otherwise the values as given.
        reduction: how `aggregate` reduces over volumes, as in `monai.metrics.utils.do_metric_reduction`.
        get_not_nans: let `aggregate` also return the number of volumes that have a value.

    `spacing` has the edges of a voxel along H, W and D in mm; by default those of the affine of `y`, a MetaTensor, and
    cubes where it is none.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        quantise: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__(data_range, quantise, reduction, get_not_nans)
        self.spacing = spacing

    def _of_volumes(self, images: Sequence[torch.Tensor], data_range: float, y: torch.Tensor | None) -> torch.Tensor:
        batch = zip(*(image.split(1) for image in images), strict=True)
        values = [
            functional.ssim_3d(one[0], one[1], one[2:], data_range, spacing)
            for one, spacing in zip(batch, self._spacings(y, len(images[0])), strict=True)
        ]
        return torch.cat([images[0].new_zeros(0), *values])

    def _spacings(self, y: torch.Tensor | None, count: int) -> list[Sequence[float]]:
        if self.spacing is not None or not isinstance(y, MetaTensor):
            return [self.spacing or (1.0, 1.0, 1.0)] * count
        affines = y.affine if y.affine.ndim == 3 else [y.affine] * count
        return [affine_to_spacing(affine).tolist() for affine in affines]


_ABOUT = """{summary}

`evaluation.{function}` as a MONAI metric; {good} is better.

Call with `y_pred`, the fused images, (B, 1, H, W[, D]), and `y`, their sources, (B, 2, H, W[, D]), anatomy first, and
in further channels further overlays; or with lists of the same without B. Each image gets one value, (B, 1). A volume
is measured slice by slice along its last axis; its value is the mean over the slices with content, those where a source
is not constant (`FusionSlicesMetric` has their number). An image without content has no value, nor has one with a NaN
or infinity in what is measured: NaN, which reductions leave out.

Args:
    data_range: the value that stands for white.
    quantise: measure what a saved 8-bit image would hold, as published numbers do; otherwise the values as given
        (information and entropy are those of grey levels in either case).
    reduction: how `aggregate` reduces over images, as in `monai.metrics.utils.do_metric_reduction`.
    get_not_nans: let `aggregate` also return the number of images that have a value.

Raises:
    ValueError: on a call whose shapes are not as above{more}, or whose values have another range than `data_range`.
"""


def _class_of(name: str, metric: FusionMetric) -> type[_FusionMetric]:
    """The metric class of a line of the table, `Fusion` + name + `Metric`."""
    summary = (metric.function.__doc__ or "").partition("\n")[0]
    good = "higher" if metric.higher_is_better else "lower"
    more = f", or smaller than {metric.smallest} x {metric.smallest} pixels" if metric.smallest > 1 else ""
    more += ", of more than two sources" if metric.of_two else ""
    about = _ABOUT.format(summary=summary, function=metric.function.__name__, good=good, more=more)
    members = {"__doc__": about, "__module__": __name__, "_name": name}
    return type(f"Fusion{name.replace('-', '')}Metric", (_FusionMetric,), members)


_CLASSES: list[type[_FusionMetric]] = [
    FusionSlicesMetric,
    FusionFlickerMetric,
    FusionSSIM3DMetric,
    *(_class_of(name, metric) for name, metric in functional.FUSION_METRICS.items()),
]
globals().update({made.__name__: made for made in _CLASSES})

__all__ = sorted(made.__name__ for made in _CLASSES)

if TYPE_CHECKING:
    # what follows from the table, type checkers take on trust
    def __getattr__(name: str) -> type[_FusionMetric]: ...
