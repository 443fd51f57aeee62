"""What was received, on disk: an object is there whole before its sender is told so, and under no name of its own."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusion_nets.clinical import ImageError
from fusion_nets.clinical.dicom import is_result
from fusion_nets.clinical.dicom.parsing import parse, parsing
from fusion_nets.files import remove_partials, sync, whole_file

from .rules import Facts

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Identity", "Refusal", "Refused", "Spool", "identify", "name_of", "objects_in"]

logger = logging.getLogger(__name__)

LEFT_FREE = 2**28
"""Bytes of the disk that are left to others."""

_META = 2**14
"""Bytes at a file's start in which its transfer syntax stands."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class Refusal(Enum):
    """Why an object is not taken, and the status by which a C-STORE says so (PS3.4 table B.2-1)."""

    FULL = 0xA700
    TOO_LARGE = 0xA701
    OTHER = 0xA900
    """It is not what the request says."""
    DAMAGED = 0xC000
    CHANGED = 0xC001
    """Another object of the same UID was received before."""


class Refused(ValueError):
    """An object that is not taken; the message holds nothing of it."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


@dataclass(frozen=True)
class Identity:
    """What an object says that it is.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        instance: SOP Instance UID.
        sop_class: SOP Class UID.
        is_made_here: whether this library made it, so that it is no source.
    """

    study: str
    series: str
    instance: str
    sop_class: str
    is_made_here: bool


def name_of(uid: str) -> str:
    """What a UID is called in the spool: 32 hexadecimal digits, the first 8 its fingerprint."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def identify(content: bytes) -> Identity:
    """What an object is, by its header alone.

    Raises:
        Refused: for what cannot be read, has no UIDs, or fewer pixels than its header says.
    """
    from pydicom import dcmread
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

    file = BytesIO(content)
    if DeflatedExplicitVRLittleEndian.encode() in content[:_META]:  # which may fill the memory when it is inflated
        raise Refused(Refusal.DAMAGED, "deflated, which is not taken")
    try:
        with parsing("the object"):
            dataset = dcmread(file, stop_before_pixels=True)
            uids = [str(dataset.get(keyword) or "") for keyword in _UIDS]
            is_short = _is_short(dataset, len(content) - file.tell())
            is_made_here = is_result(dataset)
    except ImageError:
        raise Refused(Refusal.DAMAGED, "no DICOM object that can be read") from None
    if not all(len(uid) <= 64 and UID(uid).is_valid for uid in uids):
        raise Refused(Refusal.DAMAGED, "a UID of study, series, instance or class is missing or none")
    if is_short:
        raise Refused(Refusal.DAMAGED, "no image, or fewer pixels than its header says")
    return Identity(uids[0], uids[1], uids[2], uids[3], is_made_here)


def _is_short(dataset: Dataset, rest: int) -> bool:
    """Whether there is less behind a header than its pixels take, or no header of an image."""
    from pydicom.uid import ImplicitVRLittleEndian

    if not all(keyword in dataset for keyword in ("Rows", "Columns", "BitsAllocated")):
        return True
    syntax = dataset.file_meta.TransferSyntaxUID
    rest -= 8 if syntax == ImplicitVRLittleEndian else 12  # of the element itself, PS3.5 section 7.1
    if syntax.is_compressed:
        return rest <= 0
    per_frame = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel") or 1)
    bits = per_frame * int(dataset.BitsAllocated) * int(dataset.get("NumberOfFrames") or 1)
    chroma_halved = str(dataset.get("PhotometricInterpretation") or "").startswith("YBR_FULL_422")
    return rest < bits // 8 * (2 if chroma_halved else 3) // 3


class Spool:
    """A folder of received studies, pairs and results; for one process at a time.

    Objects lie in ``studies/STUDY/SERIES/INSTANCE.dcm``, pairs in ``pairs/ID``; all names are digests.

    Args:
        folder: made when it is missing, for its owner alone.
        most_bytes: of all that lies in it; beyond, objects are refused.
        most_object: bytes of one object.
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int = 2**40, most_object: int = 2**29) -> None:
        self.folder = Path(folder)
        self.studies = self.folder / "studies"
        self.pairs = self.folder / "pairs"
        self.most_bytes = most_bytes
        self.most_object = most_object
        self.used = 0
        self._lock = threading.Lock()
        self._storing: set[Path] = set()
        self._stored = threading.Condition(self._lock)
        self._arrived: dict[str, float] = {}

    @contextmanager
    def opened(self) -> Iterator[Spool]:
        """Take the folder for this process, and remove what a killed one left half-written.

        Every study that is there counts as having arrived now.

        Raises:
            ValueError: if another process has it.
        """
        for place in (self.folder, self.studies, self.pairs):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            _take(lock, self.folder)
            for inside, _, _ in os.walk(self.folder):
                remove_partials(inside)
            for removed in self.folder.glob("removed-*"):
                shutil.rmtree(removed, ignore_errors=True)
            self.used = size_of(self.folder)
            self._arrived = {study.name: time.monotonic() for study in self.studies.iterdir() if study.is_dir()}
            yield self

    def store(self, content: bytes, instance: str | None = None, sop_class: str | None = None) -> str:
        """Have an object on the disk.

        Args:
            content: as a DICOM file.
            instance: SOP Instance UID that its sender gives; None for what the object says.
            sop_class: SOP Class UID likewise.

        Returns:
            "stored", "again" for one that is there already, or "fused" for this library's own, which is passed over.

        Raises:
            Refused: for an object that is not taken; nothing is changed then.
            WriteError: if it cannot be written.
        """
        if len(content) > self.most_object:
            raise Refused(Refusal.TOO_LARGE, f"larger than the {self.most_object >> 20} MiB that are accepted")
        identity = identify(content)
        if (instance or identity.instance, sop_class or identity.sop_class) != (identity.instance, identity.sop_class):
            raise Refused(Refusal.OTHER, "UIDs of the request and the object differ")
        if identity.is_made_here:
            return "fused"
        study = name_of(identity.study)
        path = self.studies / study / name_of(identity.series) / f"{name_of(identity.instance)}.dcm"
        with self._alone(path):
            if path.exists():
                if path.read_bytes() != content and not _is_same(path, content):
                    raise Refused(Refusal.CHANGED, "another object of this UID was received before, and is kept")
                with self._lock:
                    if study in self._arrived:  # its sender begins anew, and the rest follows
                        self._arrived[study] = time.monotonic()
                return "again"
            self._check_room(len(content))
            with whole_file(path, durable=True) as partial:
                partial.write_bytes(content)
            with self._lock:
                self.used += len(content)
                self._arrived[study] = time.monotonic()
        return "stored"

    def quiet(self, seconds: float) -> list[str]:
        """Studies to which nothing was added for a while, each told once until something is."""
        with self._lock:
            now, busy = time.monotonic(), self._busy()
            found = [name for name, arrived in self._arrived.items() if now - arrived >= seconds and name not in busy]
            for study in found:
                del self._arrived[study]
        return found

    def wait_again(self, study: str) -> None:
        """Have a study told again, when it is quiet from now on."""
        with self._lock:
            self._arrived[study] = time.monotonic()

    def waiting(self) -> int:
        """How many studies have not been quiet for long enough, or have an object being written."""
        with self._lock:
            return len(self._arrived.keys() | self._busy())

    def is_settled(self, study: str, seconds: float) -> bool:
        """Whether nothing was added to a study for so long, and it was looked at since."""
        with self._lock:
            if study in self._arrived:
                return False
        folders = [self.studies / study, *(self.studies / study).iterdir()]
        return time.time() - max(folder.stat().st_mtime for folder in folders) >= seconds

    def series(self, study: str) -> list[Facts]:
        """The series of images of a study, without planning views."""
        found = []
        for folder in sorted((self.studies / study).iterdir()):
            files = objects_in(folder)
            facts = _facts(folder, files) if files else None
            if facts is not None:
                found.append(facts)
        return found

    def remove_study(self, study: str) -> bool:
        """Remove a study; False where something came for it in this moment, so that it stays."""
        folder, aside = self.studies / study, self.folder / f"removed-{study}"
        with self._lock:
            if study in self._arrived or study in self._busy():
                return False
            os.replace(folder, aside)
        self.remove(aside)
        return True

    def remove(self, folder: Path) -> None:
        """Remove a folder of results."""
        size = size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.note(-size)

    def note(self, size: int) -> None:
        """Count what was written into the folder by others."""
        with self._lock:
            self.used += size

    def is_full(self) -> bool:
        """Whether no object can be taken."""
        try:
            self._check_room(0)
        except Refused:
            return True
        return False

    def _busy(self) -> set[str]:
        """Studies of which an object is being written; its folders may be there, though nothing is in them yet."""
        return {path.parents[1].name for path in self._storing}

    def _check_room(self, size: int) -> None:
        if self.used + size >= self.most_bytes:
            raise Refused(Refusal.FULL, "the spool holds as much as it may")
        if shutil.disk_usage(self.folder).free - size < LEFT_FREE:
            raise Refused(Refusal.FULL, "the disk of the spool is full")

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Let one thread at a time store an object of this name."""
        with self._stored:
            while path in self._storing:
                self._stored.wait()
            self._storing.add(path)
        try:
            yield
        finally:
            with self._stored:
                self._storing.remove(path)
                self._stored.notify_all()


def objects_in(folder: Path) -> list[Path]:
    """The objects of a series, without those that are being written."""
    return sorted(folder.glob("[!.]*.dcm"))


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def sync_tree(folder: Path) -> None:
    """Have a folder with all that is in it on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(place, name))
        sync(place)


def _facts(folder: Path, files: list[Path]) -> Facts | None:
    """Of a series by its first file; None for what is no image that can be fused."""
    try:
        dataset = parse(files[0], files[0])
        if dataset is None:
            return None
        with parsing(files[0]):
            if "Rows" not in dataset or "LOCALIZER" in (dataset.get("ImageType") or []):
                return None
            said: dict[str, Any] = {
                name: str(dataset.get(keyword) or "")
                for name, keyword in (("description", "SeriesDescription"), ("body_part", "BodyPartExamined"))
            }
            patient = tuple(
                str(dataset.get(keyword) or "").strip()
                for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate")
            )
            modality = str(dataset.get("Modality") or "").upper()
            return Facts(folder, modality, images=len(files), patient=patient, **said)
    except ImageError as error:
        logger.warning("a series is passed over: %s", error)
        return None


def _is_same(path: Path, content: bytes) -> bool:
    """Whether two objects say the same, though one was encoded otherwise on its way."""
    from pydicom import dcmread

    try:
        with parsing(path):
            headers = [dcmread(what, stop_before_pixels=True) for what in (path, BytesIO(content))]
            if headers[0].file_meta.TransferSyntaxUID != headers[1].file_meta.TransferSyntaxUID:
                return bool(headers[0] == headers[1])
            return bool(dcmread(path) == dcmread(BytesIO(content)))
    except ImageError:
        return False


def _take(lock: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"{folder}: another process receives into it; a spool of its own is accepted") from error
