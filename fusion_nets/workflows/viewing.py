"""The page of a study that was fused before."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from monai.data import MetaTensor

from fusion_nets.bids import RESULT, place_of, registration_name
from fusion_nets.cautions import about, noted, noting
from fusion_nets.clinical import is_dicom, read_image, source_sha256
from fusion_nets.drawing import write_viewer
from fusion_nets.names import check_name
from fusion_nets.overlays import DETAILS, OVERLAYS, SOURCES, as_list, each_of, numbered, overlays_in, record_of
from fusion_nets.registration import read_transform
from fusion_nets.transforms import CheckSourcesd

from .study_images import read_fused

__all__ = ["write_page"]

_FORMS = (".nii.gz", ".nrrd", ".mha", ".nii", ".png", ".tif")
"""Of fused images, the one that is looked for first."""


def write_page(
    output_dir: str | os.PathLike[str],
    anatomy: str | os.PathLike[str],
    overlay: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    name: str | None = None,
    **details: Any,
) -> Path:
    """Write the page of a fused study beside its result, see :func:`fusion_nets.drawing.viewer_html`.

    Args:
        output_dir: with ``{name}_fused.nii.gz`` or another form but DICOM, and the record ``{name}_fused.json``; or
            a BIDS dataset of derivatives that :func:`fuse_dataset` wrote.
        anatomy: which was fused; the record tells by its digest whether it is the one.
        overlay: likewise; or a list of all that were fused, in the same order.
        name: of the case; by default that of the only one there.
        details: ``anatomy_modality``, ``anatomy_series_uid``, ``anatomy_volume`` and the same of the overlay, as of
            :func:`fusion_nets.datalists.load_pairs`; with a list of overlays, as many or one for all.

    Returns:
        ``{name}_fused.html``; of a dataset, ``{name}.html`` in the folder ``figures`` of participant or session.

    Raises:
        ImageError: if an image cannot be used.
        ValueError: if a source is another than the one that was fused, if overlays are missing or left over, or if the
            folder does not hold the case, or holds several and none is named.
    """
    folder = Path(output_dir)
    found = _fused_in(folder)
    if name is None:
        if len(found) != 1:
            raise ValueError(f"{folder}: {len(found)} fused images; a folder with one, or a name, is accepted")
        (name,) = found
    check_name(name, folder)
    result = found.get(name)
    if result is None:
        raise ValueError(f"{folder}: no fused image of {name!r}; {name}_fused with {', '.join(_FORMS)} is accepted")
    place, stem = folder, f"{name}_fused"
    transforms = [folder / f"{name}_registration{numbered(key)}.tfm" for key in OVERLAYS]
    if result.parent != folder:  # as BIDS has it
        place, stem = folder / place_of(name).parent / "figures", name
        transforms = [*result.parent.glob(registration_name(name, "*")), *transforms]
    record = _record(result.parent / f"{stem}.json")
    given = _given(anatomy, overlay, details)
    keys, there = list(given)[1:], len(overlays_in(record.get("record", {})))
    if there not in (0, len(keys)):
        raise ValueError(
            f"{folder}: {name!r} was fused of {there} overlay{'s' * (there > 1)}, and {len(keys)} given; as many are "
            "accepted, in the same order"
        )
    images: dict[Hashable, MetaTensor] = {}
    with noting():
        for key, (source, detail) in given.items():
            said = record.get("record", {}).get(key, {})
            modality, volume = detail["_modality"] or said.get("modality"), detail["_volume"] or said.get("volume")
            with about(key):
                series = detail["_series_uid"] or (said.get("series") if is_dicom(source) else None)
                image = read_image(source, series, modality, volume)
            digest = source_sha256(source, image.meta.get("series"))
            if said.get("sha256") not in (None, digest):
                roles = (role for role in given if record.get("record", {}).get(role, {}).get("sha256") == digest)
                accepted = next((f"as its {role} it is accepted" for role in roles), "that one is accepted")
                raise ValueError(f"{source}: is not the {key} that {name!r} was fused of, by its record; {accepted}")
            images[key] = image
        registrations = [record_of(record, key).get("record", {}).get("registration", {}) for key in keys]
        CheckSourcesd(tuple(images), [one.get("mode", "none") for one in registrations])({**images, "name": name})
        warnings = noted()
    place.mkdir(exist_ok=True)
    fused = cast(MetaTensor, read_fused(result).float())
    warps = [
        read_transform(path) if "bending" in one else None for path, one in zip(transforms, registrations, strict=False)
    ]
    how = {"record": record, "transform": warps, "name": name, "warnings": warnings}
    return write_viewer(place / f"{stem}.html", images["anatomy"], [images[key] for key in keys], fused, **how)


def _given(anatomy: Any, overlay: Any, details: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each source, and what is said of it."""
    overlays = as_list("overlay", overlay)
    if len(overlays) > len(OVERLAYS):
        raise ValueError(f"{len(overlays)} overlays are given; 1 to {len(OVERLAYS)} are accepted")
    said = {
        detail: [
            details.get(f"anatomy{detail}"),
            *each_of(f"overlay{detail}", as_list(f"overlay{detail}", details.get(f"overlay{detail}")), len(overlays)),
        ]
        for detail in DETAILS
    }
    return {
        key: (source, {detail: values[i] for detail, values in said.items()})
        for i, (key, source) in enumerate(zip(SOURCES, (anatomy, *overlays), strict=False))
    }


def _fused_in(folder: Path) -> dict[str, Path]:
    """Fused images by the names of their cases: all in one folder, or where BIDS has them."""
    found: dict[str, Path] = {}
    for form in reversed(_FORMS):
        found |= {file.name[: -len(f"_fused{form}")]: file for file in folder.glob(f"*_fused{form}")}
    for form in (".nii", ".nii.gz"):
        for where in ("sub-*/anat", "sub-*/ses-*/anat"):
            of_form = {file.name[: -len(form)]: file for file in folder.glob(f"{where}/*{form}")}
            found |= {name: file for name, file in of_form.items() if RESULT.fullmatch(name)}
    return found


def _record(path: Path) -> Mapping[str, Any]:
    if not path.is_file():  # pictures have none
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no record ({error}); what `fuse` writes beside its result is accepted") from error
    if not isinstance(record, dict) or not isinstance(record.get("record", {}), dict):
        raise ValueError(f"{path}: no record; what `fuse` writes beside its result is accepted")
    return record
