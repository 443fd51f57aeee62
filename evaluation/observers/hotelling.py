"""A model observer that looks for lesions: channels, internal noise, the best linear template, an ROC curve."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

__all__ = [
    "add_internal_noise",
    "area_under_curve",
    "channel_responses",
    "dense_difference_of_gaussians",
    "detectability",
    "hotelling_scores",
    "observer_area",
    "subject_folds",
]

_RIDGE = 1e-6


def observer_area(
    present: torch.Tensor,
    absent: torch.Tensor,
    subjects: Sequence[Any],
    subjects_absent: Sequence[Any] | None = None,
    generator: torch.Generator | None = None,
    level: float = 1 / 255,
    folds: int = 5,
    channels: torch.Tensor | None = None,
) -> torch.Tensor:
    """How well a channelised Hotelling observer tells patches with a lesion from others: the area under its ROC curve.

    The observer sees patches through channels, with internal noise, and is trained on other subjects than those it
    judges. Give it fused patches, in grey or as CIELAB / 100 (see `cielab`), or both sources as two planes: what a
    reader has who sees them side by side, and so the bar to reach.

    Args:
        present: patches with a lesion in the middle, (N, P, S, S), values in [0, 1]; P planes are seen together.
        absent: patches without, (M, P, S, S).
        subjects: whose each patch of `present` is, N values that can be sorted.
        subjects_absent: whose each patch of `absent` is; by default as of `present`.
        generator: adds internal noise to both, drawn from it (`add_internal_noise`); None adds nothing, for patches
            that have it already.
        level: standard deviation of the internal noise: one grey level.
        folds: subjects are dealt into so many (`subject_folds`); each is judged by a template made on the others.
        channels: (K, S, S); by default ten dense differences of Gaussians.

    Returns:
        A float64 scalar: 1 tells all, 0.5 is guessing.

    Raises:
        ValueError: if shapes do not belong together, or there are too few subjects to train on others.

    Source: K. J. Myers, H. H. Barrett, Addition of a channel mechanism to the ideal-observer model, JOSA A 4, 1987; C.
    K. Abbey, H. H. Barrett, Human- and model-observer performance in ramp-spectrum noise, JOSA A 18, 2001.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> absent = 0.5 + 0.1 * torch.randn(120, 1, 49, 49, generator=generator)
        >>> present = absent.flip(0)
        >>> present[..., 22:27, 22:27] += 0.05
        >>> observer_area(present, absent, [i // 4 for i in range(120)], generator=generator).item() > 0.8
        True
    """
    if present.ndim != 4 or absent.ndim != 4 or present.shape[1:] != absent.shape[1:]:
        raise ValueError(
            f"expected patches (N, P, S, S) and (M, P, S, S), got {tuple(present.shape)} and {tuple(absent.shape)}"
        )
    if generator is not None:
        present, absent = (add_internal_noise(patches, generator, level) for patches in (present, absent))
    if channels is None:
        channels = dense_difference_of_gaussians(present.shape[-1], device=present.device)
    whose = [subjects, subjects if subjects_absent is None else subjects_absent]
    if [len(names) for names in whose] != [len(present), len(absent)]:
        raise ValueError(f"{len(present)} and {len(absent)} patches have {[len(names) for names in whose]} subjects")
    dealt = subject_folds([*whose[0], *whose[1]], folds).to(present.device)
    scores = hotelling_scores(
        channel_responses(present, channels),
        channel_responses(absent, channels),
        *dealt.split([len(present), len(absent)]),
    )
    return area_under_curve(*scores)


def dense_difference_of_gaussians(
    side: int = 49,
    count: int = 10,
    finest: float = 0.015,
    ratio: float = 1.4,
    width: float = 1.67,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Channels of a model observer, ring-shaped pass bands that follow human sensitivity, each wider than the last.

    Args:
        side: of the patches, an odd number of pixels.
        count: how many channels.
        finest: of the narrowest band, the frequency (cycles per pixel) at which its inner Gaussian has sigma.
        ratio: of one band to the one before.
        width: of a band's outer Gaussian to its inner one.
        dtype: of the result.
        device: of the result.

    Returns:
        In space, (count, side, side), each with its middle in the middle.

    Raises:
        ValueError: for an even side.

    Source: Abbey and Barrett, JOSA A 18, 2001: dense channels.

    Examples:
        >>> dense_difference_of_gaussians(49).shape
        torch.Size([10, 49, 49])
    """
    if side % 2 == 0 or side < 1:
        raise ValueError(f"channels have a middle: an odd side is accepted, got {side}")
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    rho = torch.hypot(frequency[:, None], frequency[None])
    inner = finest * ratio ** torch.arange(count, dtype=torch.float64)[:, None, None]
    response = torch.exp(-0.5 * (rho / (width * inner)) ** 2) - torch.exp(-0.5 * (rho / inner) ** 2)
    return torch.fft.fftshift(torch.fft.ifft2(response).real, dim=(1, 2)).to(device=device, dtype=dtype)


def add_internal_noise(patches: torch.Tensor, generator: torch.Generator, level: float = 1 / 255) -> torch.Tensor:
    """Patches with an observer's own noise: white and Gaussian, by default of one grey level of 256.

    Args:
        patches: any shape, values in [0, 1].
        generator: where the noise is drawn, on its device; a CPU generator gives the same for any device of `patches`.
        level: standard deviation.

    Examples:
        >>> add_internal_noise(torch.zeros(2), torch.Generator().manual_seed(0), level=1.0)
        tensor([ 1.5410, -0.2934])
    """
    noise = torch.randn(patches.shape, generator=generator, device=generator.device, dtype=patches.dtype)
    return patches + level * noise.to(patches.device)


def channel_responses(patches: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """What an observer sees of patches (N, P, S, S) through channels (K, S, S): (N, P K), plane by plane.

    Raises:
        ValueError: if the sides differ.

    Examples:
        >>> channel_responses(torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3))
        tensor([[9., 9.]])
    """
    if patches.ndim != 4 or patches.shape[-2:] != channels.shape[-2:]:
        raise ValueError(f"patches {tuple(patches.shape)} and channels {tuple(channels.shape)} differ in their sides")
    return torch.einsum("npij,kij->npk", patches.to(channels.dtype), channels.to(patches.device)).flatten(1)


def subject_folds(subjects: Sequence[Any], count: int = 5) -> torch.Tensor:
    """Deal subjects into folds, so that no subject is in two: sorted, one after the other.

    Returns:
        The fold of each entry, (N,), 0 to `count` - 1.

    Examples:
        >>> subject_folds(["b", "a", "b", "c"], count=2)
        tensor([1, 0, 1, 0])
    """
    fold: dict[Hashable, int] = {subject: i % count for i, subject in enumerate(sorted(set(subjects)))}
    return torch.tensor([fold[subject] for subject in subjects], dtype=torch.long)


def hotelling_scores(
    present: torch.Tensor, absent: torch.Tensor, folds: torch.Tensor, folds_absent: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the Hotelling template, each fold judged by the template that the other folds give.

    The template is S^-1 (mean with - mean without), S being the mean of both covariances with a millionth of its mean
    variance added.

    Args:
        present: channel responses with a lesion, (N, F).
        absent: those without, (M, F).
        folds: fold of each of `present`, (N,).
        folds_absent: fold of each of `absent`, (M,); by default those of `present`.

    Returns:
        Scores of both, (N,) and (M,); higher says "lesion".

    Raises:
        ValueError: if a fold leaves fewer than two of either kind to train on.

    Examples:
        >>> present, absent = torch.tensor([[1.0], [2.0], [3.0], [2.0]]), torch.tensor([[0.0], [1.0], [1.0], [0.0]])
        >>> hotelling_scores(present, absent, torch.tensor([0, 0, 1, 1]))
        (tensor([4.0000, 8.0000, 6.0000, 4.0000]), tensor([0.0000, 4.0000, 2.0000, 0.0000]))
    """
    folds_absent = folds if folds_absent is None else folds_absent
    scores = present.new_zeros(len(present)), absent.new_zeros(len(absent))
    for fold in torch.cat([folds, folds_absent]).unique():
        trained = present[folds != fold], absent[folds_absent != fold]
        if min(map(len, trained)) < 2:
            raise ValueError(
                f"{[len(known) for known in trained]} patches with and without a lesion are of other subjects than "
                "those of a fold; an observer needs two or more of each to be trained on"
            )
        spread = torch.stack([torch.cov(known.T).reshape(known.shape[1], -1) for known in trained]).mean(0)
        spread = spread + _RIDGE * spread.diagonal().mean() * torch.eye(
            len(spread), dtype=spread.dtype, device=spread.device
        )
        template = torch.linalg.solve(spread, trained[0].mean(0) - trained[1].mean(0))
        for score, responses, of in zip(scores, (present, absent), (folds, folds_absent), strict=True):
            score[of == fold] = responses[of == fold] @ template
    return scores


def area_under_curve(present: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve of scores (N,) and (M,): how often "present" scores higher, ties counting half.

    NaN where a score is not finite.

    Raises:
        ValueError: if either is empty.

    Examples:
        >>> area_under_curve(torch.tensor([0.2, 0.7, 0.9]), torch.tensor([0.1, 0.7]))
        tensor(0.7500, dtype=torch.float64)
    """
    if not (len(present) and len(absent)):
        raise ValueError(f"an ROC curve needs scores of both kinds, got {len(present)} and {len(absent)}")
    ranked = absent.sort().values
    below, up_to = (torch.searchsorted(ranked, present.contiguous(), right=right).double() for right in (False, True))
    area = (below + up_to).mean() / 2 / len(absent)
    return torch.where(present.isfinite().all() & absent.isfinite().all(), area, torch.nan)


def detectability(present: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
    """Detectability d' of scores (N,) and (M,): difference of their means by the root of their mean variance.

    For Gaussian scores the area under the ROC curve is Phi(d' / sqrt 2).

    Examples:
        >>> detectability(torch.tensor([2.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 2.0]))
        tensor(2.)
    """
    return (present.mean() - absent.mean()) / ((present.var() + absent.var()) / 2).sqrt()
