"""A MONAI Label app that fuses the images of a datastore, see README.md."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import HTTPException
from lib.batch import FusionBatch
from lib.images import ArchiveImages, FolderImages, Image
from lib.parameters import FROM_CLIENTS, read_parameters
from lib.routes import answer_requests
from lib.task import FusionTask, Job, Turns
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp

from fusion_nets import __version__
from fusion_nets.files import file_sha256, whole_file
from fusion_nets.overlays import OVERLAYS, overlays_in
from fusion_nets.workflows.engines import engine_choices

logger = logging.getLogger(__name__)

WAITING = 8
"""Requests that wait for one that is fused; the network and the registration take the whole processor."""

ANATOMIES = {"": ("CT", "PT", "NM"), "MR": ("CT", "PT", "NM"), "CT": ("PT", "NM")}
"""Modalities that an anatomy may have, and which its overlay then; "" where it is not known."""


class FusionApp(MONAILabelApp):
    """Fuse a datastore's images by DM-FNet and SMFusion.

    Args:
        app_dir: of this file; the bundles lie beside it.
        studies: a folder, or the URL of an archive's DICOMweb.
        conf: "models", those to be served, parted by commas, by default all; "bundles", the folder of the bundles, by
            default this one's; "waiting", how many requests may wait; "engine" and "precision", what runs the networks,
            by default the fastest that is installed.

    Raises:
        ValueError: for an engine or precision that there is not.
        ModuleNotFoundError: for an engine that is not installed.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self._bundles = Path(conf.get("bundles") or Path(app_dir).resolve().parent)
        self._engine = {name: conf[name] for name in ("engine", "precision") if conf.get(name)}
        engine_choices(**self._engine)  # said before the server starts
        self._turns = Turns(int(conf.get("waiting", WAITING)))
        for name in ("ignite", "dicomweb_client", "highdicom"):  # they name studies and instances
            logging.getLogger(name).setLevel(logging.WARNING)
        super().__init__(
            app_dir,
            studies,
            conf,
            name="fusion-nets",
            description="Multimodal fusion: MRI with CT, PET or SPECT",
            version=__version__,
        )
        store = self.datastore()
        self.images = ArchiveImages(store) if isinstance(store, DICOMWebDatastore) else FolderImages(store)

    def init_infers(self) -> dict[str, FusionTask]:
        """The models that were asked for.

        Raises:
            ValueError: for one that there is not, by which the server does not start.
        """
        there = sorted(config.parents[1].name for config in self._bundles.glob("*/configs/inference.json"))
        asked = [name.strip() for name in self.conf.get("models", ",".join(there)).split(",")]
        for name in asked:
            if name not in there:
                raise ValueError(
                    f"--conf models: no bundle {name!r} in {self._bundles}; accepted are {', '.join(there)}"
                )
        return {name: FusionTask(name, self._bundles / name, **self._engine) for name in asked}

    def init_batch_infer(self) -> FusionBatch:
        """Over all pairs of the datastore."""
        return FusionBatch(self)

    def _download_dcmqi_tools(self) -> None:
        """Nothing: they write segmentations, which fusion does not make."""

    def on_init_complete(self) -> None:
        """Take over the requests for inference, when the server starts."""
        super().on_init_complete()
        answer_requests(self)

    def task(self, model: Any) -> FusionTask:
        """The task of a model.

        Raises:
            HTTPException: 404, if there is none.
        """
        if model not in self._infers:
            raise HTTPException(404, f"no model {model!r}; accepted are {', '.join(self._infers)}")
        return self._infers[model]

    def prepare(self, request: Mapping[str, Any], ignored: Collection[str] = FROM_CLIENTS) -> Job:
        """See whether a request can be fulfilled, without opening an image.

        Args:
            request: "model", "image", and parameters.
            ignored: what else may stand there.

        Raises:
            HTTPException: if it cannot be.
        """
        task = self.task(request.get("model"))
        asked = {name: value for name, value in request.items() if name not in ("model", "image")}
        values = read_parameters(task.config(), asked, ignored)
        if not request.get("image"):
            raise HTTPException(422, "no image is named; the id of an anatomy in the datastore is accepted")
        anatomy = self.images.find(request["image"])
        several = isinstance(values["overlay"], list)
        ids = values["overlay"] if several else [values["overlay"]]
        if not 1 <= len(ids) <= len(OVERLAYS):
            raise HTTPException(422, f"overlay: {len(ids)} ids are given; 1 to {len(OVERLAYS)} are accepted")
        if anatomy.id in ids:
            raise HTTPException(422, f"overlay: {anatomy.id!r} is the anatomy itself; another image is accepted")
        overlays = [self.images.find(id) if id or several else self._only_other(anatomy) for id in ids]
        modality = anatomy.modality or values["anatomy_modality"]
        if modality not in ANATOMIES:
            raise HTTPException(422, f"anatomy {anatomy}: an MR or CT is accepted")
        said = values["overlay_modality"] if several else [values["overlay_modality"]]
        modalities = [overlay.modality or one for overlay, one in zip(overlays, said, strict=True)]
        accepted = ANATOMIES[modality]
        for overlay, one in zip(overlays, modalities, strict=True):
            if one not in ("", *accepted):
                raise HTTPException(
                    422, f"overlay {overlay}: with anatomy {anatomy}, {', '.join(accepted)} is accepted"
                )
        if values["regions"]:
            self.images.regions(anatomy, values["regions"])
        known = {"anatomy_modality": modality, "overlay_modality": modalities if several else modalities[0]}
        return Job(task, anatomy, overlays[0], {**values, **known}, tuple(overlays[1:]))

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Fuse a pair.

        Args:
            request: "model", "image", and parameters.
            datastore: not used; it is the app's.

        Returns:
            "file", the fused image in a file of its own, "params", and "page", the viewer's page if it was asked for.

        Raises:
            HTTPException: for what is wrong with the request, or 503 where it has to wait too long.
        """
        job = self.prepare(request)
        if job.values["save"] and not job.values["save_label"]:
            raise HTTPException(422, "save: goes into the datastore beside the result; with save_label it is accepted")
        with self._turns.place(), tempfile.TemporaryDirectory(prefix="fusion-") as folder:
            result, params = self.fuse(job, Path(folder), job.values["save_label"])
            page = _page_beside(result).read_bytes() if job.values["page"] else None
            descriptor, file = tempfile.mkstemp(prefix=f"{job.task.model}_", suffix=job.values["result_extension"])
            os.close(descriptor)
            os.replace(result, file)
        return {"file": file, "params": params, "page": page}

    def fuse(self, job: Job, folder: Path, save: bool) -> tuple[Path, dict[str, Any]]:
        """Do a job, when it is its turn.

        Args:
            job: as :meth:`prepare` gives it.
            folder: empty, to write into.
            save: whether the result goes into the datastore.

        Returns:
            The fused image in the folder, and what is told of it.

        Raises:
            HTTPException: if an image cannot be used.
        """
        with self._turns.turn:
            start = time.monotonic()
            file, told = self._fuse(job, folder, dicom=save and self.images.saves_dicom)
            params = {"model": job.task.model, **told}
            if save:
                params["saved"] = self._save(job, file, params)
            params["seconds"] = round(time.monotonic() - start, 2)
        logger.info("%s: fused in %.1f s", job.task.model, params["seconds"])
        return file, params

    def is_done(self, job: Job) -> bool:
        """Whether the datastore has the result of this very job."""
        record = self.images.labels(job.values["label_tag"]) / f"{job.anatomy.id}.json"
        try:
            noted = json.loads(record.read_text(encoding="utf-8"))
            if noted["job"] != self._identity(job) or not self.images.has(noted["saved"], noted["bytes"]):
                return False
            return not job.values["page"] or self._saved_page(job.anatomy.id, job.values["label_tag"]) is not None
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def page(self, id: Any, tag: Any) -> Path:
        """The page of a result that was saved.

        Args:
            id: of the anatomy.
            tag: under which it was saved.

        Raises:
            HTTPException: 404, if there is none, or what lies there is another file than the one that was saved.
        """
        anatomy = self.images.find(id)
        page = self._saved_page(anatomy.id, tag)
        if page is None:
            raise HTTPException(
                404,
                f"{anatomy.id!r} has no page under the tag {tag!r}; what was saved with page has one",
            )
        return page

    def _saved_page(self, id: str, tag: str) -> Path | None:
        """It, if it is as it was saved: whoever may send labels shall not put another in its place."""
        page, folder = self.images.page(id, tag), self.images.labels(tag)
        try:
            noted = json.loads((folder / f"{id}.json").read_text(encoding="utf-8"))
            is_there = page.resolve().is_relative_to(folder.resolve()) and file_sha256(page) == noted["page_sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return page if is_there else None

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Refuse.

        Raises:
            HTTPException: always.
        """
        raise HTTPException(422, "these are no models for whole slide images; POST /infer/{model} is accepted")

    def _only_other(self, anatomy: Image) -> Image:
        others = self.images.others(anatomy)
        if len(others) == 1:
            return others[0]
        there = f"these: {', '.join(map(str, others))}" if others else "none"
        raise HTTPException(422, f"overlay: is needed, for beside {anatomy.id!r} its study holds {there}")

    def _fuse(self, job: Job, folder: Path, dicom: bool) -> tuple[Path, dict[str, Any]]:
        paths = {key: self.images.path(image) for key, image in job.images.items()}
        regions = self._regions(job)
        try:
            how = {"name": _name(job.anatomy), "values": job.values, "output_dir": folder, "dicom": dicom}
            file, told = job.task({**paths, **regions, **how})
        except ValueError as error:  # ImageError among them
            message = str(error)
            for key, path in regions.items():
                message = message.replace(str(path), f"{key} {job.values[key]}")
            for key, path in paths.items():
                message = message.replace(str(path), f"{key} {job.images[key].id}")
            raise HTTPException(422, " ".join(message.split())) from error
        for key in paths:
            told["sources"][key] = {"id": job.images[key].id, **told["sources"][key]}
        return Path(file), told

    def _regions(self, job: Job) -> dict[str, Path]:
        """Where the regions lie that are to be told of, if there are any."""
        tag = job.values["regions"]
        return {"regions": self.images.regions(job.anatomy, tag)} if tag else {}

    def _save(self, job: Job, file: Path, params: Mapping[str, Any]) -> dict[str, Any]:
        tag = job.values["label_tag"]
        record = self.images.labels(tag) / f"{job.anatomy.id}.json"
        record.unlink(missing_ok=True)
        self.images.page(job.anatomy.id, tag).unlink(missing_ok=True)
        info = {"model": job.task.model, "metrics": params["metrics"]}
        of = {"anatomy": ["anatomy"], "overlay": overlays_in(job.images)}
        sources = [key for asked in job.values["save"] for key in of[asked]]
        saved = self.images.save(job.anatomy, file, tag, info, sources)
        noted = {"job": self._identity(job), "saved": saved, "bytes": file.stat().st_size, "params": params}
        if job.values["page"]:
            with whole_file(self.images.page(job.anatomy.id, tag)) as partial:
                shutil.copyfile(_page_beside(file), partial)
            noted["page_sha256"] = file_sha256(_page_beside(file))
            saved["page"] = f"{settings.MONAI_LABEL_API_STR}/page?{urlencode({'image': job.anatomy.id, 'tag': tag})}"
        with whole_file(record) as partial:
            partial.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
        return saved

    def _identity(self, job: Job) -> dict[str, Any]:
        """What a result depends on."""
        without = ("overlay", "device", "save_label", "label_tag", "page")
        return {
            "model": job.task.model,
            "fusion_nets": __version__,
            "weights_sha256": file_sha256(job.task.get_path()),
            "engine": [str(choice) for choice in engine_choices(**self._engine)[:1]],
            "images": {key: [image.id, self.images.version(image)] for key, image in job.images.items()},
            "labels": {key: file_sha256(path) for key, path in self._regions(job).items()},
            "values": {name: value for name, value in job.values.items() if name not in without},
        }


def _name(image: Image) -> str:
    """Of what is made of an image, unless no file could be called so."""
    return image.id if len(image.id.encode()) <= 100 else "pair"


def _page_beside(result: Path) -> Path:
    return next(result.parent.glob("*_fused.html"))
