"""What requests and batches ask of the app that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lib.images import ArchiveImages, FolderImages
from lib.task import FusionTask, Job

__all__ = ["Fuser"]


class Fuser(Protocol):
    """Fuses the images of a datastore: ``FusionApp`` of ``main.py``, which says what each does."""

    images: ArchiveImages | FolderImages

    def task(self, model: Any) -> FusionTask:
        """The task of a model."""

    def prepare(self, request: Mapping[str, Any]) -> Job:
        """See whether a request can be fulfilled."""

    def infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Fuse a pair."""

    def fuse(self, job: Job, folder: Path, save: bool) -> tuple[Path, dict[str, Any]]:
        """Do a job."""

    def page(self, id: Any, tag: Any) -> Path:
        """The page of a result that was saved."""

    def is_done(self, job: Job) -> bool:
        """Whether the datastore has the result of this very job."""
