"""Find the series in a folder or file, and pick one of them."""

from __future__ import annotations

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, Reason
from ..modalities import modality_code
from .frames import CHOSEN, Frame, frames_of, normal_of
from .identity import fingerprint
from .parsing import parse, parsing, tells_patient, where_in

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Series", "check_pair", "find_series", "pick_series"]


@dataclass(frozen=True, eq=False)
class Series:
    """One series: its files and headers, classic instances in the order of the slices.

    Slices are ordered along the normal of their plane (row direction x column direction), which is the order of the
    last axis of what :func:`read_series` makes of them; where they have no geometry, by their number.

    Attributes:
        path: where it was looked for.
        files: of the instances.
        datasets: their headers, without pixels.
    """

    path: Path
    files: tuple[Path, ...]
    datasets: tuple[Dataset, ...]

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self._text("SeriesInstanceUID")

    @property
    def modality(self) -> str:
        """DICOM's code, such as "MR"; "" where the header has none."""
        return self._text("Modality").upper()

    @property
    def number(self) -> str:
        """Series number; "" where it has none."""
        return self._text("SeriesNumber")

    @property
    def description(self) -> str:
        """Series description; "" where it has none or tells who the patient is."""
        text = " ".join(self._text("SeriesDescription").split())
        return "" if tells_patient(text, self.datasets[0]) else text

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self._text("StudyInstanceUID")

    @property
    def frame_of_reference_uid(self) -> str:
        """Of the coordinates; "" where there is none."""
        return self._text("FrameOfReferenceUID")

    @property
    def images(self) -> int:
        """How many images there are, frames of multi-frame instances counted."""
        return sum(int(dataset.get("NumberOfFrames") or 1) for dataset in self.datasets)

    @property
    def is_localizer(self) -> bool:
        """Whether it is a planning view (PS3.3 C.8.2.1.1.1.3), which nobody means by "the CT"."""
        return all("LOCALIZER" in (dataset.get("ImageType") or []) for dataset in self.datasets)

    def where(self, index: int) -> str:
        """What messages about one of the instances start with."""
        return where_in(self.path, self.files[index], self.datasets[index])

    def frames(self) -> list[Frame]:
        """All frames of all instances, in their order."""
        return frames_of([(self.where(index), dataset) for index, dataset in enumerate(self.datasets)])

    def only(self, frames: Sequence[Frame]) -> Series:
        """The series with some of its frames alone."""
        chosen: dict[int, list[int]] = defaultdict(list)
        for frame in frames:
            chosen[frame.instance].append(frame.index)
        counts = Counter(frame.instance for frame in self.frames())
        datasets = []
        for instance in sorted(chosen):
            dataset = self.datasets[instance]
            if len(chosen[instance]) < counts[instance]:
                dataset = copy(dataset)
                setattr(dataset, CHOSEN, sorted(chosen[instance]))
            datasets.append(dataset)
        return Series(self.path, tuple(self.files[instance] for instance in sorted(chosen)), tuple(datasets))

    def _text(self, keyword: str) -> str:
        return str(self.datasets[0].get(keyword) or "")

    def __str__(self) -> str:
        """For people to choose by; without the UID."""
        details = [self.modality or "no modality", f"series {self.number or '?'}"]
        details += [repr(self.description)] if self.description else []
        return f"{fingerprint(self.uid)} ({', '.join([*details, _count(self.images, 'image')])})"


def find_series(path: str | os.PathLike[str]) -> list[Series]:
    """The series of images in a folder and the folders in it, or the one in a file.

    Hidden files, files that are not DICOM, objects without pixels of their own (reports, presentation states,
    structure sets, segmentations, ...) are passed over, and so is what lies there twice, byte by byte. Links are
    followed, each folder once.

    Args:
        path: a folder, or a file.

    Returns:
        The series, by their numbers.

    Raises:
        ImageError: if there is none, or a DICOM file is damaged.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise ImageError(
            Reason.MISSING, f"{path}: no such file or folder; a DICOM file or a folder of them is accepted"
        )
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    others: Counter[str] = Counter()
    files = _files(path)
    with parsing(path):  # once for all that follow
        for file in files:
            dataset = parse(file, where_in(path, file))
            if dataset is None:
                continue
            with parsing(where_in(path, file)):
                if not _is_image(dataset, where_in(path, file, dataset)):
                    others[str(dataset.get("Modality") or "an object of another kind")] += 1
                    continue
                found[str(dataset.get("SeriesInstanceUID") or "")].append((file, dataset))
    if not found and others:
        kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(others.items()))
        raise ImageError(Reason.NO_PIXELS, f"{path}: no pixel data; it holds {kinds}; images are accepted")
    if not found:
        raise ImageError(Reason.MISSING, f"{path}: no DICOM image found; a DICOM file or a folder of them is accepted")
    with parsing(path):
        series = [_series(path, members) for members in found.values()]
        return sorted(series, key=lambda one: (float(one.number or "inf"), one.uid))


def pick_series(path: str | os.PathLike[str], series_uid: str | None = None, modality: str | None = None) -> Series:
    """The series that is meant.

    Args:
        path: a folder, or a file.
        series_uid: its UID, or the :func:`fingerprint` of it.
        modality: its modality, as DICOM calls it; localizers then count only where there is nothing else.

    Raises:
        ImageError: if no series or more than one is meant; the message lists what is there.
        ValueError: for a modality that is none.
    """
    available = find_series(path)
    with parsing(path):
        known = {one.modality for one in available}
    # what is there can be asked for, even where it is no acquisition
    wanted = modality_code(modality) if modality and modality.upper() not in known else (modality or "").upper()
    with parsing(path):
        chosen = available
        if series_uid:
            chosen = [one for one in chosen if series_uid in (one.uid, fingerprint(one.uid))]
        if modality:
            chosen = [one for one in chosen if one.modality == wanted]
        if not series_uid:
            chosen = [one for one in chosen if not one.is_localizer] or chosen
        if len(chosen) == 1:
            return chosen[0]
        listed = "; ".join(map(str, chosen or available))
        if chosen:
            raise ImageError(
                Reason.AMBIGUOUS,
                f"{path}: holds {_count(len(chosen), 'series')} that may be meant: {listed}; a single one is accepted, "
                "chosen by its series UID, by the 8 digits before it, or by its modality",
            )
        asked = [f"series {_told(series_uid)}"] if series_uid else []
        asked += [f"modality {modality}"] if modality else []
        raise ImageError(Reason.MISSING, f"{path}: holds no {' of '.join(asked)}; accepted are {listed}")


def check_pair(anatomy: Series, overlay: Series, register: bool = False) -> list[str]:
    """What speaks against fusing two series, as warnings without any value from their headers.

    Args:
        anatomy: one of them.
        overlay: the other.
        register: whether they will be registered, so that their coordinates may differ.
    """
    warnings = []
    with parsing(anatomy.path):
        one, other = _patient(anatomy), _patient(overlay)
        if not (one[0] and other[0]):
            warnings.append("PatientID is missing, so that anatomy and overlay may be of two patients")
        elif one != other:
            warnings.append("PatientID, IssuerOfPatientID or PatientBirthDate of anatomy and overlay differ")
        frames = anatomy.frame_of_reference_uid, overlay.frame_of_reference_uid
        if not register and not (frames[0] and frames[0] == frames[1]):
            warnings.append(
                "FrameOfReferenceUID of anatomy and overlay "
                + ("differ" if all(frames) else "is missing")
                + ", so that their coordinates may not belong together; registration is advised"
            )
    return warnings


def _patient(series: Series) -> tuple[str, str, str]:
    keywords = ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
    identifier, issuer, birth = (str(series.datasets[0].get(keyword) or "").strip() for keyword in keywords)
    return identifier, issuer, birth


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files, known = [], set()
    for folder, folders, names in os.walk(path, followlinks=True):
        here = os.path.realpath(folder)
        if here in known:  # which links may lead to again and again
            folders.clear()
            continue
        known.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith("."):
                continue
            if file.is_symlink() and not file.exists():
                raise ImageError(
                    Reason.MISSING,
                    f"{where_in(path, file)}: is a link to a file that is not there, such as of git-annex, which "
                    "`git annex get` fetches; a whole series is accepted",
                )
            if file.is_file():
                files.append(file)
    return files


def _is_image(dataset: Dataset, where: str) -> bool:
    """Whether it is an object of pixels (PS3.4 B.5), not one with pixels about others, such as a segmentation."""
    from pydicom.uid import UID

    meta = getattr(dataset, "file_meta", {})
    uid = UID(str(dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""))
    if not (uid.is_private or "Image Storage" in uid.name):
        return False
    if dataset.get("Rows") and dataset.get("Columns"):
        return True
    if uid.is_private:
        return False
    raise ImageError(
        Reason.INCOMPLETE, f"{where}: no pixel data (Rows or Columns is missing); a whole DICOM image is accepted"
    )


def _series(path: Path, members: list[tuple[Path, Dataset]]) -> Series:
    kept: list[tuple[Path, Dataset]] = []
    by_uid: dict[str, Path] = {}
    for file, dataset in members:
        uid = str(dataset.get("SOPInstanceUID") or file)
        if uid in by_uid and filecmp.cmp(file, by_uid[uid], shallow=False):
            continue
        by_uid.setdefault(uid, file)
        kept.append((file, dataset))
    kept.sort(key=lambda one: (int(one[1].get("InstanceNumber") or 0), str(one[0])))
    series = Series(path, *map(tuple, zip(*kept, strict=True)))
    if len(kept) == 1:
        return series
    try:
        frames = series.frames()
        orientation = frames[0].orientation
        places = [frame.position for frame in frames if frame.position is not None]
    except ImageError:
        return series  # refused with its reason when it is read
    if orientation is None or not len(places) == len(frames) == len(kept):
        return series
    order = np.argsort(np.stack(places) @ normal_of(orientation), kind="stable")
    return Series(path, *map(tuple, zip(*(kept[index] for index in order), strict=True)))


def _told(uid: str) -> str:
    return fingerprint(uid) if "." in uid else uid


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 or noun == "series" else f"{number} {noun}s"
