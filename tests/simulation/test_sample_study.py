import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_sets import complaints

from fusion_nets.clinical import read_image
from fusion_nets.datalists import load_pairs
from fusion_nets.simulation import sample_study, write_sample_study
from fusion_nets.simulation.head_model import Grid
from fusion_nets.simulation.sample_study import FIELD_OF_VIEW, LESIONS, TISSUES

ndimage = pytest.importorskip("scipy.ndimage")
datasets = pytest.importorskip("nilearn.datasets")

GRID = Grid.covering(FIELD_OF_VIEW, 2.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_sample_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def volumes(files):
    return {name: np.asanyarray(nib.load(files[name]).dataobj) for name in ("mri", "pet", "ct")}


@pytest.fixture(scope="module")
def tissues():
    return sample_study.model_head(GRID)[1]


@pytest.fixture(scope="module")
def study(files):
    return json.loads(files["study"].read_text())


def voxel(centre):
    return tuple(np.rint((np.asarray(centre) - GRID.origin) / GRID.spacing).astype(int))


def mirrored(centre):
    return (-centre[0], *centre[1:])


def away_from_lesions():
    keep = np.ones(GRID.shape, dtype=bool)
    for lesion in LESIONS:
        keep &= GRID.ball(lesion.centre, [lesion.diameter] * 3) == 0
    return keep


def test_volumes_share_one_grid_in_world_coordinates(files, study):
    images = [nib.load(files[name]) for name in ("mri", "pet", "ct")]
    for image in images:
        assert image.shape == GRID.shape == tuple(study["grid"]["shape"])
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_array_equal(image.affine, study["grid"]["affine"])
        np.testing.assert_array_equal(image.get_qform(), image.get_sform())
        np.testing.assert_allclose(image.header.get_zooms(), 2.0)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["sform_code"] == 4  # MNI 152
    assert [image.get_data_dtype() for image in images] == [np.int16, np.float32, np.int16]
    assert b"SUV" in images[1].header["descrip"].item()
    assert b"HU" in images[2].header["descrip"].item()


def test_brain_lies_where_the_template_has_it(volumes, tissues):
    template = datasets.load_mni152_template(resolution=1)
    brain = (tissues["grey"] + tissues["white"] > 0.99) & away_from_lesions()
    world = nib.affines.apply_affine(GRID.affine, np.argwhere(brain))
    there = nib.affines.apply_affine(np.linalg.inv(template.affine), world)
    expected = ndimage.map_coordinates(template.get_fdata(), there.T, order=1)
    assert np.corrcoef(volumes["mri"][brain], expected)[0, 1] > 0.97
    np.testing.assert_allclose(volumes["mri"][brain].mean() / sample_study.MRI_SCALE, expected.mean(), rtol=0.01)


def test_datalist_names_files_beside_it(files):
    pairs = json.loads(files["pairs"].read_text())
    assert [pair["name"] for pair in pairs] == ["mri_pet", "mri_ct"]
    for pair in pairs:
        assert pair["anatomy"] == "mri.nii.gz"
        assert all((files["pairs"].parent / pair[key]).is_file() for key in ("anatomy", "overlay"))
    assert pairs[0]["overlay"] == "pet.nii.gz"
    assert pairs[1]["overlay"] == "ct.nii.gz"


def test_head_is_surrounded_by_air(volumes):
    outside = ndimage.label(volumes["mri"] == 0)[0] == 1
    assert outside.mean() > 0.4
    assert abs(volumes["ct"][outside].astype(float).mean() + 1000) < 2
    for face in (volumes["mri"][[0, -1]], volumes["mri"][:, [0, -1]], volumes["mri"][..., -1]):
        assert not face.any()


def test_fractions_of_a_voxel_add_up(tissues):
    assert set(tissues) == set(TISSUES)
    assert min(part.min() for part in tissues.values()) >= 0
    np.testing.assert_allclose(sum(tissues.values()), 1, atol=1e-5)


def test_grey_takes_up_four_times_as_much_as_white_before_partial_volume(volumes, tissues):
    keep = away_from_lesions()
    sigma = sample_study.PSF_FWHM / 2.355 / GRID.spacing
    grey, white = (keep & (ndimage.gaussian_filter(tissues[name], sigma) > 0.9) for name in ("grey", "white"))
    assert min(grey.sum(), white.sum()) > 500
    ratio = volumes["pet"][grey].mean() / volumes["pet"][white].mean()
    assert 3.0 < ratio < 4.0
    thin = keep & (tissues["grey"] > 0.9) & ~grey
    assert volumes["pet"][thin].mean() < volumes["pet"][grey].mean()
    assert volumes["pet"][tissues["csf"] > 0.95].mean() < volumes["pet"][white].mean()


def test_lesions_show_at_their_documented_places(volumes, study):
    described = {lesion["name"]: lesion for lesion in study["lesions"]}
    for lesion in described.values():
        assert 10 <= lesion["diameter_mm"] <= 14
        assert lesion["suv"] == lesion["uptake_to_grey"] * study["tissues"]["grey"]["suv"]
    hot, cold = described["hot"]["centre_mm"], described["cold"]["centre_mm"]
    assert hot[0] > 0 > cold[0]  # right, left

    pet = volumes["pet"]
    np.testing.assert_allclose(pet[voxel(hot)], described["hot"]["suv"], rtol=0.1)
    assert pet[voxel(hot)] > 4 * pet[voxel(mirrored(hot))]
    assert np.linalg.norm(np.array(np.unravel_index(pet.argmax(), pet.shape)) - voxel(hot)) <= 2
    assert pet[voxel(cold)] < 0.4 * pet[voxel(mirrored(cold))]


def test_only_the_hot_lesion_shows_on_mri_and_ct(volumes):
    hot = GRID.ball(LESIONS[0].centre, [LESIONS[0].diameter / 2] * 3)
    difference = np.abs(volumes["mri"].astype(int) - volumes["mri"][::-1])  # the template is symmetric
    either_side = np.maximum(hot, hot[::-1])
    assert np.median(difference[hot == 1]) > 150
    assert difference[either_side == 0].max() < 30

    inside, opposite = volumes["ct"][hot == 1].mean(), volumes["ct"][::-1][hot == 1].mean()
    np.testing.assert_allclose(inside, LESIONS[0].hu, atol=1)
    assert 5 < inside - opposite < 25


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("air", -1003, -997),
        ("fat", -100, -80),
        ("csf", 0, 10),
        ("subarachnoid", 0, 10),
        ("white", 25, 32),
        ("grey", 33, 40),
        ("muscle", 45, 60),
        ("diploe", 600, 800),
        ("bone", 1000, 1300),
    ],
)
def test_tissues_have_their_hounsfield_units(volumes, tissues, name, low, high):
    pure = (tissues[name] > 0.95) & away_from_lesions()
    assert pure.sum() > 100
    assert low < volumes["ct"][pure].mean() < high


def test_skull_is_closed_and_as_thick_as_a_skull(volumes):
    bone = volumes["ct"] > 300
    # From the middle of the brain outwards in the axial plane of the lateral ventricles.
    start, spacing = voxel((0, -15, 12)), GRID.spacing
    for angle in np.arange(0, 2 * np.pi, np.pi / 18):
        steps = np.arange(0, 130, 0.5) / spacing
        line = np.array(start)[:, None] + steps * np.array([np.cos(angle), np.sin(angle), 0])[:, None]
        thickness = 0.5 * ndimage.map_coordinates(bone.astype(float), line, order=0).sum()
        assert 4 < thickness < 13


def test_mri_shows_fat_bright_and_bone_dark(volumes, tissues):
    fat, bone, white = (volumes["mri"][tissues[name] > 0.95].mean() for name in ("fat", "bone", "white"))
    assert bone < 0.2 * white < white < fat


@pytest.mark.parametrize("filter_fwhm", [0.0, 4.0])
def test_scanner_blur_is_as_wide_as_documented(filter_fwhm):
    grid = Grid((41, 41, 41), 1.5, (0.0, 0.0, 0.0))
    point = np.zeros(grid.shape)
    point[20, 20, 20] = 1000.0
    image = sample_study.simulate_pet(point, grid, None, filter_fwhm=filter_fwhm)
    np.testing.assert_allclose(image.sum(), 1000, rtol=1e-4)
    profile = image[:, 20, 20]
    at_half = np.interp(0.5, (profile[:21] / profile[20]), np.arange(21)) * grid.spacing
    np.testing.assert_allclose(2 * (20 * grid.spacing - at_half), 6.0, atol=0.15)


def test_noise_is_that_of_counting():
    grid = Grid((40, 40, 40), 2.0, (0.0, 0.0, 0.0))
    flat = np.full(grid.shape, 5.0)
    image = sample_study.simulate_pet(flat, grid, np.random.default_rng(1), filter_fwhm=0.0, counts=2000.0)
    events = image * 2000.0 * 0.008
    np.testing.assert_allclose(events, events.round(), atol=1e-3)
    np.testing.assert_allclose(events.mean(), 80, rtol=0.01)
    np.testing.assert_allclose(events.var(), 80, rtol=0.03)


def test_same_seed_same_bytes(tmp_path):
    first, again, other = (
        write_sample_study(tmp_path / name, seed=seed, spacing=4.0)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert {name: path.read_bytes() for name, path in first.items()} == {
        name: path.read_bytes() for name, path in again.items()
    }
    for name in ("pet", "ct", "study"):
        assert first[name].read_bytes() != other[name].read_bytes()
    assert first["mri"].read_bytes() == other["mri"].read_bytes()


def test_spacing_changes_voxels_not_the_head(tmp_path, volumes):
    files = write_sample_study(tmp_path, spacing=4.0)
    coarse = nib.load(files["mri"])
    np.testing.assert_allclose(coarse.header.get_zooms(), 4.0)
    litres = [(image > 0).sum() * edge**3 / 1e6 for image, edge in ((coarse.get_fdata(), 4), (volumes["mri"], 2))]
    np.testing.assert_allclose(*litres, rtol=0.05)


def test_stopped_writing_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "mri.nii.gz"
    target.write_bytes(b"before")

    def stop(path, content):
        with path.open("wb") as file:
            file.write(content[:1])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(OSError, match="disk full"):
        sample_study._write(target, b"after")
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("spacing", [0.5, 5.0, float("nan")])
def test_spacing_out_of_range(tmp_path, spacing):
    with pytest.raises(ValueError, match="spacing is"):
        write_sample_study(tmp_path / "study", spacing=spacing)
    assert not (tmp_path / "study").exists()


def test_negative_seed(tmp_path):
    with pytest.raises(ValueError, match="seed is -1"):
        write_sample_study(tmp_path, seed=-1)


def test_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"nilearn.*fusion-nets\[sample\]"):
        write_sample_study(tmp_path)


@pytest.mark.slow
def test_importing_needs_no_sample_extra():
    code = "import sys, fusion_nets.simulation; print('nilearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_as_a_bids_dataset(tmp_path):
    """The validator has nothing against it, and its PET is read in the SUV of the other forms."""
    files = write_sample_study(tmp_path / "bids", spacing=4, form="bids")
    plain = write_sample_study(tmp_path / "nifti", spacing=4)
    for name, modality in (("mri", "MR"), ("pet", "PT"), ("ct", "CT")):
        image = read_image(files[name])
        np.testing.assert_allclose(image.numpy(), read_image(plain[name]).numpy(), rtol=1e-5, atol=1e-6)
        assert (image.meta["modality"], image.meta["units"]) == (modality, "SUV" if name == "pet" else "stored")
    assert [Path(pair["overlay"]).is_file() for pair in load_pairs(files["pairs"])] == [True, True]
    assert complaints(tmp_path / "bids") == []
