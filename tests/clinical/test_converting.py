"""From every clinical form to every other and back: values, geometry, units."""

import nibabel as nib
import numpy as np
import pytest
from judges import CT, MR, PT, affine_of, dciodvfy_errors, image_of, series_of, written
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image
from pydicom import Dataset, dcmread
from refusals import refused

from fusion_nets import cli
from fusion_nets.clinical import Reason, convert_image, read_image
from fusion_nets.clinical.dicom import fingerprint, pick_series

RNG = np.random.default_rng(0)


def assert_same(one, other, atol=0.0, meta=("units", "modality")):
    """The same values at the same places, in whatever order of voxels."""
    as_nifti = [nib.Nifti1Image(np.moveaxis(x.numpy(), 0, -1), x.affine.numpy()) for x in (one, other)]
    first, second = (nib.as_closest_canonical(x) for x in as_nifti)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-3)
    np.testing.assert_allclose(first.get_fdata(), second.get_fdata(), atol=atol)
    for key in meta:
        assert one.meta.get(key) == other.meta.get(key), key


@pytest.fixture
def folder(tmp_path):
    """A study: MR, CT and PET as folders."""
    for modality in (MR, CT, PT):
        instances = series_of(modality, number={MR: 1, CT: 2, PT: 3}[modality])[0]
        if modality == PT:
            tracer = Dataset()
            tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "2e8", "6586.2"
            for instance in instances:
                instance.PatientWeight, instance.DecayCorrection = "80", "ADMIN"
                instance.CorrectedImage = ["ATTN", "DECY"]
                instance.RadiopharmaceuticalInformationSequence = [tracer]
        written(tmp_path / modality, instances)
    return tmp_path


UNITS = {MR: "stored", CT: "HU", PT: "SUV"}


@pytest.mark.parametrize("modality", [MR, CT, PT])
def test_dicom_to_nifti_to_dicom_into_the_original_study(folder, modality):
    original = read_image(folder / modality)
    assert original.meta["units"] == UNITS[modality]
    (nifti,) = convert_image(folder / modality, folder / "a.nii.gz")
    stored = nib.load(nifti)
    assert stored.get_data_dtype() == (np.float32 if modality == PT else np.int16)
    convert_image(nifti, folder / "back", reference=folder / modality)
    back = read_image(folder / "back")
    assert_same(back, original, atol=1e-3 * UNITS[modality].count("SUV"))
    np.testing.assert_array_equal(back.shape, original.shape)
    before, after = pick_series(folder / modality), pick_series(folder / "back")
    assert (before.study_uid, before.frame_of_reference_uid) == (after.study_uid, after.frame_of_reference_uid)
    assert before.uid != after.uid
    assert after.number == str(int(before.number) * 100 + 5)
    for old, new in zip(before.datasets, after.datasets, strict=True):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            np.testing.assert_allclose(old[keyword].value, new[keyword].value, atol=1e-4)
        assert (old.PatientName, old.PatientID, old.StudyDate) == (new.PatientName, new.PatientID, new.StudyDate)
        assert new.ImageType[:2] == ["DERIVED", "PRIMARY" if modality == PT else "SECONDARY"]
        assert new.SOPClassUID == old.SOPClassUID
    assert dciodvfy_errors(folder / "back" / "IM0002.dcm") == []


@pytest.mark.parametrize("modality", [MR, CT, PT])
def test_through_all_forms_of_volumes(folder, modality):
    original = read_image(folder / modality)
    previous = folder / modality
    for name in ("a.nii", "b.nrrd", "c.mha", "d.nii.gz"):
        (previous,) = convert_image(previous, folder / name)
        image = read_image(previous)
        np.testing.assert_array_equal(image, original)
        np.testing.assert_allclose(image.affine, original.affine, atol=1e-4)
        assert (image.meta["units"], image.meta["modality"]) == (UNITS[modality], modality)


@pytest.mark.parametrize("turn", [[[0, -1], [1, -1], [2, 1]], [[2, 1], [0, 1], [1, -1]], [[1, 1], [2, -1], [0, -1]]])
def test_voxels_in_any_order_join_the_references_grid(folder, turn):
    original = read_image(folder / MR)
    turn = np.array(turn)
    values = apply_orientation(original[0].numpy(), turn).astype(np.int16)
    nib.save(
        nib.Nifti1Image(values, original.affine.numpy() @ inv_ornt_aff(turn, original.shape[1:])), folder / "a.nii"
    )
    convert_image(folder / "a.nii", folder / "back", reference=folder / MR, modality=MR)
    back = read_image(folder / "back")
    np.testing.assert_array_equal(back, original)
    np.testing.assert_allclose(back.affine, original.affine, atol=1e-3)


def test_another_grid_within_the_reference_is_a_series_of_its_own_in_the_same_frame(folder):
    inside = image_of(RNG.integers(0, 99, (1, 6, 6, 4)).astype(np.float32), affine_of((3, 3, 5), origin=(30, 30, -20)))
    nib.save(nib.Nifti1Image(inside[0].numpy().astype(np.int16), inside.affine.numpy()), folder / "a.nii")
    convert_image(folder / "a.nii", folder / "back", reference=folder / CT, modality=CT)
    back = read_image(folder / "back")
    assert_same(back, inside, meta=())
    assert back.meta["frame_of_reference"] == read_image(folder / CT).meta["frame_of_reference"]


def test_another_place_is_refused(folder):
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.diag([2, 2, 2, 1])), folder / "a.nii")
    moved = nib.load(folder / "a.nii")
    nib.save(nib.Nifti1Image(moved.get_fdata(), affine_of((2, 2, 2), origin=(500, 0, 0))), folder / "b.nii")
    with pytest.raises(ValueError, match="back"):
        convert_image(folder / "b.nii", folder / "back", reference=folder / CT, modality=CT)
    assert not (folder / "back").exists()


def test_without_a_reference_it_is_a_study_of_its_own(folder):
    (nifti,) = convert_image(folder / CT, folder / "a.nii.gz")
    for name in ("one", "same"):
        convert_image(nifti, folder / name)
    one, same = pick_series(folder / "one"), pick_series(folder / "same")
    assert one.uid == same.uid
    assert one.study_uid != pick_series(folder / CT).study_uid
    assert str(one.datasets[0].PatientName) == ""
    assert_same(read_image(folder / "one"), read_image(folder / CT))
    assert dciodvfy_errors(folder / "one" / "IM0001.dcm") == []


def test_dicom_to_dicom_keeps_all_attributes_and_pixels(folder):
    instances = [dcmread(path) for path in sorted((folder / CT).iterdir())]
    convert_image(folder / CT, folder / "copy")
    copies = [dcmread(path) for path in sorted((folder / "copy").iterdir())]
    assert copies == instances
    (first, *_) = convert_image(folder / CT, folder / "safe", deidentify=True, key="k")
    safe = dcmread(first)
    assert safe.PatientIdentityRemoved == "YES"
    np.testing.assert_array_equal(safe.pixel_array, instances[0].pixel_array)
    again = dcmread(convert_image(folder / CT, folder / "again", deidentify=True, key="k")[0])
    assert again == safe


def test_colours(folder):
    levels = RNG.integers(0, 256, (3, 9, 8, 5)).astype(np.float32)
    image = image_of(levels, affine_of((2, 2, 3)))
    rgb = np.dtype([("R", np.uint8), ("G", np.uint8), ("B", np.uint8)])
    packed = np.ascontiguousarray(np.moveaxis(levels, 0, -1).astype(np.uint8)).view(rgb)[..., 0]
    nib.save(nib.Nifti1Image(packed, image.affine.numpy()), folder / "a.nii")
    convert_image(folder / "a.nii", folder / "b.nrrd")
    convert_image(folder / "b.nrrd", folder / "c.mha")
    convert_image(folder / "c.mha", folder / "dicom")
    convert_image(folder / "dicom", folder / "d.nii.gz")
    assert_same(read_image(folder / "d.nii.gz"), image, meta=())
    assert dciodvfy_errors(folder / "dicom" / "IM0001.dcm") == []


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3)])
def test_picture_through_a_volume_and_back(tmp_path, shape):
    levels = RNG.integers(10, 200, shape, dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    previous = tmp_path / "a.png"
    for name in ("b.nii.gz", "c.mha", "d.tif", "e.nrrd", "dicom", "f.nii", "g.png"):
        previous = convert_image(previous, tmp_path / name)[0]
    with Image.open(tmp_path / "g.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), levels)


def test_slices_of_a_volume_in_its_window(folder):
    paths = convert_image(folder / CT, folder / "slices.png", window=(-900, 100))
    assert [path.parent.name for path in paths] == ["slices"] * 9
    values = read_image(folder / CT)[0, ..., 4].numpy()
    with Image.open(paths[4]) as picture:
        shown = np.asarray(picture).T
    np.testing.assert_array_equal(shown, np.rint(((values + 900) / 1000).clip(0, 1) * 255))


@pytest.mark.parametrize(
    ("destination", "given", "reason"),
    [
        ("a.nii.gz", {"window": (0, 100)}, "a window belongs to pictures"),
        ("dicom", {"window": (0, 100)}, "a window belongs to pictures"),
        ("dicom", {"key": "secret"}, "a key belongs to deidentify.*the patient would stay in the files"),
        ("a.png", {"key": "secret"}, "a key belongs to deidentify"),
        ("dicom", {"reference_series_uid": "1.2"}, "reference_series_uid belongs to a reference"),
    ],
)
def test_what_would_change_nothing_is_refused(folder, destination, given, reason):
    with pytest.raises(ValueError, match=reason):
        convert_image(folder / CT, folder / "refused" / destination, **given)
    assert not (folder / "refused").exists()


def test_window_of_the_header(folder):
    details = Dataset()
    details.WindowCenter, details.WindowWidth = "40", "80"
    written(folder / "windowed", series_of(CT, details=details)[0])
    image = read_image(folder / "windowed")
    with Image.open(convert_image(folder / "windowed", folder / "a.png")[0]) as picture:
        shown = np.asarray(picture).T
    np.testing.assert_array_equal(shown, np.rint((image[0, ..., 0] / 80).clip(0, 1) * 255))


@pytest.mark.parametrize(
    ("source", "destination", "how", "words"),
    [
        (CT, "a.jpg", {}, "a.jpg"),
        (CT, "a.bmp", {}, "a.bmp"),
        (CT, "a.nii", {"deidentify": True}, "deidentify"),
        (CT, "a.nii", {"units": "mm"}, "units is 'mm'"),
        (CT, "a.png", {"window": (3.0, 3.0)}, r"window is \(3.0, 3.0\)"),
        (CT, "a.png", {"window": (80.0, 0.0)}, r"window is \(80.0, 0.0\)"),
        (CT, "a.png", {"window": (0.0, np.inf)}, "window is"),
        (CT, "a.png", {"window": (np.nan, 80.0)}, "window is"),
        ("plain.nii", "a.nii", {"modality": "liver"}, "modality is 'liver'; accepted are MR or MRI, CT, PT or PET"),
        (CT, CT, {}, CT),
        ("plain.nii", "dicom", {}, "modality"),
        ("plain.nii", "dicom", {"modality": PT}, "units"),
        ("plain.nii", CT, {"modality": CT, "reference": CT}, CT),
        ("plain.nii", "full", {"modality": CT}, "full"),
        ("sheared.nii", "dicom", {"modality": CT}, "right angles"),
    ],
)
def test_refused(folder, source, destination, how, words):
    values = np.arange(64, dtype=np.int16).reshape(4, 4, 4)
    nib.save(nib.Nifti1Image(values, np.diag([2, 2, 2, 1])), folder / "plain.nii")
    sheared = np.diag([2.0, 2, 2, 1])
    sheared[0, 2] = 1
    nib.save(nib.Nifti1Image(values, sheared), folder / "sheared.nii")
    (folder / "full").mkdir()
    (folder / "full" / "theirs.txt").write_text("theirs")
    before = sorted(folder.rglob("*"))
    how = {**how, "reference": folder / how["reference"]} if "reference" in how else how
    with pytest.raises(ValueError, match=words):
        convert_image(folder / source, folder / destination, **how)
    assert sorted(folder.rglob("*")) == before


def test_command(folder, capsys):
    uid = pick_series(folder / CT).uid
    nifti, key = str(folder / "a.nii.gz"), folder / "key"
    key.write_text("secret\n")
    assert cli.main(["convert", str(folder), nifti, "--series_uid", fingerprint(uid)]) == 0
    assert capsys.readouterr().out == f"{nifti}\n"
    back = ["convert", nifti, str(folder / "back"), "--reference", str(folder / CT), "--deidentify"]
    assert cli.main([*back, "--key_file", str(key)]) == 0
    assert capsys.readouterr().out == f"{folder / 'back'}: 9 files\n"
    assert_same(read_image(folder / "back"), read_image(folder / CT))
    assert dciodvfy_errors(folder / "back" / "IM0001.dcm") == []
    assert cli.main(["convert", str(folder), nifti, "--modality", "US"]) == 2
    assert "holds no modality US" in capsys.readouterr().err
    with refused(Reason.MISSING, "absent.nii"):
        convert_image(folder / "absent.nii", nifti)


@pytest.mark.parametrize("modality", [MR, CT, "NM"])
@pytest.mark.parametrize(("low", "high"), [(-7, 4000), (-32768, 32767), (-100, 65435), (-40000, 20000), (40000, 70000)])
def test_whole_numbers_of_any_sign_become_dicom_exactly(tmp_path, modality, low, high):
    values = RNG.integers(low, high + 1, (1, 6, 5, 4)).astype(np.float32)
    values[0, 0, 0, :2] = low, high
    nib.Nifti1Image(values[0], affine_of((1.5, 2, 3))).to_filename(tmp_path / "a.nii")
    convert_image(tmp_path / "a.nii", tmp_path / "dicom", modality=modality, units="HU" if modality == CT else None)
    assert_same(read_image(tmp_path / "a.nii"), read_image(tmp_path / "dicom"), meta=())


def test_whole_numbers_beyond_16_bit_are_told(tmp_path, caplog):
    nib.Nifti1Image(np.float32([[[0, 1], [2, 3]], [[4, 5], [6, 100000]]]), np.eye(4)).to_filename(tmp_path / "a.nii")
    convert_image(tmp_path / "a.nii", tmp_path / "dicom", modality=MR)
    assert "100001 levels" in caplog.text


def test_units_that_the_source_contradicts(folder, tmp_path):
    with pytest.raises(ValueError, match="SUV"):
        convert_image(folder / "CT", tmp_path / "a.nii", units="SUV")


def test_a_new_series_of_dicom_keeps_what_its_pixels_went_through(folder):
    instances = [dcmread(path) for path in sorted((folder / CT).iterdir())]
    instances[2].BurnedInAnnotation = "YES"
    for instance in instances:
        instance.LossyImageCompression, instance.LossyImageCompressionRatio = "01", "9.5"
    written(folder / "burned", instances)
    for path in convert_image(folder / "burned", folder / "joined", reference=folder / CT):
        made = dcmread(path)
        assert (made.BurnedInAnnotation, made.LossyImageCompression) == ("YES", "01")
        assert made.LossyImageCompressionRatio == 9.5
        assert dciodvfy_errors(path) == []
    with pytest.raises(ValueError, match="Burned In Annotation"):
        convert_image(folder / "burned", folder / "safe", reference=folder / CT, deidentify=True)
    silent = dcmread(convert_image(folder / CT, folder / "silent", reference=folder / CT)[0])
    assert "BurnedInAnnotation" not in silent
    assert "LossyImageCompression" not in silent
