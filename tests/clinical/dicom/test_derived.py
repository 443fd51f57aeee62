"""A fused image as a derived series: what it says of itself, and what outside programs make of it."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from judges import CT, MR, PT, affine_of, dciodvfy_errors, dcm2niix, enhanced, image_of, series_of, written
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff
from pydicom import Dataset
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit

from fusion_nets import __version__
from fusion_nets.clinical.dicom import derived_series, presentation_state
from fusion_nets.clinical.dicom.sources import grid_of, planes_of

MR_CLASS, CT_CLASS, SC_CLASS = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "2", "7"))
PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation")


def fused_on(image, channels=1, seed=1):
    values = np.random.default_rng(seed).random((channels, *image.shape[1:]), dtype=np.float32)
    return image_of(values, image.affine.numpy())


def fuse(anatomy=MR, overlay=PT, channels=1, body_part=None, **how):
    (first, image), (second, _) = series_of(anatomy, body_part=body_part), series_of(overlay, number=5)
    fused = fused_on(image, channels)
    return derived_series(fused, first, second, **({"method": "DM-FNet"} | how)), first, second, fused


@pytest.mark.parametrize("body_part", [None, "HEAD"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("anatomy", [MR, CT, PT])
def test_dciodvfy_finds_no_error(tmp_path, anatomy, channels, body_part):
    result, *_ = fuse(anatomy, CT if anatomy == PT else PT, channels, body_part)
    written(tmp_path, result)
    for name in ("IM0001.dcm", f"IM{len(result):04d}.dcm"):
        assert dciodvfy_errors(tmp_path / name) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("anatomy", [MR, CT])
def test_dcm2niix_reads_values_and_affine_back(tmp_path, anatomy, channels):
    result, _, _, fused = fuse(anatomy, channels=channels)
    written(tmp_path / "series", result)
    ((back, told),) = dcm2niix(tmp_path / "series", tmp_path / "nii")
    assert told["SeriesDescription"] == "Fused"
    assert told["Modality"] == anatomy
    array = np.asanyarray(back.dataobj)
    array = np.stack([array[name] for name in "RGB"]) if channels == 3 else array[None].astype(np.float64)
    turn = np.linalg.inv(back.affine) @ fused.affine.numpy()  # dcm2niix turns rows over
    assert np.abs(turn[:3, :3] - np.diag(np.sign(np.diag(turn)))[:3, :3]).max() < 1e-4
    flipped = [axis + 1 for axis in range(3) if turn[axis, axis] < 0]
    same = np.flip(array, flipped)
    offset = np.array([back.shape[axis] - 1 if axis + 1 in flipped else 0 for axis in range(3)])
    np.testing.assert_allclose(back.affine[:3, :3] @ offset + back.affine[:3, 3], fused.affine[:3, 3], atol=1e-3)
    np.testing.assert_allclose(
        same / (255 if channels == 3 else 65535), fused, atol=0.51 / (255 if channels == 3 else 65535)
    )


def test_object_is_the_anatomys_own_where_that_is_an_image_of_no_promise():
    for anatomy, channels, sop_class, modality in (
        (MR, 1, MR_CLASS, MR),
        (CT, 1, CT_CLASS, CT),
        (PT, 1, SC_CLASS, "OT"),
        (MR, 3, SC_CLASS, MR),
    ):
        instance = fuse(anatomy, CT, channels)[0][0]
        assert (instance.SOPClassUID, instance.Modality) == (sop_class, modality)
    assert fuse(CT)[0][0].RescaleType == "US"
    assert "RescaleSlope" not in fuse(MR)[0][0]


@pytest.mark.parametrize("channels", [1, 3])
def test_patient_study_and_geometry_are_the_anatomys(channels):
    result, anatomy, overlay, fused = fuse(channels=channels)
    assert len(result) == len(anatomy) == 7
    for k, (instance, source) in enumerate(zip(result, anatomy, strict=True)):
        for keyword in (
            *PLANE,
            "FrameOfReferenceUID",
            "StudyInstanceUID",
            "PatientID",
            "PatientBirthDate",
            "StudyDate",
        ):
            assert instance[keyword].value == source[keyword].value, keyword
        assert str(instance.PatientName) == "Marked^Name"
        assert instance.StudyDescription == "Described"
        pixels = instance.pixel_array / (255 if channels == 3 else 65535)
        pixels = np.moveaxis(pixels, -1, 0) if channels == 3 else pixels[None]
        np.testing.assert_allclose(
            pixels.transpose(0, 2, 1), fused[..., k], atol=0.51 / (255 if channels == 3 else 65535)
        )
        assert instance.InstanceNumber == k + 1
    series = {instance.SeriesInstanceUID for instance in result}
    assert len(series) == 1
    assert not series & {source.SeriesInstanceUID for source in (*anatomy, *overlay)}
    assert len({instance.SOPInstanceUID for instance in result}) == len(result)
    assert result[0].SeriesNumber == (302 if channels == 3 else 301)


def test_says_what_it_is_made_of():
    result, anatomy, overlay, _ = fuse(method="DM-FNet, PET 0 to 16 SUV")
    middle = result[3]
    assert middle.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert middle.DerivationDescription == f"DM-FNet, PET 0 to 16 SUV: MR fused with PT, fusion-nets {__version__}"
    assert [(c.CodeValue, c.CodingSchemeDesignator) for c in middle.DerivationCodeSequence] == [
        ("113085", "DCM"),
        ("FUSED", "99FUSIONNETS"),
    ]
    references = middle.SourceImageSequence
    assert references[0].ReferencedSOPInstanceUID == anatomy[3].SOPInstanceUID
    assert references[0].SpatialLocationsPreserved == "YES"
    assert all(item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322" for item in references)
    listed = {
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for series in middle.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    uids = {source.SOPInstanceUID: source.SeriesInstanceUID for source in (*anatomy, *overlay)}
    assert listed == {(uids[item.ReferencedSOPInstanceUID], item.ReferencedSOPInstanceUID) for item in references}
    assert (middle.WindowCenter, middle.WindowWidth) == (32768, 65536)
    processing = middle.ContributingEquipmentSequence[-1]
    assert (processing.Manufacturer, processing.SoftwareVersions) == ("fusion-nets", __version__)
    assert processing.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_refers_to_the_overlay_slices_that_interpolation_touches():
    result, anatomy, overlay, fused = fuse()
    depth = {source.SOPInstanceUID: float(source.ImagePositionPatient[2]) for source in overlay}
    for k, instance in enumerate(result):
        corners = [(x, y, k + z, 1) for x in (-0.5, 19.5) for y in (-0.5, 23.5) for z in (-0.5, 0.5)]
        z = (np.array(corners) @ fused.affine.numpy().T)[:, 2]
        wanted = {uid for uid, at in depth.items() if z.min() - 4 < at < z.max() + 4}
        found = {item.ReferencedSOPInstanceUID for item in instance.SourceImageSequence} & set(depth)
        assert found == wanted
        assert found or k == 0
    shifted = np.eye(4)
    shifted[2, 3] = 1000.0  # the overlay's slices are then all far below
    moved = derived_series(fused, anatomy, overlay, method="x", anatomy_to_overlay=shifted)
    assert len(moved[0].SourceImageSequence) == 1


def test_deidentification_burned_in_text_and_lossy_compression_are_handed_on():
    (anatomy, image), (overlay, _) = series_of(MR), series_of(PT)
    method = Dataset()
    method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = "113100", "DCM", "Basic profile"
    for instance in anatomy:
        instance.PatientIdentityRemoved, instance.DeidentificationMethod = "YES", "somehow"
        instance.DeidentificationMethodCodeSequence = [method]
        instance.LongitudinalTemporalInformationModified = "REMOVED"
        instance.LossyImageCompression, instance.LossyImageCompressionRatio = "01", "12.5"
    overlay[0].BurnedInAnnotation = "YES"
    for instance in derived_series(fused_on(image), anatomy, overlay, method="x"):
        assert instance.PatientIdentityRemoved == "YES"
        assert instance.DeidentificationMethod == "somehow"
        assert instance.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert instance.LongitudinalTemporalInformationModified == "REMOVED"
        assert (instance.LossyImageCompression, instance.LossyImageCompressionRatio) == ("01", 12.5)
        assert instance.BurnedInAnnotation == "YES"


@pytest.mark.parametrize("keyword", ["BurnedInAnnotation", "RecognizableVisualFeatures", "LossyImageCompression"])
@pytest.mark.parametrize(
    ("anatomys", "overlays", "expected"),
    [
        (None, None, None),
        (False, False, False),
        (False, None, None),
        (None, False, None),
        (True, None, True),
        (None, True, True),
        (False, True, True),
        (True, False, True),
    ],
)
def test_what_pixels_went_through_is_said_where_it_is_known(keyword, anatomys, overlays, expected):
    words = {None: None, True: "YES", False: "NO"}
    if keyword == "LossyImageCompression":
        words = {None: None, True: "01", False: "00"}
    (anatomy, image), (overlay, _) = series_of(MR), series_of(PT)
    for series, known in ((anatomy, anatomys), (overlay, overlays)):
        for instance in series if known is not None else ():
            setattr(instance, keyword, words[known])
    for instance in derived_series(fused_on(image), anatomy, overlay, method="x"):
        assert instance.get(keyword) == words[expected]


def test_one_silent_slice_is_silence():
    anatomy, image = series_of(MR)
    for instance in anatomy[1:]:
        instance.BurnedInAnnotation, instance.LossyImageCompression = "NO", "00"
    for instance in derived_series(fused_on(image), anatomy, method="x"):
        assert "BurnedInAnnotation" not in instance
        assert "LossyImageCompression" not in instance


@pytest.mark.parametrize(
    ("syntax", "said", "expected"),
    [
        (JPEGBaseline8Bit, None, "01"),
        (JPEGExtended12Bit, "00", "01"),
        (JPEG2000, None, None),
        (JPEG2000, "00", "00"),
        (JPEG2000Lossless, None, None),
    ],
)
def test_an_encoding_that_is_always_lossy_tells_so(syntax, said, expected):
    anatomy, image = series_of(MR)
    for instance in anatomy:
        instance.file_meta.TransferSyntaxUID = syntax
        if said:
            instance.LossyImageCompression = said
    for instance in derived_series(fused_on(image), anatomy, method="x"):
        assert instance.get("LossyImageCompression") == expected


def test_nothing_of_the_source_comes_along_unasked():
    (anatomy, image), (overlay, _) = series_of(CT), series_of(PT)
    for instance in anatomy:
        instance.OperatorsName = instance.ImageComments = instance.SeriesDescription = "unasked"
        instance.add_new(0x00091001, "LO", "unasked")
        instance.add_new(0x60003000, "OW", b"unasked!")
    for instance in derived_series(fused_on(image), anatomy, overlay, method="x"):
        assert "unasked" not in str(instance)
        assert 0x60003000 not in instance


def test_same_result_has_the_same_bytes_and_another_has_other_uids(tmp_path):
    first, again = fuse()[0], fuse()[0]
    written(tmp_path / "a", first)
    written(tmp_path / "b", again)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    uids = {instance.SOPInstanceUID for instance in first}
    _, anatomy, overlay, fused = fuse()
    brighter = fused.clone()
    brighter[0, 3, 3, 3] = 1 - brighter[0, 3, 3, 3]
    for other in (
        derived_series(fused, anatomy, overlay, method="SMFusion"),
        derived_series(brighter, anatomy, overlay, method="DM-FNet"),
        derived_series(fused, anatomy, overlay[1:], method="DM-FNet"),
    ):
        assert not uids & {instance.SOPInstanceUID for instance in other}


@pytest.mark.parametrize("turn", [[[1, -1], [0, 1], [2, -1]], [[2, 1], [1, -1], [0, 1]]])
def test_voxels_in_another_order_are_put_into_the_anatomys(turn):
    result, anatomy, overlay, fused = fuse()
    turn = np.array(turn)
    values = np.moveaxis(apply_orientation(np.moveaxis(fused.numpy(), 0, -1), turn), -1, 0)
    turned = image_of(values, fused.affine.numpy() @ inv_ornt_aff(turn, fused.shape[1:]))
    assert aff2axcodes(turned.affine.numpy()) != aff2axcodes(fused.affine.numpy())
    for one, other in zip(result, derived_series(turned, anatomy, overlay, method="DM-FNet"), strict=True):
        assert one == other


def test_tilted_anatomy_takes_the_geometry_of_the_image(tmp_path):
    anatomy, image = series_of(CT)
    for k, instance in enumerate(anatomy):
        instance.ImagePositionPatient = [
            *instance.ImagePositionPatient[:1],
            float(instance.ImagePositionPatient[1]) + k,
            instance.ImagePositionPatient[2],
        ]
        instance.GantryDetectorTilt = "18"
    planes = planes_of(anatomy)
    assert grid_of(planes) is None
    resampled = fused_on(image)
    result = derived_series(resampled, anatomy, series_of(PT)[0], method="x")
    affine, shape = grid_of(planes_of(result))
    np.testing.assert_allclose(affine, image.affine, atol=1e-6)
    assert shape == tuple(image.shape[1:])
    assert all("GantryDetectorTilt" not in instance for instance in result)
    used = {item.ReferencedSOPInstanceUID for item in result[4].SourceImageSequence}
    assert {anatomy[k].SOPInstanceUID for k in (3, 4, 5)} <= used
    assert anatomy[0].SOPInstanceUID not in used
    written(tmp_path, result)
    assert dciodvfy_errors(tmp_path / "IM0003.dcm") == []


def test_enhanced_anatomy_gives_one_secondary_capture_a_slice(tmp_path):
    anatomy, image = series_of(MR)
    result = derived_series(fused_on(image), [enhanced(anatomy)], series_of(PT)[0], method="x")
    assert len(result) == len(anatomy)
    for k, (instance, source) in enumerate(zip(result, anatomy, strict=True)):
        assert instance.SOPClassUID == SC_CLASS
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            np.testing.assert_allclose(instance[keyword].value, source[keyword].value, atol=1e-6)
        assert instance.SourceImageSequence[0].ReferencedFrameNumber == len(anatomy) - k
    written(tmp_path, result)
    assert dciodvfy_errors(tmp_path / "IM0002.dcm") == []


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_in_other_alphabets(tmp_path, charset, name):
    anatomy, image = series_of(MR)
    for instance in anatomy:
        instance.SpecificCharacterSet, instance.PatientName = charset, name
    anatomy = written(tmp_path / "anatomy", anatomy)
    overlay = series_of(CT)[0]
    state = presentation_state(anatomy, overlay, anatomy_window=(0, 900), overlay_window=(0, 80))
    for instance in written(
        tmp_path / "fused", [*derived_series(fused_on(image), anatomy, overlay, method="x"), state]
    ):
        assert str(instance.PatientName) == name
        assert instance.SpecificCharacterSet == anatomy[0].SpecificCharacterSet
    assert dciodvfy_errors(tmp_path / "fused" / "IM0001.dcm") == []


def test_reconstructed_nuclear_medicine_says_where_its_frames_lie():
    instances, image = series_of(PT)
    volume = deepcopy(instances[0])
    volume.SOPClassUID, volume.ImageType = (
        "1.2.840.10008.5.1.4.1.1.20",
        ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
    )
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = (
        volume.ImagePositionPatient,
        volume.ImageOrientationPatient,
    )
    del volume.ImagePositionPatient, volume.ImageOrientationPatient
    volume.DetectorInformationSequence, volume.NumberOfFrames, volume.SpacingBetweenSlices = [detector], 8, "4"
    affine, shape = grid_of(planes_of([volume]))
    assert shape == tuple(image.shape[1:])
    np.testing.assert_allclose(affine, image.affine, atol=1e-6)


def test_overlay_of_another_study_is_listed_as_such():
    (anatomy, image), (overlay, _) = series_of(MR), series_of(PT)
    for instance in overlay:
        instance.StudyInstanceUID = "2.25.99"
    instance = derived_series(fused_on(image), anatomy, overlay, method="x")[3]
    (other,) = instance.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "2.25.99"
    assert other.ReferencedSeriesSequence[0].SeriesInstanceUID == overlay[0].SeriesInstanceUID
    assert len(instance.ReferencedSeriesSequence) == 1


@pytest.mark.parametrize("whole_anatomy", [True, False])
def test_single_slice(whole_anatomy):
    anatomy, image = series_of(MR)
    affine = image.affine.numpy().copy()
    affine[:3, 3] += 2 * affine[:3, 2]
    single = image_of(fused_on(image)[..., 2].numpy(), affine)
    (instance,) = derived_series(single, anatomy if whole_anatomy else anatomy[2:3], method="x")
    for keyword in PLANE:
        np.testing.assert_allclose(instance[keyword].value, anatomy[2][keyword].value, atol=1e-6)
    assert instance.SourceImageSequence[0].ReferencedSOPInstanceUID == anatomy[2].SOPInstanceUID


def test_refuses_what_it_cannot_write():
    anatomy, image = series_of(MR)
    fused = fused_on(image)
    with pytest.raises(ValueError, match="NaN"):
        derived_series(fused * torch.nan, anatomy, method="x")
    with pytest.raises(ValueError, match="outside"):
        derived_series(image_of(fused.numpy(), affine_of((2, 2, 2), origin=(400, 0, 0))), anatomy, method="x")
    with pytest.raises(ValueError, match="ASCII"):
        derived_series(fused, anatomy, method="Verschmelzung ü")
    with pytest.raises(ValueError, match=r"\(1 \| 3, H, W"):
        derived_series(fused[:, None], anatomy, method="x")
    for instance in anatomy:
        del instance.ImagePositionPatient
    with pytest.raises(ValueError, match="Image Position"):
        derived_series(fused, anatomy, method="x")
