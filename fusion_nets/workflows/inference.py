"""Inference over a datalist: slice by slice, and past pairs that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from traceback import clear_frames
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type
from torch.utils.data import IterableDataset, get_worker_info

from fusion_nets.allocator import keep_pages
from fusion_nets.cautions import noting
from fusion_nets.clinical import ImageError, Reason
from fusion_nets.names import shown
from fusion_nets.shortage import full_disk, missing_memory
from fusion_nets.slabs import is_large, release, zeros
from fusion_nets.stages import stage, stage_bar

from .cases import CaseRecords
from .engines import EngineNetwork
from .kept import KeptVolume
from .processes import gathered, is_first_process, own_share
from .shown import Box, shown_box, shows

__all__ = ["PairStream", "SlicewiseInferer"]

_PIXELS = {"cpu": 2**16, "cuda": 2**21}
"""Of the slices that go through a network together: about what a processor's cache holds, and 8 GB of a GPU."""

_MOST_AT_ONCE = 32


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
                with noting():  # for its record
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
        _let_go(reason)
        for name in names:
            self.failures.append(reason)
            logging.getLogger(__name__).error("%s: not fused: %s", shown(name), reason)

    def finish(self) -> None:
        """End the program with a non-zero exit code if pairs could not be used; of several, the first process."""
        if self.failed:
            raise SystemExit(f"{self.failed} of {len(self.data)} pairs could not be fused; reasons are given above")


def _let_go(error: BaseException | None) -> None:
    """Leave a traceback's lines, and not the images that its functions held: thousands may be kept."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


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

    An :class:`EngineNetwork` of a ``reach`` sees only what shows something: slices that are black in
    all channels stay black, and of the others it is told the box to look at, the same for all of a volume.

    Where "coverage" is given, (B, 1, H, W[, D]) in [0, 1], the result is so much of what the network makes, and the
    rest is the first channel, the anatomy (:class:`fusion_nets.transforms.FadeAtBorderd`).

    Args:
        sw_batch_size: slices that go through the network together; "auto" is as many as fit a processor's cache, or a
            GPU's memory.
        amp: compute in bfloat16 where that is safe; MONAI's engines know autocast on CUDA only. bfloat16 has the range
            of float32, so that no gradient needs scaling. On CUDA only steps of training: images that are inferred
            there (without gradients) would differ by up to 6 of 255 grey levels and come no sooner, so that they stay
            in float32, and a warning says so where it was asked for.
        slice_arguments: names of the network's arguments that, for a volume, come as (B, D, ...), one for each slice.
        progress: show a progress bar over the slices of a volume.
    """

    def __init__(
        self,
        sw_batch_size: int | str = 1,
        amp: bool = False,
        slice_arguments: Sequence[str] = (),
        progress: bool = False,
    ) -> None:
        if sw_batch_size != "auto" and (not isinstance(sw_batch_size, int) or sw_batch_size < 1):
            raise ValueError(f"sw_batch_size must be at least 1, or 'auto', got {sw_batch_size!r}")
        self.sw_batch_size = sw_batch_size
        self.amp = amp
        self.slice_arguments = tuple(slice_arguments)
        self.progress = progress
        self._told = False
        self.kept: KeptVolume | None = None  # of the volume that comes next, see KeptSlices

    def _in_bfloat16(self, device: torch.device) -> bool:
        if not self.amp or torch.is_grad_enabled():
            self._told = True  # to one that trains, it is a default
            return self.amp
        if device.type != "cuda":
            return True
        if not self._told:
            self._told = True
            logging.getLogger(__name__).warning(
                "amp: not used on CUDA, where bfloat16 changes up to 4 of 255 grey levels and saves little time; "
                "images are computed in float32"
            )
        return False

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer (B, C, H, W[, D]); the result has the type of the inputs.

        Raises:
            ValueError: if an argument of ``slice_arguments`` does not come as (B, D, ...) with a volume.
        """
        plain = inputs.as_subclass(torch.Tensor)
        reach = network.reach if isinstance(network, EngineNetwork) else None
        if isinstance(network, EngineNetwork) and reach is not None:
            # of several images each would need a box of its own, or depend on the others
            kwargs["box"] = shown_box(plain, reach, network.stride) if len(plain) == 1 else None
        stage("fusing")

        coverage = kwargs.pop("coverage", None)

        def predict(images: torch.Tensor, arguments: Mapping[str, Any], share: torch.Tensor | None) -> torch.Tensor:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._in_bfloat16(images.device)):
                fused = network(images, *args, **arguments).to(images.dtype)
            return fused if share is None else torch.lerp(images[:, :1], fused, share)

        if inputs.ndim == 4:
            if reach is None:
                return predict(inputs, kwargs, coverage)
            fused = predict(plain, kwargs, coverage) if shows(plain).any() else torch.zeros_like(plain[:, :1])
            return _as(inputs, fused)
        depth = inputs.shape[-1]
        # one row a slice, those of one volume after another; a MetaTensor cannot always be indexed by slices, because
        # it looks for a row of metadata for each
        slices = plain.movedim(-1, 1).flatten(0, 1)
        shares = None if coverage is None else coverage.movedim(-1, 1).flatten(0, 1)
        rows = {name: kwargs.pop(name) for name in self.slice_arguments if kwargs.get(name) is not None}
        for name, row in rows.items():
            if row.shape[:2] != (len(inputs), depth):
                raise ValueError(f"expected {name} of ({len(inputs)}, {depth}, ...), got {list(row.shape)}")
            rows[name] = row.flatten(0, 1)
        is_shown = torch.ones(len(slices), dtype=torch.bool) if reach is None else _shown(slices)
        together = self._together(slices, kwargs.get("box"))
        kept = self.kept if len(inputs) == 1 else None
        volume = None if kept is None else kept.volume
        shown = torch.nonzero(is_shown)[:, 0]
        bar = stage_bar(total=len(slices), desc="fusing", unit="slice", disable=not self.progress)
        with bar, keep_pages():
            bar.update(len(slices) - len(shown))
            for some in shown.split(together):
                if kept is not None and kept.done.issuperset(some.tolist()):
                    bar.update(len(some))
                    continue
                given = {**kwargs, **{name: row[some.to(row.device)] for name, row in rows.items()}}
                share = None if shares is None else shares[some.to(shares.device)]
                fused = predict(slices[some.to(slices.device)], given, share)
                if volume is None:
                    volume = _room_for(fused, len(slices), is_one=len(inputs) == 1)
                volume[some.to(volume.device)] = fused.to(volume.device)
                if kept is not None:
                    kept.note(some.tolist())
                release()
                bar.update(len(some))
        if volume is None:
            volume = torch.zeros_like(slices[:, :1])
        return _as(inputs, volume.unflatten(0, (-1, depth)).movedim(1, -1))

    def _together(self, slices: torch.Tensor, box: Box | None) -> int:
        """How many slices at once: a rule that looks at nothing but sizes, so that a result can be repeated."""
        if self.sw_batch_size != "auto":
            return int(self.sw_batch_size)
        height, width = slices.shape[2:]
        if box is not None:
            height, width = (side.stop - side.start for side in box)
        most = _PIXELS["cuda" if slices.device.type == "cuda" else "cpu"]
        return max(1, min(_MOST_AT_ONCE, most // (height * width)))


def _as(inputs: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
    return convert_to_dst_type(fused, inputs)[0] if isinstance(inputs, MetaTensor) else fused


def _shown(slices: torch.Tensor) -> torch.Tensor:
    """Which of the slices (N, C, H, W) show something, looked at one after another."""
    found = torch.tensor([bool(shows(one[None])) for one in slices])
    release()
    return found


def _room_for(fused: torch.Tensor, slices: int, is_one: bool) -> torch.Tensor:
    """Where all slices (N, C, H, W) go, of a large volume in a file; the first ones tell the size of each."""
    shape = (*fused.shape[1:], slices)
    if is_one and fused.device.type == "cpu" and not fused.requires_grad and is_large(shape):
        return torch.from_numpy(zeros(shape)).movedim(-1, 0)
    return fused.new_zeros([slices, *fused.shape[1:]])
