"""The fusion metrics as MONAI metrics: accumulated over images, slice by slice in volumes, reduced in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction

from evaluation import functional

__all__ = ["FusionMIMetric", "FusionQabfMetric", "FusionSSIMMetric", "FusionVIFMetric"]

# how many slices of a volume are measured at a time: bounds the memory, changes no result
_SLICES = 16


class _FusionMetric(CumulativeIterationMetric):
    _function: ClassVar[Callable[..., torch.Tensor]]

    def __init__(
        self,
        data_range: float = 1.0,
        quantise: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        self.data_range = data_range
        self.quantise = quantise
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        images, data_range = self._sources_and_result(y_pred, y), self.data_range
        if self.quantise:
            images, data_range = functional.quantise(images, data_range), 255.0
        batch, _, height, width = images.shape[:4]
        # (B, slices, 3, H, W), one slice where the images are flat
        slices = images.reshape(batch, 3, height, width, -1).permute(0, 4, 1, 2, 3)
        sources = slices[:, :, 1:].flatten(3)
        content = (sources.amax(3) != sources.amin(3)).any(2)
        scores = [self._function(*part.split(1, dim=1), data_range) for part in slices[content].split(_SLICES)]
        summed = images.new_zeros(content.shape)
        summed[content] = torch.cat(scores)
        return summed.sum(1, keepdim=True) / content.sum(1, keepdim=True)

    def _sources_and_result(self, y_pred: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        name = type(self).__name__
        if not isinstance(y_pred, torch.Tensor) or not isinstance(y, torch.Tensor):
            raise ValueError(f"{name} compares a fused image (y_pred) with its two sources (y): both must be tensors")
        if y_pred.ndim not in (4, 5) or y_pred.shape[1] != 1:
            raise ValueError(
                f"{name} expects y_pred, the fused images, as (B, 1, H, W[, D]), got {tuple(y_pred.shape)}"
            )
        expected = (y_pred.shape[0], 2, *y_pred.shape[2:])
        if tuple(y.shape) != expected:
            raise ValueError(
                f"{name} expects y, anatomy and overlay in two channels, as {expected} to match y_pred, "
                f"got {tuple(y.shape)}"
            )
        images = torch.cat([image.as_subclass(torch.Tensor) for image in (y_pred, y)], dim=1)
        return images if images.dtype == torch.float64 else images.float()

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Reduce the values gathered so far, images without a value (NaN) left out.

        Args:
            reduction: how, as in `monai.metrics.utils.do_metric_reduction`; that of the constructor if None.

        Returns:
            The reduced value; with `get_not_nans` also the number of images that have one.

        Raises:
            ValueError: if nothing has been measured yet.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError(f"{type(self).__name__} has nothing to aggregate: no image has been measured")
        value, not_nans = do_metric_reduction(data, reduction or self.reduction)
        return (value, not_nans) if self.get_not_nans else value


class FusionMIMetric(_FusionMetric):
    """Information that fused images share with their sources, in nats: `evaluation.functional.mutual_information`.

    Call with `y_pred`, the fused images, (B, 1, H, W[, D]), and `y`, their sources, (B, 2, H, W[, D]), anatomy first;
    or with lists of the same without B. Each image gets one value, (B, 1). A volume is measured slice by slice along
    its last axis; its value is the mean over the slices with content, those where a source is not constant. An image
    without content has no value: NaN, which reductions leave out.

    Args:
        data_range: the value that stands for white.
        quantise: measure what a saved 8-bit image would hold, as published numbers do; otherwise the values as given
            (mutual information rounds to grey levels in either case).
        reduction: how `aggregate` reduces over images, as in `monai.metrics.utils.do_metric_reduction`.
        get_not_nans: let `aggregate` also return the number of images that have a value.

    Raises:
        ValueError: on a call whose shapes are not as above or too small for the metric.
    """

    _function = staticmethod(functional.mutual_information)


class FusionSSIMMetric(_FusionMetric):
    """Structural similarity of fused images to their sources, 2 is perfect: `evaluation.functional.ssim`.

    Calls, arguments and errors as for `FusionMIMetric`. MONAI's `SSIMMetric` compares with one reference instead.
    """

    _function = staticmethod(functional.ssim)


class FusionQabfMetric(_FusionMetric):
    """How much of their sources' edges fused images keep, 0 to 1: `evaluation.functional.qabf`.

    Calls, arguments and errors as for `FusionMIMetric`.
    """

    _function = staticmethod(functional.qabf)


class FusionVIFMetric(_FusionMetric):
    """Visual information of their sources that fused images preserve: `evaluation.functional.vif`.

    Calls, arguments and errors as for `FusionMIMetric`.
    """

    _function = staticmethod(functional.vif)
