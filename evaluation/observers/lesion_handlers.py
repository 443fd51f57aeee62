"""What can still be seen, as Ignite handlers for MONAI's engines and bundle configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric

from evaluation.handlers import as_given
from evaluation.observers import lesion_metrics

__all__ = ["ContrastRecovery", "LostLesions", "ObserverArea", "lesions_from_engine"]


def lesions_from_engine(
    pred: str = "pred", image: str = "image", middles: str = "label"
) -> Callable[[Any], tuple[Any, Any]]:
    """Takes what metrics of lesions need out of an engine's output; for `output_transform`.

    Args:
        pred: key of the fused images of the pair with lesions and without, (2 C, H, W).
        image: key of the pair with lesions and without, (4, H, W), anatomy before overlay; with more overlays, all
            sources with lesions and then all without.
        middles: key of the map that holds the subject's number at the lesions' middles, (1, H, W).

    Returns:
        A function of the output, decollated or a batch, that gives `y_pred` and `y`.

    Examples:
        >>> output = [{"pred": torch.zeros(2, 8, 8), "image": torch.zeros(4, 8, 8), "label": torch.zeros(1, 8, 8)}]
        >>> [[tuple(item.shape) for item in items] for items in lesions_from_engine()(output)]
        [[(2, 8, 8)], [(5, 8, 8)]]
    """
    return partial(_of_lesions, (pred, image, middles))


def _of_lesions(keys: Sequence[str], output: Any) -> tuple[Any, Any]:
    pred, image, middles = from_engine(keys)(output)
    if isinstance(image, torch.Tensor):
        return pred, torch.cat([image, middles], dim=1)
    return pred, [torch.cat(both, dim=0) for both in zip(image, middles, strict=True)]


class _LesionHandler(IgniteMetricHandler):
    metric: ClassVar[type[CumulativeIterationMetric]]

    def __init__(
        self, output_transform: Callable[[Any], Any] = as_given, save_details: bool = True, **options: Any
    ) -> None:
        super().__init__(metric_fn=self.metric(**options), output_transform=output_transform, save_details=save_details)


class ContrastRecovery(_LesionHandler):
    """Records the median contrast recovery of lesions in an engine's fused images: `ContrastRecoveryMetric`.

    Args:
        output_transform: takes `y_pred` and `y` out of the engine's output, see `lesions_from_engine`.
        save_details: keep the value of every lesion in `engine.state.metric_details`.
        options: of the metric.
    """

    metric = lesion_metrics.ContrastRecoveryMetric


class LostLesions(_LesionHandler):
    """Records the share of lesions that an engine's fused images lose: `LostLesionsMetric`.

    Arguments as for `ContrastRecovery`.
    """

    metric = lesion_metrics.LostLesionsMetric


class ObserverArea(_LesionHandler):
    """Records how well a model observer finds the lesions in an engine's fused images: `ObserverAreaMetric`.

    Arguments as for `ContrastRecovery`; the details are channel responses.
    """

    metric = lesion_metrics.ObserverAreaMetric
