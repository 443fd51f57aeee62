import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from PIL import Image

from fusion_nets.clinical import ImageError, read_image
from fusion_nets.clinical.dicom import fingerprint, new_series, new_study, write_instances
from fusion_nets.transforms import LoadStudyImage, LoadStudyImaged

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))
RNG = np.random.default_rng(0)


def picture(path, height=40, width=36, colour=False):
    shape = (height, width, 3) if colour else (height, width)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return str(path)


def nifti(path, shape=(40, 36, 4), affine=AFFINE):
    nib.save(nib.Nifti1Image(RNG.random(shape, dtype=np.float32), affine), path)
    return str(path)


def moved(matrix=None, by=(0, 0, 0)):
    """The affine of a patient who was turned and moved in world space."""
    return nib.affines.from_matvec(np.eye(3) if matrix is None else matrix, by) @ AFFINE


def load(anatomy, overlay, **how):
    return LoadStudyImaged(**how)({"anatomy": anatomy, "overlay": overlay, "name": "case"})


def assert_refused(anatomy, overlay, *words, **how):
    with pytest.raises(ImageError) as refused:
        load(anatomy, overlay, **how)
    assert all(word in str(refused.value) for word in words), refused.value


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
    assert_refused(anatomy, overlay, anatomy, "3 channels (colour)", "grey image is accepted", grey_keys="anatomy")
    assert_refused(anatomy, overlay, anatomy, "grey image is accepted", grey_keys=["anatomy", "overlay"])


@pytest.mark.parametrize("size", [(40, 37), (36, 40), (80, 72)])
def test_pictures_of_different_size(tmp_path, size):
    anatomy, overlay = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", *size)
    assert_refused(anatomy, overlay, f"{overlay}: size {size} differs from (40, 36) of {anatomy}", "one grid")


@pytest.mark.parametrize("shape", [(40, 36, 5), (36, 40, 4), (40, 36)])
def test_volumes_of_different_size(tmp_path, shape):
    anatomy, overlay = nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", shape)
    assert_refused(anatomy, overlay, f"{overlay}: size {shape} differs from (40, 36, 4) of {anatomy}", "one grid")


TURN_IN_PLANE = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "shape"),
    [
        (moved(by=(3, 0, 0)), (40, 36, 4)),
        (moved(by=(0, 0, -1)), (40, 36, 4)),
        (moved(nib.eulerangles.euler2mat(0.1)), (40, 36, 4)),
        (AFFINE @ np.diag([1.03, 1, 1, 1]), (40, 36, 4)),
        (AFFINE @ np.diag([1, 1, 1.5, 1]), (40, 36, 4)),
        (moved(by=(0, 0, 3)), (40, 36)),
        (AFFINE @ np.diag([1.03, 1, 1, 1]), (40, 36)),
    ],
)
def test_grids_that_lie_elsewhere(tmp_path, affine, shape):
    anatomy, overlay = nifti(tmp_path / "a.nii", shape), nifti(tmp_path / "b.nii", shape, affine)
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in shape), *[[0]] * (3 - len(shape))), -1).reshape(-1, 3)
    apart = nib.affines.apply_affine(affine, corners) - nib.affines.apply_affine(AFFINE, corners)
    furthest = np.linalg.norm(apart, axis=1).max()
    assert_refused(anatomy, overlay, f"{overlay}: lies up to {furthest:.1f} mm away from {anatomy}", "one grid")


def test_grid_with_exchanged_axes(tmp_path):
    """Its first and its last voxel lie where they should."""
    shape, affine = (40, 40, 4), np.diag([1.0, 1, 3, 1])
    turned = affine @ nib.affines.from_matvec(TURN_IN_PLANE)
    anatomy, overlay = nifti(tmp_path / "a.nii", shape, affine), nifti(tmp_path / "b.nii", shape, turned)
    assert_refused(anatomy, overlay, overlay, "mm away from", "one grid")


@pytest.mark.parametrize("shape", [(40, 36, 4), (40, 36)])
def test_headers_that_were_rounded_lie_alike(tmp_path, shape):
    rounded = AFFINE + RNG.uniform(-1e-3, 1e-3, (4, 4)) * [[1], [1], [1], [0]]
    data = load(nifti(tmp_path / "a.nii", shape), nifti(tmp_path / "b.nii", shape, rounded))
    np.testing.assert_allclose(data["anatomy"].affine, AFFINE, atol=1e-5)
    np.testing.assert_allclose(data["overlay"].affine, rounded, atol=1e-5)


def test_half_a_pixel_is_the_limit(tmp_path):
    fine = np.diag([0.3, 0.3, 1, 1])
    anatomy = nifti(tmp_path / "a.nii", affine=fine)
    load(anatomy, nifti(tmp_path / "b.nii", affine=nib.affines.from_matvec(np.eye(3), (0.14, 0, 0)) @ fine))
    beyond = nifti(tmp_path / "c.nii", affine=nib.affines.from_matvec(np.eye(3), (0.16, 0, 0)) @ fine)
    assert_refused(anatomy, beyond, "lies up to 0.2 mm away")


def test_thickness_of_a_single_slice_does_not_matter(tmp_path):
    anatomy = nifti(tmp_path / "a.nii", (40, 36, 1))
    overlay = nifti(tmp_path / "b.nii", (40, 36, 1), AFFINE @ np.diag([1, 1, 5, 1]))
    assert load(anatomy, overlay)["overlay"].shape == (1, 40, 36)


def test_picture_beside_a_slice_of_nifti(tmp_path):
    """Rows and columns are not voxel axes; where they are said to be, as in what write_image makes, they fit."""
    a_picture, a_slice = picture(tmp_path / "a.png"), nifti(tmp_path / "b.nii", (40, 36))
    assert_refused(a_picture, a_slice, f"{a_slice}: lies up to", a_picture)
    assert_refused(a_slice, a_picture, f"{a_picture}: lies up to", a_slice)
    alike = nifti(tmp_path / "c.nii", (40, 36), read_image(a_picture).affine.numpy())
    assert load(a_picture, alike)["overlay"].shape == (1, 40, 36)


@pytest.mark.parametrize("size", [(31, 40), (40, 31)])
def test_too_small(tmp_path, size):
    overlay = picture(tmp_path / "b.png")
    small = picture(tmp_path / "small.png", *size)
    assert_refused(small, overlay, f"{small}: size {size}", "32 x 32 or more are accepted")
    volume = nifti(tmp_path / "small.nii", (*size, 50))
    assert_refused(volume, overlay, f"{volume}: size {(*size, 50)}", "32 x 32 or more are accepted")
    assert load(small, picture(tmp_path / "c.png", *size), smallest=31)["anatomy"].shape == (1, *size)


def test_few_slices_are_enough(tmp_path):
    assert (
        load(nifti(tmp_path / "a.nii", (32, 32, 2)), nifti(tmp_path / "b.nii", (32, 32, 2)))["overlay"].shape[-1] == 2
    )


def test_unreadable_file(tmp_path):
    anatomy = picture(tmp_path / "a.png")
    assert_refused(anatomy, str(tmp_path / "absent.png"), f"{tmp_path / 'absent.png'}: no such file")


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
    with pytest.raises(ImageError, match="holds 2 series"):
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
