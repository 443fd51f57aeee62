"""What the metrics share: checks, the 8-bit grey scale, work done once and in chunks, separable windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import reduce
from typing import TypeVar

import torch
import torch.nn.functional as F

from fusion_nets.quiet import Shared

LEVELS = 256

# Pixels measured at a time: on a CPU as many as its caches hold the maps of, on other devices as many as leave the maps
# of every metric within some hundred MiB.
_CHUNK_CPU = 2**16
_CHUNK = 2**20

# Of the range, below black and from it: what fusion and interpolation overshoot stays within, other ranges do not.
_BELOW, _ABOVE = -0.25, 2.0

Overlays = torch.Tensor | Sequence[torch.Tensor]
"""One overlay, (B, 1, H, W), or several."""

T = TypeVar("T")


class Images:
    """Fused images (B, 1, H, W) and their sources (B, S, H, W) in grey levels 0..255, and what is known of them."""

    def __init__(self, grey: torch.Tensor) -> None:
        self.grey = grey
        self.fused = grey[:, :1]
        self.sources = grey[:, 1:]
        # below this, a difference of grey levels is rounding noise of the number type
        self.noise = LEVELS * 8 * torch.finfo(grey.dtype).eps
        self._known: dict[Callable, object] = {}

    def once(self, work: Callable[[Images], T]) -> T:
        """What `work` makes of these images, made the first time that a metric asks for it."""
        if work not in self._known:
            self._known[work] = work(self)
        return self._known[work]  # type: ignore[return-value]


Measure = Callable[[Images], torch.Tensor]


def of_finite(values: torch.Tensor, *images: torch.Tensor) -> torch.Tensor:
    """Values of images, NaN where one of the images holds NaN or infinity: such an image has no value."""
    ends = [end for image in images for end in image.as_subclass(torch.Tensor).flatten(1).aminmax(dim=1)]
    return values.masked_fill(~torch.stack(ends).isfinite().all(0), torch.nan)


def measure(
    metric: Measure,
    fused: torch.Tensor,
    *sources: Overlays,
    data_range: float,
    smallest: int | Sequence[int] = 1,
    dims: int = 2,
) -> torch.Tensor:
    """One metric of images (B, 1, H, W): check them, bring them to grey levels, measure chunk by chunk -> (B,).

    With `dims` 3, of volumes (B, 1, H, W, D).

    NaN where an image holds NaN or infinity, which changes no other value of the batch. float64 stays float64, every
    other type is computed in float32.

    Raises:
        TypeError: if an image is no tensor.
        ValueError: if shapes differ or are not as above, if a side is shorter than `smallest`, if `data_range` is not a
            positive number, or if it is not that of the images.
    """
    images = fused, *each(*sources)
    check(*images, smallest=smallest, dims=dims)
    check_range(*images, data_range=data_range)
    return of_finite(measure_each([metric], *images, data_range=data_range)[0], *images)


def each(*sources: Overlays) -> list[torch.Tensor]:
    """One source after the other, several overlays one by one.

    Raises:
        ValueError: if the overlays are none.
    """
    if any(isinstance(source, Sequence) and not source for source in sources):
        raise ValueError("there is no overlay; one or several are accepted")
    return [one for source in sources for one in (source if isinstance(source, Sequence) else [source])]


def of_two(images: Images, name: str) -> None:
    """Raise where a metric that holds two sources against each other is asked about more."""
    if (count := images.sources.shape[1]) != 2:
        raise ValueError(f"{name} is defined for two sources, of which each is held against the other; got {count}")


def check(*images: torch.Tensor, smallest: int | Sequence[int] = 1, name: str = "this metric", dims: int = 2) -> None:
    """Raise where images do not belong together or are too small for a metric; errors as for `measure`."""
    for image in images:
        if not isinstance(image, torch.Tensor):
            raise TypeError(f"expected torch tensors, got {type(image).__name__}")
    shape = tuple(images[0].shape)
    if any(tuple(image.shape) != shape for image in images):
        raise ValueError(f"fused and source images differ in shape: {[tuple(image.shape) for image in images]}")
    if len(shape) != 2 + dims or shape[1] != 1:
        raise ValueError(f"expected images of shape (B, 1, H, W{', D' if dims == 3 else ''}), got {shape}")
    sides = [smallest] * dims if isinstance(smallest, int) else smallest
    if any(size < side for size, side in zip(shape[2:], sides, strict=True)):
        needed, given = (" x ".join(map(str, of)) for of in (sides, shape[2:]))
        what = "images of at least {} pixels" if dims == 2 else "volumes of at least {} voxels"
        raise ValueError(f"{name} needs {what.format(needed)}, got {given}")


def check_range(*images: torch.Tensor, data_range: float) -> None:
    """Raise where images have another range than they are said to have, by which every value would be wrong.

    Refused are whole numbers that would be all black or all white, and what lies further below black than a quarter of
    the range, or as far above white as the range is wide; what lies less beyond is taken as overshoot. Values that are
    not finite do not count, and what has no values, as when torch traces, is not looked at.

    Raises:
        ValueError: if `data_range` is not a positive number, or not that of the images.
    """
    _scale(data_range)
    for image in images:
        if not image.numel():
            continue
        if not image.is_floating_point() and image.dtype != torch.bool and data_range <= 1:
            raise ValueError(
                f"images are {image.dtype}, and data_range, white, is {data_range:g}; whole numbers need another, "
                "such as data_range=255"
            )
        try:
            plain = _plain(image.detach())
            # what was infinite may have become the largest number there is
            finite = torch.where(plain.abs() < torch.finfo(plain.dtype).max, plain, 0)
            low, high = (end.item() for end in finite.aminmax())
        except RuntimeError:  # of tensors without values
            return
        if low < _BELOW * data_range or high > _ABOVE * data_range:
            raise ValueError(
                f"images have values from {low:g} to {high:g}, and data_range, white, is {data_range:g}; values from "
                "0 to data_range are accepted, such as data_range=255 for 8 bit"
            )


def measure_each(metrics: Sequence[Measure], *images: torch.Tensor, data_range: float) -> list[torch.Tensor]:
    """Several metrics of checked images, fused first, sharing their work -> one (B,) for each."""
    scale = _scale(data_range)
    double = any(image.dtype == torch.float64 for image in images)
    on_cpu = images[0].device.type == "cpu"
    at_once = max(1, (_CHUNK_CPU if on_cpu else _CHUNK) // math.prod(images[0].shape[2:]))
    chunks = list(zip(*(image.split(at_once) for image in images), strict=True))

    def scores(chunk: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        # autocast would take windows and histograms to half precision
        with torch.autocast(images[0].device.type, enabled=False):
            known = Images(torch.cat([_plain(part, double) for part in chunk], dim=1) * scale)
            return [metric(known) for metric in metrics]

    differentiable = torch.is_grad_enabled() and any(image.requires_grad for image in images)
    many = on_cpu and not differentiable and len(chunks) > 1 and torch.get_num_threads() > 1
    measured = _in_threads(scores, chunks) if many else [scores(chunk) for chunk in chunks]
    return [torch.cat(values) for values in zip(*measured, strict=True)]


def _in_threads(
    scores: Callable[[Sequence[torch.Tensor]], list[torch.Tensor]], chunks: Sequence[Sequence[torch.Tensor]]
) -> list[list[torch.Tensor]]:
    """Chunks side by side, one thread each: faster than one after the other, where threads meet after every operation.

    Much faster where other programs want the processor too, as threads then wait for each other there.
    """
    quiet = torch.no_grad()(scores)
    contexts = [copy_context() for _ in chunks]
    with _SINGLE, ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(lambda chunk, context: context.run(quiet, chunk), chunks, contexts))


@contextmanager
def _threads_put_back() -> Iterator[None]:
    """What a thread sets is also what those that start later begin with, until the first number is set again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_SINGLE = Shared(_threads_put_back)


def quantise(images: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Bring images to the 8-bit grid that published numbers are measured on: whole grey levels 0..255.

    Values in [0, data_range], any shape, are scaled, rounded to the nearest level (ties to even) and clipped. Integer
    types and half precision become float32; NaN and infinity, which no image shows, become NaN.

    Raises:
        ValueError: if `data_range` is not a positive number, or if values lie so far beyond it (below minus a quarter,
            above twice) that it is not theirs.

    Examples:
        >>> quantise(torch.tensor([0.0, 0.2, 0.999, 1.2, torch.nan]))
        tensor([  0.,  51., 255., 255.,  nan])
    """
    check_range(images, data_range=data_range)
    levels = (_plain(images) * _scale(data_range)).round()
    # what is not finite times 0 is NaN
    return levels.clamp(0, LEVELS - 1) + levels * 0


def _plain(image: torch.Tensor, double: bool = False) -> torch.Tensor:
    # a MetaTensor would carry its header through every operation
    image = image.as_subclass(torch.Tensor)
    return image.to(torch.float64 if double or image.dtype == torch.float64 else torch.float32)


def _scale(data_range: float) -> float:
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number, got {data_range}")
    return (LEVELS - 1) / data_range


def total(maps: torch.Tensor) -> torch.Tensor:
    """Sum over the pixels of (..., H, W).

    Row by row: a single sum over a whole image is split among threads or not depending on how many images there are,
    and then differs in its last bits.
    """
    return maps.sum(-1).sum(-1)


def average(maps: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels of (..., H, W); 0 where there is none."""
    return total(maps) / max(1, maps.shape[-1] * maps.shape[-2])


def root(square: torch.Tensor, noise: float) -> torch.Tensor:
    """Square root, 0 and without a gradient (it would be infinite) where the root is rounding noise."""
    # no masks, here and in what is measured everywhere: on a CPU they take ten times as long as arithmetic
    return F.threshold(square.clamp_min((noise / 2) ** 2).sqrt(), noise, 0.0)


def separable(
    maps: torch.Tensor, column: Sequence[float], row: Sequence[float] | None = None, stride: int = 1
) -> torch.Tensor:
    """Correlate every channel of (B, C, H, W) with the window `column` x `row`, valid part only.

    `column` runs along H, `row` along W (the same window where it is not given).
    """
    return _correlate(_correlate(maps, column, 2, stride), column if row is None else row, 3, stride)


def separable_3d(
    maps: torch.Tensor, column: Sequence[float], row: Sequence[float], through: Sequence[float]
) -> torch.Tensor:
    """The same of every channel of volumes (B, C, H, W, D), with the window `through` along D."""
    maps = _correlate(maps.flatten(2, 3), through, 3, 1).unflatten(2, maps.shape[2:4])
    batch, _, _, _, depth = maps.shape
    planes = separable(maps.permute(0, 4, 1, 2, 3).flatten(0, 1), column, row)
    return planes.unflatten(0, (batch, depth)).permute(0, 2, 3, 4, 1)


def _correlate(maps: torch.Tensor, window: Sequence[float], dim: int, stride: int) -> torch.Tensor:
    if len(window) <= 3 or maps.dtype == torch.float64:
        # as fast, and torch would choose how it convolves these by the size of the batch
        parts = zip(maps.unfold(dim, len(window), stride).unbind(-1), window, strict=True)
        (first, scale), *others = (tap for tap in parts if tap[1])
        return reduce(lambda summed, tap: torch.add(summed, tap[0], alpha=tap[1]), others, first * scale)
    channels = maps.shape[1]
    shape, strides = ((1, 1, -1, 1), (stride, 1)) if dim == 2 else ((1, 1, 1, -1), (1, stride))
    weight = torch.tensor(window, dtype=maps.dtype, device=maps.device).view(shape).expand(channels, 1, -1, -1)
    # One group per channel: fast on CPU, and on CUDA the kernel that never drops to TF32, which the small differences
    # of large squares in a variance would not survive.
    return F.conv2d(maps.contiguous(), weight, stride=strides, groups=channels)


def moments(
    fused: torch.Tensor, sources: torch.Tensor, windowed: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windowed means, (population) variances and covariances of (B, 1, ...) and (B, S, ...).

    Returns the mean and variance of `fused` (B, 1, ...), those of `sources` (B, S, ...), and their covariance
    (B, S, ...): mean_f, mean_s, var_f, var_s, cov. Rounding may leave a variance slightly negative.
    """
    count = sources.shape[1]
    maps = torch.cat([fused, sources, fused * fused, sources * sources, fused * sources], dim=1)
    mean_f, mean_s, square_f, square_s, product = windowed(maps).split([1, count, 1, count, count], dim=1)
    return mean_f, mean_s, square_f - mean_f * mean_f, square_s - mean_s * mean_s, product - mean_f * mean_s


def gaussian(side: int, sigma: float) -> list[float]:
    """A normalised one-dimensional Gaussian window of odd length."""
    weights = [math.exp(-0.5 * ((i - side // 2) / sigma) ** 2) for i in range(side)]
    return [weight / sum(weights) for weight in weights]
