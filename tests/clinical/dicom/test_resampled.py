"""A source on the anatomy's grid as a series of its own modality: valid, and with the values that it had."""

from copy import deepcopy
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_phantoms import assert_same_image, axial, canonical, head, head_on, instances, sagittal, save
from judges import CT, MR, PT, dciodvfy_errors, dcm2niix, rotation
from monai.data import MetaTensor
from pydicom import Dataset, dcmread
from test_dicom_units import DOSE, HALF_LIFE, WEIGHT, pet

from fusion_nets import slabs
from fusion_nets.clinical import read_image
from fusion_nets.clinical.dicom import ResampledSeries, deidentify, pick_series, spatial_registration, write_instances
from fusion_nets.registration import resample_onto

NM = "NM"
NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"
ANATOMY_SHAPE = (36, 40, 9)


def moves():
    """World of the anatomy to that of the overlay: turned and shifted."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((3, -4, 8)), (4, -6, 5)
    return matrix


def nuclear_medicine(shape=(40, 44, 12)):
    """A reconstructed volume of the head with what its object asks for."""
    slices = instances(PT, shape=shape, number=2, frame_of_reference_uid="2.25.2222")
    counts = np.rint((head_on(axial(shape), shape) + 1000) * 7.3)
    volume = slices[0]
    volume.SOPClassUID = volume.file_meta.MediaStorageSOPClassUID = NUCLEAR_MEDICINE
    volume.Modality, volume.ImageType = NM, ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    detector, tracer = Dataset(), Dataset()
    detector.ImagePositionPatient = volume.ImagePositionPatient
    detector.ImageOrientationPatient = volume.ImageOrientationPatient
    tracer.RadionuclideCodeSequence, tracer.Radiopharmaceutical = [], "HMPAO"
    volume.DetectorInformationSequence, volume.RadiopharmaceuticalInformationSequence = [detector], [tracer]
    volume.NumberOfFrames, volume.SpacingBetweenSlices = len(slices), volume.SliceThickness
    volume.SliceVector = list(range(1, len(slices) + 1))
    volume.PixelData = counts.transpose(2, 1, 0).astype("<u2").tobytes()
    volume.PixelRepresentation, volume.CountsAccumulated = 0, 4711
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "RescaleSlope", "Units"):
        delattr(volume, keyword)
    return [volume]


def positron_emission(shape=(40, 44, 12), **changes):
    """PET with all that SUV needs and a valid object has."""
    series = pet(**changes)
    template = series[0]
    made = instances(PT, shape=shape, number=2, frame_of_reference_uid="2.25.2222")
    for one in made:
        for keyword in ("Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "SUVType", "SeriesDate"):
            if keyword in template:
                setattr(one, keyword, template[keyword].value)
        for keyword in ("AcquisitionDate", "AcquisitionTime", "SeriesTime", "FrameReferenceTime", "DecayFactor"):
            if keyword in template:
                setattr(one, keyword, template[keyword].value)
        for keyword in ("ActualFrameDuration", "AcquisitionDateTime", "TimezoneOffsetFromUTC"):
            if keyword in template:
                setattr(one, keyword, template[keyword].value)
        one.setdefault("DecayFactor", "1.02")
        tracer = deepcopy(template.RadiopharmaceuticalInformationSequence[0])
        one.RadiopharmaceuticalInformationSequence = [tracer]
    return made


def overlay_of(modality):
    if modality == NM:
        return nuclear_medicine()
    if modality == PT:
        return positron_emission()
    return instances(modality, shape=(40, 44, 12), number=2, frame_of_reference_uid="2.25.2222")


def anatomy_of(affine=None, shape=ANATOMY_SHAPE):
    affine = axial(shape, (2.7, 2.9, 7.0), (11, -7, 20)) if affine is None else affine
    return instances(MR, affine, shape, number=3, frame_of_reference_uid="2.25.1111")


def on_grid(folder, anatomy, overlay, matrix=None, **how):
    """The overlay on the anatomy's grid, as an image and as a series, and the folder it was written to."""
    source = pick_series(save(folder / "overlay", overlay))
    grid = pick_series(save(folder / "anatomy", anatomy))
    moved = resample_onto(read_image(folder / "overlay"), read_image(folder / "anatomy"), matrix)
    series = ResampledSeries(moved, grid.datasets, source.datasets, anatomy_to_source=matrix, **how)
    write_instances(folder / "on", series.instances())
    return moved, series, folder / "on"


def within_half_a_step(image, moved, series):
    """Geometry, and values within half of what 16 bit tell apart."""
    mine, theirs = canonical(image), canonical(moved)
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-4)
    most = np.abs(theirs.get_fdata()).max()
    assert np.abs(mine.get_fdata() - theirs.get_fdata()).max() <= 0.5 * series.step + 2e-7 * most


@pytest.mark.parametrize("modality", [CT, PT, NM, MR])
def test_valid_and_read_back_with_the_same_values(tmp_path, modality):
    anatomy, overlay = anatomy_of(), overlay_of(modality)
    registration = spatial_registration(anatomy, overlay, moves())
    how = {"how": "registered (rigid), -1000 HU outside its field of view", "registration": registration}
    moved, series, folder = on_grid(tmp_path, anatomy, overlay, moves(), **how)
    files = sorted(folder.iterdir())
    assert len(files) == (1 if modality == NM else ANATOMY_SHAPE[2])
    for file in (files[0], files[len(files) // 2]):
        assert dciodvfy_errors(file) == []
    image = read_image(folder)
    assert image.meta["modality"] == modality
    units = {CT: "HU", PT: "SUV"}.get(modality, "stored")
    assert image.meta["units"] == moved.meta["units"] == units
    assert series.told["units"] == {PT: "BQML"}.get(modality, units)
    within_half_a_step(image, moved, series)

    written = dcmread(files[len(files) // 2])
    kind = {CT: ["DERIVED", "SECONDARY", "AXIAL"], MR: ["DERIVED", "SECONDARY", "OTHER"], PT: ["DERIVED", "PRIMARY"]}
    assert list(written.ImageType) == kind.get(modality, ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"])
    assert written.Modality == modality
    assert written.SOPClassUID == overlay[0].SOPClassUID
    assert written.FrameOfReferenceUID == "2.25.1111"
    assert written.StudyInstanceUID == anatomy[0].StudyInstanceUID != overlay[0].StudyInstanceUID
    assert written.PatientID == anatomy[0].PatientID
    made_of = {item.ReferencedSOPInstanceUID for item in written.SourceImageSequence}
    assert made_of <= {one.SOPInstanceUID for one in overlay}
    (moved_by,) = written.ReferencedInstanceSequence
    assert moved_by.ReferencedSOPInstanceUID == registration.SOPInstanceUID
    beside = {item.ReferencedSOPInstanceUID for item in written.ReferencedImageSequence}
    assert beside <= {one.SOPInstanceUID for one in anatomy}
    assert "registered (rigid), -1000 HU" in written.DerivationDescription
    assert "PixelPaddingValue" not in written


@pytest.mark.parametrize("modality", [CT, PT, NM])
def test_dcm2niix_reads_the_same(tmp_path, modality):
    moved, series, folder = on_grid(tmp_path, anatomy_of(), overlay_of(modality), moves())
    ((image, _),) = dcm2niix(folder, tmp_path / "nii")
    factor = WEIGHT * 1000 / (DOSE * 0.5 ** (3600 / HALF_LIFE)) if modality == PT else 1.0  # of Bq/ml
    image = nib.Nifti1Image(image.get_fdata() * factor, image.affine)
    within_half_a_step(image, moved, series)


@pytest.mark.parametrize("modality", [CT, PT, NM])
@pytest.mark.parametrize("view", ["axial", "turned", "sagittal", "feet first"])
def test_values_lie_where_they_are_in_the_patient(tmp_path, modality, view):
    """Held against the head itself, which is known at every point, and is not symmetric."""
    affine = {
        "axial": axial(ANATOMY_SHAPE, (3, 3, 7)),
        "turned": axial(ANATOMY_SHAPE, (3, 3, 7), (25, -15, 40)),
        "sagittal": sagittal((40, 36, 9), (3, 3, 7)),
        "feet first": axial(ANATOMY_SHAPE, (3, 3, 7)) @ np.diag([1, 1, -1, 1]),
    }[view]
    shape = (40, 36, 9) if view == "sagittal" else ANATOMY_SHAPE
    if view == "feet first":
        affine[2, 3] *= -1
    matrix = moves()
    *_, folder = on_grid(tmp_path, anatomy_of(affine, shape), overlay_of(modality), matrix)
    image = read_image(folder)
    places = np.moveaxis(np.indices(image.shape[1:]), 0, -1)
    there = nib.affines.apply_affine(matrix @ image.affine.numpy(), places)
    values = image[0].numpy().astype(float)
    if modality == PT:
        values *= DOSE * 0.5 ** (3600 / HALF_LIFE) / (WEIGHT * 1000)
    inside = np.abs(there).max(axis=-1) < 28
    expected = head(there[inside])
    expected = expected if modality == CT else (expected + 1000) * 7.3
    assert inside.sum() > 300
    error = np.abs(values[inside] - expected)
    assert np.median(error) < 0.01 * np.ptp(expected)


@pytest.mark.parametrize("modality", [CT, MR, NM])
def test_on_one_grid_whole_numbers_stay_what_they_are(tmp_path, modality):
    overlay = overlay_of(modality)
    anatomy = instances(MR, shape=(40, 44, 12), number=3, frame_of_reference_uid="2.25.1111")
    moved, series, folder = on_grid(tmp_path, anatomy, overlay)
    assert series.step == 1
    assert torch.equal(read_image(folder), read_image(tmp_path / "overlay"))
    assert "outside" not in moved.meta
    written = dcmread(next(folder.iterdir()))
    if modality == NM:
        assert "RescaleSlope" not in written  # which the standard's own object has not
        assert written.CountsAccumulated == 4711
        assert written.RadiopharmaceuticalInformationSequence[0].Radiopharmaceutical == "HMPAO"


def test_nuclear_medicine_on_slices_from_head_to_feet(tmp_path):
    """Its slices lie along the normal, so that they are written in the other order."""
    source = pick_series(save(tmp_path / "overlay", nuclear_medicine()))
    image = read_image(tmp_path / "overlay")
    tall = MetaTensor(torch.zeros(1, 30, 34, 5), affine=torch.from_numpy(axial((30, 34, 5), (2, 2, -5))))
    moved = resample_onto(image, tall)
    series = ResampledSeries(moved, pick_series(save(tmp_path / "anatomy", anatomy_of())).datasets, source.datasets)
    (written,) = series.instances()
    assert written.SpacingBetweenSlices == 5
    write_instances(tmp_path / "on", [written])
    within_half_a_step(read_image(tmp_path / "on"), moved, series)
    assert dciodvfy_errors(tmp_path / "on" / "IM0001.dcm") == []


def uptake_of(file):
    """SUV by body weight as anybody computes it: from one file and nothing else, PS3.3 C.8.9."""
    image = dcmread(file)
    tracer = image.RadiopharmaceuticalInformationSequence[0]
    values = image.pixel_array.T * float(image.RescaleSlope)
    if image.Units == "GML":
        return values
    assert image.Units == "BQML"
    dose = float(tracer.RadionuclideTotalDose)
    if image.DecayCorrection == "START":
        seconds = [
            int(time[:2]) * 3600 + int(time[2:4]) * 60 + float(time[4:])
            for time in (str(tracer.RadiopharmaceuticalStartTime), str(image.SeriesTime))
        ]
        dose *= 0.5 ** ((seconds[1] - seconds[0]) / float(tracer.RadionuclideHalfLife))
    return values * float(image.PatientWeight) * 1000 / dose


@pytest.mark.parametrize(
    ("changes", "units"),
    [
        ({}, "BQML"),
        ({"DecayCorrection": "ADMIN"}, "BQML"),
        ({"RadiopharmaceuticalStartTime": "123000"}, "BQML"),
        ({"PatientWeight": "95"}, "BQML"),
        # made later than acquired, so that the start follows from when the mean count rate was
        (
            {"SeriesTime": "150000", "FrameReferenceTime": "400000", "ActualFrameDuration": "600000"},
            "BQML",
        ),
        ({"SeriesTime": "150000"}, "BQML"),
        ({"TimezoneOffsetFromUTC": "+0100"}, "BQML"),
        ({"Units": "GML", "SUVType": "BW"}, "GML"),
        ({"Units": "GML", "SUVType": "LBM"}, "GML"),
        ({"Units": "CM2ML", "SUVType": "BSA"}, "CM2ML"),
        ({"RadionuclideTotalDose": None}, "BQML"),
        ({"Units": "CNTS"}, "CNTS"),
    ],
)
def test_uptake_is_that_of_the_source(tmp_path, changes, units):
    anatomy = anatomy_of()
    for instance in anatomy:  # of another day, and another clock
        instance.PatientWeight, instance.TimezoneOffsetFromUTC = "60", "+0500"
    moved, series, folder = on_grid(tmp_path, anatomy, positron_emission(**changes), moves())
    image = read_image(folder)
    assert image.meta["units"] == moved.meta["units"]
    assert series.told["units"] == units
    within_half_a_step(image, moved, series)
    if moved.meta["units"] == "SUV":
        middle = ANATOMY_SHAPE[2] // 2
        by_hand = uptake_of(sorted(folder.iterdir())[middle])
        assert np.abs(by_hand - moved[0, :, :, middle].numpy()).max() <= 0.5 * series.step + 1e-4


@pytest.mark.parametrize(("time", "units"), [("125000", "BQML"), ("131000", "GML")])
def test_ge_keeps_its_time_of_scan_elsewhere(tmp_path, time, units):
    """It stands where others look for it then; after what was acquired they would not take it, and find SUV itself."""
    overlay = positron_emission(SeriesTime="150000")
    for instance in overlay:
        block = instance.private_block(0x0009, "GEMS_PETD_01", create=True)
        block.add_new(0x0D, "DT", f"20260105{time}.00")
    moved, series, folder = on_grid(tmp_path, anatomy_of(), overlay, moves())
    assert series.told["units"] == units
    within_half_a_step(read_image(folder), moved, series)
    if units == "BQML":
        assert str(dcmread(next(folder.iterdir())).SeriesTime).startswith(time)


def test_without_what_tells_the_patient_uptake_stays(tmp_path):
    moved, series, folder = on_grid(tmp_path, anatomy_of(), positron_emission(), moves(), self_contained=True)
    assert series.told["units"] == "GML"
    hidden = write_instances(tmp_path / "hidden", deidentify([dcmread(file) for file in sorted(folder.iterdir())]))
    assert dcmread(hidden[0]).SUVType == "BW"
    assert "PatientWeight" not in dcmread(hidden[0]) or not dcmread(hidden[0]).PatientWeight
    image = read_image(tmp_path / "hidden")
    assert image.meta["units"] == "SUV"
    within_half_a_step(image, moved, series)


def test_colours_stay_colours(tmp_path):
    grid = pick_series(save(tmp_path / "anatomy", anatomy_of()))
    anatomy = read_image(tmp_path / "anatomy")
    colours = torch.rand((3, *anatomy.shape[1:]), generator=torch.Generator().manual_seed(0)) * 255
    image = MetaTensor(colours, affine=anatomy.affine, meta={"units": "colour", "white": 255})
    series = ResampledSeries(image, grid.datasets)
    files = write_instances(tmp_path / "on", series.instances())
    assert series.told == {"sop_class": "Secondary Capture Image Storage", "units": "colour", "step": None}
    assert dciodvfy_errors(files[0]) == []
    again = read_image(tmp_path / "on")
    assert again.meta["units"] == "colour"
    np.testing.assert_array_equal(again.numpy(), np.rint(colours.numpy()))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"units": "stored"}, "DICOM needs a modality"),
        ({"units": "stored", "modality": "PT"}, "PET needs units"),
    ],
)
def test_what_is_not_known_is_asked_for(tmp_path, meta, message):
    grid = pick_series(save(tmp_path / "anatomy", anatomy_of()))
    anatomy = read_image(tmp_path / "anatomy")
    image = MetaTensor(anatomy.as_tensor(), affine=anatomy.affine, meta=meta)
    with pytest.raises(ValueError, match=message):
        list(ResampledSeries(image, grid.datasets).instances())


@pytest.mark.parametrize("modality", [CT, PT, NM])
def test_values_of_no_dicom_source(tmp_path, modality):
    """As of a NIfTI overlay: valid, and what is not known is empty."""
    grid = pick_series(save(tmp_path / "anatomy", anatomy_of()))
    anatomy = read_image(tmp_path / "anatomy")
    units = {CT: "HU", PT: "SUV"}.get(modality, "stored")
    values = anatomy.as_tensor() / 3.7 - (100 if modality == CT else 0)
    image = MetaTensor(values, affine=anatomy.affine, meta={"units": units, "modality": modality})
    series = ResampledSeries(image, grid.datasets)
    files = write_instances(tmp_path / "on", series.instances())
    assert dciodvfy_errors(files[0]) == []
    assert read_image(tmp_path / "on").meta["units"] == units
    within_half_a_step(read_image(tmp_path / "on"), image, series)


@pytest.mark.parametrize("modality", [CT, PT, NM])
def test_slab_by_slab_the_same_bytes(tmp_path, modality, monkeypatch):
    moved, series, folder = on_grid(tmp_path, anatomy_of(), overlay_of(modality), moves())
    monkeypatch.setattr(slabs, "LARGE", 2**10)
    monkeypatch.setattr(slabs, "SLAB", 2**11)
    volume = slabs.zeros(moved.shape)
    volume[:] = moved.numpy()
    assert slabs._is_mapped(volume)
    image = MetaTensor(torch.from_numpy(volume), meta=moved.meta)
    write_instances(tmp_path / "slabs", replace(series, image=image).instances())
    first, second = (sorted(folder.iterdir()) for folder in (folder, tmp_path / "slabs"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_the_anatomy_itself_keeps_its_geometry_to_the_letter(tmp_path):
    grid = pick_series(save(tmp_path / "anatomy", anatomy_of()))
    image = read_image(tmp_path / "anatomy")
    series = ResampledSeries(image, grid.datasets, grid.datasets)
    files = write_instances(tmp_path / "on", series.instances())
    for file, source in zip(files, grid.datasets, strict=True):
        written = dcmread(file)
        assert written.ImagePositionPatient == source.ImagePositionPatient
        assert written.SeriesInstanceUID != source.SeriesInstanceUID
        assert {item.ReferencedSOPInstanceUID for item in written.SourceImageSequence} >= {source.SOPInstanceUID}
        assert "ReferencedImageSequence" not in written
    assert_same_image(read_image(tmp_path / "on"), image)
