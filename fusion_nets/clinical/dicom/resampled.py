"""Write a source as it lies on the anatomy's grid, in its own units, as a DICOM series of its own modality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from fusion_nets import __version__
from fusion_nets.slabs import release

from .acquired import acquired, pet_units
from .derived import (
    PLANE,
    code,
    copy_attributes,
    inherit_shortcomings,
    nearest_planes,
    placed,
    source_equipment,
    this_equipment,
)
from .frames import NUCLEAR_MEDICINE
from .identity import derived_uid
from .new_series import (
    MODULES,
    SECONDARY_CAPTURE,
    SOP_CLASSES,
    captured,
    new_instance,
    place_slice,
    storage_of,
    store_colours,
    store_values,
)
from .sources import Plane, body_part, common_study, planes_of, referenced_series, source_image, touching

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["ResampledSeries"]

ON_GRID = " on the grid of "
"""Between the modalities of the source and of the anatomy, in the description of a resampled series."""

RELEASED = 32
"""Slices after which the memory of a large volume is given back."""

_CORNERS = np.array(list(product((-0.5, 0.5), repeat=3)))
_OF_PLACE = ("PatientPosition", "FrameOfReferenceUID", "PositionReferenceIndicator")
_OF_PATIENT = ("PatientWeight", "PatientSize", "TimezoneOffsetFromUTC")
_SLICE_VECTOR = 0x00540080
_NEEDED_OF_NM = (
    *("CountsAccumulated", "RotationInformationSequence", "EnergyWindowInformationSequence"),
    *("RadiopharmaceuticalInformationSequence", "PatientOrientationCodeSequence"),
    "PatientGantryRelationshipCodeSequence",
)
"""Of type 2: there, if empty."""

_CLASSES = {**SOP_CLASSES, "NM": NUCLEAR_MEDICINE}
_KINDS = {
    "CT": ["DERIVED", "SECONDARY", "AXIAL"],
    "MR": ["DERIVED", "SECONDARY", "OTHER"],
    "PT": ["DERIVED", "PRIMARY"],  # the second value has no other in PS3.3 C.8.9.4.1.1 and C.8.4.8.1.1
    "NM": ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"],
}


@dataclass(frozen=True, eq=False)
class ResampledSeries:
    r"""A source on the grid of the anatomy as a series of the anatomy's study and frame of reference.

    What it measures stays what it is: CT in HU, PET in the units of its source with what SUV needs (see
    :func:`fusion_nets.clinical.dicom.acquired.pet_units`), nuclear medicine in counts, MR as stored. Values are rounded
    to 16 bit (:attr:`step`); whole numbers that fit are exact. Outside the source's field of view they are what
    :func:`fusion_nets.registration.resample_onto` fills in, which is no pixel padding: inside, that value means the
    same. Colours become RGB of 8 bit.

    CT, MR and PET are classic images, one a slice; PET has a slope for each. Nuclear medicine is one multi-frame image
    of a reconstructed volume (PS3.3 C.8.4), whose 16 bit pixels must fit in memory; where its values are no whole
    numbers, Rescale Slope is a standard extension, as scanners write it. All else is a secondary capture with the
    geometry as a standard extension.

    Each image refers to those of the source that its pixels come from, to the anatomy's at its place, and to the
    registration. Image Type is DERIVED\SECONDARY, but DERIVED\PRIMARY of PET and NM, which the standard asks for. UIDs
    are derived from the sources' and the values, and no time of writing is noted.

    Attributes:
        image: (1 | 3, H, W[, D]), in the units of ``meta["units"]``, see :func:`fusion_nets.clinical.read_image`.
        anatomy: headers of the anatomy.
        source: headers of the series that it was resampled from; empty where it was none.
        how: what was done besides, such as "registered (rigid)"; ASCII.
        anatomy_to_source: (4, 4), RAS in mm, where a point of the anatomy was found in the source; by default there.
        registration: as :func:`spatial_registration` makes it, where there is one.
        self_contained: write SUV itself, which needs nothing else of the header, instead of Bq/ml.
        number: of the series; by default made of the anatomy's, 306 of 3, and 307 where it is the anatomy.

    Raises:
        ValueError: for values that are not finite, an image whose modality or units are not known, an anatomy without
            geometry, an image that lies outside it, or axes that are not at right angles.
    """

    image: MetaTensor
    anatomy: Sequence[Dataset]
    source: Sequence[Dataset] = ()
    how: str = ""
    anatomy_to_source: np.ndarray | None = None
    registration: Dataset | None = None
    self_contained: bool = False
    number: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What is written: {"sop_class", "units", "step"}, the units as they are stored."""
        from pydicom.uid import UID

        units = self._pet[0].Units if self.kind == "PT" else str(self.image.meta.get("units", "stored"))
        return {"sop_class": UID(self.sop_class).name, "units": units, "step": self.step}

    @property
    def step(self) -> float | None:
        """Distance of neighbouring values at most, in the image's units: they are rounded to half of it."""
        if self.image.shape[0] == 3:
            return None
        return max(slope for slope, _, _ in self._storage) * self._pet[1]

    @cached_property
    def modality(self) -> str:
        """DICOM's code; "OT" of a picture that has none."""
        known = self.image.meta.get("modality") or (self.source[0].get("Modality") if self.source else None)
        if not known and self.image.meta.get("white") is None:
            raise ValueError("DICOM needs a modality, which the source does not tell; give it, such as CT")
        return str(known or "OT")

    @cached_property
    def kind(self) -> str:
        """The modality whose image object it becomes; "" for a secondary capture."""
        is_picture = self.image.shape[0] == 3 or self.image.meta.get("white") is not None
        return self.modality if self.modality in _CLASSES and not is_picture else ""

    @property
    def sop_class(self) -> str:
        """Of every instance."""
        return _CLASSES.get(self.kind, SECONDARY_CAPTURE)

    def instances(self) -> Iterator[Dataset]:
        """The instances in the order of the slices, each made when it is asked for: of a long series not all fit."""
        depth = self._placed[0].shape[2]
        if self.kind == "NM":
            yield self._multiframe(depth)
            return
        for k in range(depth):
            instance = self._begun(range(k, k + 1))
            self._store(instance, k)
            self._describe(instance, k)
            if k % RELEASED == 0:
                release()
            yield instance

    @property
    def _is_anatomy(self) -> bool:
        return self.source is self.anatomy

    @cached_property
    def _pet(self) -> tuple[Dataset, float]:
        """What PET says of its units, and what values are divided by."""
        from pydicom import Dataset

        units = str(self.image.meta.get("units", "stored"))
        return pet_units(units, self.source, self.self_contained) if self.kind == "PT" else (Dataset(), 1.0)

    @cached_property
    def _planes(self) -> list[Plane]:
        planes = planes_of(self.anatomy)
        if not planes:
            raise ValueError("the anatomy's instances do not say where they lie (Image Position, Orientation, Spacing)")
        return planes

    @cached_property
    def _source_planes(self) -> list[Plane]:
        return planes_of(self.source)

    @cached_property
    def _placed(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """(columns, rows, slices[, 3]), their affine, and whether these are the voxels of the anatomy."""
        array, affine, kept = placed(self.image, self._planes)
        if self.kind == "NM" and np.linalg.det(affine[:3, :3]) < 0:  # whose slices follow the normal
            affine = affine.copy()
            affine[:3, 3] += (array.shape[2] - 1) * affine[:3, 2]
            affine[:3, 2] *= -1
            array = array[:, :, ::-1]
        return array, affine, kept

    @cached_property
    def _survey(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        """Of each slice the lowest and the highest value, and whether all are whole; of all the digest."""
        array, digest, found = self._placed[0], hashlib.sha256(), []
        for k in range(array.shape[2]):
            values = self._values(k)
            digest.update(values.tobytes())
            found.append((values.min(), values.max(), (values == np.rint(values)).all()))
            if k % RELEASED == 0:
                release()
        lows, highs, whole = (np.array(column) for column in zip(*found, strict=True))
        if not np.isfinite([lows, highs]).all():
            raise ValueError("the image holds NaN or infinity; only finite values can be written")
        return lows, highs, whole, digest.hexdigest()

    def _values(self, k: int) -> np.ndarray:
        """(columns, rows[, 3]) of a slice as they are stored before slope and intercept."""
        return np.asarray(self._placed[0][:, :, k].astype(np.float64) / self._pet[1])

    @cached_property
    def _storage(self) -> list[tuple[float, float, bool]]:
        """Slope, intercept and sign of each slice."""
        lows, highs, whole, _ = self._survey
        if self.kind == "PT":
            slices = zip(lows, highs, whole, strict=True)
            return [storage_of(float(low), float(high), bool(is_whole), "PT") for low, high, is_whole in slices]
        low, high, is_whole = float(lows.min()), float(highs.max()), bool(whole.all())
        if self.image.meta.get("white") is not None:  # levels of a picture, which are whole numbers
            storage = 1.0, 0.0, False
        elif self.kind == "NM":  # whose pixels have no intercept
            most = np.iinfo(np.int16 if low < 0 else np.uint16).max
            fits = is_whole and max(-low, high) <= most
            storage = (1.0 if fits else max(-low, high) / most), 0.0, low < 0
        else:
            storage = storage_of(low, high, is_whole, self.modality)
        return [storage] * len(lows)

    @cached_property
    def _description(self) -> str:
        return f"{self.modality}{ON_GRID}{self.anatomy[0].get('Modality') or 'the anatomy'}"

    @cached_property
    def _series_uid(self) -> str:
        sources = [instance.SOPInstanceUID for instance in (*self.anatomy, *self.source)]
        said = self._description, self.how, self.number, self.told, __version__
        return derived_uid("on grid", *sources, *said, self._placed[1].tolist(), self._survey[3])

    def _in_source(self, k: int) -> np.ndarray:
        """The corners of a slice with its thickness, (8, 3), RAS in mm, where the source has them."""
        array, affine, _ = self._placed
        columns, rows = array.shape[:2]
        edges = _CORNERS * [columns, rows, 1] + [(columns - 1) / 2, (rows - 1) / 2, k]
        slab = apply_affine(affine, edges)
        return np.asarray(slab if self.anatomy_to_source is None else apply_affine(self.anatomy_to_source, slab))

    def _origin(self, k: int) -> Dataset | None:
        """The instance of the source that a slice is told after: the nearest."""
        nearest = nearest_planes(self._source_planes, self._in_source(k)) if self._source_planes else []
        return nearest[0].instance if nearest else self.source[0] if self.source else None

    def _begun(self, numbers: range) -> Dataset:
        """An instance of these slices without pixels: whose it is, where it lies, and what it is made of."""
        affine, kept = self._placed[1:]
        here = [self._planes[k] for k in numbers] if kept else []
        first = here[0].instance if here else self._planes[0].instance
        instance = new_instance(self.sop_class, derived_uid("instance", self._series_uid, numbers[0]))
        instance.update(common_study(self._planes[0].instance))
        copy_attributes(instance, first, _OF_PLACE)
        instance.Modality, instance.SeriesInstanceUID = self.modality, self._series_uid
        instance.SeriesNumber = self.number or int(first.get("SeriesNumber") or 0) * 100 + (
            7 if self._is_anatomy else 6
        )
        instance.SeriesDescription, instance.InstanceNumber = self._description, numbers[0] + 1
        instance.setdefault("PositionReferenceIndicator", "")
        instance.setdefault("PatientPosition", "")
        if here and len(numbers) == 1 and here[0].is_whole:
            copy_attributes(instance, first, PLANE)
        else:
            place_slice(instance, affine, numbers[0])
        slabs = [self._in_source(k) for k in numbers]
        touched = {id(plane): plane for slab in slabs for plane in touching(self._source_planes, slab)}
        references = [plane.instance for plane in touched.values()]
        if touched:
            purpose = code("SourceImageForImageProcessingOperation")
            instance.SourceImageSequence = source_image(list(touched.values()), purpose)
        if here and not self._is_anatomy:
            instance.ReferencedImageSequence = source_image(here, code("AnatomicImage"))
            references += [plane.instance for plane in here]
        if self.registration is not None:
            object_ = Plane(self.registration, None, affine, (0, 0))
            instance.ReferencedInstanceSequence = source_image([object_], code("SpatialRegistration"))
            references.append(self.registration)
        referenced_series(instance, references)
        done = "Resampled onto the grid of another series", self.how, f"fusion-nets {__version__}"
        instance.DerivationDescription = ", ".join(filter(None, done))
        instance.DerivationCodeSequence = [code("SpatialResampling")]
        return instance

    def _describe(self, instance: Dataset, k: int) -> None:
        """What an image of its modality must say, and what the source knows of it."""
        origin = self._origin(k)
        instance.ContributingEquipmentSequence = [
            *(source_equipment(origin) if origin is not None else []),
            this_equipment(),
        ]
        inherit_shortcomings(instance, self.source)
        body_part(instance, self._planes[0].instance if origin is None else origin)
        if instance.SamplesPerPixel == 3:
            captured(instance)
            return
        if self.kind != "NM":
            MODULES[self.kind or "OT"](instance, self.image, self._placed[0].shape[2])
        if self.kind and origin is not None:
            if self.kind == "PT":  # as they were when it was measured, or not known
                for keyword in _OF_PATIENT:
                    instance.pop(keyword, None)
            instance.update(acquired(self.kind, origin))
        if self.kind == "PT":
            instance.pop("SUVType", None)
            instance.update(self._pet[0])
        if self.kind == "CT" and self.image.meta.get("units") != "HU":
            instance.RescaleType = "US"
        instance.ImageType = _KINDS.get(self.kind, instance.get("ImageType"))
        window = self.image.meta.get("window")
        if self.kind and window and window[1] - window[0] >= 1:
            from pydicom.valuerep import format_number_as_ds

            low, high = (float(end) / self._pet[1] for end in window)
            instance.WindowCenter, instance.WindowWidth = map(format_number_as_ds, ((low + high) / 2, high - low))

    def _store(self, instance: Dataset, k: int) -> None:
        white = self.image.meta.get("white")
        if self.image.shape[0] == 3:
            colours = self._values(k) / (white or 1)
            store_colours(instance, np.rint(colours.clip(0, 1) * 255).astype(np.uint8))
            return
        store_values(instance, self._values(k), *self._storage[k])
        if white == 255:
            instance.BitsStored, instance.HighBit = 8, 7  # which says what is white

    def _multiframe(self, depth: int) -> Dataset:
        """All slices as the frames of a reconstructed volume, PS3.3 C.8.4.8 to C.8.4.15."""
        from pydicom import Dataset

        instance, frames = self._begun(range(depth)), []
        for k in range(depth):
            self._store(instance, k)
            frames.append(instance.PixelData)
            if k % RELEASED == 0:
                release()
        instance.PixelData = b"".join(frames)
        self._describe(instance, depth // 2)
        instance.NumberOfFrames = instance.NumberOfSlices = depth
        instance.FrameIncrementPointer, instance.SliceVector = _SLICE_VECTOR, list(range(1, depth + 1))
        instance.NumberOfEnergyWindows = instance.NumberOfDetectors = 1
        instance.setdefault("NumberOfRotations", 1)
        instance.SpacingBetweenSlices = instance.SliceThickness
        detector = Dataset()
        detector.CollimatorType = ""
        copy_attributes(detector, instance, ("ImagePositionPatient", "ImageOrientationPatient"))
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "PatientPosition"):
            delattr(instance, keyword)
        instance.DetectorInformationSequence = [detector]
        for keyword in _NEEDED_OF_NM:
            instance.setdefault(keyword, [] if keyword.endswith("Sequence") else None)
        if (instance.RescaleSlope, instance.RescaleIntercept) == (1, 0):
            del instance.RescaleSlope, instance.RescaleIntercept
        return instance
