"""The images of a datastore by their ids: which belong together, what they are, where they lie, what comes of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom import Dataset, dcmread

from fusion_nets.clinical import ITK_SUFFIXES, NIFTI_SUFFIXES, RASTER_SUFFIXES
from fusion_nets.clinical.dicom import FUSED_BY, is_result
from fusion_nets.clinical.dicom.resampled import ON_GRID
from fusion_nets.clinical.volume_files import read_note
from fusion_nets.files import file_sha256, whole_folder

__all__ = ["ArchiveImages", "FolderImages", "Image"]

MODALITIES = ("MR", "CT", "PT", "NM")

CALLED = {
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t2", "t2w", "flair", "pd", "pdw"), "MR"),
    "ct": "CT",
    **dict.fromkeys(("pet", "pt"), "PT"),
    **dict.fromkeys(("spect", "nm"), "NM"),
}
"""Modalities by what names of files end in, among them the suffixes of BIDS."""


@dataclass(frozen=True)
class Image:
    """An image of a datastore.

    Attributes:
        id: by which MONAI Label knows it.
        study: images of one study belong together.
        modality: DICOM's code, "" where it is not known.
        instances: of a DICOM series, as many as the archive says; 0 where it does not.
    """

    id: str
    study: str
    modality: str
    instances: int = 0

    def __str__(self) -> str:
        """For people to choose by."""
        return f"{self.id} ({self.modality})" if self.modality else self.id


class Labels:
    """What a datastore of MONAI Label keeps of its images on its own disk, under tags."""

    store: LocalDatastore

    def labels(self, tag: str) -> Path:
        """The folder of what is saved under a tag."""
        return Path(self.store._datastore.label_path(tag))

    def batch_file(self) -> Path:
        """Where a batch writes how far it is; beside the tags."""
        return self.labels("") / ".batch.json"

    def page(self, id: str, tag: str) -> Path:
        """Where the page of an image's result lies that was saved under a tag."""
        return self.labels(tag) / f"{id}.html"

    def regions(self, image: Image, tag: str) -> Path:
        """Where the label image of an image lies that was saved under a tag.

        Raises:
            HTTPException: 404, if there is none, or it lies elsewhere.
        """
        folder = self.labels(tag).resolve()
        for ending in (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *RASTER_SUFFIXES):
            path = (folder / f"{image.id}{ending}").resolve()
            if path.is_file() and path.is_relative_to(folder):
                return path
        raise HTTPException(
            404, f"regions: {image.id!r} has no label under the tag {tag!r}; the tag of one is accepted"
        )


class FolderImages(Labels):
    """Those of a folder, MONAI Label's :class:`LocalDatastore`.

    Images whose names are alike up to the last ``_`` are of one study, such as ``case1_mri`` and ``case1_pet``, and all
    whose names have no ``_``. The modality is taken from the file's own note, as this library writes it, else from
    what the name ends in. "Study" and "Modality" of an image's info, which MONAI Label keeps, go before.
    """

    saves_dicom = False

    def __init__(self, store: LocalDatastore) -> None:
        self.store = store
        self.root = Path(store._datastore_path).resolve()

    def all(self) -> list[Image]:
        """Those that lie in the folder."""
        return [self._image(id) for id in sorted(self.store.list_images()) if self._path(id)]

    def find(self, id: str) -> Image:
        """The image of an id.

        Raises:
            HTTPException: 404, if there is none, or it lies elsewhere.
        """
        if id not in self.store.list_images() or not self._path(id):
            raise HTTPException(404, f"no image {id[:80]!r} in the datastore; the id of one is accepted")
        return self._image(id)

    def others(self, image: Image) -> list[Image]:
        """The other images of its study."""
        return [one for one in self.all() if one.study == image.study and one.id != image.id]

    def among(self, ids: Collection[str]) -> list[Image]:
        """The images of these ids that are there, and those of their studies."""
        there = self.all()
        studies = {image.study for image in there if image.id in ids}
        return [image for image in there if image.study in studies]

    def path(self, image: Image) -> Path:
        """Where it lies."""
        path = self._path(image.id)
        if path is None:
            raise HTTPException(404, f"image {image.id!r} is no longer there")
        return path

    def version(self, image: Image) -> str:
        """Another where the image is another."""
        return file_sha256(self.path(image))

    def save(
        self, image: Image, result: Path, tag: str, info: dict[str, Any], sources: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Save a result as a label of the image, and sources on its grid as labels under ``{tag}_{source}``.

        Returns:
            What :meth:`has` knows them by.
        """
        saved = self._save(image, result, tag, info)
        name = result.name.partition("_fused.")
        beside = {key: result.with_name(f"{name[0]}_{key}_on_grid.{name[2]}") for key in sources}
        on_grid = {key: self._save(image, file, f"{tag}_{key}", {}) for key, file in beside.items()}
        return {**saved, **({"on_grid": on_grid} if on_grid else {})}

    def _save(self, image: Image, file: Path, tag: str, info: dict[str, Any]) -> dict[str, str]:
        label = self.store.save_label(image.id, str(file), tag, info)
        return {"label": label, "tag": tag, "file": self.store.get_label_info(label, tag)["name"]}

    def has(self, saved: Mapping[str, Any], size: int) -> bool:
        """Whether a result that was saved is still there, and has the bytes that it had."""
        path, *others = (self.labels(one["tag"]) / one["file"] for one in (saved, *saved.get("on_grid", {}).values()))
        return path.is_file() and 0 < size <= path.stat().st_size and all(other.is_file() for other in others)

    def _path(self, id: str) -> Path | None:
        """Without what lies outside the folder, by a link or by its name."""
        path = Path(self.store.get_image_uri(id)).resolve()
        return path if path.is_file() and path.is_relative_to(self.root) else None

    def _image(self, id: str) -> Image:
        info = self.store.get_image_info(id)
        study, _, last = id.rpartition("_")
        modality = str(info.get("Modality") or _noted(self.path(Image(id, "", ""))) or CALLED.get(last.lower(), ""))
        return Image(id, str(info.get("Study") or study), modality.upper())


class ArchiveImages(Labels):
    """The series of an archive, MONAI Label's :class:`DICOMWebDatastore`: MR, CT, PET and SPECT, not what was fused.

    They are read as DICOM from MONAI Label's cache, where it makes NIfTI of them, without units. Its search filter
    counts here as well, but for the modality.
    """

    saves_dicom = True

    def __init__(self, store: DICOMWebDatastore) -> None:
        self.store = store
        self.client = store._client
        self.filter = {name: value for name, value in store._search_filter.items() if name != "Modality"}

    def all(self) -> list[Image]:
        """All series but localizers."""
        return [image for image in self._search() if not self._is_localizer(image)]

    def find(self, id: str) -> Image:
        """The series of a UID.

        Raises:
            HTTPException: 404, if there is none, or it is no image to be fused.
        """
        image = self._series(id)
        if image is not None:
            return image
        raise HTTPException(
            404, f"no series {id[:80]!r} to be fused in the archive; one of MR, CT, PT or NM is accepted"
        )

    def others(self, image: Image) -> list[Image]:
        """The other series of its study."""
        found = self._search(StudyInstanceUID=image.study)
        return [one for one in found if one.id != image.id and not self._is_localizer(one)]

    def among(self, ids: Collection[str]) -> list[Image]:
        """The series of these UIDs that are there, and those of their studies; no localizers."""
        found: dict[str, Image] = {}
        for id in ids:
            image = found.get(id) or self._series(id)
            if image is not None and image.id not in found:
                found |= {one.id: one for one in self._search(StudyInstanceUID=image.study)}
        return [image for image in found.values() if not self._is_localizer(image)]

    def path(self, image: Image) -> Path:
        """The folder of its files, fetched where the archive has others."""
        folder = Path(self.store._datastore.image_path()).resolve() / image.id
        count = len(list(folder.glob("*.dcm")))
        if not count or (image.instances and count != image.instances):
            shutil.rmtree(folder, ignore_errors=True)
            with self._asking(), whole_folder(folder) as partial:
                dicom_web_download_series(image.study, image.id, str(partial), self.client, self.store._fetch_by_frame)
        return folder

    def version(self, image: Image) -> str:
        """Another where the series has other instances."""
        return str(image.instances)

    def save(
        self, image: Image, result: Path, tag: str, info: dict[str, Any], sources: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Send the DICOM objects beside a result to the archive (STOW-RS), sources on its grid among them.

        Returns:
            What :meth:`has` knows them by.
        """
        name = result.name.partition("_fused.")[0]
        folders = {"": f"{name}_dicom", **{key: f"{name}_{key}_on_grid_dicom" for key in sources}}
        found = {key: sorted((result.parent / folder).glob("*.dcm")) for key, folder in folders.items()}
        series = {
            key: str(dcmread(paths[0], specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
            for key, paths in found.items()
        }
        instances = [dcmread(path) for paths in found.values() for path in paths]
        with self._asking():
            answer = self.client.store_instances(instances)
        failed = answer.get("FailedSOPSequence") or ()
        if failed:
            raise HTTPException(502, f"the archive refused {len(failed)} of {len(instances)} objects")
        saved = {"series": series.pop(""), "study": image.study}
        return {**saved, **({"on_grid": series} if series else {})}

    def has(self, saved: Mapping[str, Any], size: int) -> bool:
        """Whether the series that were saved are still there; the archive answers for their objects."""
        uids = saved["series"], *saved.get("on_grid", {}).values()
        with self._asking():
            return all(
                self.client.search_for_series(saved["study"], search_filters={"SeriesInstanceUID": uid}) for uid in uids
            )

    def _series(self, id: str) -> Image | None:
        found = self._search(SeriesInstanceUID=id) if re.fullmatch(r"[0-9.]{1,64}", id) else []
        return next((image for image in found if image.id == id), None)

    def _search(self, **which: str) -> list[Image]:
        fields = ("SeriesDescription", "NumberOfSeriesRelatedInstances")
        with self._asking():
            answer = self.client.search_for_series(search_filters={**self.filter, **which}, fields=fields)
        found = [Dataset.from_json(series) for series in answer]
        return [
            Image(
                str(series.SeriesInstanceUID),
                str(series.StudyInstanceUID),
                str(series.Modality),
                int(series.get("NumberOfSeriesRelatedInstances") or 0),
            )
            for series in found
            if series.get("Modality") in MODALITIES and not self._is_result(series)
        ]

    def _is_result(self, series: Dataset) -> bool:
        """Whether it was fused, or is a source on another's grid, which its description alone does not prove."""
        said = str(series.get("SeriesDescription") or "")
        if said.startswith(FUSED_BY) or ON_GRID not in said:
            return said.startswith(FUSED_BY)
        where = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
        with self._asking():
            first = self.client.search_for_instances(*where, limit=1)
            instances = [str(Dataset.from_json(one).SOPInstanceUID) for one in first]
            return any(
                is_result(Dataset.from_json(self.client.retrieve_instance_metadata(*where, instance)))
                for instance in instances
            )

    def _is_localizer(self, image: Image) -> bool:
        with self._asking():
            first = self.client.search_for_instances(image.study, image.id, limit=1, fields=["ImageType"])
        return any("LOCALIZER" in (Dataset.from_json(one).get("ImageType") or ()) for one in first)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Of the archive, which may fail."""
        try:
            yield
        except requests.RequestException as error:
            raise HTTPException(502, f"the archive does not answer as it should ({type(error).__name__})") from error


def _noted(path: Path) -> str:
    """The modality that a volume's file says itself."""
    if os.fspath(path).lower().endswith(RASTER_SUFFIXES):
        return ""
    try:
        return read_note(path).get("modality", "")
    except Exception:  # a damaged file; it is refused with its reason when it is read
        return ""
