"""Take out of DICOM objects what tells who the patient is: the basic profile of PS3.15 annex E."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fusion_nets import __version__

from .derived import code
from .hidden import remove_hidden
from .identity import derived_uid
from .new_series import new_instance

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

__all__ = ["deidentified", "deidentify"]

TABLE = "dicomfields_2026c"
"""Edition of table E.1-1, as the dicom-anonymizer package carries it."""

STANDARDS_OWN = "1.2.840.10008."
"""Root of the UIDs that the standard itself defines, which tell nothing of anybody."""

REQUIRED = ("PresentationCreationDate", "PresentationCreationTime", "ContentDate", "ContentTime")
"""Removed by the table, but of type 1 where they may stand in what is written here; they become dummies."""

FREE_TEXT = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT")
TECHNICAL = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "CodeValue",
    "CodingSchemeDesignator",
    "CodingSchemeVersion",
    "CodeMeaning",
    "LongCodeValue",
    "RescaleType",
    "ModalityLUTType",
    "SequenceName",
    "ReceiveCoilName",
    "ConvolutionKernel",
    "ReconstructionMethod",
    "AttenuationCorrectionMethod",
    "ScatterCorrectionMethod",
    "Radiopharmaceutical",
)
"""Free text beyond the table that says how an image was made; other free text is emptied, more than the table asks."""

BULK = ("OB", "OD", "OF", "OL", "OV", "OW")
IMAGE = ("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ICCProfile", "LUTData")
DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "CS": "REMOVED"}


def deidentify(datasets: Sequence[Dataset], key: str | bytes | None = None) -> list[Dataset]:
    """De-identify images, presentation states and registrations by the basic application level profile (PS3.15 E.2).

    Each attribute meets its action of table E.1-1, also within sequences; private attributes, curves and overlays are
    removed. Where the table leaves a choice by type, what is valid for all types is done (an empty value for X/Z, a
    dummy for X/D). Beyond the table, all other free text is emptied and unknown bulk removed, but for what says how an
    image was made. What lies in the words of the pixels beside the picture, overlay planes in unused bits among it, and
    behind the last pixel, is removed. The picture is not looked at: the option to clean it is not part of the basic
    profile, nor is the one to clean faces, and an image that is silent about text burned in may have some. Nothing of
    the weight and times that SUV needs is left in an original PET.

    A patient becomes "P" and eight hexadecimal digits as name and ID.

    Args:
        datasets: objects that may refer to each other; they are not changed.
        key: secret from which new UIDs are made, so that the same UID becomes the same in another call with it. By
            default one that nobody knows, different each time. Who has the key can find out which UID became which.

    Returns:
        New objects in the same order, for :func:`write_instances`.

    Raises:
        ValueError: for an image that says it has text burned in, an object that consists of text, or pixels of which it
            cannot be told what the picture is.
        ImageError: for compressed pixels with unused bits that cannot be decoded.
        ModuleNotFoundError: if dicom-anonymizer, which has the table, is not installed.
    """
    return list(deidentified(datasets, key))


def deidentified(datasets: Iterable[Dataset], key: str | bytes | None = None) -> Iterator[Dataset]:
    """The objects of :func:`deidentify`, each made when it is asked for: of a long series not all fit in memory."""
    secret = secrets.token_bytes(32) if key is None else key.encode() if isinstance(key, str) else key
    for dataset in datasets:
        yield _deidentified(dataset, secret)


def _deidentified(dataset: Dataset, secret: bytes) -> Dataset:
    from pydicom import Dataset

    if dataset.get("BurnedInAnnotation") == "YES":
        raise ValueError("an image has text burned in (Burned In Annotation YES); images without are accepted")
    if "ContentSequence" in dataset or "EncapsulatedDocument" in dataset:
        raise ValueError(
            "an object consists of text (Content Sequence); images, presentation states and registrations are accepted"
        )
    instance = _cleaned(dataset, secret)
    meta = getattr(dataset, "file_meta", None) or Dataset()
    instance.file_meta = new_instance(instance.SOPClassUID, instance.SOPInstanceUID).file_meta
    if "TransferSyntaxUID" in meta:
        instance.file_meta.TransferSyntaxUID = meta.TransferSyntaxUID
    remove_hidden(instance)
    patient = str(dataset.get("IssuerOfPatientID") or ""), str(dataset.get("PatientID") or "")
    instance.PatientName = instance.PatientID = f"P{_digest(secret, '/'.join(patient))[:8].upper()}"
    instance.PatientIdentityRemoved = "YES"
    instance.DeidentificationMethod = ["PS3.15 basic profile, table E.1-1 of 2026c", f"fusion-nets {__version__}"]
    instance.DeidentificationMethodCodeSequence = [code("BasicApplicationConfidentialityProfile")]
    instance.LongitudinalTemporalInformationModified = "REMOVED"
    return instance


def _cleaned(dataset: Dataset, secret: bytes) -> Dataset:
    from pydicom import Dataset

    cleaned = Dataset()
    for element in dataset:
        for kept in _kept(element, secret):
            cleaned.add(kept)
    return cleaned


def _kept(element: DataElement, secret: bytes) -> Iterator[DataElement]:
    """What is left of an element: itself, another in its place, or nothing."""
    from pydicom import DataElement

    tag, vr, keyword = element.tag, str(element.VR), element.keyword
    if tag.is_private or not keyword or tag.group & 0xFF00 in (0x5000, 0x6000):
        return
    action = _table().get(int(tag), "")
    if vr == "UI":
        if action != "X":
            yield DataElement(tag, vr, _new_uids(element.value, secret))
    elif keyword in REQUIRED:
        yield DataElement(tag, vr, DUMMIES[vr])
    elif vr == "SQ":
        if action in ("Z", "X/Z"):
            yield DataElement(tag, vr, [])
        elif action in ("", "X/Z/U*"):
            yield DataElement(tag, vr, [_cleaned(item, secret) for item in element.value])
    elif action == "X":
        return
    elif action in ("Z", "X/Z") or (action == "Z/D" and vr not in DUMMIES):
        yield DataElement(tag, vr, None if vr in ("DS", "IS") else "")
    elif action and vr not in BULK:
        yield DataElement(tag, vr, _dummy(vr))
    elif vr in ("DA", "DT", "TM") or action:
        return
    elif vr in FREE_TEXT and keyword not in TECHNICAL:
        yield DataElement(tag, vr, b"" if vr == "UN" else "")
    elif vr not in BULK or keyword in IMAGE or "PaletteColorLookupTableData" in keyword:
        yield element


def _dummy(vr: str) -> str | int | float:
    if vr in ("DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"):
        return 0
    return DUMMIES.get(vr, "http://removed.invalid" if vr == "UR" else "REMOVED")


def _new_uids(value: str | Sequence[str] | None, secret: bytes) -> str | list[str]:
    if not value:
        return ""
    uids = [value] if isinstance(value, str) else list(value)
    new = [uid if uid.startswith(STANDARDS_OWN) else derived_uid("deidentified", _digest(secret, uid)) for uid in uids]
    return new[0] if len(new) == 1 else new


def _digest(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), "sha256").hexdigest()


@lru_cache(maxsize=1)
def _table() -> Mapping[int, str]:
    """Action by tag. Repeating groups are not in it; they are curves and overlays, which go anyway."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector

    names = {f"{action.replace('/', '_').replace('*', '_STAR')}_TAGS": action for action in ACTIONS}
    tags = dicom_anonymization_database_selector(TABLE)
    return {tag[0] << 16 | tag[1]: action for name, action in names.items() for tag in tags[name] if len(tag) == 2}


ACTIONS = ("D", "Z", "X", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*")
"""Of table E.1-1: dummy, zero length, removed, new UID; combined ones by the type of the attribute."""
