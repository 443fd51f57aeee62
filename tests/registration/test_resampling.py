import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fusion_nets.clinical.grids import corners, grid_distance, overlap, voxels_between
from fusion_nets.registration import resample_labels, resample_onto
from fusion_nets.registration.resampling import _smoothed, _steps

RNG = np.random.default_rng(0)
SLOPE = np.array([1.5, -0.7, 0.4])


def turned(angles=(0, 0, 0), spacing=(1, 1, 1), origin=(0, 0, 0)):
    return nib.affines.from_matvec(Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing, origin)


def image(values, affine, **meta):
    values = torch.as_tensor(np.asarray(values, dtype=np.float32))
    return MetaTensor(values, meta={**meta, "affine": torch.from_numpy(np.asarray(affine, dtype=np.float64))})


def world(shape, affine):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return nib.affines.apply_affine(affine, index)


def ramp(shape, affine, channels=1):
    """A value that rises linearly through the world, and differs between channels."""
    values = world(shape, affine) @ SLOPE + 10
    return image(np.stack([values * (c + 1) for c in range(channels)]), affine)


def grid(shape, affine):
    return image(np.zeros((1, *shape)), affine)


OBLIQUE = turned((20, -35, 50), (0.9, 1.3, 2.5), (4, -3, 7))
CENTRED = turned((-10, 15, 5), (1.1, 0.8, 1.9), (-14, -18, -20))
MOVED = turned((5, -8, 12), origin=(2, -3, 1))


def test_one_grid_is_left_bit_for_bit():
    overlay = image(RNG.normal(size=(1, 9, 8, 7)) * 1e3, OBLIQUE, units="HU", modality="CT")
    anatomy = grid((9, 8, 7), OBLIQUE + RNG.uniform(-1e-4, 1e-4, (4, 4)) * [[1], [1], [1], [0]])
    moved = resample_onto(overlay, anatomy)
    assert torch.equal(moved.as_tensor(), overlay.as_tensor())
    assert torch.equal(moved.affine, anatomy.affine)
    assert moved.as_tensor().data_ptr() != overlay.as_tensor().data_ptr()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", [None, MOVED], ids=["same world", "moved"])
def test_a_linear_ramp_is_reproduced_inside(channels, transform):
    overlay = ramp((40, 44, 36), CENTRED, channels)
    shape = (14, 12, 8)
    anatomy = grid(shape, turned((20, -35, 50), (0.9, 0.8, 1.1), (0, -3, 5)))
    moved = resample_onto(overlay, anatomy, transform)
    there = world(shape, (np.eye(4) if transform is None else transform) @ anatomy.affine.numpy())
    index = nib.affines.apply_affine(np.linalg.inv(CENTRED), there)
    inside = ((index >= 5) & (index <= np.array([34, 38, 30]))).all(-1)  # smoothing bends the ends of a ramp
    assert inside.mean() > 0.35
    for channel in range(channels):
        wanted = (there @ SLOPE + 10) * (channel + 1)
        np.testing.assert_allclose(moved[channel].numpy()[inside], wanted[inside], atol=2e-4 * (channel + 1))


def test_a_ramp_is_reproduced_inside_by_coarser_oblique_voxels():
    """Smoothing is symmetric: it leaves what is linear as it is."""
    overlay = ramp((60, 60, 60), turned((0, 0, 0), (1, 1, 1), (-30, -30, -30)))
    anatomy = grid((6, 5, 4), turned((25, 10, -40), (2, 3, 5), (-6, -4, -8)))
    moved = resample_onto(overlay, anatomy)
    wanted = world((6, 5, 4), anatomy.affine.numpy()) @ SLOPE + 10
    np.testing.assert_allclose(moved[0].numpy(), wanted, atol=1e-3)


def test_agrees_with_scipy_on_finer_grids():
    overlay = image(RNG.normal(size=(1, 12, 13, 14)), turned((5, 0, 10), (2, 2, 2.5), (-10, -10, -14)))
    anatomy = grid((20, 21, 18), turned((0, 15, 0), (0.9, 0.9, 1.1), (-8, -8, -8)))
    between = voxels_between(overlay, anatomy)
    wanted = ndimage.affine_transform(overlay[0].numpy(), between, output_shape=(20, 21, 18), order=1, mode="nearest")
    moved = resample_onto(overlay, anatomy)[0].numpy()
    index = nib.affines.apply_affine(between, world((20, 21, 18), np.eye(4)))
    inside = ((index > 0) & (index < np.array([11, 12, 13]))).all(-1)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(moved[inside], wanted[inside], atol=2e-5)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, -20, 45)], ids=["along the axes", "oblique"])
def test_down_sampling_does_not_alias(angles):
    """What is finer than the anatomy's voxels becomes its mean, not a coarse pattern."""
    affine = turned(angles, (1, 1, 1), (-24, -24, -24))
    overlay = image(RNG.normal(50, 20, (1, 48, 48, 48)), affine)
    shape = (7, 6, 5)
    corner = nib.affines.apply_affine(affine, [24, 24, 24]) - [12, 10, 12]
    coarse = grid(shape, turned((0, 0, 0), (4, 4, 6), corner))
    moved = resample_onto(overlay, coarse)[0].numpy()
    between = voxels_between(overlay, coarse)
    picked = ndimage.affine_transform(overlay[0].numpy(), between, output_shape=shape, order=1, mode="nearest")
    assert picked.std() > (15 if angles == (0, 0, 0) else 8)
    assert moved.std() < 4
    assert moved.mean() == pytest.approx(50, abs=1)


def test_a_fine_checkerboard_becomes_grey():
    index = np.indices((48, 48, 48)).sum(0)
    overlay = image(index[None] % 2, turned(origin=(-24, -24, -24)))
    coarse = grid((8, 8, 8), turned((0, 0, 0), (4, 4, 4), (-14, -14, -14)))
    moved = resample_onto(overlay, coarse)[0].numpy()
    np.testing.assert_allclose(moved, 0.5, atol=0.01)
    assert set(np.unique(overlay[0].numpy()[10:40:4, 10:40:4, 10:40:4])) == {0.0}  # picked, it would be black


def test_smoothing_follows_the_directions_of_the_thick_slices():
    """A point becomes a blob that is long across the slices of the anatomy and narrow within them."""
    size = 61
    values = np.zeros((1, size, size, size))
    values[0, 30, 30, 30] = 1
    overlay = image(values, turned(origin=(-30, -30, -30)))
    thick = turned((0, 35, 0), (1, 1, 6))
    thick[:3, 3] = -thick[:3, :3] @ [10, 10, 2]
    fine = turned((0, 35, 0), (1, 1, 1))
    fine[:3, 3] = -fine[:3, :3] @ [10, 10, 15]
    # shift thick slices through the point one mm at a time, and look at the profile across them
    profile = []
    for step in range(-9, 10):
        shifted = thick.copy()
        shifted[:3, 3] += fine[:3, 2] * step
        profile.append(resample_onto(overlay, grid((21, 21, 5), shifted))[0, :, :, 2].numpy())
    profile = np.stack(profile, -1)
    steps = np.arange(-9, 10)
    across = profile.sum((0, 1))
    spread = np.sqrt((across * steps**2).sum() / across.sum())
    expected = np.sqrt((36 - 1) / (8 * np.log(2)) + 1 / 6)
    assert spread == pytest.approx(expected, rel=0.1)
    in_plane = profile.sum((1, 2))
    x = np.arange(21) - 10
    assert np.sqrt((in_plane * x**2).sum() / in_plane.sum()) < 0.8
    assert profile.min() > -1e-6  # nothing rings


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_steps_add_up_to_the_covariance(rank):
    for _ in range(50):
        root = RNG.normal(size=(3, rank))
        covariance = root @ root.T
        covariance += 0.02 * covariance.trace() * np.eye(3)
        steps = _steps(covariance)
        assert len(steps) <= 6
        assert all(weight > 0 for weight, _ in steps)
        total = sum(weight * np.outer(step, step) for weight, step in steps)
        np.testing.assert_allclose(total, covariance, atol=1e-6 * covariance.trace())


def test_smoothing_has_the_variance_it_is_asked_for_and_keeps_the_sum():
    values = torch.zeros(1, 41, 41, 41)
    values[0, 20, 20, 20] = 1
    covariance = np.array([[4.0, 1.5, -0.5], [1.5, 2.0, 0.3], [-0.5, 0.3, 1.0]])
    blob = _smoothed(values, covariance)[0].double().numpy()
    assert blob.sum() == pytest.approx(1, abs=1e-4)
    assert blob.min() > -1e-7
    index = np.indices(blob.shape).reshape(3, -1) - 20
    np.testing.assert_allclose((index * blob.ravel()) @ index.T, covariance, atol=0.03)


@pytest.mark.parametrize(
    ("meta", "outside"),
    [
        ({"units": "HU"}, -1000),
        ({"modality": "CT"}, -30),
        ({"units": "SUV"}, 0),
        ({"units": "Bq/ml", "modality": "PT"}, 0),
        ({"modality": "NM"}, 0),
        ({"white": 255}, 0),
        ({"modality": "MR"}, -30),
        ({}, -30),
    ],
)
def test_outside_is_air(meta, outside):
    values = RNG.uniform(10, 20, (1, 6, 6, 6))
    values[0, 0, 0, 0] = -30
    overlay = image(values, turned(spacing=(2, 2, 2)), **meta)
    moved = resample_onto(overlay, grid((10, 6, 6), turned(spacing=(2, 2, 2), origin=(-4, 0, 0))))
    assert (moved[0, :2] == outside).all()
    assert (moved[0, 8:] == outside).all()
    np.testing.assert_allclose(moved[0, 2:8], values[0], atol=1e-3)
    for key, value in meta.items():
        assert moved.meta[key] == value


def test_air_of_an_image_that_is_nowhere_near():
    overlay = image(RNG.uniform(10, 20, (3, 6, 6, 6)), turned(), white=255, units="colour")
    moved = resample_onto(overlay, grid((5, 4, 3), turned(origin=(100, 0, 0))))
    assert moved.shape == (3, 5, 4, 3)
    assert (moved == 0).all()


def test_the_field_of_view_reaches_half_a_voxel_beyond_the_centres():
    overlay = image(np.full((1, 4, 4, 4), 7.0), turned(spacing=(2, 2, 2)), units="SUV")
    line = resample_onto(overlay, grid((24, 1, 1), turned(spacing=(0.5, 2, 2), origin=(-2.25, 2, 2))))[0, :, 0, 0]
    x = -2.25 + 0.5 * np.arange(24)
    assert line.tolist() == [7.0 if -1 <= at <= 7 else 0.0 for at in x]


@pytest.mark.parametrize("thickness", [1, 4])
def test_a_volume_onto_a_slice(thickness):
    """A slice takes the mean over its thickness."""
    affine = turned(spacing=(1, 1, thickness), origin=(-5, -5, 0.5))
    overlay = image(np.tile(np.arange(40) % 2, (1, 30, 30, 1)) * 10.0, turned(origin=(-15, -15, -19.5)))
    anatomy = image(np.zeros((1, 8, 9)), affine)
    moved = resample_onto(overlay, anatomy)
    assert moved.shape == (1, 8, 9)
    if thickness == 1:
        assert torch.equal(moved.as_tensor(), torch.zeros(1, 8, 9))
    else:
        np.testing.assert_allclose(moved.numpy(), 5, atol=0.4)
    np.testing.assert_array_equal(moved.affine, affine)


def test_a_slice_onto_a_volume_fills_its_own_thickness():
    overlay = image(np.full((1, 8, 8), 3.0), turned(spacing=(1, 1, 5), origin=(0, 0, 10)), units="SUV")
    moved = resample_onto(overlay, grid((8, 8, 20), turned()))
    filled = [k for k in range(20) if (moved[0, :, :, k] == 3).all()]
    assert filled == [8, 9, 10, 11, 12]
    assert moved.sum() == 3 * 64 * 5


def test_metadata_and_geometry():
    overlay = image(RNG.random((1, 6, 6, 6)), turned(), modality="PT", units="SUV", window=(0, 5), filename_or_obj="a")
    before = overlay.clone()
    anatomy = grid((5, 4, 3), OBLIQUE)
    moved = resample_onto(overlay, anatomy)
    assert moved.dtype == torch.float32
    assert torch.equal(moved.affine, anatomy.affine)
    assert (moved.meta["modality"], moved.meta["units"], moved.meta["window"]) == ("PT", "SUV", (0, 5))
    assert torch.equal(overlay, before)
    assert torch.equal(overlay.affine, before.affine)
    moved.affine[0, 3] = 99
    assert anatomy.affine[0, 3] != 99


def test_corners_distance_and_overlap():
    volume = grid((3, 4, 5), turned(spacing=(2, 3, 4), origin=(1, 1, 1)))
    assert set(map(tuple, corners(volume))) == {(x, y, z) for x in (1, 5) for y in (1, 10) for z in (1, 17)}
    assert len(corners(image(np.zeros((1, 3, 4)), np.eye(4)))) == 8
    assert grid_distance(volume, grid((3, 4, 5), turned(spacing=(2, 3, 4), origin=(1, 4, 5)))) == 5
    assert grid_distance(volume, grid((3, 4, 4), turned(spacing=(2, 3, 4), origin=(1, 1, 1)))) == np.inf

    anatomy = grid((10, 10, 10), turned())
    content = np.zeros((10, 10, 10), dtype=bool)
    content[2:8] = True
    half = grid((5, 10, 10), turned())
    assert overlap(anatomy, half, content) == pytest.approx(0.5)
    assert overlap(anatomy, half, content, turned(origin=(-2.5, 0, 0))) == 1
    assert overlap(anatomy, grid((5, 5, 5), turned(origin=(50, 0, 0))), content) == 0
    assert overlap(anatomy, half, np.zeros_like(content)) == 0


@pytest.mark.parametrize("angles", [(20, -35, 50), (-10, 15, 5)])
def test_labels_take_the_nearest_of_their_grid(angles):
    labels = image(RNG.integers(0, 4, (1, 30, 24, 18)) * 1000003, CENTRED)
    affine = turned(angles, (0.9, 1.3, 2.5))
    affine[:3, 3] = nib.affines.apply_affine(CENTRED, (15, 12, 9)) - affine[:3, :3] @ (10, 13, 11)  # one middle
    target = grid((20, 26, 22), affine)
    moved = resample_labels(labels, target)
    index = nib.affines.apply_affine(np.linalg.inv(CENTRED), world((20, 26, 22), affine))
    nearest = np.rint(index).astype(int)
    there = ((nearest >= 0) & (nearest < (30, 24, 18))).all(-1)
    expected = np.zeros((20, 26, 22), dtype=int)
    expected[there] = labels.numpy()[0][tuple(nearest[there].T)]
    clear = (np.abs(index - np.floor(index) - 0.5) > 1e-3).all(-1)  # not half way between two
    assert moved.dtype == torch.int32
    assert there.mean() > 0.2
    np.testing.assert_array_equal(moved.numpy()[0][clear], expected[clear])
    np.testing.assert_array_equal(moved.affine, target.affine)
