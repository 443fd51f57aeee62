"""What can still be seen, as MONAI metrics: accumulated over lesions, reduced in the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import ignite.distributed as idist
import torch
from monai.utils import MetricReduction

from evaluation.metrics import GatheredMetric
from evaluation.observers.cielab import cielab
from evaluation.observers.hotelling import (
    add_internal_noise,
    area_under_curve,
    channel_responses,
    dense_difference_of_gaussians,
    hotelling_scores,
    subject_folds,
)
from evaluation.observers.recovery import contrast_recovery, lost, luminance, patches_at

__all__ = ["ContrastRecoveryMetric", "LostLesionsMetric", "ObserverAreaMetric"]

_PLACES: dict[Source, int] = {"anatomy": 0, "overlay": 1}

Source = Literal["anatomy", "overlay"] | int


class _LesionMetric(GatheredMetric):
    _ndims: ClassVar[tuple[int, ...]] = (4, 5)

    """Of fused images of a pair with and without lesions.

    Its calls have `y_pred` (B, 2 C, H, W): the fused image with the lesions, then without, C channels each; and `y`
    (B, 2 S + 1, H, W): the S sources with the lesions, the same without, and a map that is 0 but at the lesions'
    middles, where it holds the number of the subject, from 1. Of volumes both have a further axis.
    """

    def _checked(self, y_pred: torch.Tensor, y: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Fused with and without, sources with and without, the map, and places (N, 3), or (N, 4) of volumes."""
        name = type(self).__name__
        if not isinstance(y, torch.Tensor) or y.ndim not in self._ndims or y.shape[1] < 5 or y.shape[1] % 2 == 0:
            got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
            raise ValueError(
                f"{name} expects y as (B, 5, H, W): both sources with lesions, both without, and the map of the "
                f"lesions' middles, or with two channels more for each further overlay; got {got}"
            )
        expected = [(len(y), channels, *y.shape[2:]) for channels in (2, 6)]
        if tuple(y_pred.shape) not in expected:
            raise ValueError(
                f"{name} expects y_pred, the fused images with lesions and without, in grey or colour, as "
                f"{expected[0]} or {expected[1]} to match y, got {tuple(y_pred.shape)}"
            )
        images, given = (image.as_subclass(torch.Tensor) for image in (y_pred, y))
        return *images.chunk(2, dim=1), *given[:, :-1].chunk(2, dim=1), given[:, -1].nonzero()


class ContrastRecoveryMetric(_LesionMetric):
    """How much of the contrast of lesions in one source fused images keep: `contrast_recovery`; the median of lesions.

    Call with `y_pred`, fused images of pairs with lesions and of the same pairs without, (B, 2, H, W) in grey or
    (B, 6, H, W) in colour; and `y`, (B, 5, H, W): anatomy and overlay with lesions, both without, and a map that is 0
    but at the lesions' middles, where it holds the number of the subject, from 1. With further overlays, all sources
    with lesions, all without, and the map. Volumes have a further axis, (B, 2, H, W, D). Each lesion gets one value,
    (N, 1).

    Args:
        source: whose lesions are followed: "anatomy", "overlay", or the number of a source, 0 being the anatomy; of
            lesions in both sources, the overlay.
        half: the window reaches so many pixels from a lesion's middle; or so many along each axis.
        data_range: the value that stands for white.
        reduction: "median", or as in `monai.metrics.utils.do_metric_reduction`.
        get_not_nans: let `aggregate` also return the number of lesions that have a value.

    Raises:
        ValueError: for an unknown source; on a call whose shapes are not as above.
    """

    def __init__(
        self,
        source: Source = "overlay",
        half: int | Sequence[int] = 20,
        data_range: float = 1.0,
        reduction: MetricReduction | str = "median",
        get_not_nans: bool = False,
    ) -> None:
        place = _PLACES.get(source, source)
        if not isinstance(place, int) or place < 0:
            raise ValueError(f"source {source!r} is unknown; anatomy and overlay are accepted, or a number from 0")
        super().__init__(reduction, get_not_nans)
        self.source = source
        self.place = place
        self.half = half
        self.data_range = data_range

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        fused, fused_without, sources, sources_without, places = self._checked(y_pred, y)
        if self.place >= sources.shape[1]:
            raise ValueError(f"{type(self).__name__} follows source {self.place}, and y has {sources.shape[1]}, from 0")
        before_after = sources[:, [self.place]], sources_without[:, [self.place]]
        return contrast_recovery(fused, fused_without, *before_after, places, self.half, self.data_range)[:, None]

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Reduce the values of all lesions so far, of all processes, those without one (NaN) left out.

        Args:
            reduction: "median", or as in `monai.metrics.utils.do_metric_reduction`; that of the constructor if None.

        Returns:
            The reduced value; with `get_not_nans` also the number of lesions that have one.

        Raises:
            ValueError: if no lesion has been measured yet.
        """
        if (reduction or self.reduction) != "median":
            return super().aggregate(reduction)
        values = self.gathered()
        values = values[~values.isnan()]
        # of an even number, halfway between the two in the middle
        median = values.quantile(0.5) if len(values) else values.new_tensor(torch.nan)
        return (median, torch.tensor(float(len(values)))) if self.get_not_nans else median


class LostLesionsMetric(ContrastRecoveryMetric):
    """Share of lesions whose contrast fused images lose, 0 to 1, low is good: `lost`.

    Calls, arguments and errors as for `ContrastRecoveryMetric`; each lesion counts 1 (lost) or 0.

    Args:
        source: whose lesions are followed, as for `ContrastRecoveryMetric`.
        opposite: whether the lesions' signs are opposite in two sources: kept if they show either way.
        threshold: the recovery below which a lesion is lost.
        half: the window reaches so many pixels from a lesion's middle; or so many along each axis.
        data_range: the value that stands for white.
        reduction: as in `monai.metrics.utils.do_metric_reduction`; the mean is the share.
        get_not_nans: let `aggregate` also return the number of lesions that have a value.
    """

    def __init__(
        self,
        source: Source = "overlay",
        opposite: bool = False,
        threshold: float = 0.25,
        half: int | Sequence[int] = 20,
        data_range: float = 1.0,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(source, half, data_range, reduction, get_not_nans)
        self.opposite = opposite
        self.threshold = threshold

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        return lost(super()._compute_tensor(y_pred, y), self.opposite, self.threshold)


class ObserverAreaMetric(_LesionMetric):
    """How well a model observer finds lesions: the area under its ROC curve, `observer_area`, over all patches so far.

    Calls as for `ContrastRecoveryMetric`, but of volumes; the subjects' numbers in the map decide who is trained on
    whom. Only channel responses are kept of the patches, a row for each lesion: subject, responses with and without.

    Args:
        sees: "fused", the fused images, in colour as CIELAB / 100; or "sources", all sources side by side: what the
            fused images are held against.
        colour: whether `y_pred` is coloured.
        half: patches reach so many pixels from a lesion's middle.
        level: standard deviation of the internal noise, as a share of white.
        seed: of the internal noise; lesions have their noise in the order in which they come.
        folds: subjects are dealt into so many.
        data_range: the value that stands for white.
        sources: how many there are.

    Raises:
        ValueError: for an unknown thing to see; on a call whose shapes are not as above; if `aggregate` finds too few
            subjects to train on others.
    """

    _ndims = (4,)

    def __init__(
        self,
        sees: Literal["fused", "sources"] = "fused",
        colour: bool = False,
        half: int = 24,
        level: float = 1 / 255,
        seed: int = 0,
        folds: int = 5,
        data_range: float = 1.0,
        sources: int = 2,
    ) -> None:
        if sees not in ("fused", "sources"):
            raise ValueError(f"an observer cannot see {sees!r}; fused and sources are accepted")
        self.seed = seed
        super().__init__()
        self.sees = sees
        self.colour = colour
        self.half = half
        self.level = level
        self.folds = folds
        self.data_range = data_range
        self.channels = dense_difference_of_gaussians(2 * half + 1)
        self.planes = sources if sees == "sources" else 3 if colour else 1
        self.width = 1 + 2 * self.planes * len(self.channels)

    def reset(self) -> None:
        """Forget all patches, and begin the noise anew."""
        super().reset()
        # of several processes each has noise of its own
        self.generator = torch.Generator().manual_seed(self.seed + idist.get_rank())

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None
    ) -> torch.Tensor:
        *fused, sources, sources_without, places = self._checked(y_pred, y)
        if self.sees == "fused" and fused[0].shape[1] != (3 if self.colour else 1):
            raise ValueError(f"{type(self).__name__} with colour={self.colour} cannot see {tuple(y_pred.shape)}")
        if self.sees == "sources" and sources.shape[1] != self.planes:
            raise ValueError(f"{type(self).__name__} with sources={self.planes} cannot see {sources.shape[1]} sources")
        seen = [self._planes(image) for image in (fused if self.sees == "fused" else (sources, sources_without))]
        # (N, with and without, planes, side, side)
        patches = torch.stack([patches_at(image, places, self.half) for image in seen], dim=1)
        noisy = [add_internal_noise(both, self.generator, self.level) for both in patches]
        rows = torch.stack(noisy).flatten(0, 1) if noisy else patches.flatten(0, 1)
        responses = channel_responses(rows, self.channels.to(rows.device)).view(len(places), self.width - 1)
        assert isinstance(y, torch.Tensor)
        subjects = y.as_subclass(torch.Tensor)[:, -1][tuple(places.T)]
        return torch.cat([subjects[:, None].to(responses.dtype), responses], dim=1)

    def _planes(self, images: torch.Tensor) -> torch.Tensor:
        images = images.double() / self.data_range
        if self.sees == "sources":
            return images
        return cielab(images) / 100 if self.colour else luminance(images)

    def aggregate(self) -> torch.Tensor:  # type: ignore[override]
        """Train on all but each fold of subjects, judge that fold, and give the area under the ROC curve.

        Raises:
            ValueError: if no lesion has been seen yet, or there are too few subjects to train on others.
        """
        rows = self.gathered()
        present, absent = rows[:, 1:].chunk(2, dim=1)
        folds = subject_folds(rows[:, 0].tolist(), self.folds).to(rows.device)
        return area_under_curve(*hotelling_scores(present, absent, folds))
