"""By what an image is known again, whatever it is called."""

from __future__ import annotations

import hashlib
import os
from glob import escape
from pathlib import Path

from fusion_nets.files import file_sha256

from .reading import INPUT_SUFFIXES

__all__ = ["source_sha256"]

_HEADERS = (".mhd", ".nhdr", ".hdr", ".img")
"""Of images that lie in two files."""


def source_sha256(path: str | os.PathLike[str], series_uid: str | None = None, modality: str | None = None) -> str:
    """SHA-256 of what an image is read from, in hexadecimal.

    Of a file it is that of its content; of several, which are a DICOM series or a header and its values, that of their
    digests in the order of these, whatever the files are called.

    Args:
        path: as :func:`fusion_nets.clinical.read_image` takes it.
        series_uid: likewise.
        modality: likewise.

    Raises:
        ImageError: if there is no such series.
        OSError: if a file cannot be read.
    """
    path, name = Path(path), os.fspath(path).lower()
    if os.path.isfile(path) and name.endswith((*_HEADERS, *INPUT_SUFFIXES)):
        files = list(path.parent.glob(f"{escape(path.stem)}.*")) if name.endswith(_HEADERS) else [path]
    else:
        from .dicom import pick_series

        files = list(pick_series(path, series_uid, modality).files)
    digests = sorted(map(file_sha256, files))
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
