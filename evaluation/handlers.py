"""The fusion metrics as Ignite handlers, for MONAI's engines and bundle configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.utils import MetricReduction

from evaluation import metrics

__all__ = [
    "FusionAG",
    "FusionCC",
    "FusionEN",
    "FusionFMI",
    "FusionMI",
    "FusionMSE",
    "FusionMSSSIM",
    "FusionNMI",
    "FusionNabf",
    "FusionPSNR",
    "FusionQabf",
    "FusionSCD",
    "FusionSD",
    "FusionSF",
    "FusionSSIM",
    "FusionSlices",
    "FusionVIF",
]


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

    _metric = metrics.FusionMIMetric


class FusionNMI(_FusionHandler):
    """Records the normalised mutual information of fused images with their sources: `FusionNMIMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionNMIMetric


class FusionFMI(_FusionHandler):
    """Records the feature mutual information of fused images with their sources: `FusionFMIMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionFMIMetric


class FusionSSIM(_FusionHandler):
    """Records the structural similarity of an engine's fused images to their sources: `FusionSSIMMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionSSIMMetric


class FusionMSSSIM(_FusionHandler):
    """Records the structural similarity to the sources at five scales: `FusionMSSSIMMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionMSSSIMMetric


class FusionQabf(_FusionHandler):
    """Records how much of the sources' edges an engine's fused images keep: `FusionQabfMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionQabfMetric


class FusionNabf(_FusionHandler):
    """Records how much of their edges an engine's fused images invented (low is good): `FusionNabfMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionNabfMetric


class FusionVIF(_FusionHandler):
    """Records the visual information of the sources in an engine's fused images: `FusionVIFMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionVIFMetric


class FusionEN(_FusionHandler):
    """Records the entropy of an engine's fused images: `FusionENMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionENMetric


class FusionSD(_FusionHandler):
    """Records the standard deviation of an engine's fused images: `FusionSDMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionSDMetric


class FusionSF(_FusionHandler):
    """Records the spatial frequency of an engine's fused images: `FusionSFMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionSFMetric


class FusionAG(_FusionHandler):
    """Records the average gradient of an engine's fused images: `FusionAGMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionAGMetric


class FusionPSNR(_FusionHandler):
    """Records the peak signal to noise ratio of an engine's fused images: `FusionPSNRMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionPSNRMetric


class FusionMSE(_FusionHandler):
    """Records the mean squared error of an engine's fused images (low is good): `FusionMSEMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionMSEMetric


class FusionCC(_FusionHandler):
    """Records the correlation of an engine's fused images with their sources: `FusionCCMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionCCMetric


class FusionSCD(_FusionHandler):
    """Records the sum of the correlations of differences of an engine's fused images: `FusionSCDMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionSCDMetric


class FusionSlices(_FusionHandler):
    """Records how many slices with content an engine's images have, those that are measured: `FusionSlicesMetric`.

    Arguments as for `FusionMI`.
    """

    _metric = metrics.FusionSlicesMetric
