"""Names that users give: of options, of results, and of what must not be written over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

__all__ = ["RESULTS_BESIDE", "check_destination", "check_name", "entries_read", "is_result", "is_unicode"]
__all__ += ["pair_of", "perhaps", "shown"]

RESULTS_BESIDE = (
    *("_registration.tfm", "_registration2.tfm", "_registration3.tfm"),
    *("_checkerboard.png", "_checkerboard2.png", "_checkerboard3.png"),
    *("_mip.png", "_mip2.png", "_mip3.png", "_montage.png", "_regions.csv", "_description.json"),
)
"""What stands behind a pair's name in the names of what is written beside its fused image, where there is such: of a
second and a third overlay with their number."""

_ON_GRID = "_(anatomy|overlay[23]?)_on_grid"
_RESULT = re.compile(
    rf"(_fused[23]?|{_ON_GRID})(\.nii\.gz|\.[a-z0-9]+)|_fused_slices|({_ON_GRID})?_dicom|"
    + "|".join(map(re.escape, RESULTS_BESIDE)),
    re.IGNORECASE,
)
"""What stands behind a pair's name in the names of its results."""

_LONGEST = len("_registration2.tfm")


def perhaps(word: object, accepted: Iterable[str]) -> str:
    """What a misspelt word may have meant, to be put behind it in a message: ", perhaps 'register'", or nothing.

    That is the shortest accepted word that begins with it, or else the one that is spelt most like it.

    Examples:
        >>> perhaps("regsiter", ["register", "regions"])
        ", perhaps 'register'"
        >>> perhaps("x", ["register", "regions"])
        ''
    """
    known, start = [str(one) for one in accepted], str(word)[:80]
    begun = [one for one in known if len(start) > 2 and one.startswith(start)]
    near = [min(begun, key=len)] if begun else get_close_matches(start, known, 1)
    return f", perhaps {near[0]!r}" if near else ""


def is_unicode(text: str) -> bool:
    r"""Whether a text has no half characters (lone surrogates), which no page, table or tokenizer takes.

    Examples:
        >>> is_unicode("a"), is_unicode("\ud800")
        (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


def shown(text: str) -> str:
    r"""With an escape sequence for each half character.

    Examples:
        >>> print(shown("a\udcff"))
        a\udcff
    """
    return text.encode(errors="backslashreplace").decode()


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


def pair_of(file: str) -> str | None:
    """The name of the pair whose result a file or folder of this name is; None where it is no pair's.

    Examples:
        >>> pair_of("case1_b_fused.nii.gz"), pair_of("case1.nii.gz")
        ('case1_b', None)
    """
    ends = (bar.start() for bar in re.finditer("_", file))
    return next((file[:end] for end in ends if _RESULT.fullmatch(file, end)), None)


def is_result(name: str, file: str) -> bool:
    """Whether a file or folder of this name is a result of the pair, and of no other pair.

    Examples:
        >>> is_result("case1", "case1_fused.nii.gz"), is_result("case1", "case1_b_fused.nii.gz")
        (True, False)
    """
    return pair_of(file) == name


def entries_read(folder: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """What of a folder is read, or holds what is read, by the names of its entries: the source of each."""
    known: dict[str, str] = {}
    places = _places(folder, known)
    found = {}
    for source in sources:
        for place in _places(source, known):
            for inside in (_inside(place, there) for there in places):
                if inside:
                    found[inside.partition(os.sep)[0]] = str(source)
    return found


def check_destination(path: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse to write over what is read, whatever it is called by symbolic links.

    Args:
        path: file or folder to be written.
        sources: files and folders that are read; None is none.

    Raises:
        ValueError: naming the source.
    """
    known: dict[str, str] = {}
    targets = _places(path, known)
    for source in sources:
        places = _places(source, known) if source else ()
        if any(_inside(place, target) is not None for place in places for target in targets):
            raise ValueError(f"{path}: would be written over {source}, which is read; another name is accepted")


def _places(path: str | os.PathLike[str], known: dict[str, str]) -> set[str]:
    """Where it lies, and where the link lies that it may be; where folders lie is looked up once, and known."""
    path = os.fspath(path)
    if "\0" in path:  # there is no such place
        return set()
    folder, name = os.path.split(path)
    try:
        if folder not in known:
            known[folder] = os.path.realpath(folder)
        place = os.path.join(known[folder], name)
        if name in ("", os.curdir, os.pardir) or os.path.islink(path):
            return {os.path.realpath(path), os.path.normpath(place)}
    except ValueError:  # of half a character
        return set()
    return {place}


def _inside(place: str, folder: str) -> str | None:
    """The path from a folder to a place in it, "" for the folder itself; None where it lies elsewhere."""
    within = os.path.join(folder, "")
    if os.path.normcase(place) == os.path.normcase(folder):
        return ""
    return place[len(within) :] if os.path.normcase(place).startswith(os.path.normcase(within)) else None
