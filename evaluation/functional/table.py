from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from types import MappingProxyType
from typing import NamedTuple

import torch

from evaluation.functional._helpers import Measure, Overlays, check, check_range, each, measure_each, of_finite
from evaluation.functional.agreement import (
    correlation,
    likeness,
    likeness_of_differences,
    mean_squared_error,
    peak_to_noise,
    psnr,
    scd,
    squared_error,
)
from evaluation.functional.contrast import (
    average_gradient,
    frequency,
    sharpness,
    spatial_frequency,
    spread,
    standard_deviation,
)
from evaluation.functional.edges import NABF_SIDE, edges_invented, edges_kept, nabf, qabf
from evaluation.functional.fmi import FMI_SIDE, features_kept, fmi
from evaluation.functional.information import (
    bits,
    entropy,
    mutual_information,
    normalised_information,
    normalised_mutual_information,
    shared_information,
)
from evaluation.functional.ssim import MS_SSIM_SIDE, SSIM_SIDE, ms_ssim, ssim, structure_kept, structure_of_scales
from evaluation.functional.vif import VIF_SIDE, information_kept, vif


class FusionMetric(NamedTuple):
    """What is known of a metric.

    Attributes:
        function: the metric, of images (B, 1, H, W).
        measure: how it measures images that share their work with other metrics.
        smallest: the smallest side in pixels that it can do with.
        higher_is_better: which way is good.
        of_two: whether it has no definition for more than two sources.
    """

    function: Callable[..., torch.Tensor]
    measure: Measure
    smallest: int = 1
    higher_is_better: bool = True
    of_two: bool = False

    @property
    def of_fused_alone(self) -> bool:
        """Whether the metric looks at the fused image only."""
        return "anatomy" not in signature(self.function).parameters


# A metric is a function and a line of this table: its class in `evaluation.metrics`, its handler in
# `evaluation.handlers` and its place in every report follow from it.
FUSION_METRICS: Mapping[str, FusionMetric] = MappingProxyType(
    {
        "MI": FusionMetric(mutual_information, shared_information),
        "NMI": FusionMetric(normalised_mutual_information, normalised_information),
        "FMI": FusionMetric(fmi, features_kept, FMI_SIDE),
        "SSIM": FusionMetric(ssim, structure_kept, SSIM_SIDE),
        "MS-SSIM": FusionMetric(ms_ssim, structure_of_scales, MS_SSIM_SIDE),
        "Qabf": FusionMetric(qabf, edges_kept),
        "Nabf": FusionMetric(nabf, edges_invented, NABF_SIDE, higher_is_better=False, of_two=True),
        "VIF": FusionMetric(vif, information_kept, VIF_SIDE),
        "EN": FusionMetric(entropy, bits),
        "SD": FusionMetric(standard_deviation, spread),
        "SF": FusionMetric(spatial_frequency, frequency),
        "AG": FusionMetric(average_gradient, sharpness),
        "PSNR": FusionMetric(psnr, peak_to_noise),
        "MSE": FusionMetric(mean_squared_error, squared_error, higher_is_better=False),
        "CC": FusionMetric(correlation, likeness),
        "SCD": FusionMetric(scd, likeness_of_differences, of_two=True),
    }
)
"""The metrics by the names that papers print them under."""


def fusion_metrics(
    fused: torch.Tensor,
    anatomy: torch.Tensor,
    overlay: Overlays,
    names: Iterable[str] | None = None,
    data_range: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Several metrics in one pass: what some of them share (histograms, means, errors) is computed once.

    The values are those of the single functions, bit for bit. Chunk by chunk, so that memory stays bounded for any
    number of images; with a gradient, where every chunk has to be remembered, it is not.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range; several as a list.
        names: which, of `FUSION_METRICS`; all that are defined for so many sources if None.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,), by name, in the order asked for; NaN where an image that a metric looks at holds NaN
        or infinity.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: for an unknown name or one that is not defined for so many sources, if shapes differ or are not
            (B, 1, H, W), if the images are too small for one of the metrics, if `data_range` is not positive, or if it
            is not the images' own: whole numbers or values of 0 to 255, say, where white is 1.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy, overlay = torch.rand(2, 1, 1, 48, 48, generator=generator)
        >>> fusion_metrics((anatomy + overlay) / 2, anatomy, overlay, names=["Qabf", "VIF"])
        {'Qabf': tensor([0.2852]), 'VIF': tensor([0.1964])}
    """
    images = [fused, *each(anatomy, overlay)]
    defined = [name for name, metric in FUSION_METRICS.items() if len(images) == 3 or not metric.of_two]
    chosen = list(defined if names is None else names)
    unknown = [name for name in chosen if name not in FUSION_METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; there are {list(FUSION_METRICS)}")
    check(*images)
    for name in chosen:
        check(fused, smallest=FUSION_METRICS[name].smallest, name=name)
    if chosen:
        check_range(*images, data_range=data_range)
    chosen_metrics = [FUSION_METRICS[name] for name in chosen]
    values = measure_each([metric.measure for metric in chosen_metrics], *images, data_range=data_range)
    return {
        name: of_finite(value, *(images[:1] if metric.of_fused_alone else images))
        for name, metric, value in zip(chosen, chosen_metrics, values, strict=True)
    }
