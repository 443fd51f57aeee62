"""Names that users give: of options, of results, and of what must not be written over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

__all__ = ["RESULTS_BESIDE", "check_destination", "check_name", "entries_read", "is_result", "perhaps"]

RESULTS_BESIDE = (
    *("_registration.tfm", "_checkerboard.png", "_montage.png"),
    *("_regions.csv", "_description.json"),
)
"""What stands behind a pair's name in the names of what is written beside its fused image, where there is such."""

_RESULT = re.compile(
    rf"_fused(\.nii\.gz|\.[a-z0-9]+|_slices)|_dicom|{'|'.join(map(re.escape, RESULTS_BESIDE))}", re.IGNORECASE
)
"""What stands behind a pair's name in the names of its results."""

_LONGEST = len("_registration.tfm")


def perhaps(word: object, accepted: Iterable[str]) -> str:
    """What a misspelt word may have meant, to be put behind it in a message: ", perhaps 'register'", or nothing.

    Examples:
        >>> perhaps("regsiter", ["register", "regions"])
        ", perhaps 'register'"
        >>> perhaps("x", ["register", "regions"])
        ''
    """
    near = get_close_matches(str(word)[:80], list(accepted), 1)
    return f", perhaps {near[0]!r}" if near else ""


def check_name(name: str, folder: str | os.PathLike[str] = ".", behind: int = _LONGEST) -> None:
    """See whether a pair's results can bear its name in a folder, which need not be there yet.

    Args:
        name: of the pair.
        folder: where the results will lie.
        behind: bytes that are put behind the name at most.

    Raises:
        ValueError: for a name that leads out of the folder, or that its file system does not take.

    Examples:
        >>> check_name("sub-01 #2 $x")
        >>> check_name("../sub-01")
        Traceback (most recent call last):
        ...
        ValueError: the name '../sub-01' is no plain file name; one without folders is accepted
    """
    shown = repr(name if len(name) <= 80 else f"{name[:80]}...")
    if name in ("", ".", "..") or name != Path(name).name or "\0" in name:
        raise ValueError(f"the name {shown} is no plain file name; one without folders is accepted")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the name {shown} is no text in Unicode; one is accepted") from None
    most = _most_bytes(Path(folder)) - behind
    if length > most:
        raise ValueError(f"the name {shown} has {length} bytes; up to {most} are accepted in this file system")


def _most_bytes(folder: Path) -> int:
    """The longest name in a folder, or in the nearest one above that is there."""
    for place in (folder, *folder.absolute().parents):
        try:
            return os.pathconf(place, "PC_NAME_MAX")
        except (OSError, ValueError, AttributeError):  # Windows has no pathconf
            continue
    return 255


def is_result(name: str, file: str) -> bool:
    """Whether a file or folder of this name is a result of the pair, and of no other pair.

    Examples:
        >>> is_result("case1", "case1_fused.nii.gz"), is_result("case1", "case1_b_fused.nii.gz")
        (True, False)
    """
    return file.startswith(name) and bool(_RESULT.fullmatch(file, len(name)))


def entries_read(folder: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """What of a folder is read, or holds what is read, by the names of its entries: the source of each."""
    places = _places(folder)
    found = {}
    for source in sources:
        for place in _places(source):
            for inside in (place.relative_to(there).parts for there in places if place.is_relative_to(there)):
                found.update({part: str(source) for part in inside[:1]})
    return found


def check_destination(path: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse to write over what is read, whatever it is called by symbolic links.

    Args:
        path: file or folder to be written.
        sources: files and folders that are read; None is none.

    Raises:
        ValueError: naming the source.
    """
    for source in sources:
        if source and any(place.is_relative_to(target) for place in _places(source) for target in _places(path)):
            raise ValueError(f"{path}: would be written over {source}, which is read; another name is accepted")


def _places(path: str | os.PathLike[str]) -> set[Path]:
    """Where it lies, and where the link lies that it may be."""
    if "\0" in os.fspath(path):  # there is no such place
        return set()
    folder, name = os.path.split(path)
    return {Path(os.path.realpath(path)), Path(os.path.realpath(folder), name)}
