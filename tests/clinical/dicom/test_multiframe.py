import copy

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_phantoms import assert_same_image, axial, dcm2niix, head_on, instances, sagittal, save
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.clinical.dicom import fingerprint, pick_series, read_series

SHAPE = (40, 44, 6)
ENHANCED_MR, ENHANCED_CT, ENHANCED_PET = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4.1", "2.1", "130"))


def read(folder, **which):
    return read_series(pick_series(folder, **which))


def item(**attributes):
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(slices, sop_class, in_time=1):
    """The frames of a classic series in one enhanced object: orientation and size shared, place and slope their own."""
    whole = copy.deepcopy(slices[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = sop_class
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    measures = item(PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness)
    orientation = item(ImageOrientationPatient=whole.ImageOrientationPatient)
    whole.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    frames = []
    for time in range(in_time):
        for k, one in enumerate(slices, start=1):
            content = item(
                StackID="1",
                InStackPositionNumber=k,
                TemporalPositionIndex=time + 1,
                DimensionIndexValues=[1, k, time + 1],
            )
            transformation = item(
                RescaleSlope=one.get("RescaleSlope") or "1",
                RescaleIntercept=one.get("RescaleIntercept") or "0",
                RescaleType="HU" if one.Modality == "CT" else "US",
            )
            frames.append(
                item(
                    FrameContentSequence=[content],
                    PlanePositionSequence=[item(ImagePositionPatient=one.ImagePositionPatient)],
                    PixelValueTransformationSequence=[transformation],
                    FrameVOILUTSequence=[item(WindowCenter="40", WindowWidth="80")],
                )
            )
    whole.PerFrameFunctionalGroupsSequence = frames
    whole.NumberOfFrames = len(frames)
    whole.PixelData = b"".join(one.PixelData for one in slices) * in_time
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "SliceLocation",
    ):
        delattr(whole, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in whole:
            delattr(whole, keyword)
    return whole


@pytest.mark.parametrize(
    ("modality", "sop_class", "affine"),
    [
        ("MR", ENHANCED_MR, axial(SHAPE, turn=(12, 3, 0))),
        ("MR", ENHANCED_MR, sagittal(SHAPE)),
        ("CT", ENHANCED_CT, None),
    ],
)
def test_enhanced_is_what_the_classic_series_is(tmp_path, modality, sop_class, affine):
    slices = instances(modality, affine, SHAPE)
    classic = read(save(tmp_path / "classic", slices))
    mixed = [slices[k] for k in (3, 0, 5, 1, 4, 2)]
    folder = save(tmp_path / "enhanced", [enhanced(mixed, sop_class)])
    for path in (folder, folder / "IM0001.dcm"):
        image = read(path)
        np.testing.assert_array_equal(image, classic)
        np.testing.assert_allclose(image.affine, classic.affine, atol=1e-6)
        assert image.meta["series"] == fingerprint(slices[0].SeriesInstanceUID)
        assert image.meta["units"] == classic.meta["units"]
        assert image.meta["window"] == (0, 80)


def test_enhanced_agrees_with_dcm2niix(tmp_path):
    folder = save(tmp_path / "mr", [enhanced(instances("MR", axial(SHAPE, turn=(12, 3, 0)), SHAPE), ENHANCED_MR)])
    (theirs,) = dcm2niix(folder, tmp_path / "out").values()
    assert_same_image(read(folder), theirs)


def test_legacy_converted_by_highdicom(tmp_path):
    slices = instances("CT", axial(SHAPE, turn=(5, 0, 0)), SHAPE)
    classic = read(save(tmp_path / "classic", slices))
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        legacy_datasets=slices,
        series_instance_uid="2.25.1001",
        series_number=7,
        sop_instance_uid="2.25.1002",
        instance_number=1,
    )
    converted.save_as(tmp_path / "legacy.dcm")
    image = read(tmp_path / "legacy.dcm")
    np.testing.assert_array_equal(image, classic)
    np.testing.assert_allclose(image.affine, classic.affine, atol=1e-4)
    assert image.meta["units"] == "HU"


def test_enhanced_pet_says_its_units_by_code(tmp_path):
    slices = instances("PT", shape=SHAPE)
    whole = enhanced(slices, ENHANCED_PET)
    del whole.Units, whole.DecayCorrection, whole.CorrectedImage
    whole.PatientWeight = "70"
    whole.DecayCorrectionDateTime = "20260105130000"
    whole.RadiopharmaceuticalInformationSequence = [
        item(
            RadionuclideTotalDose="350000000",
            RadionuclideHalfLife="6586.2",
            RadiopharmaceuticalStartDateTime="20260105120000",
        )
    ]
    for frame, one in zip(whole.PerFrameFunctionalGroupsSequence, slices, strict=True):
        unit = item(CodeValue="Bq/ml", CodingSchemeDesignator="UCUM", CodeMeaning="Becquerels/milliliter")
        mapping = item(
            RealWorldValueSlope=float(one.RescaleSlope),
            RealWorldValueIntercept=0.0,
            MeasurementUnitsCodeSequence=[unit],
        )
        frame.RealWorldValueMappingSequence = [mapping]
        frame.PixelValueTransformationSequence[0].RescaleSlope = "1"
    image = read(save(tmp_path / "pt", [whole]))
    assert image.meta["units"] == "SUV"
    expected = np.stack([one.pixel_array.T * float(one.RescaleSlope) for one in slices], -1)
    np.testing.assert_allclose(image[0], expected * 70e3 / (350e6 * 0.5 ** (3600 / 6586.2)), rtol=1e-5)


def test_compressed_enhanced(tmp_path):
    whole = enhanced(instances("CT", shape=SHAPE), ENHANCED_CT)
    classic = read(save(tmp_path / "plain", [whole]))
    whole.compress(pydicom.uid.RLELossless)
    folder = save(tmp_path / "packed", [whole])
    np.testing.assert_array_equal(read(folder), classic)
    assert whole.file_meta.TransferSyntaxUID not in (ExplicitVRLittleEndian, JPEG2000Lossless)


def assert_refused(path, reason, *names):
    with refused(reason, *names):
        read(path)


def test_several_temporal_positions(tmp_path):
    whole = enhanced(instances("MR", shape=SHAPE), ENHANCED_MR, in_time=2)
    assert_refused(save(tmp_path, [whole]), Reason.AMBIGUOUS, "TemporalPositionIndex")


def test_several_stacks(tmp_path):
    """Of different orientation, such as a planning view has."""
    whole = enhanced(instances("MR", shape=SHAPE), ENHANCED_MR)
    for frame in whole.PerFrameFunctionalGroupsSequence[3:]:
        frame.FrameContentSequence[0].StackID = "2"
        frame.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]
    assert_refused(save(tmp_path, [whole]), Reason.AMBIGUOUS, "StackID")


def test_several_echoes(tmp_path):
    whole = enhanced(instances("MR", shape=SHAPE), ENHANCED_MR, in_time=2)
    for k, frame in enumerate(whole.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].TemporalPositionIndex = 1
        frame.MREchoSequence = [item(EffectiveEchoTime=30.0 if k < 6 else 90.0)]
    assert_refused(save(tmp_path, [whole]), Reason.AMBIGUOUS, "EffectiveEchoTime")


def test_missing_frame_is_named(tmp_path):
    whole = enhanced([one for k, one in enumerate(instances("CT", shape=SHAPE)) if k != 3], ENHANCED_CT)
    folder = save(tmp_path, [whole])
    assert_refused(folder, Reason.INCOMPLETE, "IM0001.dcm: frame 3", "IM0001.dcm: frame 4")
    assert_refused(folder / "IM0001.dcm", Reason.INCOMPLETE, "frame 3", "frame 4")


def test_frames_without_groups(tmp_path):
    whole = enhanced(instances("CT", shape=SHAPE), ENHANCED_CT)
    del whole.PerFrameFunctionalGroupsSequence[5]
    assert_refused(save(tmp_path, [whole]), Reason.DAMAGED, "5", "NumberOfFrames is 6")


def test_several_objects_of_one_series(tmp_path):
    objects = [enhanced(instances("MR", shape=SHAPE), ENHANCED_MR) for _ in range(2)]
    objects[1].SOPInstanceUID = objects[1].file_meta.MediaStorageSOPInstanceUID = "2.25.55"
    folder = save(tmp_path, objects)
    assert_refused(folder, Reason.AMBIGUOUS)
    image = read(folder / "IM0002.dcm")
    np.testing.assert_allclose(image[0], np.rint(head_on(image.affine.numpy(), SHAPE)) + 1000)


if hasattr(highdicom, "Volume"):  # the one for pydicom 2 has none, and converts PET without its slopes

    def test_enhanced_agrees_with_highdicom(tmp_path):
        affine = sagittal(SHAPE)
        folder = save(tmp_path / "ct", [enhanced(instances("CT", affine, SHAPE), ENHANCED_CT)])
        theirs = highdicom.imread(folder / "IM0001.dcm").get_volume().to_patient_orientation("LPS")
        image = read(folder)
        ours = highdicom.Volume(
            image[0].numpy(), np.diag([-1, -1, 1, 1]) @ image.affine.numpy(), coordinate_system="PATIENT"
        ).to_patient_orientation("LPS")
        np.testing.assert_array_equal(ours.array, theirs.array)
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-6)

    def test_legacy_converted_pet_is_uptake(tmp_path):
        slices = instances("PT", shape=SHAPE)
        for one in slices:
            one.Units, one.DecayCorrection, one.CorrectedImage = "BQML", "ADMIN", ["ATTN", "DECY"]
            one.PatientWeight = "70"
            one.RadiopharmaceuticalInformationSequence = [item(RadionuclideTotalDose="350000000")]
        classic = read(save(tmp_path / "classic", slices))
        assert classic.meta["units"] == "SUV"
        converted = highdicom.legacy.LegacyConvertedEnhancedPETImage(slices, "2.25.1001", 7, "2.25.1002", 1)
        converted.save_as(tmp_path / "legacy.dcm")
        image = read(tmp_path / "legacy.dcm")
        assert image.meta["units"] == "SUV"
        np.testing.assert_allclose(image, classic, rtol=1e-6)
