"""Write the sources themselves, as they lie on the common grid and before they are made grey levels to look at."""

from __future__ import annotations

import os
import secrets
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.clinical import RASTER_SUFFIXES, ImageError, Reason, write_values
from fusion_nets.names import check_name, perhaps
from fusion_nets.overlays import numbered, overlays_in

from .loading import source_series
from .saving import SECRET, output_form

__all__ = ["SaveOnGrid", "SaveOnGridD", "SaveOnGridDict", "SaveOnGridd"]

SOURCES = ("anatomy", "overlay")

_LONGEST = len("_overlay2_on_grid.nii.gz")


class SaveOnGrid(Transform):
    """Write a source on the common grid in its own units, as ``{output_dir}/{name}_{key}_on_grid...``.

    In the formats of the fused image that keep values: NIfTI, NRRD and MetaImage, see
    :func:`fusion_nets.clinical.write_values`, and the folder ``{name}_{key}_on_grid_dicom``, see
    :class:`fusion_nets.clinical.dicom.ResampledSeries`, for which the anatomy must be a DICOM series. Where there is
    none of these, NIfTI. Colours stay colours, in 8 bit.

    Args:
        output_dir: folder to write to.
        output_format: one or more, as :class:`SaveFused` takes them; by default NIfTI.
        deidentify: write DICOM without what tells the patient, see :func:`fusion_nets.clinical.dicom.deidentify`; PET
            in SUV then, as nothing is left of what it is computed from.

    Raises:
        ValueError: for an unknown format.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from fusion_nets.clinical import read_image
        >>> overlay = MetaTensor(torch.rand(1, 8, 8, 3), meta={"units": "SUV", "modality": "PT"})
        >>> with TemporaryDirectory() as folder:
        ...     told = SaveOnGrid(folder)(overlay, "head")
        ...     again = read_image(f"{folder}/{told['files'][0]}")
        >>> told, again.meta["units"], torch.equal(again, overlay)
        ({'files': ['head_overlay_on_grid.nii.gz']}, 'SUV', True)
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = ".",
        output_format: str | Sequence[str] | None = None,
        deidentify: bool = False,
    ) -> None:
        formats = [output_form(name) for name in ensure_tuple(output_format or ())]
        self.formats = [form for form in formats if not form.lower().endswith((*RASTER_SUFFIXES, ".html"))]
        self.output_dir = Path(output_dir)
        self.deidentify = deidentify

    def __call__(  # type: ignore[override]
        self,
        img: MetaTensor,
        name: str,
        ref: MetaTensor | None = None,
        key: str = "overlay",
        secret: str | None = None,
        overlays: Sequence[MetaTensor] = (),
    ) -> dict[str, Any]:
        """Write a source.

        Args:
            img: (1 | 3, H, W[, D]) in its own units, as :class:`CommonGrid` leaves it.
            name: of the case.
            ref: the anatomy, as it was read: needed for DICOM.
            key: what the image is.
            secret: of the new UIDs, where what tells the patient is left out.
            overlays: all there are, if several: they have one registration in DICOM.

        Returns:
            What is recorded: "files", the names of what was written; "outside", the value outside of its field of
            view, where it was resampled; "dicom", what :attr:`ResampledSeries.told` tells, where DICOM was written.

        Raises:
            ImageError: for what cannot be written in one of the forms; the message names it.
        """
        try:
            check_name(name, self.output_dir, _LONGEST)
            told: dict[str, Any] = {"files": []}
            if "outside" in img.meta:
                told["outside"] = img.meta["outside"]
            for form in sorted(self.formats or [".nii.gz"], key="dicom".__eq__):
                if form == "dicom":
                    told["dicom"] = self._write_dicom(name, key, img, ref, secret, overlays)
                    told["files"].append(f"{name}_{key}_on_grid_dicom")
                else:
                    told["files"].append(write_values(self.output_dir / f"{name}_{key}_on_grid{form}", img).name)
        except ValueError as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(
                Reason.OUTPUT,
                f"{name}: the {key} is not written: {error}; without save={key.rstrip('23')} the pair is accepted",
            ) from error
        return told

    def _write_dicom(
        self,
        name: str,
        key: str,
        img: MetaTensor,
        ref: MetaTensor | None,
        secret: str | None,
        overlays: Sequence[MetaTensor],
    ) -> dict[str, Any]:
        from fusion_nets.clinical.dicom import deidentified, source_on_grid, write_instances

        anatomy = None if ref is None else source_series(ref)
        if anatomy is None:
            raise ValueError("the anatomy is no DICOM series, whose study a DICOM result would join")
        source = anatomy if img is ref else source_series(img)
        beside = [one for one in overlays if one is not img] if key != "anatomy" else []
        others = [(source_series(one), one.meta.get("registration")) for one in beside]
        place = int(numbered(key) or 1) - 1
        series = source_on_grid(img, anatomy, source, img.meta.get("registration"), self.deidentify, others, place)
        instances = series.instances()
        folder = self.output_dir / f"{name}_{key}_on_grid_dicom"
        write_instances(folder, deidentified(instances, secret) if self.deidentify else instances)
        return series.told


class SaveOnGridd(MapTransform):
    """Dictionary twin of :class:`SaveOnGrid`: what is to be recorded goes into ``meta["on_grid"]`` of the source.

    From there :class:`RecordChoicesd` takes it, and from the record :class:`SaveFusedd`, among what was written.

    Args:
        keys: what to write, of "anatomy" and "overlay", which is all overlays that there are.
        output_dir: folder to write to.
        output_format: one or more, as :class:`SaveFused` takes them; by default NIfTI.
        deidentify: write DICOM without what tells the patient, by new UIDs whose secret is left in the data for
            :class:`SaveFusedd`.
        ref_key: the anatomy.
        name_key: whose value names the files.
        allow_missing_keys: write those that are there.

    Raises:
        ValueError: for an unknown format, or what is no source.
    """

    backend = SaveOnGrid.backend

    def __init__(
        self,
        keys: KeysCollection = "overlay",
        output_dir: str | os.PathLike[str] = ".",
        output_format: str | Sequence[str] | None = None,
        deidentify: bool = False,
        ref_key: Hashable = "anatomy",
        name_key: str = "name",
        allow_missing_keys: bool = False,
    ) -> None:
        for key in ensure_tuple(keys):
            if key not in SOURCES:
                raise ValueError(
                    f"save is {key!r}{perhaps(key, SOURCES)}; accepted are {' and '.join(SOURCES)}, beside the fused "
                    "image, which is always written"
                )
        super().__init__(tuple(dict.fromkeys(ensure_tuple(keys))), allow_missing_keys)
        self.save = SaveOnGrid(output_dir, output_format, deidentify)
        self.ref_key = ref_key
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key."""
        d = dict(data)
        if self.save.deidentify:
            d.setdefault(SECRET, secrets.token_hex(32))
        overlays = [d[key] for key in overlays_in(d)]
        keys = [one for key in self.key_iterator(d) for one in (overlays_in(d) if key == "overlay" else [key])]
        for key in keys:
            told = self.save(d[key], d[self.name_key], d.get(self.ref_key), str(key), d.get(SECRET), overlays)
            d[key].meta["on_grid"] = told
        return d


SaveOnGridD = SaveOnGridDict = SaveOnGridd
