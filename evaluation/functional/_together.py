from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch

from evaluation.functional import _agreement, _contrast, _edges, _fmi, _information, _ssim, _vif
from evaluation.functional._common import Measure, check, measure_each


class FusionMetric(NamedTuple):
    """What is known of a metric: how known images are measured, its smallest side in pixels, and which way is good."""

    measure: Measure
    smallest: int = 1
    higher_is_better: bool = True


FUSION_METRICS: Mapping[str, FusionMetric] = MappingProxyType(
    {
        "MI": FusionMetric(_information.shared_information),
        "NMI": FusionMetric(_information.normalised_information),
        "FMI": FusionMetric(_fmi.features_kept, _fmi.FMI_SIDE),
        "SSIM": FusionMetric(_ssim.structure_kept, _ssim.SSIM_SIDE),
        "MS-SSIM": FusionMetric(_ssim.structure_of_scales, _ssim.MS_SSIM_SIDE),
        "Qabf": FusionMetric(_edges.edges_kept),
        "Nabf": FusionMetric(_edges.edges_invented, _edges.NABF_SIDE, higher_is_better=False),
        "VIF": FusionMetric(_vif.information_kept, _vif.VIF_SIDE),
        "EN": FusionMetric(_information.bits),
        "SD": FusionMetric(_contrast.spread),
        "SF": FusionMetric(_contrast.frequency),
        "AG": FusionMetric(_contrast.sharpness),
        "PSNR": FusionMetric(_agreement.peak_to_noise),
        "MSE": FusionMetric(_agreement.squared_error, higher_is_better=False),
        "CC": FusionMetric(_agreement.likeness),
        "SCD": FusionMetric(_agreement.likeness_of_differences),
    }
)
"""The metrics by the names that papers print them under."""


def fusion_metrics(
    fused: torch.Tensor,
    anatomy: torch.Tensor,
    overlay: torch.Tensor,
    names: Iterable[str] | None = None,
    data_range: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Several metrics in one pass: what some of them share (histograms, means, errors) is computed once.

    The values are those of the single functions, bit for bit. Chunk by chunk, so that memory stays bounded for any
    number of images; with a gradient, where every chunk has to be remembered, it is not.

    Args:
        fused: fused images, (B, 1, H, W), values in [0, data_range].
        anatomy: anatomical sources, same shape and range.
        overlay: sources laid over the anatomy, same shape and range.
        names: which, of `FUSION_METRICS`; all if None.
        data_range: the value that stands for white.

    Returns:
        One value per image, (B,), by name, in the order asked for.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: for an unknown name, if shapes differ or are not (B, 1, H, W), if the images are too small for one
            of the metrics, or if `data_range` is not positive.
    """
    chosen = list(FUSION_METRICS if names is None else names)
    unknown = [name for name in chosen if name not in FUSION_METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; there are {list(FUSION_METRICS)}")
    check(fused, anatomy, overlay)
    for name in chosen:
        check(fused, smallest=FUSION_METRICS[name].smallest, name=name)
    metrics = [FUSION_METRICS[name].measure for name in chosen]
    values = measure_each(metrics, fused, anatomy, overlay, data_range=data_range)
    return dict(zip(chosen, values, strict=True))
