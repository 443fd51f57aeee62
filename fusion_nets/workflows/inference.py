"""Inference over a datalist: slice by slice, and past pairs that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import SliceInferer
from torch.utils.data import IterableDataset, get_worker_info

from fusion_nets.clinical import ImageError

__all__ = ["PairStream", "SlicewiseInferer"]


class PairStream(IterableDataset):
    """The pairs of a datalist that can be used; the others are reported and passed over.

    Args:
        data: the datalist.
        transform: loads and prepares a pair; its :class:`fusion_nets.clinical.ImageError` is for the user, any other
            error ends the run.

    It counts what it passes over, so that a loader must read it in the process of the program (``num_workers=0``).
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[[Mapping[str, Any]], Any]) -> None:
        self.data = data
        self.transform = transform
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        """Yield prepared pairs."""
        if get_worker_info() is not None:
            raise RuntimeError("a PairStream cannot count failures in worker processes; use num_workers=0")
        self.failures.clear()
        for pair in self.data:
            try:
                prepared = self.transform(pair)
            except (ImageError, RuntimeError) as error:
                reason = _image_error(error)
                if reason is None:
                    raise
                self.failures.append(str(reason))
                logging.getLogger(__name__).error("%s: not fused: %s", pair["name"], reason)
                continue
            yield prepared

    def finish(self) -> None:
        """End the program with a non-zero exit code if pairs were passed over."""
        if self.failures:
            raise SystemExit(
                f"{len(self.failures)} of {len(self.data)} pairs could not be fused; reasons are given above"
            )


def _image_error(error: BaseException | None) -> ImageError | None:
    """The image error inside what ``Compose`` wraps around it."""
    while error is not None and not isinstance(error, ImageError):
        error = error.__cause__
    return error


class SlicewiseInferer(SliceInferer):
    """Fuse an image as it is and a volume slice by slice along its last axis; ``SliceInferer`` takes volumes only.

    Args:
        sw_batch_size: slices that go through the network together.
        amp: compute in bfloat16 where that is safe, on a GPU or a processor; MONAI's engines know autocast on CUDA
            only. bfloat16 has the range of float32, so that no gradient needs scaling.
    """

    def __init__(self, sw_batch_size: int = 1, amp: bool = False) -> None:
        super().__init__(spatial_dim=2, roi_size=(-1, -1), sw_batch_size=sw_batch_size)
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer (B, C, H, W[, D]); the result has the type of the inputs."""

        # the arguments are bound here because MONAI 1.6 drops them on their way
        def predict(images: torch.Tensor) -> torch.Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
                return network(images, *args, **kwargs).to(images.dtype)

        return predict(inputs) if inputs.ndim == 4 else super().__call__(inputs, predict)
