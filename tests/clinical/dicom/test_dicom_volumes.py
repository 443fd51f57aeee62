"""Several volumes at the same places in one series: listed, and one of them read."""

import copy
import math
import struct

import numpy as np
import pytest
from dicom_phantoms import assert_same_image, axial, dcm2niix, instances, sagittal, save
from pydicom.dataset import Dataset
from refusals import refused

from fusion_nets.clinical import Reason, convert_image, read_image
from fusion_nets.clinical.dicom import derived_series, find_series, pick_series, pick_volumes, read_series

SHAPE = (20, 22, 4)


def several(changes, shape=SHAPE, affine=None):
    """The head once for each of these changes, brighter by 1000 each time."""
    every = []
    for number, change in enumerate(changes):
        for one in instances("MR", affine, shape):
            twin = copy.deepcopy(one)
            twin.PixelData = (one.pixel_array + 1000 * number).astype("<u2").tobytes()
            twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = f"2.25.77{number}{one.InstanceNumber}"
            twin.InstanceNumber = len(every) + 1
            change(twin)
            every.append(twin)
    return every


def set_to(**attributes):
    def change(instance):
        for keyword, value in attributes.items():
            setattr(instance, keyword, value)

    return change


def private(group, element, creator, vr, value):
    def change(instance):
        instance.private_block(group, creator, create=True).add_new(element, vr, value)

    return change


KINDS = {
    "echoes": ([set_to(EchoTime=30), set_to(EchoTime=90)], "EchoTime 90", "echo=90"),
    "numbers of echoes": ([set_to(EchoNumbers=1), set_to(EchoNumbers=2)], "EchoNumbers 2", "echo=2"),
    "moments": ([set_to(TemporalPositionIdentifier=n) for n in (1, 2)], "TemporalPositionIdentifier 2", "time=2"),
    "weightings": ([set_to(DiffusionBValue=b) for b in (0.0, 1000.0)], "DiffusionBValue 1000", "b=1000"),
    "Siemens": ([private(0x19, 0x0C, "SIEMENS MR HEADER", "IS", b) for b in (0, 1000)], "BValue 1000", "b=1000"),
    "GE": (
        [private(0x43, 0x39, "GEMS_PARM_01", "IS", [10**9 + b, 8, 0, 0]) for b in (0, 1000)],
        "BValue 1000",
        "b=1000",
    ),
    "Philips": ([private(0x2001, 0x03, "Philips Imaging DD 001", "FL", b) for b in (0.0, 1000.0)], "1000", "b=1000"),
    "phases": ([set_to(ImageType=["ORIGINAL", "PRIMARY", kind]) for kind in "MP"], "PRIMARY\\P", "type=P"),
    "acquisitions": ([set_to(AcquisitionNumber=n) for n in (1, 2)], "AcquisitionNumber 2", "AcquisitionNumber=2"),
    "nothing but their order": ([set_to(), set_to()], "1, 2", "2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_two(tmp_path, kind):
    changes, told, wanted = KINDS[kind]
    folder = save(tmp_path / "mr", several(changes))
    single = read_image(save(tmp_path / "one", several(changes[:1])))
    with refused(Reason.AMBIGUOUS, str(folder), "2 volumes", told):
        read_image(folder)
    for which, brighter in ((1, 0), (2, 1000), (wanted, 1000), ("mean", 500)):
        image = read_image(folder, volume=which)
        np.testing.assert_allclose(image, single + brighter)
        np.testing.assert_allclose(image.affine, single.affine)
    with refused(Reason.MISSING, told):
        read_image(folder, volume="echo=55")


def test_two_signs_at_once(tmp_path):
    changes = [set_to(EchoTime=te, ImageType=["ORIGINAL", "PRIMARY", kind]) for te in (5, 10) for kind in "MP"]
    folder = save(tmp_path / "mr", several(changes))
    with refused(Reason.AMBIGUOUS, "4 volumes", "EchoTime 10"):
        read_image(folder)
    with refused(Reason.AMBIGUOUS, "2 volumes"):
        read_image(folder, volume="echo=10")
    images = [read_image(folder, volume=f"echo={te},type={kind}").min().item() for te in (5, 10) for kind in "MP"]
    np.testing.assert_allclose(np.diff(images), 1000)


def test_three_planes_of_a_localizer(tmp_path):
    first, second = instances("MR", axial(SHAPE), SHAPE), instances("MR", sagittal(SHAPE), SHAPE)
    for number, one in enumerate(second):
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(one, keyword, first[0][keyword].value)
        one.InstanceNumber = 10 + number
    folder = save(tmp_path / "mr", [*first, *second])
    with refused(Reason.AMBIGUOUS, "plane axial", "plane sagittal"):
        read_image(folder)
    alone = read_image(save(tmp_path / "one", second))
    image = read_image(folder, volume="plane=sagittal")
    np.testing.assert_array_equal(image, alone)
    np.testing.assert_allclose(image.affine, alone.affine)


def test_a_slice_twice_is_no_volume(tmp_path):
    series = several([set_to()])
    twin = copy.deepcopy(series[1])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "2.25.9"
    with refused(Reason.GEOMETRY, "ImagePositionPatient"):
        read_image(save(tmp_path / "mr", [*series, twin]))


def enhanced(slices):
    """Frames of a classic series with their echo times in one object."""
    whole = copy.deepcopy(slices[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    groups = []
    for one in slices:
        group, place, plane, size, echo = (Dataset() for _ in range(5))
        place.ImagePositionPatient, plane.ImageOrientationPatient = (
            one.ImagePositionPatient,
            one.ImageOrientationPatient,
        )
        size.PixelSpacing, echo.EffectiveEchoTime = one.PixelSpacing, float(one.EchoTime)
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [plane]
        group.PixelMeasuresSequence, group.MREchoSequence = [size], [echo]
        groups.append(group)
    del whole.ImagePositionPatient, whole.ImageOrientationPatient, whole.PixelSpacing, whole.EchoTime
    whole.PerFrameFunctionalGroupsSequence, whole.NumberOfFrames = groups, len(groups)
    whole.PixelData = b"".join(one.PixelData for one in slices)
    return whole


def test_frames_of_an_enhanced_object(tmp_path):
    slices = several([set_to(EchoTime=30), set_to(EchoTime=90)])
    classic = read_image(save(tmp_path / "classic", slices), volume=2)
    folder = save(tmp_path / "enhanced", [enhanced(slices)])
    with refused(Reason.AMBIGUOUS, "EffectiveEchoTime 90"):
        read_image(folder)
    image = read_image(folder, volume="echo=90")
    np.testing.assert_array_equal(image, classic)
    np.testing.assert_allclose(image.affine, classic.affine)


def test_what_philips_repeats_in_private_does_not_count(tmp_path):
    whole = enhanced(several([set_to(EchoTime=30)]))
    expected = read_image(save(tmp_path / "plain", [whole]))
    for group in whole.PerFrameFunctionalGroupsSequence:
        repeated = Dataset()
        repeated.ImagePositionPatient, repeated.PixelSpacing = ["1", "2", "3"], ["9", "9"]
        repeated.RescaleSlope, repeated.RescaleIntercept = "7", "100"
        group.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [repeated])
    image = read_image(save(tmp_path / "philips", [whole]))
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(image.affine, expected.affine)


def test_several_objects_of_one_series(tmp_path):
    objects = []
    for number in range(2):
        objects.append(enhanced(several([set_to(EchoTime=30)])))
        objects[-1].InstanceNumber = number + 1
        objects[-1].SOPInstanceUID = objects[-1].file_meta.MediaStorageSOPInstanceUID = f"2.25.5{number}"
    folder = save(tmp_path / "mr", objects)
    with refused(Reason.AMBIGUOUS, "2 volumes", "InstanceNumber 2"):
        read_image(folder)
    np.testing.assert_array_equal(read_image(folder, volume=2), read_image(folder / "IM0002.dcm"))


def test_what_is_fused_refers_to_the_chosen_volume_alone(tmp_path):
    for make in (lambda slices: slices, lambda slices: [enhanced(slices)]):
        folder = save(
            tmp_path / str(make.__code__.co_firstlineno), make(several([set_to(EchoTime=te) for te in (3, 9)]))
        )
        (chosen,) = pick_volumes(pick_series(folder), 2)
        image = read_series(pick_series(folder), 2)
        fused = derived_series(image / image.max(), chosen.datasets, method="a test")
        assert len(fused) == SHAPE[2]
        for one in fused:
            (item,) = one.SourceImageSequence
            frames = item.get("ReferencedFrameNumber")
            assert (frames or int(item.ReferencedSOPInstanceUID[-1]) + 4) > 4


def test_through_convert(tmp_path):
    folder = save(tmp_path / "mr", several([set_to(EchoTime=30), set_to(EchoTime=90)]))
    chosen = read_image(folder, volume=2)
    convert_image(folder, tmp_path / "copied", volume="echo=90")
    (copied,) = find_series(tmp_path / "copied")
    assert copied.images == SHAPE[2]
    np.testing.assert_array_equal(read_image(tmp_path / "copied"), chosen)
    convert_image(folder, tmp_path / "mean", volume="mean")
    np.testing.assert_allclose(read_image(tmp_path / "mean"), chosen - 500, atol=0.05)


# Siemens mosaics


def csa(**tags):
    """Siemens' private header (CSA2) with these tags."""
    content = b"SV10\x04\x03\x02\x01" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        content += struct.pack("<64si4siii", name.encode(), len(values), b"FD\0\0", 4, len(values), 77)
        for value in values:
            text = f"{value}".encode()
            content += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return content


def mosaic(slices, up=True, **without):
    """Slices as the tiles of one picture, the first at the foot (or head, where the normal is turned)."""
    order = slices if up else slices[::-1]
    whole, side = copy.deepcopy(order[0]), math.ceil(math.sqrt(len(slices)))
    rows, columns = whole.Rows, whole.Columns
    picture = np.zeros((side * rows, side * columns), "<u2")
    for number, one in enumerate(order):
        row, column = divmod(number, side)
        picture[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = one.pixel_array
    axes = np.float64(whole.ImageOrientationPatient).reshape(2, 3)
    spacing = np.float64(whole.PixelSpacing)
    margin = (side - 1) / 2 * (columns * spacing[1] * axes[0] + rows * spacing[0] * axes[1])
    whole.ImagePositionPatient = [f"{value:.8g}" for value in np.float64(whole.ImagePositionPatient) - margin]
    whole.Rows, whole.Columns, whole.PixelData = *picture.shape, picture.tobytes()
    whole.ImageType, whole.Manufacturer = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "SIEMENS"
    apart = np.linalg.norm(np.subtract(*(np.float64(one.ImagePositionPatient) for one in slices[1::-1])))
    whole.SpacingBetweenSlices = f"{apart:.8g}"
    normal = np.cross(*axes) * (1 if up else -1)
    tags = {"NumberOfImagesInMosaic": [len(slices)], "SliceNormalVector": [f"{value:.8f}" for value in normal]}
    told = csa(**{key: value for key, value in tags.items() if key not in without})
    whole.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", told + bytes(len(told) % 2))
    return whole


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("count", [4, 6, 9])
def test_mosaic_is_what_its_slices_are(tmp_path, up, count):
    affine = axial((20, 22, count), turn=(8, -3, 5))
    slices = instances("MR", affine, (20, 22, count))
    expected = read_image(save(tmp_path / "slices", slices))
    image = read_image(save(tmp_path / "mosaic", [mosaic(slices, up)]))
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)


def test_mosaics_in_time(tmp_path):
    slices = instances("MR", None, SHAPE)
    series = [mosaic(slices), mosaic(slices)]
    for number, one in enumerate(series, start=1):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.6{number}"
        one.InstanceNumber = one.AcquisitionNumber = number
    folder = save(tmp_path / "mr", series)
    with refused(Reason.AMBIGUOUS, "2 volumes", "AcquisitionNumber 2"):
        read_image(folder)
    np.testing.assert_array_equal(read_image(folder, volume=2), read_image(save(tmp_path / "one", slices)))


def test_mosaic_agrees_with_dcm2niix(tmp_path):
    slices = instances("MR", axial((20, 22, 6), turn=(8, 0, 0)), (20, 22, 6))
    folder = save(tmp_path / "mr", [mosaic(slices)])
    theirs = next(iter(dcm2niix(folder, tmp_path / "out").values()))
    assert theirs.shape[2] == 6, "dcm2niix takes it apart, too"
    assert_same_image(read_image(folder), theirs)


@pytest.mark.parametrize("missing", ["NumberOfImagesInMosaic", "SliceNormalVector"])
def test_mosaic_that_does_not_say_all(tmp_path, missing):
    whole = mosaic(instances("MR", None, SHAPE), **{missing: True})
    with refused(Reason.INCOMPLETE, missing):
        read_image(save(tmp_path / "mr", [whole]))


def test_fused_mosaic_has_the_places_of_its_slices(tmp_path):
    slices = instances("MR", None, SHAPE)
    folder = save(tmp_path / "mr", [mosaic(slices)])
    image, series = read_image(folder), pick_series(folder)
    fused = derived_series(image / image.max(), series.datasets, method="a test")
    again = read_image(save(tmp_path / "fused", fused))
    assert again.shape == image.shape
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-4)
