"""Convert an image from one clinical form to another, with its geometry and units."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from monai.data import MetaTensor

from fusion_nets.names import check_destination
from fusion_nets.slabs import extremes, slabwise

from .choosing import Wanted
from .errors import check_window
from .quantities import MEASURED, SUV_TYPES
from .reading import is_dicom, read_image
from .volume_files import VOLUME_SUFFIXES
from .writing import PICTURE_SUFFIXES, write_image, write_slices, write_values

if TYPE_CHECKING:
    from pydicom import Dataset

    from .dicom import Series

__all__ = ["UNITS", "convert_image"]

UNITS = ("HU", *SUV_TYPES, "Bq/ml", "stored")
"""That a user can tell of values whose file does not."""


def convert_image(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    series_uid: str | None = None,
    modality: str | None = None,
    units: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    reference_series_uid: str | None = None,
    window: tuple[float, float] | None = None,
    volume: Wanted = None,
    deidentify: bool = False,
    key: str | bytes | None = None,
) -> list[Path]:
    """Read an image in any clinical form and write it in another.

    Values keep their units: whole numbers are stored as such (CT in HU as int16), others as float32; DICOM has 16 bit
    and a slope. Files that are no DICOM say modality and units beside their values. Of a DICOM series that becomes
    DICOM all attributes are kept, and its pixels as they are.

    Args:
        source: what :func:`read_image` reads.
        destination: ends in .nii, .nii.gz, .nrrd or .mha, in .png, .tif, .tiff or .bmp for pictures, or is the name of
            a folder, without an ending, for DICOM. Of a volume, .png gives the slices, in a folder of that name without
            the ending.
        series_uid: which series of a folder is meant, by its UID or fingerprint.
        modality: which series is meant, or what a file without DICOM's header holds, such as "MR".
        units: of the values, one of :data:`UNITS`, where the file does not say it.
        reference: DICOM series whose study and frame of reference a DICOM result joins. Voxels that are the series'
            own in another order are put into its order; another grid must lie where the series does. By default the
            result is a study of its own.
        reference_series_uid: which series of that folder.
        window: values that become black and white in pictures; by default the image's own white, its header's window,
            or all values.
        volume: which of several volumes or pictures is meant, see :func:`read_image`.
        deidentify: write DICOM by the basic profile, see :func:`fusion_nets.clinical.dicom.deidentify`.
        key: secret of the new UIDs.

    Returns:
        The files written.

    Raises:
        ImageError: if the source or the reference cannot be used.
        ValueError: for another ending, a window out of order or of what is no picture, a key without ``deidentify``, a
            series of no reference, a modality that is none, an unknown modality or units that DICOM must tell, an
            image that does not lie where the reference does, or a destination that is the source.
    """
    path = Path(destination)
    check_destination(path, (source, reference))
    if units is not None and units not in UNITS:
        raise ValueError(f"units is {units!r}; accepted are {', '.join(UNITS)}")
    if reference_series_uid is not None and reference is None:
        raise ValueError("reference_series_uid belongs to a reference, and none is given")
    if key is not None and not deidentify:
        raise ValueError("a key belongs to deidentify, which is not asked for: the patient would stay in the files")
    name = path.name.lower()
    if window is not None and (path.is_dir() or not name.endswith(PICTURE_SUFFIXES)):
        raise ValueError(
            f"{path}: a window belongs to pictures ({', '.join(PICTURE_SUFFIXES)}); values stay as they are"
        )
    if name.endswith((*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)) and not path.is_dir():
        if deidentify or reference is not None:
            raise ValueError(
                f"{path}: deidentify and reference belong to DICOM, which a name without an ending asks for"
            )
        image = _read(source, series_uid, modality, units, volume)
        if name.endswith(VOLUME_SUFFIXES):
            return [write_values(path, image)]
        shown = _in_window(image, window)
        if image.ndim == 4 and name.endswith(".png"):
            check_destination(path.with_suffix(""), [source])
            return write_slices(path.with_suffix(""), shown)
        return [write_image(path, shown)]
    if path.suffix and not path.is_dir():
        accepted = ", ".join((*VOLUME_SUFFIXES, *PICTURE_SUFFIXES))
        raise ValueError(f"{path}: unknown ending; accepted are {accepted}, and none for a folder of DICOM")
    from .dicom import deidentify as without_patient
    from .dicom import pick_series, write_instances
    from .dicom.derived import inherit_shortcomings

    series = pick_series(source, series_uid, modality) if is_dicom(source) else None
    whole = None if series is None else _whole_instances(series, volume)
    if reference is None and whole is not None:
        instances = _copied(whole)
    else:
        image = _read(source, series_uid, modality, units, volume)
        joined = None if reference is None else pick_series(reference, reference_series_uid)
        instances = _as_series(path, image, joined)
        for instance in instances:
            inherit_shortcomings(instance, [] if series is None else series.datasets)
    return write_instances(path, without_patient(instances, key) if deidentify else instances)


def _read(
    source: str | os.PathLike[str], series_uid: str | None, modality: str | None, units: str | None, volume: Wanted
) -> MetaTensor:
    image = read_image(source, series_uid, modality, volume)
    said = image.meta.get("units", "stored")
    if units and said in MEASURED and said != units:
        raise ValueError(f"{source}: is in {said} by what it says of itself, not in {units}; no units are accepted")
    if units and said == "stored":
        image.meta["units"] = units
    return image


def _whole_instances(series: Series, volume: Wanted) -> Series | None:
    """The series, or the instances of the volume that is meant; None where these are a mean, or parts of instances."""
    from .dicom import pick_volumes
    from .dicom.frames import CHOSEN

    volumes = [series] if volume is None else pick_volumes(series, volume)
    return None if len(volumes) > 1 or any(hasattr(one, CHOSEN) for one in volumes[0].datasets) else volumes[0]


def _in_window(image: MetaTensor, window: tuple[float, float] | None) -> MetaTensor:
    if window is None:
        white = image.meta.get("white")
        window = (0.0, float(white)) if white else image.meta.get("window")
    if window is None:
        window = extremes(image)
    low, high = check_window(window)
    return slabwise(lambda part: (part - low) / (high - low), image)  # type: ignore[return-value]


def _copied(series: Series) -> list[Dataset]:
    """The instances as they are, in the order of the slices."""
    from pydicom import dcmread

    from .dicom.new_series import new_instance

    instances: list[Dataset] = [dcmread(file, force=True) for file in series.files]
    for instance in instances:
        meta = new_instance(instance.SOPClassUID, instance.SOPInstanceUID).file_meta
        meta.TransferSyntaxUID = instance.file_meta.get("TransferSyntaxUID") or meta.TransferSyntaxUID
        instance.file_meta, instance.preamble = meta, b"\0" * 128
    return instances


def _as_series(path: Path, image: MetaTensor, reference: Series | None) -> list[Dataset]:
    from .dicom import new_series, new_study
    from .dicom.sources import body_part, common_study

    modality, units = image.meta.get("modality"), image.meta.get("units", "stored")
    modality = modality or ("OT" if image.meta.get("white") else None)
    if not modality:
        raise ValueError(f"{path}: DICOM needs a modality, which the source does not tell; give it, such as MR")
    if modality == "PT" and image.shape[0] == 1 and units not in (*SUV_TYPES, "Bq/ml"):
        raise ValueError(f"{path}: PET needs units, which the source does not tell; SUV and Bq/ml are accepted")
    details = _details(image, modality)
    if reference is None:
        digest = hashlib.sha256(image.as_tensor().cpu().numpy().tobytes()).hexdigest()
        study = new_study("converted", digest, image.affine.tolist(), modality)
        return new_series(image, modality, study, details=details)
    first = reference.datasets[0]
    body_part(details, first)
    if modality != "PT" and first.get("PatientPosition"):
        details.PatientPosition = first.PatientPosition
    number = int(first.get("SeriesNumber") or 0) * 100 + 5
    placed = _on_reference(path, image, reference.datasets)
    return new_series(
        placed, modality, common_study(first), number, "Converted", first.get("FrameOfReferenceUID"), details
    )


def _details(image: MetaTensor, modality: str) -> Dataset:
    """What is known of a converted series beyond its values; that it is an original is not."""
    from pydicom import Dataset
    from pydicom.valuerep import format_number_as_ds

    from fusion_nets import __version__

    details = Dataset()
    kind = {"MR": "SECONDARY\\OTHER", "CT": "SECONDARY\\AXIAL", "PT": "PRIMARY"}  # of PET the only one, PS3.3 C.8.9.4.1
    details.ImageType = f"DERIVED\\{kind.get(modality, 'SECONDARY') if image.shape[0] == 1 else 'SECONDARY'}"
    details.DerivationDescription = f"Converted by fusion-nets {__version__}"
    if image.shape[0] == 1 and (window := image.meta.get("window")) and window[1] - window[0] >= 1:
        details.WindowCenter = format_number_as_ds(float(window[0] + window[1]) / 2)
        details.WindowWidth = format_number_as_ds(float(window[1] - window[0]))
    return details


def _on_reference(path: Path, image: MetaTensor, reference: Sequence[Dataset]) -> MetaTensor:
    """The image in the order of the reference's voxels if it has its grid, as it is if it lies within it."""
    from .dicom.sources import grid_of, lies_in, on_grid, planes_of

    planes = planes_of(reference)
    grid = grid_of(planes)
    placed = on_grid(image, *grid) if grid else None
    if placed is not None:
        return placed
    if not planes or not lies_in(planes, image):
        raise ValueError(f"{path}: the image does not lie where the reference does; one in its coordinates is accepted")
    return image
