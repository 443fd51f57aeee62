"""Write results as a transform."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, ensure_tuple

from fusion_nets.cautions import about, noted, noting
from fusion_nets.clinical import (
    OUTPUT_SUFFIXES,
    RASTER_SUFFIXES,
    ImageError,
    Reason,
    read_image,
    write_image,
    write_slices,
)
from fusion_nets.clinical.grids import as_volume
from fusion_nets.clinical.quantities import UPTAKE
from fusion_nets.datalists import MODALITY_NAMES
from fusion_nets.drawing import window_words, write_montage, write_projections, write_viewer
from fusion_nets.files import remove_partials, whole_file
from fusion_nets.names import check_name
from fusion_nets.overlays import SOURCES, numbered, overlays_in, record_of
from fusion_nets.quiet import silence
from fusion_nets.registration import Warp, body_region, read_transform
from fusion_nets.shortage import missing_memory
from fusion_nets.stages import stage

from .colour import MergeChroma
from .loading import CheckSourcesd, source_series
from .palette_chroma import PaletteChroma

__all__ = ["OUTPUT_FORMATS", "SECRET", "SaveFused", "SaveFusedD", "SaveFusedDict", "SaveFusedd", "output_form"]

SECRET = "deidentify_key"
"""Under which the data have the secret of the new UIDs, so that all that is written of a pair is of one study."""

OUTPUT_FORMATS = {
    "nifti": ".nii.gz",
    "nrrd": ".nrrd",
    "mha": ".mha",
    "png": ".png",
    "html": ".html",
    "dicom": "dicom",
}
"""Names of output formats; an ending that :func:`fusion_nets.clinical.write_image` knows is one, too."""


class SaveFused(Transform):
    """Write what was fused as ``{output_dir}/{name}_{key}...``, in one or more formats, and the record of it.

    - An ending such as ``.nii.gz``, or "nifti", "nrrd", "mha": one file, see
      :func:`fusion_nets.clinical.write_image`.
    - "png": a picture of a slice; of a volume the folder ``{name}_{key}_slices``. These hold the pixels alone. To look
      at, of what has a place in a patient, ``{name}_montage.png`` of sources and result, with sides, scale and windows,
      and with a legend of the colours of several overlays; and where the overlay is a PET or SPECT of a body,
      ``{name}_mip.png`` of its maximum intensity projections.
    - "dicom": the folder ``{name}_dicom``, see :func:`fusion_nets.clinical.dicom.fused_study`; the anatomy must be a
      DICOM series.
    - "html": a page to look at sources and result in linked planes, see :func:`fusion_nets.drawing.viewer_html`; the
      sources are read again, because it shows their own values.
    - Where there is a record (:class:`RecordChoices`) of measured images, ``{name}_{key}.json``.

    DICOM is written last, because most may be wrong with it; a form that cannot be written does not lose the others.
    MONAI's ``SaveImage`` writes in place and has no form for a coloured volume. What killed runs left half written in
    the folder is removed before the first image is written.

    Args:
        output_dir: folder to write to.
        output_format: one or more; by default .png where the sources were pictures, else .nii.gz.
        deidentify: write DICOM without what tells the patient, see :func:`fusion_nets.clinical.dicom.deidentify`.

    Raises:
        ValueError: for an unknown format.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     SaveFused(folder, output_format="nifti")(MetaTensor(torch.rand(1, 8, 8, 3)), "head")
        ['head_fused.nii.gz']
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        output_dir: str | os.PathLike[str] = ".",
        output_format: str | Sequence[str] | None = None,
        deidentify: bool = False,
    ) -> None:
        self.formats = [output_form(name) for name in ensure_tuple(output_format or ())]
        self.output_dir = Path(output_dir)
        self.deidentify = deidentify
        self._is_clean = False

    def __call__(  # type: ignore[override]
        self,
        img: MetaTensor,
        name: str,
        sources: Mapping[Hashable, Any] | None = None,
        record: str | None = None,
        key: str = "fused",
    ) -> list[str]:
        """Write an image.

        Args:
            img: (1 | 3, H, W[, D]) in [0, 1].
            name: of the case.
            sources: "anatomy" and "overlay" (and "overlay2" ...), and "overlay_chroma" of a coloured one: needed for
                DICOM, and for the pictures of a volume; "slices_made", a folder of pictures of its slices that are
                there already.
            record: as :class:`RecordChoices` gives it.
            key: what the image is.

        Returns:
            The names of what was written.

        Raises:
            ImageError: after all others were written, if one of the forms cannot be, such as DICOM without a series
                that it would join, or for want of room; the message names it, and what is written.
            ValueError: for a name that no file can have.
        """
        check_name(name, self.output_dir)
        if not self._is_clean:
            remove_partials(self.output_dir)
            self._is_clean = True
        told, sources = json.loads(record) if record else {}, sources or {}
        is_picture = str(getattr(img, "meta", {}).get("filename_or_obj", "")).lower().endswith(RASTER_SUFFIXES)
        forms = sorted(self.formats or [".png" if is_picture else ".nii.gz"], key="dicom".__eq__)
        stem = f"{name}_{key}"
        steps = [(form, step) for form in forms for step in self._steps(form, stem, name, img, sources, told)]
        if told and not is_picture:
            steps.append(("record", partial(self._write_record, f"{stem}.json", told)))
        saved: list[str] = []
        failed: list[tuple[str, Exception]] = []
        for form, step in steps:
            try:
                saved.append(step())
            except Exception as error:  # what was computed is in the other forms then
                failed.append((form, error))
        if failed:
            reasons = "; ".join(
                f"no {form.lstrip('.')}: {missing_memory(error) or ' '.join(str(error).split())}"
                for form, error in failed
            )
            written = f"written are {', '.join(saved)}" if saved else "nothing is written"
            raise ImageError(Reason.OUTPUT, f"{name}: {reasons}; {written}") from failed[0][1]
        return saved

    def _steps(
        self, form: str, stem: str, name: str, img: MetaTensor, sources: Mapping[Hashable, Any], told: Mapping[str, Any]
    ) -> list[Callable[[], str]]:
        """What writes a form, each one file or folder, whose name it returns."""
        if form == "dicom":
            return [partial(self._write_dicom, name, img, sources, told)]
        if form.lower() == ".html":
            return [partial(self._write_page, f"{stem}.html", name, img, sources, told)]
        picture = partial(self._write_picture, f"{stem}{form}", img)
        if form.lower() != ".png" or not (img.ndim == 4 or _is_slice(sources)):
            return [picture]
        made = sources.get("slices_made") if stem == f"{name}_fused" else None
        first = partial(self._write_slices, f"{stem}_slices", img, made) if img.ndim == 4 else picture
        steps: list[Callable[[], str]] = [first, partial(self._write_montage, name, img, sources, told)]
        bodies = [key for key in overlays_in(sources) if _is_body(sources[key])]
        return [*steps, *(partial(self._write_projections, name, key, sources, told) for key in bodies)]

    def _write_picture(self, file: str, img: MetaTensor) -> str:
        return write_image(self.output_dir / file, img).name

    def _write_slices(self, folder: str, img: MetaTensor, made: str | None) -> str:
        write_slices(self.output_dir / folder, img, made)
        return folder

    def _write_record(self, file: str, told: Mapping[str, Any]) -> str:
        with whole_file(self.output_dir / file) as unfinished:
            unfinished.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return file

    def _write_montage(
        self, name: str, img: MetaTensor, sources: Mapping[Hashable, Any], told: Mapping[str, Any]
    ) -> str:
        overlays = overlays_in(sources)
        names = [_called(told, key) for key in ("anatomy", *overlays)]
        coloured = [MergeChroma()(sources[key], sources.get(f"{key}_chroma")) for key in overlays]
        written = write_montage(
            self.output_dir / f"{name}_montage.png",
            anatomy=as_volume(sources["anatomy"]),
            overlay=[as_volume(cast(MetaTensor, one)) for one in coloured],
            fused=as_volume(img),
            names=[*names, "Fused"],
            windows=[(0, 1)] * (len(names) + 1),
            window_words=[*(window_words(_display(told, key)) for key in ("anatomy", *overlays)), None],
            legend=[_legend(told, key) for key in overlays] if len(overlays) > 1 else (),
        )
        return written.name

    def _write_projections(self, name: str, key: str, sources: Mapping[Hashable, Any], told: Mapping[str, Any]) -> str:
        words = window_words(_display(told, key))
        return write_projections(self.output_dir / f"{name}_mip{numbered(key)}.png", sources[key], words=words).name

    def _write_page(
        self, file: str, name: str, img: MetaTensor, sources: Mapping[Hashable, Any], told: Mapping[str, Any]
    ) -> str:
        keys = overlays_in(sources)
        if "anatomy" not in sources or not keys:
            raise ValueError(f"{name}: its sources are not there, which the page shows")
        images: dict[Hashable, MetaTensor] = {}
        with noting(), silence(("fusion_nets",)):  # they are read again, for their own values
            for key in ("anatomy", *keys):
                meta = sources[key].meta
                where = meta["filename_or_obj"], meta.get("series"), meta.get("modality"), meta.get("volume")
                with about(key):
                    images[key] = read_image(*where)
            registered = [record_of(told, key).get("record", {}).get("registration", {}) for key in keys]
            CheckSourcesd(tuple(images), [one.get("mode", "none") for one in registered])({**images, "name": name})
            warnings = noted()
        anatomy, *overlays = images.values()
        warps = [self._warp(name, told, key) for key in keys]
        how = {"record": told, "transform": warps, "name": name, "warnings": warnings}
        return write_viewer(self.output_dir / file, anatomy, overlays, img, **how).name

    def _warp(self, name: str, told: Mapping[str, Any], overlay: str) -> Warp | None:
        """What bends, which the record does not hold: :class:`CommonGridd` wrote it into the same folder."""
        if "bending" not in record_of(told, overlay).get("record", {}).get("registration", {}):
            return None
        path = self.output_dir / f"{name}_registration{numbered(overlay)}.tfm"
        warp = read_transform(path)
        if not isinstance(warp, Warp):
            raise ValueError(f"{path}: does not bend, as the record says; the registration of this result is accepted")
        return warp

    def _write_dicom(self, name: str, img: MetaTensor, sources: Mapping[Hashable, Any], told: Mapping[str, Any]) -> str:
        from fusion_nets.clinical.dicom import deidentified, study_objects, write_instances

        anatomy = source_series(sources["anatomy"])
        if anatomy is None:
            raise ValueError(f"{name}: the anatomy is no DICOM series, whose study a DICOM result would join")
        overlays = []
        for key in overlays_in(sources):
            warp = self._warp(name, told, key)
            overlays.append((source_series(sources[key]), None if warp is None else warp.displacement))
        (overlay, displacement), *others = overlays
        objects = study_objects(img, anatomy, overlay, told, displacement, others)
        folder = self.output_dir / f"{name}_dicom"
        write_instances(folder, deidentified(objects, sources.get(SECRET)) if self.deidentify else objects)
        return folder.name


class SaveFusedd(MapTransform):
    """Dictionary twin of :class:`SaveFused`: takes sources and record from the data.

    The names of what was written are left under "saved".

    Args:
        keys: what to write, (1 | 3, H, W[, D]) in [0, 1].
        output_dir: folder to write to.
        output_format: one or more; by default .png where the sources were pictures, else .nii.gz.
        deidentify: write DICOM without what tells the patient, see :func:`fusion_nets.clinical.dicom.deidentify`.
        name_key: whose value names the files.
        allow_missing_keys: write those that are there.

    Raises:
        ValueError: for an unknown format.
    """

    backend = SaveFused.backend

    def __init__(
        self,
        keys: KeysCollection = "fused",
        output_dir: str | os.PathLike[str] = ".",
        output_format: str | Sequence[str] | None = None,
        deidentify: bool = False,
        name_key: str = "name",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.save = SaveFused(output_dir, output_format, deidentify)
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write every key."""
        stage("writing")
        d = dict(data)
        told = json.loads(d.get("record") or "{}").get("record", {})
        saved = [file for key in SOURCES for file in told.get(key, {}).get("on_grid", {}).get("files", [])]
        for key in self.key_iterator(d):
            saved += self.save(d[key], d[self.name_key], d, d.get("record"), str(key))
        if saved:
            d["saved"] = [*d.get("saved", []), *saved]
        return d


def _display(told: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    return told.get("record", {}).get(key, {}).get("display")


def _called(told: Mapping[str, Any], key: str) -> str:
    """A source's modality in words, or else its key."""
    modality = told.get("record", {}).get(key, {}).get("modality", "")
    return MODALITY_NAMES.get(modality, modality) or key.capitalize()


def _legend(told: Mapping[str, Any], key: str) -> tuple[str, np.ndarray | None]:
    """What is said of an overlay's colour, and 256 colours from black to white; None of a source with its own."""
    colour = str(told.get("record", {}).get(key, {}).get("colour", "grey"))
    if colour == "its own":
        return f"{_called(told, key)}: its own colours", None
    ramp = torch.linspace(0, 1, 256)[None, :, None]
    shades = MergeChroma()(ramp, PaletteChroma(colour if colour != "grey" else None)(ramp))
    return f"{_called(told, key)}: {colour.replace('_', ' ')}", shades[..., 0].expand(3, -1).T.numpy()


def _is_slice(sources: Mapping[Hashable, Any]) -> bool:
    """Whether the sources are there, and have a place in a patient."""
    given = [sources.get(key) for key in ("anatomy", *(overlays_in(sources) or ["overlay"]))]
    return all(isinstance(one, MetaTensor) and one.meta.get("units") not in ("grey", "colour") for one in given)


def _is_body(overlay: Any) -> bool:
    """Whether an overlay is a PET or SPECT volume of a body, of which projections tell something."""
    if not isinstance(overlay, MetaTensor) or overlay.ndim != 4 or min(overlay.shape[1:]) < 2 or len(overlay) != 1:
        return False
    is_uptake = overlay.meta.get("units") in UPTAKE or overlay.meta.get("modality") in ("PT", "NM")
    return is_uptake and body_region(overlay).shows == "body"


def output_form(name: str) -> str:
    """The ending, or "dicom", that an output format stands for; ValueError for one that is none."""
    form = OUTPUT_FORMATS.get(name.lower(), name)
    if form.lower() not in (*OUTPUT_SUFFIXES, ".html", "dicom"):
        accepted = ", ".join((*OUTPUT_FORMATS, *OUTPUT_SUFFIXES))
        raise ValueError(f"output_format is {name!r}; accepted are {accepted}")
    return form


SaveFusedD = SaveFusedDict = SaveFusedd
