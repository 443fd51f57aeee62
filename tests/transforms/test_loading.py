import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, read_image
from fusion_nets.clinical.dicom import fingerprint, new_series, new_study, write_instances
from fusion_nets.transforms import CheckSources, CheckSourcesd, LoadStudyImage, LoadStudyImaged

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))
RNG = np.random.default_rng(0)


def picture(path, height=40, width=36, colour=False):
    shape = (height, width, 3) if colour else (height, width)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


def nifti(path, shape=(40, 36, 4), affine=AFFINE):
    nib.save(nib.Nifti1Image(RNG.random(shape, dtype=np.float32), affine), path)
    return str(path)


def load(anatomy, overlay, **how):
    return LoadStudyImaged(**how)({"anatomy": anatomy, "overlay": overlay, "name": "case"})


def assert_refused(anatomy, overlay, reason, *names, **how):
    with refused(reason, *names):
        load(anatomy, overlay, **how)


@pytest.mark.parametrize("make", [picture, nifti], ids=["picture", "volume"])
def test_loads_like_read_image(tmp_path, make):
    ending = ".png" if make is picture else ".nii.gz"
    anatomy, overlay = make(tmp_path / f"a{ending}"), make(tmp_path / f"b{ending}")
    data = load(anatomy, overlay)
    for key, path in (("anatomy", anatomy), ("overlay", overlay)):
        for image in (read_image(path), LoadStudyImage()(path)):
            assert torch.equal(data[key], image)
            assert torch.equal(data[key].affine, image.affine)
            assert data[key].meta["filename_or_obj"] == path
    assert data["name"] == "case"


def test_coloured_overlay(tmp_path):
    data = load(picture(tmp_path / "a.png"), picture(tmp_path / "b.png", colour=True), grey_keys="anatomy")
    assert data["anatomy"].shape == (1, 40, 36)
    assert data["overlay"].shape == (3, 40, 36)


def test_coloured_anatomy(tmp_path):
    anatomy, overlay = picture(tmp_path / "a.png", colour=True), picture(tmp_path / "b.png")
    assert load(anatomy, overlay)["anatomy"].shape[0] == 3
    assert_refused(anatomy, overlay, Reason.SHAPE, anatomy, "3 channels", grey_keys="anatomy")
    assert_refused(anatomy, overlay, Reason.SHAPE, anatomy, grey_keys=["anatomy", "overlay"])


@pytest.mark.parametrize("size", [(31, 40), (40, 31)])
def test_too_small(tmp_path, size):
    overlay = picture(tmp_path / "b.png")
    small = picture(tmp_path / "small.png", *size)
    assert load(overlay, small)["overlay"].shape == (1, *size)  # it will be brought onto the first one's grid
    assert_refused(small, overlay, Reason.TOO_SMALL, small, str(size))
    volume = nifti(tmp_path / "small.nii", (*size, 50))
    assert_refused(volume, overlay, Reason.TOO_SMALL, volume, str((*size, 50)))
    assert load(small, picture(tmp_path / "c.png", *size), smallest=31)["anatomy"].shape == (1, *size)


def test_few_slices_are_enough(tmp_path):
    assert (
        load(nifti(tmp_path / "a.nii", (32, 32, 2)), nifti(tmp_path / "b.nii", (32, 32, 2)))["overlay"].shape[-1] == 2
    )


@pytest.mark.parametrize("shape", [(50, 60, 9), (40, 36)])
def test_grids_may_differ(tmp_path, shape):
    data = load(nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", shape, np.diag([3, 2, 1, 1])))
    assert data["overlay"].shape == (1, *shape)


def test_what_cannot_be_written_as_asked(tmp_path):
    volume, single = nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", (40, 36))
    assert_refused(volume, single, Reason.OUTPUT, volume, ".tif", output_format=["nifti", ".tif"])
    assert load(single, volume, output_format=".tif")["overlay"].ndim == 4
    assert load(volume, single, output_format="png")["anatomy"].ndim == 4
    assert_refused(volume, single, Reason.OUTPUT, volume, output_format=["dicom"])


def test_doubts_about_two_series(tmp_path, dicom_study, caplog):
    from pydicom import dcmread

    other = tmp_path / "other"
    other.mkdir()
    for path in dicom_study["pet"].iterdir():
        dataset = dcmread(path)
        dataset.PatientID = "SOMEBODY"
        dataset.save_as(other / path.name)
    pair = {"anatomy": str(dicom_study["mri"]), "overlay": str(other), "name": "case"}
    loaded = LoadStudyImaged(smallest=8)(pair)
    CheckSourcesd(register="auto")(loaded)
    assert "case: PatientID" in caplog.text
    assert "SOMEBODY" not in caplog.text
    assert "FrameOfReferenceUID" not in caplog.text
    images = loaded["anatomy"], loaded["overlay"]
    assert CheckSources(register="none")(*images, name="other") == images
    assert "other: FrameOfReferenceUID" in caplog.text
    caplog.clear()
    CheckSourcesd(register="none", transform=[[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])(loaded)
    assert "FrameOfReferenceUID" not in caplog.text  # they are registered
    CheckSourcesd(register="none", transform="")(loaded)
    assert "registration is advised" in caplog.text
    caplog.clear()
    CheckSourcesd()({**loaded, "overlay": read_image(nifti(tmp_path / "a.nii"))})
    assert caplog.text == ""


def test_modality_of_the_datalist(tmp_path):
    paths = {"anatomy": nifti(tmp_path / "a.nii"), "overlay": nifti(tmp_path / "b.nii")}
    data = LoadStudyImaged()({**paths, "anatomy_modality": "MR", "overlay_modality": ""})
    assert data["anatomy"].meta["modality"] == "MR"
    assert "modality" not in data["overlay"].meta


def test_unreadable_file(tmp_path):
    anatomy = picture(tmp_path / "a.png")
    assert_refused(anatomy, str(tmp_path / "absent.png"), Reason.MISSING, str(tmp_path / "absent.png"))


def test_single_key(tmp_path):
    path = picture(tmp_path / "a.png")
    data = LoadStudyImaged("image")({"image": path, "pair": "CT-MRI"})
    assert torch.equal(data["image"], read_image(path))
    assert data["pair"] == "CT-MRI"


def test_missing_keys(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(KeyError):
        LoadStudyImaged()({"anatomy": path})
    assert set(LoadStudyImaged(allow_missing_keys=True)({"anatomy": path})) == {"anatomy"}


def dicom(folder):
    """A CT and an MR of one grid, in one folder."""
    for number, modality in enumerate(("CT", "MR"), start=1):
        values = torch.from_numpy(RNG.integers(0, 900, (1, 40, 36, 4)).astype(np.float32))
        image = MetaTensor(values, affine=np.diag([-1.0, -1, 2, 1]), meta={"units": "HU" if modality == "CT" else ""})
        series = new_series(image, modality, new_study(folder), number)
        write_instances(folder / modality, series)
        yield modality, series[0].SeriesInstanceUID


def test_series_are_picked_by_what_the_pair_says(tmp_path):
    uids = dict(dicom(tmp_path))
    pair = {"anatomy": str(tmp_path), "overlay": str(tmp_path)}
    by_modality = LoadStudyImaged()({**pair, "anatomy_modality": "MR", "overlay_modality": "CT"})
    by_uid = LoadStudyImaged()(
        {**pair, "anatomy_series_uid": fingerprint(uids["MR"]), "overlay_series_uid": uids["CT"]}
    )
    for data in (by_modality, by_uid):
        assert [data[key].meta["modality"] for key in ("anatomy", "overlay")] == ["MR", "CT"]
        assert [data[key].meta["units"] for key in ("anatomy", "overlay")] == ["stored", "HU"]
    with refused(Reason.AMBIGUOUS):
        LoadStudyImaged()(pair)


def test_modality_of_the_pair_is_noted(tmp_path):
    anatomy, overlay = nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii")
    data = LoadStudyImaged()({"anatomy": anatomy, "overlay": overlay, "overlay_modality": "PT"})
    assert data["overlay"].meta["modality"] == "PT"
    assert "modality" not in data["anatomy"].meta


def test_meta_of_dicom_goes_through_a_data_loader(tmp_path):
    uids = dict(dicom(tmp_path))
    item = {
        "anatomy": str(tmp_path),
        "anatomy_series_uid": uids["MR"],
        "overlay": str(tmp_path),
        "overlay_modality": "CT",
    }
    (batch,) = DataLoader(Dataset([item, item], LoadStudyImaged()), batch_size=2)
    assert batch["anatomy"].shape == (2, 1, 40, 36, 4)
    assert not any(uid in str(image.meta) for image in (batch["anatomy"], batch["overlay"]) for uid in uids.values())
