"""Inference over a datalist: slice by slice, and past pairs that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.shortage import full_disk, missing_memory
from fusion_nets.slabs import is_large, release, zeros

from .cases import CaseRecords
from .processes import gathered, is_first_process, own_share

__all__ = ["PairStream", "SlicewiseInferer"]


class PairStream(IterableDataset):
    """The pairs of a datalist that can be used; the others are told of and passed over, as are those that are done.

    Of several processes (``torch.distributed``), each has its share of the pairs, and ends it when all have.

    Args:
        data: the datalist, of all processes.
        transform: loads and prepares a pair; its :class:`fusion_nets.clinical.ImageError`, and want of memory, are for
            the user; any other error ends the run.
        records: of the cases that are done; without them, all are to be done.

    It counts what it passes over, so that a loader must read it in the process of the program (``num_workers=0``).
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Any],
        records: CaseRecords | None = None,
    ) -> None:
        self.data = data
        self.transform = transform
        self.records = records
        self.failures: list[ImageError] = []
        self.failed = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield prepared pairs."""
        if get_worker_info() is not None:
            raise RuntimeError("a PairStream cannot count failures in worker processes; use num_workers=0")
        self.failures.clear()
        share, done = own_share(self.data), 0
        for pair in share:
            try:
                if self.records is not None and self.records.is_done(pair["name"]):
                    done += 1
                    continue
                prepared = self.transform(pair)
            except Exception as error:
                self._pass_over([pair["name"]], error)
                continue
            yield prepared
            del prepared  # before the next one is read
        if done:
            logging.getLogger(__name__).info("%d of %d pairs were done before", done, len(share))
        failed = sum(gathered(len(self.failures)))
        self.failed = failed if is_first_process() else 0

    def fuse(self, engine: Any, batch: Mapping[str, Any]) -> Any:
        """MONAI's iteration of an evaluator, past cases that cannot be fused or written: its ``iteration_update``.

        What cannot be for want of memory, or in one of its forms, is told of; where a disk is full, the run ends.
        """
        try:
            return engine._iteration(engine, batch)
        except Exception as error:
            self._pass_over(batch["name"], error)
        engine.state.batch = []
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return []

    def _pass_over(self, names: Sequence[str], error: Exception) -> None:
        reason = image_error(error)
        if reason is None:
            raise error
        if full_disk(error):
            raise SystemExit(f"{', '.join(names)}: not fused: {reason}") from reason
        for name in names:
            self.failures.append(reason)
            logging.getLogger(__name__).error("%s: not fused: %s", name, reason)

    def finish(self) -> None:
        """End the program with a non-zero exit code if pairs could not be used; of several, the first process."""
        if self.failed:
            raise SystemExit(f"{self.failed} of {len(self.data)} pairs could not be fused; reasons are given above")


def image_error(error: BaseException | None) -> ImageError | None:
    """The image error inside what ``Compose`` wraps around it, or one that says that memory, or a disk, is full."""
    found = error
    while found is not None and not isinstance(found, ImageError):
        found = found.__cause__
    if found is not None and found.reason is Reason.OUTPUT:  # which says what became of the other forms
        return found
    if lack := missing_memory(error):
        return ImageError(Reason.MEMORY, lack)  # without its cause, whose traceback holds what filled the memory
    if full := full_disk(error):
        found = ImageError(Reason.OUTPUT, str(full))
        found.__cause__ = full
    return found


class SlicewiseInferer(Inferer):
    """Fuse an image as it is and a volume slice by slice along its last axis.

    MONAI's ``SliceInferer`` takes volumes only, drops arguments on their way to the network (MONAI 1.6), and cannot
    give each slice its own.

    Args:
        sw_batch_size: slices that go through the network together.
        amp: compute in bfloat16 where that is safe, on a GPU or a processor; MONAI's engines know autocast on CUDA
            only. bfloat16 has the range of float32, so that no gradient needs scaling.
        slice_arguments: names of the network's arguments that, for a volume, come as (B, D, ...), one for each slice.
        progress: show a progress bar over the slices of a volume.
    """

    def __init__(
        self,
        sw_batch_size: int = 1,
        amp: bool = False,
        slice_arguments: Sequence[str] = (),
        progress: bool = False,
    ) -> None:
        if sw_batch_size < 1:
            raise ValueError(f"sw_batch_size must be at least 1, got {sw_batch_size}")
        self.sw_batch_size = sw_batch_size
        self.amp = amp
        self.slice_arguments = tuple(slice_arguments)
        self.progress = progress

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer (B, C, H, W[, D]); the result has the type of the inputs.

        Raises:
            ValueError: if an argument of ``slice_arguments`` does not come as (B, D, ...) with a volume.
        """

        def predict(images: torch.Tensor, arguments: Mapping[str, Any]) -> torch.Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
                return network(images, *args, **arguments).to(images.dtype)

        if inputs.ndim == 4:
            return predict(inputs, kwargs)
        depth = inputs.shape[-1]
        # one row a slice, those of one volume after another; a MetaTensor cannot always be indexed by slices, because
        # it looks for a row of metadata for each
        slices = inputs.as_subclass(torch.Tensor).movedim(-1, 1).flatten(0, 1)
        rows = {name: kwargs.pop(name) for name in self.slice_arguments if kwargs.get(name) is not None}
        for name, row in rows.items():
            if row.shape[:2] != (len(inputs), depth):
                raise ValueError(f"expected {name} of ({len(inputs)}, {depth}, ...), got {list(row.shape)}")
            rows[name] = row.flatten(0, 1)
        made: torch.Tensor | None = None
        with tqdm(total=len(slices), desc="fusing", unit="slice", disable=not self.progress) as bar:
            for start in range(0, len(slices), self.sw_batch_size):
                some = slice(start, start + self.sw_batch_size)
                fused = predict(slices[some], {**kwargs, **{name: row[some] for name, row in rows.items()}})
                made = _room_for(fused, len(inputs), depth) if made is None else made
                made.movedim(-1, 1).flatten(0, 1)[some] = fused
                release()
                bar.update(len(fused))
        assert made is not None  # a volume has slices
        return convert_to_dst_type(made, inputs)[0] if isinstance(inputs, MetaTensor) else made


def _room_for(fused: torch.Tensor, volumes: int, depth: int) -> torch.Tensor:
    """Where all slices go, (B, C, H, W, D), one after another; the first ones tell the size of each."""
    shape = (volumes, *fused.shape[1:], depth)
    if volumes == 1 and fused.device.type == "cpu" and not fused.requires_grad and is_large(shape):
        return torch.from_numpy(zeros(shape))
    return fused.new_empty((volumes, depth, *fused.shape[1:])).movedim(1, -1)
