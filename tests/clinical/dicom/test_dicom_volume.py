import copy

import nibabel as nib
import numpy as np
import pytest
from dicom_phantoms import axial, head, head_on, instances, sagittal, save, tilted
from pydicom import Dataset, config
from refusals import refused

from fusion_nets.clinical import ImageError, Reason, read_image
from fusion_nets.clinical.dicom import fingerprint, pick_series, read_series
from fusion_nets.clinical.dicom import volume as volume_module


def read(folder, **which):
    return read_series(pick_series(folder, **which))


def assert_refused(folder, reason, *names):
    with refused(reason, *names) as caught:
        read(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert not any(told in message for told in ("Roe", "Jane", "PID4711", "2.25."))
    return message


@pytest.mark.parametrize("affine", [axial(), axial(turn=(0, 0, 7)), axial(turn=(15, -4, 7)), sagittal((40, 44, 12))])
def test_every_voxel_lies_where_the_head_has_its_value(tmp_path, affine):
    series = instances("CT", affine)
    folder = save(tmp_path / "ct", series[::-1])
    picked = pick_series(folder)
    image = read_series(picked)
    np.testing.assert_allclose(image[0], head_on(image.affine.numpy(), image.shape[1:]), atol=0.5001)
    normal = np.cross(*np.reshape(np.float64(picked.datasets[0].ImageOrientationPatient), (2, 3)))
    heights = [np.dot(np.float64(dataset.ImagePositionPatient), normal) for dataset in picked.datasets]
    assert (np.diff(heights) > 0).all()
    for k, dataset in enumerate(picked.datasets):  # order of datasets is the order of the last axis
        corner = np.float64(dataset.ImagePositionPatient) * [-1, -1, 1]
        np.testing.assert_allclose(nib.affines.apply_affine(image.affine.numpy(), (0, 0, k)), corner, atol=1e-4)


def test_meta(tmp_path):
    series = instances("CT")
    for instance in series:
        instance.WindowCenter, instance.WindowWidth = ["40", "600"], ["80", "2000"]
    image = read(save(tmp_path / "ct", series))
    assert image.meta["filename_or_obj"] == str(tmp_path / "ct")
    assert image.meta["modality"] == "CT"
    assert image.meta["units"] == "HU"
    assert image.meta["window"] == (0.0, 80.0)
    assert image.meta["frame_of_reference"] == fingerprint(series[0].FrameOfReferenceUID)
    assert image.meta["series"] == fingerprint(series[0].SeriesInstanceUID)
    assert "white" not in image.meta
    assert not any(told in str(image.meta) for told in ("Roe", "PID4711", "2.25."))


def test_single_slice_is_two_dimensional(tmp_path):
    series = instances("MR", number=3)
    folder = save(tmp_path / "mr", series)
    whole, single = read(folder), read(folder / "IM0005.dcm")
    assert single.shape == (1, 40, 44)
    np.testing.assert_array_equal(single, whole[..., 4])
    corner = nib.affines.apply_affine(whole.affine.numpy(), (0, 0, 4))
    np.testing.assert_allclose(single.affine[:3, 3], corner, atol=1e-4)
    np.testing.assert_allclose(single.affine[:3, :3], whole.affine[:3, :3], atol=1e-6)


@pytest.mark.parametrize("degrees", [-20, -12, 5, 12, 20])
def test_tilted_gantry_is_straightened(tmp_path, degrees):
    image = read(save(tmp_path / "ct", tilted(degrees)))
    axes = image.affine[:3, :3].numpy() / np.linalg.norm(image.affine[:3, :3].numpy(), axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    truth = head_on(image.affine.numpy(), image.shape[1:])
    values = image[0].numpy()
    inside = values > -990  # the grid has grown by corners that no slice covers
    assert inside.mean() > 0.6
    apart = np.abs(values - truth)[inside]
    assert apart.mean() < 0.6
    assert apart.max() < 5
    assert image.shape[2] > 44
    assert image.min() == min(instance.pixel_array.min() for instance in tilted(degrees))


def test_rounded_positions_are_no_tilt(tmp_path):
    series = instances("CT", axial(turn=(10, 0, 0)))
    for instance in series:
        instance.ImagePositionPatient = [f"{float(value):.2f}" for value in instance.ImagePositionPatient]
    image = read(save(tmp_path / "ct", series))
    assert image.shape == (1, 40, 44, 12)
    axes = image.affine[:3, :3].numpy() / np.linalg.norm(image.affine[:3, :3].numpy(), axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)


@pytest.mark.parametrize(("gone", "count"), [([5], "1"), ([5, 6, 9], "3")])
def test_missing_slices(tmp_path, gone, count):
    series = [instance for k, instance in enumerate(instances("CT")) if k not in gone]
    folder = save(tmp_path / "ct", series)
    assert_refused(folder, Reason.INCOMPLETE, f": {count} ", "ImagePositionPatient", "IM0005.dcm", "IM0006.dcm")


def test_part_of_a_pet_without_gaps(tmp_path, caplog):
    """The head of a whole body, as it is often given: its NumberOfSlices is that of the whole."""
    whole = read(save(tmp_path / "whole", instances("PT")))
    part = read(save(tmp_path / "part", instances("PT")[7:]))
    np.testing.assert_array_equal(part, whole[..., 7:])
    corner = nib.affines.apply_affine(whole.affine.numpy(), (0, 0, 7))
    np.testing.assert_allclose(part.affine[:3, 3], corner, atol=1e-4)
    assert all(told in caplog.text for told in ("NumberOfSlices is 12", "5 are there"))
    gap = save(tmp_path / "gap", [one for k, one in enumerate(instances("PT")) if k not in (0, 6)])
    assert_refused(gap, Reason.INCOMPLETE, ": 1 ", "ImagePositionPatient")


def test_slice_that_is_there_twice(tmp_path):
    series = instances("CT")
    twin = copy.deepcopy(series[4])
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "2.25.123"
    folder = save(tmp_path / "ct", [*series, twin])
    assert_refused(folder, Reason.GEOMETRY, "IM0005.dcm", "IM0013.dcm", "ImagePositionPatient")


def test_copy_of_a_file_does_no_harm(tmp_path):
    folder = save(tmp_path / "ct", instances("CT"))
    (folder / "copy").write_bytes((folder / "IM0003.dcm").read_bytes())
    assert read(folder).shape == (1, 40, 44, 12)
    damaged = bytearray((folder / "IM0003.dcm").read_bytes())
    damaged[-1] ^= 1
    (folder / "copy").write_bytes(damaged)
    assert_refused(folder, Reason.GEOMETRY)


@pytest.mark.parametrize(
    ("keyword", "values", "told"),
    [
        ("EchoTime", ["5", "90"], ["5", "90"]),
        ("TemporalPositionIdentifier", ["1", "2"], ["1", "2"]),
        (
            "ImageType",
            [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]],
            [r"ORIGINAL\PRIMARY\M", r"ORIGINAL\PRIMARY\P"],
        ),
    ],
)
def test_several_volumes_in_a_series(tmp_path, keyword, values, told):
    first = instances("MR")
    second = copy.deepcopy(first)
    for instance in first:
        setattr(instance, keyword, values[0])
    for instance in second:
        setattr(instance, keyword, values[1])
        instance.SOPInstanceUID += "1"
    both = f"holds 2 volumes: 1 ({keyword} {told[0]}), 2 ({keyword} {told[1]}); "
    assert_refused(save(tmp_path / "mr", first + second), Reason.AMBIGUOUS, both)


def test_uneven_spacing(tmp_path):
    series = instances("CT")
    series[5].ImagePositionPatient[2] = float(series[5].ImagePositionPatient[2]) + 1.5
    assert_refused(save(tmp_path / "ct", series), Reason.GEOMETRY, "4.5 to 7.5 mm", "ImagePositionPatient")


def test_slices_beside_each_other(tmp_path):
    series = instances("CT")
    series[5].ImagePositionPatient[0] = float(series[5].ImagePositionPatient[0]) + 1.5
    assert_refused(save(tmp_path / "ct", series), Reason.GEOMETRY, "ImagePositionPatient")


def change(keyword, value):
    def changed(series):
        setattr(series[3], keyword, value)

    return changed


@pytest.mark.parametrize(
    ("changed", "reason", "keyword"),
    [
        (change("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), Reason.MIXED, "ImageOrientationPatient"),
        (change("ImageOrientationPatient", [1, 0, 0, 0, 0, 0]), Reason.DAMAGED, "ImageOrientationPatient"),
        (change("ImageOrientationPatient", None), Reason.INCOMPLETE, "ImageOrientationPatient"),
        (change("ImagePositionPatient", None), Reason.INCOMPLETE, "ImagePositionPatient"),
        (change("ImagePositionPatient", [1, 2]), Reason.DAMAGED, "ImagePositionPatient"),
        (change("PixelSpacing", [1, 2]), Reason.MIXED, "PixelSpacing"),
        (change("PixelSpacing", [0, 2]), Reason.DAMAGED, "PixelSpacing"),
        (change("PixelSpacing", None), Reason.INCOMPLETE, "PixelSpacing"),
        (change("Rows", 22), Reason.MIXED, "Rows"),
        (change("Columns", 20), Reason.MIXED, "Columns"),
        (change("FrameOfReferenceUID", "2.25.99"), Reason.MIXED, "FrameOfReferenceUID"),
        (change("PhotometricInterpretation", "MONOCHROME1"), Reason.MIXED, "PhotometricInterpretation"),
    ],
)
def test_slices_that_differ(tmp_path, changed, reason, keyword):
    series = instances("CT")
    changed(series)
    assert_refused(save(tmp_path / "ct", series), reason, "IM0004.dcm", keyword)


def test_absurd_size_is_refused_before_memory_is_asked_for(tmp_path, monkeypatch):
    series = instances("CT")
    for instance in series:
        instance.Rows = instance.Columns = 65000
    empty = np.empty

    def small(shape, *args, **kwargs):
        assert np.prod(shape) < 65000, "memory was asked for"
        return empty(shape, *args, **kwargs)

    monkeypatch.setattr(volume_module.np, "empty", small)
    assert_refused(save(tmp_path / "ct", series), Reason.TOO_LARGE, "(1, 65000, 65000, 12)")


def test_no_pixel_data(tmp_path):
    series = instances("CT")
    del series[2].PixelData
    assert_refused(save(tmp_path / "ct", series), Reason.DAMAGED, "IM0003.dcm")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file(tmp_path, left):
    folder = save(tmp_path / "ct", instances("CT"))
    file = folder / "IM0003.dcm"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * left)])
    assert_refused(
        folder, Reason.INCOMPLETE if left == 0.1 else Reason.DAMAGED, "IM0003.dcm"
    )  # before the rows, or behind


def test_header_that_breaks_off_before_the_rows(tmp_path):
    """It must not pass for an object without pixels, or the slice would be missing in silence."""
    folder = save(tmp_path / "ct", instances("CT"))
    file = folder / "IM0012.dcm"
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"\x28\x00\x10\x00")])
    assert_refused(folder, Reason.INCOMPLETE, "IM0012.dcm", "Rows")


def test_nan(tmp_path):
    series = instances("PT")
    with config.disable_value_validation():
        series[1].RescaleSlope = "NaN"
    assert_refused(save(tmp_path / "pt", series), Reason.DAMAGED, "IM0002.dcm", "RescaleSlope")


def test_padding_takes_the_lowest_real_value(tmp_path):
    series = instances("CT")
    lowest = min(instance.pixel_array.min() for instance in series)
    for instance in series:
        pixels = instance.pixel_array.copy()
        pixels[:5] = -2000
        instance.PixelData = pixels.tobytes()
        instance.add_new(0x00280120, "US", 2**16 - 2000)  # as some scanners write a negative one
    image = read(save(tmp_path / "ct", series))
    assert image.min() == lowest == image[0, :, :5].max()


def test_padding_range(tmp_path):
    series = instances("MR")
    for instance in series:
        pixels = instance.pixel_array.copy()
        pixels[:5] = np.arange(5)[:, None]
        pixels[5:] = np.maximum(pixels[5:], 50)
        instance.PixelData = pixels.tobytes()
        instance.PixelPaddingValue, instance.PixelPaddingRangeLimit = 4, 0
    assert read(save(tmp_path / "mr", series)).min() == 50


def test_frames_of_one_instance_without_functional_groups(tmp_path):
    series = instances("CT")[:1]
    series[0].NumberOfFrames = 3
    series[0].PixelData *= 3
    assert_refused(save(tmp_path / "ct", series), Reason.KIND, "3 frames", "PerFrameFunctionalGroupsSequence")


def test_reconstructed_nuclear_medicine(tmp_path, caplog):
    """Slices lie along the normal in steps of SpacingBetweenSlices, which may lead backwards (PS3.3 C.8.4.15)."""
    affine = axial((40, 44, 6))
    for spacing, flip in ((6.0, 1), (-6.0, -1)):
        slices = instances("PT", affine, (40, 44, 6))[::flip]
        volume = slices[0]
        volume.SOPClassUID = volume.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.20"
        volume.Modality, volume.ImageType = "NM", ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
        detector = Dataset()
        detector.ImagePositionPatient = volume.ImagePositionPatient
        detector.ImageOrientationPatient = volume.ImageOrientationPatient
        volume.DetectorInformationSequence = [detector]
        pixels = np.stack([instance.pixel_array for instance in slices])
        del volume.ImagePositionPatient, volume.ImageOrientationPatient, volume.SliceLocation, volume.RescaleSlope
        del volume.Units
        volume.SpacingBetweenSlices, volume.NumberOfFrames = spacing, 6
        volume.SliceVector = [1, 2, 3, 4, 5, 6]
        volume.PixelData = pixels.tobytes()
        folder = save(tmp_path / str(spacing), [volume])
        image = read(folder)
        assert image.meta["units"] == "stored"
        assert image.meta["modality"] == "NM"
        np.testing.assert_allclose(image.affine, axial((40, 44, 6)), atol=1e-4)
        np.testing.assert_array_equal(image[0], np.moveaxis(pixels[::flip], 0, -1).swapaxes(0, 1))
        if flip > 0:
            del volume.SpacingBetweenSlices  # the distance is then that of slices that touch
            np.testing.assert_allclose(read(save(tmp_path / "touching", [volume])).affine, image.affine, atol=1e-4)
            assert "SpacingBetweenSlices is missing; SliceThickness, 6 mm" in caplog.text
            thickness = volume.SliceThickness
            del volume.SliceThickness
            assert_refused(save(tmp_path / "unknown", [volume]), Reason.INCOMPLETE, "SpacingBetweenSlices")
            volume.SpacingBetweenSlices, volume.SliceThickness = spacing, thickness
        volume.ImageType[2] = "TOMO"
        assert_refused(save(tmp_path / f"tomo {spacing}", [volume]), Reason.KIND, "ImageType", "RECON TOMO")


def test_head_phantom_is_not_symmetric():
    """Or no test here would tell a mirrored volume from a right one."""
    points = np.random.default_rng(0).uniform(-40, 40, (500, 3))
    for axis in np.eye(3):
        assert np.abs(head(points) - head(points * (1 - 2 * axis))).max() > 50


def spaced(gaps, modality="CT"):
    """Slices of the head at these distances, as thick as they are far apart."""
    heights = np.concatenate([[0], np.cumsum(gaps)])
    shape = (40, 44, len(heights))
    affine = axial((40, 44, 1))
    affine[2, 3] = -heights[-1] / 2
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(44), [0], indexing="ij"), axis=-1)[:, :, 0]
    places = nib.affines.apply_affine(affine, grid)[:, :, None] + np.array([0, 0, 1]) * heights[:, None]
    series = instances(modality, axial(shape), shape, values=np.rint(head(places)))
    corner = nib.affines.apply_affine(affine, (0, 0, 0))
    for height, instance in zip(heights, series, strict=True):
        instance.ImagePositionPatient = [f"{value:.8g}" for value in (*(-corner[:2]), corner[2] + height)]
    return series


@pytest.mark.parametrize("gaps", [[2.5] * 6 + [5] * 8, [5] * 4 + [3.75] + [2.5] * 8, [3] * 5 + [4.2] * 5 + [3] * 5])
def test_slices_at_varying_distances(tmp_path, caplog, gaps):
    image = read(save(tmp_path / "ct", spaced(gaps)))
    assert f"{max(gaps):g} mm apart" in caplog.text
    np.testing.assert_allclose(image.pixdim, (3.0, 2.8, min(gaps)), atol=1e-3)
    assert image.shape[3] == int(sum(gaps) / min(gaps) + 1e-3) + 1
    apart = np.abs(image[0] - head_on(image.affine.numpy(), image.shape[1:]))
    assert apart.mean() < 3
    assert apart.max() < 60


@pytest.mark.parametrize("gaps", [[3, 3, 3, 6, 3, 3, 3], [3, 3, 3, 6, 6, 3, 3, 3], [3, 4, 5, 3, 4, 5, 3]])
def test_holes_are_no_varying_distances(tmp_path, gaps):
    with pytest.raises(ImageError, match="ImagePositionPatient"):
        read(save(tmp_path / "ct", spaced(gaps)))


def test_links_are_followed(tmp_path):
    """As git-annex has them, and to folders, which may lead to themselves."""
    store = save(tmp_path / "annex", instances("CT"))
    expected = read(store)
    folder = tmp_path / "study"
    folder.mkdir()
    for file in store.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "again").symlink_to(folder)
    np.testing.assert_array_equal(read(folder), expected)
    (tmp_path / "link").symlink_to(store)
    np.testing.assert_array_equal(read(tmp_path / "link"), expected)
    (store / "IM0003.dcm").unlink()
    with refused(Reason.MISSING, "IM0003.dcm", "git annex get"):
        read(folder)
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "nothing")
    with refused(Reason.MISSING, "a.nii.gz", "git annex get"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    "content", [b"/annex/objects/MD5E-s12--0.dcm\n", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_pointers_are_no_images(tmp_path, content):
    folder = save(tmp_path / "ct", instances("CT"))
    for file in (folder / "IM0003.dcm", tmp_path / "a.nii.gz", tmp_path / "a.png"):
        file.write_bytes(content)
    for path, name in ((folder, "IM0003.dcm"), (tmp_path / "a.nii.gz", "a.nii.gz"), (tmp_path / "a.png", "a.png")):
        with refused(Reason.MISSING, name, "git annex get"):
            read_image(path)
