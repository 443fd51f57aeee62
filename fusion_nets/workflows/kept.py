"""Keep the slices of a long volume as they are made, so that they can be looked at, and a killed run goes on there."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import ensure_tuple

from fusion_nets.clinical import write_slice
from fusion_nets.files import whole_file
from fusion_nets.overlays import overlays_in
from fusion_nets.slabs import in_file, is_large, release
from fusion_nets.transforms import MergeChroma, mixed_chroma

from .cases import CaseRecords

__all__ = ["KeptSlices", "KeptVolume"]

_HEADER = 352
"""Bytes of a NIfTI file before its values."""


class KeptVolume:
    """The fused slices of one volume, ``{folder}/fused.nii``, which viewers open while it grows.

    Attributes:
        volume: (D, 1, H, W), in the file; what is not done is 0.
        done: numbers of the slices that are there, as ``{folder}/done`` lists them.

    Args:
        folder: of this volume; what it holds of another, or of other settings, goes.
        made_by: tells what the slices depend on.
        image: (1, C, H, W, D), what is fused.
        affine: of the volume.
        chroma: of a slice, (3, H, W) or None, for pictures in colour.
        pictures: write each slice as a PNG, too, ``{folder}/slices/0001.png`` and so on.
    """

    def __init__(
        self,
        folder: Path,
        made_by: str,
        image: torch.Tensor,
        affine: np.ndarray,
        chroma: Callable[[int], torch.Tensor | None] = lambda k: None,
        pictures: bool = False,
    ) -> None:
        shape = tuple(image.shape[2:])
        about = {"made_by": made_by, "shape": list(shape)}
        self.folder, self.slices, self._done = folder, folder / "slices", folder / "done"
        self.chroma, self.affine, self.pictures = chroma, affine, pictures
        noted: list[str] = []
        if _read(folder / "about.json") == about:
            noted = self._done.read_text(encoding="ascii").splitlines() if self._done.is_file() else []
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            header = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), affine).header
            header.set_data_shape(shape)
            header["vox_offset"], header["cal_max"], header["magic"] = _HEADER, 1, b"n+1"
            with open(folder / "fused.nii", "wb") as file:
                file.write(header.binaryblock + bytes(4))
                file.truncate(_HEADER + int(np.prod(shape)) * 4)
            with whole_file(folder / "about.json") as partial:
                partial.write_text(json.dumps(about), encoding="utf-8")
        values = in_file(folder / "fused.nii", shape, _HEADER)
        self.volume = torch.from_numpy(values.transpose(2, 0, 1)[:, None])
        there = {f"{k} {self._checksum(k)}": k for k in range(shape[2])} if noted else {}
        release()
        self.done = {there[line] for line in noted if line in there}

    def note(self, numbers: Sequence[int]) -> None:
        """These slices of the volume are there."""
        for k in numbers if self.pictures else ():
            coloured = MergeChroma()(self.volume[k], self.chroma(k))
            write_slice(self.slices / f"{k + 1:04d}.png", coloured, self.affine)
        with open(self._done, "a", encoding="ascii") as file:
            file.writelines(f"{k} {self._checksum(k)}\n" for k in numbers)
        self.done.update(numbers)

    def _checksum(self, k: int) -> str:
        """By which a slice is known that a machine without power did not bring to its disk."""
        return f"{zlib.crc32(self.volume[k].contiguous().numpy().tobytes()):08x}"


class KeptSlices:
    """Handler: large volumes are kept in ``{output_dir}/.cases/{name}.begun`` while their slices are fused.

    A run that was killed leaves them there, and the next one of the same settings, sources and files, see
    :class:`CaseRecords`, goes on behind the last of them. When the case is done, the folder goes. Pictures of slices,
    where PNG is asked for, are in it as they are made, and become the result's.

    Args:
        inferer: which fuses, a :class:`SlicewiseInferer`.
        records: of the cases.
        output_format: of the results, as :class:`fusion_nets.transforms.SaveFused` takes it.
    """

    def __init__(self, inferer: Any, records: CaseRecords, output_format: str | Sequence[str] | None = None) -> None:
        self.inferer = inferer
        self.records = records
        self.pictures = any(form.lower() in ("png", ".png") for form in ensure_tuple(output_format or ()))
        self._folder: Path | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        image, self.inferer.kept, self._folder = batch["image"], None, None
        names = batch.get("name", [])
        if len(image) > 1 or image.ndim < 5 or not names or not is_large(image.shape):
            return
        made_by = self.records.made_by(names[0])
        if not made_by:
            return
        self._folder = self.records.folder / f"{names[0]}.begun"
        affine = getattr(image, "affine", torch.eye(4)).reshape(-1, 4, 4)[0].cpu().numpy()
        overlays = [name for key in overlays_in(batch) for name in (key, f"{key}_chroma") if name in batch]

        def chroma(k: int) -> torch.Tensor | None:
            return mixed_chroma({name: batch[name][0, ..., k] for name in overlays}, overlays_in(overlays))

        self.inferer.kept = KeptVolume(self._folder, made_by, image, affine, chroma, self.pictures)
        if self.pictures:
            batch["slices_made"] = [str(self.inferer.kept.slices)]

    def _end(self, engine: Engine) -> None:
        self.inferer.kept = None
        if self._folder is not None and engine.state.output:  # nothing of a case that failed
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # records of other cases are in it
                self.records.folder.rmdir()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
