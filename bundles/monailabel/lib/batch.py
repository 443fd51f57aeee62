"""Fuse all pairs of a datastore, and those only that were not fused yet."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType, BatchInferTask

from lib.fuser import Fuser
from lib.images import Image
from lib.parameters import FROM_BATCHES

__all__ = ["FusionBatch", "pairs_of"]

logger = logging.getLogger(__name__)

RANKS = {"MR": 0, "CT": 1, "PT": 2, "NM": 2}
"""What is the anatomy of a pair: an MR, else a CT."""


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


class FusionBatch(BatchInferTask):
    """Fuse every study that holds two images, and save what comes out.

    Each case is told in the log, of which MONAI Label shows the last lines as the status of the batch. What is there
    already, made of the same images with the same parameters and weights, is not made again.

    Args:
        app: whose datastore and models these are.
    """

    def __init__(self, app: Fuser) -> None:
        self.app = app

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Any) -> dict[str, dict[str, Any]]:
        """Fuse all.

        Args:
            request: "model"; "images", "all" or only those "unlabeled" or "labeled", which is without a result under
                the tag or with one; and parameters.
            datastore: not used; it is the app's.
            infer: not used.

        Returns:
            By the id of its anatomy, or of an image that is no pair, the "status" of every case ("fused", "was done",
            "failed" or "skipped"), and its "overlay", or the "reason".
        """
        asked = {name: value for name, value in request.items() if name not in ("images", *FROM_BATCHES)}
        which = request.get("images", BatchInferImageType.IMAGES_ALL)
        tag = asked.get("label_tag") or request["model"]
        pairs, skipped = pairs_of(self.app.images.all())
        if which != BatchInferImageType.IMAGES_ALL:
            labeled = which == BatchInferImageType.IMAGES_LABELED
            pairs = [pair for pair in pairs if (self.app.images.labels(tag) / f"{pair[0].id}.json").exists() == labeled]
        pairs = pairs[: request.get("max_batch_size") or None]
        told = {id: {"status": "skipped", "reason": reason} for id, reason in skipped.items()}
        for id, reason in skipped.items():
            logger.info("skipped %s: %s", id, reason)
        for number, (anatomy, overlay) in enumerate(pairs, start=1):
            told[anatomy.id] = self._case({**asked, "image": anatomy.id, "overlay": overlay.id})
            one = told[anatomy.id]
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
