"""The fusion metrics as Ignite handlers, for MONAI's engines and bundle configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.utils import MetricReduction

from evaluation.metrics import FusionMIMetric, FusionQabfMetric, FusionSSIMMetric, FusionVIFMetric

__all__ = ["FusionMI", "FusionQabf", "FusionSSIM", "FusionVIF"]


class _FusionHandler(IgniteMetricHandler):
    _metric: ClassVar[Callable[..., CumulativeIterationMetric]]

    def __init__(
        self,
        data_range: float = 1.0,
        quantise: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        output_transform: Callable[[Any], Any] = lambda x: x,
        save_details: bool = True,
    ) -> None:
        metric = self._metric(data_range=data_range, quantise=quantise, reduction=reduction)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


class FusionMI(_FusionHandler):
    """Records the mutual information of an engine's fused images with their sources: `FusionMIMetric`.

    Args:
        data_range: the value that stands for white.
        quantise: measure what a saved 8-bit image would hold, as published numbers do.
        reduction: how values are reduced over images, as in `monai.metrics.utils.do_metric_reduction`.
        output_transform: takes (fused, sources) out of the engine's output: `from_engine(["pred", "image"])`.
        save_details: keep the value of every image in `engine.state.metric_details`, where MONAI's `MetricsSaver`
            finds it.
    """

    _metric = FusionMIMetric


class FusionSSIM(_FusionHandler):
    """Records the structural similarity of an engine's fused images to their sources: `FusionSSIMMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = FusionSSIMMetric


class FusionQabf(_FusionHandler):
    """Records how much of the sources' edges an engine's fused images keep: `FusionQabfMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = FusionQabfMetric


class FusionVIF(_FusionHandler):
    """Records the visual information of the sources in an engine's fused images: `FusionVIFMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = FusionVIFMetric
