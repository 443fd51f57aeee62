"""What a modality is called, by people and by DICOM."""

from __future__ import annotations

__all__ = ["MODALITY_NAMES", "modality_code"]

MODALITY_NAMES = {"MR": "MRI", "CT": "CT", "PT": "PET", "NM": "SPECT"}
"""What people call the modalities, by DICOM's code."""

_CODES = {name: code for code, name in MODALITY_NAMES.items()}
_WITHOUT_SCANNER = "OT"


def modality_code(name: str, where: str = "modality") -> str:
    """DICOM's code of a modality that was given by hand.

    Args:
        name: the code, or what people call the modality ("MRI", "PET", "SPECT"), in capitals or not.
        where: what the message starts with.

    Raises:
        ValueError: for what is neither, nor another acquisition modality of DICOM (PS3.16 CID 29) or "OT".
    """
    code = _CODES.get(name.strip().upper(), name.strip().upper())
    if code in MODALITY_NAMES or code == _WITHOUT_SCANNER:
        return code
    from pydicom.sr.codedict import codes

    if code in {concept.value for concept in codes.cid29.concepts.values()}:
        return code
    known = ", ".join(code if code == name else f"{code} or {name}" for code, name in MODALITY_NAMES.items())
    raise ValueError(f"{where} is {name!r}; accepted are {known}, and other acquisition modalities of DICOM")
