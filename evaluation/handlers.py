"""The fusion metrics as Ignite handlers, for MONAI's engines and bundle configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from monai.utils import MetricReduction

from evaluation import metrics


def as_given(output: Any) -> Any:
    """What an engine puts out, as it is; unlike a lambda it can be pickled."""
    return output


class _FusionHandler(IgniteMetricHandler):
    _metric: ClassVar[Callable[..., CumulativeIterationMetric]]

    def __init__(
        self,
        data_range: float = 1.0,
        quantise: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        output_transform: Callable[[Any], Any] = as_given,
        save_details: bool = True,
        **options: Any,
    ) -> None:
        metric = self._metric(data_range=data_range, quantise=quantise, reduction=reduction, **options)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


_ABOUT = """{summary}

Records `{metric}` of an engine's fused images.

Args:
    data_range: the value that stands for white.
    quantise: measure what a saved 8-bit image would hold, as published numbers do.
    reduction: how values are reduced over images, as in `monai.metrics.utils.do_metric_reduction`.
    output_transform: takes (fused, sources) out of the engine's output: `from_engine(["pred", "image"])`.
    save_details: keep the value of every image in `engine.state.metric_details`, where MONAI's `MetricsSaver` finds it.
    options: what else the metric takes: `spacing` of `FusionSSIM3D`.
"""


def _class_of(metric: type[CumulativeIterationMetric]) -> type[_FusionHandler]:
    """The handler of a metric class, by its name without `Metric`."""
    summary = (metric.__doc__ or "").partition("\n")[0]
    about = _ABOUT.format(summary=summary, metric=metric.__name__)
    members = {"__doc__": about, "__module__": __name__, "_metric": metric}
    return type(metric.__name__.removesuffix("Metric"), (_FusionHandler,), members)


_CLASSES = [_class_of(getattr(metrics, name)) for name in metrics.__all__]
globals().update({made.__name__: made for made in _CLASSES})

__all__ = sorted(made.__name__ for made in _CLASSES)

if TYPE_CHECKING:
    # what follows from the table, type checkers take on trust
    def __getattr__(name: str) -> type[_FusionHandler]: ...
