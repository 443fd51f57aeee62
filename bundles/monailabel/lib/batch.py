"""Fuse pairs of a datastore, all or those of given ids, and those only that were not fused yet."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType, BatchInferTask

from fusion_nets.files import whole_file
from lib.fuser import Fuser
from lib.images import Image
from lib.parameters import FROM_BATCHES

__all__ = ["FusionBatch", "check_ids", "pairs_asked_for", "pairs_of", "with_progress"]

logger = logging.getLogger(__name__)

STATUSES = ("fused", "was done", "failed", "skipped")

RANKS = {"MR": 0, "CT": 1, "PT": 2, "NM": 2}
"""What is the anatomy of a pair: an MR, else a CT."""

LONGEST = 100_000
"""Of a list of ids as JSON; MONAI Label hands it on as an argument of a command, which Linux ends at 131072 bytes."""

MOST_REASONS = 1000
"""Of failures, in the status of a batch, which is written anew after each case; its result holds all."""


def check_ids(images: Any) -> list[str]:
    """Ids of images, each once.

    Raises:
        HTTPException: 422, for what is no list of them, or too long a list.
    """
    if not isinstance(images, list) or not images or not all(isinstance(id, str) and id for id in images):
        raise HTTPException(422, "images: a list of one or more ids of the datastore is accepted, as texts")
    if len(json.dumps(images)) > LONGEST:
        raise HTTPException(
            422, f"images: {len(images)} ids have more than {LONGEST} characters; several batches are accepted"
        )
    return list(dict.fromkeys(images))


def pairs_of(images: Sequence[Image]) -> tuple[list[tuple[Image, Image]], dict[str, str]]:
    """Anatomy and overlay of every study that holds just these, and why others are no pairs, by their ids."""
    studies = defaultdict(list)
    for image in images:
        studies[image.study].append(image)
    pairs, skipped = [], {}
    for study in studies.values():
        ranks = [RANKS.get(image.modality, 9) for image in study]
        if len(study) == 1:
            reason = "alone in its study"
        elif len(study) > 2:
            reason = f"its study holds {len(study)} images; a request with an overlay fuses two of them"
        elif 9 in ranks:
            reason = "the modality of one of its study's two images is not known"
        elif ranks[0] == ranks[1] or min(ranks) == 2:
            reason = f"its study holds {' and '.join(image.modality for image in study)}, none of which is the anatomy"
        else:
            anatomy, overlay = sorted(study, key=lambda image: RANKS[image.modality])
            pairs.append((anatomy, overlay))
            continue
        skipped |= {image.id: reason for image in study}
    return pairs, skipped


def pairs_asked_for(ids: Sequence[str], images: Sequence[Image]) -> tuple[list[tuple[Image, Image]], dict[str, str]]:
    """The pairs that ids mean, and why others of them mean none, by id.

    Two ids of one study are a pair; where one is named, its study's other image is the other.

    Args:
        ids: those that were asked for.
        images: those of these ids and of their studies.
    """
    asked = set(ids)
    named = Counter(image.study for image in images if image.id in asked)
    pairs, skipped = pairs_of([image for image in images if image.id in asked or named[image.study] == 1])
    gone = dict.fromkeys(asked - {image.id for image in images}, "no image to be fused")
    reasons = {**skipped, **gone}
    return pairs, {id: reasons[id] for id in ids if id in reasons}


class Progress:
    """What a batch has come to, in a file that the server reads.

    Args:
        path: of the file, written beside and renamed; a batch goes on without it.
        batch: by which the server knows the batch.
        told: of what is no pair, by id, its status and reason.
        total: how many pairs there are.
    """

    def __init__(self, path: Path, batch: str, told: Mapping[str, Mapping[str, Any]], total: int) -> None:
        self.path = path
        self.batch = batch
        self.total = total
        self.done = 0
        self.counts: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        for id, one in told.items():
            self._count(id, one)
        self.write()

    def add(self, id: str, one: Mapping[str, Any]) -> None:
        """A pair that was tried."""
        self.done += 1
        self._count(id, one)
        self.write()

    def _count(self, id: str, one: Mapping[str, Any]) -> None:
        self.counts[one["status"]] += 1
        if one["status"] == "failed" and len(self.failed) < MOST_REASONS:
            self.failed[id] = one["reason"]

    def write(self) -> None:
        """Let the server know."""
        counts = {status.replace(" ", "_"): self.counts[status] for status in STATUSES}
        said = {"total": self.total, "done": self.done, **counts, "reasons": self.failed}
        with suppress(OSError), whole_file(self.path) as partial:
            partial.write_text(json.dumps({"batch": self.batch, "progress": said}), encoding="utf-8")


def with_progress(task: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What MONAI Label tells of a batch, and how far it is, where it wrote that."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = {}
    batch = task.get("request", {}).get("batch")
    return {**task, **({"progress": noted["progress"]} if batch and noted.get("batch") == batch else {})}


class FusionBatch(BatchInferTask):
    """Fuse every study that holds two images, or those of given ids, and save what comes out.

    Each case is told in the log, of which MONAI Label shows the last lines as the status of the batch, and counted in
    a file, from which the status tells how far it is. What is there already, made of the same images with the same
    parameters and weights, is not made again.

    Args:
        app: whose datastore and models these are.
    """

    def __init__(self, app: Fuser) -> None:
        self.app = app

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Any) -> dict[str, dict[str, Any]]:
        """Fuse all that are asked for.

        Args:
            request: "model"; "images", a list of ids, "all", or only those "unlabeled" or "labeled", which is without
                a result under the tag or with one; "batch", by which its status is known; and parameters.
            datastore: not used; it is the app's.
            infer: not used.

        Returns:
            By the id of its anatomy, or of an image that is no pair, the "status" of every case ("fused", "was done",
            "failed" or "skipped"), and its "overlay", or the "reason".
        """
        asked = {name: value for name, value in request.items() if name not in ("images", "batch", *FROM_BATCHES)}
        which = request.get("images", BatchInferImageType.IMAGES_ALL)
        tag = asked.get("label_tag") or request["model"]
        if isinstance(which, list):
            pairs, refused = pairs_asked_for(which, self.app.images.among(which))
            told = {id: {"status": "failed", "reason": reason} for id, reason in refused.items()}
        else:
            pairs, skipped = pairs_of(self.app.images.all())
            told = {id: {"status": "skipped", "reason": reason} for id, reason in skipped.items()}
        if which in (BatchInferImageType.IMAGES_LABELED, BatchInferImageType.IMAGES_UNLABELED):
            labeled = which == BatchInferImageType.IMAGES_LABELED
            pairs = [pair for pair in pairs if (self.app.images.labels(tag) / f"{pair[0].id}.json").exists() == labeled]
        pairs = pairs[: request.get("max_batch_size") or None]
        for id, one in told.items():
            logger.info("%s %s: %s", one["status"], id, one["reason"])
        progress = Progress(self.app.images.batch_file(), str(request.get("batch", "")), told, len(pairs))
        for number, (anatomy, overlay) in enumerate(pairs, start=1):
            told[anatomy.id] = self._case({**asked, "image": anatomy.id, "overlay": overlay.id})
            one = told[anatomy.id]
            progress.add(anatomy.id, one)
            logger.info(
                "%d of %d: %s %s%s", number, len(pairs), one["status"], anatomy.id,
                f": {one['reason']}" if "reason" in one else "",
            )  # fmt: skip
        return told

    def _case(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            job = self.app.prepare(request)
            if self.app.is_done(job):
                return {"status": "was done", "overlay": job.overlay.id}
            with tempfile.TemporaryDirectory(prefix="fusion-") as folder:
                self.app.fuse(job, Path(folder), save=True)
            return {"status": "fused", "overlay": job.overlay.id}
        except HTTPException as error:
            return {"status": "failed", "reason": error.detail}
        except Exception as error:  # the others shall be fused
            logger.exception("unexpected")
            return {"status": "failed", "reason": type(error).__name__}
