"""One method as an inference task of MONAI Label: it runs the method's bundle."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monai.bundle import ConfigParser
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from fusion_nets.overlays import SOURCES, overlays_in
from fusion_nets.workflows import fuse_pair, kept_network
from lib.images import Image
from lib.parameters import FORMATS, parameters

__all__ = ["FusionTask", "Job", "Turns"]

METRICS = ("MI", "SSIM", "Qabf", "VIF")


class FusionTask(InferTask):
    """Fuse a pair by the bundle of a method, whose network is loaded once for each device.

    Args:
        model: name of the method.
        bundle_root: folder of its bundle.
        engine: what runs its network, see :func:`fusion_nets.workflows.kept_network`.
        precision: likewise.
    """

    def __init__(self, model: str, bundle_root: Path, engine: str = "auto", precision: str = "auto") -> None:
        self.model = model
        self.engine, self.precision = engine, precision
        self.bundle_root = bundle_root
        self.bundle = ConfigParser.load_config_file(bundle_root / "configs" / "inference.json")
        metadata = ConfigParser.load_config_file(bundle_root / "configs" / "metadata.json")
        super().__init__(
            type=InferType.OTHERS,
            labels=[],
            dimension=3,
            description=metadata["description"],
            config=parameters(model, takes_text="describe" in self.bundle),
        )
        self._networks: dict[str, dict[str, Any]] = {}

    def is_valid(self) -> bool:
        """Whether its weights are there."""
        return Path(self.get_path()).is_file()

    def get_path(self, validate: bool = True) -> str:
        """Its weights."""
        return str(self.bundle_root / "models" / "model.pt")

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Fuse.

        Args:
            request: "anatomy", "overlay" (and "overlay2" ...) and, if there are any, "regions", where they lie; "name"
                of the pair; "values" of the parameters; "output_dir", a folder of its own; and "dicom", whether the
                result is to be written as DICOM as well.

        Returns:
            The fused volume, and how it was made and how good it is.

        Raises:
            ValueError: for images or parameters that cannot be used.
        """
        values, folder = request["values"], Path(request["output_dir"])
        device = values["device"]
        if device not in self._networks:
            self._networks[device] = kept_network(self.model, self.bundle_root, device, self.engine, self.precision)
        elsewhere = ("device", "overlay", "regions")
        asked = {name: values[name] for name in values if name in self.bundle and name not in elsewhere}
        extension, name = values["result_extension"], request["name"]
        also = [form for form, is_asked in (("dicom", request["dicom"]), ("html", values["page"])) if is_asked]
        overlays = [request[key] for key in overlays_in(request)]
        fuse_pair(
            request["anatomy"],
            overlays if isinstance(values["overlay"], list) else overlays[0],
            folder,
            method=self.model,
            output_format=[FORMATS[extension], *also],
            bundle_root=self.bundle_root,
            evaluate=True,
            regions=request.get("regions"),
            name=name,
            progress=False,
            register=values["registration"],
            **{name: None if value in ("", []) else value for name, value in asked.items()},
            **self._networks[device],
        )
        return str(folder / f"{name}_fused{extension}"), _told(folder, name)


@dataclass(frozen=True)
class Job:
    """A request whose images and parameters were found good.

    Attributes:
        task: what it is done by.
        anatomy: one source.
        overlay: the other.
        values: of the parameters.
        others: further overlays.
    """

    task: FusionTask
    anatomy: Image
    overlay: Image
    values: Mapping[str, Any]
    others: tuple[Image, ...] = ()

    @property
    def images(self) -> dict[str, Image]:
        """By what they are called: "anatomy", "overlay", "overlay2" and so on."""
        return dict(zip(SOURCES, (self.anatomy, self.overlay, *self.others), strict=False))


def _told(folder: Path, name: str) -> dict[str, Any]:
    """What the bundle writes beside the fused image."""
    record = _json(folder / f"{name}_fused.json")  # pictures have none
    told = record.pop("record", {})
    with open(folder / "metrics.csv", newline="") as file:
        measured = {name: float(value) for name, value in csv.reader(file)}
    made_by = ("fusion_nets", "method", "weights_sha256", "engine")
    return {
        "made_by": {name: told[name] for name in made_by if name in told},
        "sources": {key: told.get(key, {}) for key in dict.fromkeys((*SOURCES[:2], *overlays_in(told)))},
        "registration": told.get("registration", {}),
        "metrics": {name: measured[name] for name in METRICS},
        "description": _json(folder / f"{name}_description.json"),
        "regions": told.get("regions", {}),
        "warnings": [*told.get("warnings", ()), *told.get("regions", {}).get("warnings", ())],
        "settings": record,
    }


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class Turns:
    """One is fused at a time, and a few requests wait.

    Args:
        waiting: how many may wait; those who come then are told to come again.

    Attributes:
        turn: a lock, held while one is fused.
    """

    RETRY_AFTER = 30
    """Seconds."""

    def __init__(self, waiting: int) -> None:
        self.turn = threading.Lock()
        self._places = threading.BoundedSemaphore(1 + waiting)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Among those who wait and the one whose turn it is.

        Raises:
            HTTPException: 503, if too many are there already.
        """
        if not self._places.acquire(blocking=False):
            raise HTTPException(
                503, f"busy; come again in {self.RETRY_AFTER} seconds", headers={"Retry-After": str(self.RETRY_AFTER)}
            )
        try:
            yield
        finally:
            self._places.release()
