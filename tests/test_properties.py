"""What holds whatever the image: where voxels lie, what they measure, how they are shown, how they are resampled."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from fusion_nets.clinical import convert_image, read_image
from fusion_nets.clinical.dicom import new_series, new_study, pick_series, read_series, write_instances
from fusion_nets.clinical.volume_files import save_volume
from fusion_nets.registration import resample_onto
from fusion_nets.transforms import ScaleToDisplayRange

few = settings(max_examples=12, deadline=None, derandomize=True, database=None)
"""The same examples in every run, and no more than the suite has time for."""


def numbers(low, high):
    return st.floats(low, high, allow_nan=False)


@st.composite
def affines(draw):
    """Any order and direction of the axes, both handednesses, oblique as it likes, voxels of 0.3 to 5 mm."""
    axes = np.eye(3)[list(draw(st.permutations(range(3))))] * draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    oblique = draw(st.sampled_from((0, 0, 1)))
    turn = Rotation.from_euler("xyz", [oblique * draw(numbers(-180, 180)) for _ in range(3)], degrees=True)
    spacing = [draw(numbers(0.3, 5)) for _ in range(3)]
    return nib.affines.from_matvec(turn.as_matrix() @ axes * spacing, [draw(numbers(-300, 300)) for _ in range(3)])


shapes = st.tuples(*[st.integers(2, 6)] * 3)
seeds = st.integers(0, 2**32 - 1)


def voxels(shape, seed):
    """Values that all differ."""
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape).astype(np.int16)


def image(values, affine, **meta):
    return MetaTensor(torch.from_numpy(np.float32(values))[None], affine=torch.from_numpy(affine), meta=meta)


def assert_lies_where_it_lay(read, values, affine):
    """Every value is where it was in the world, to a hundredth of a voxel, whichever way the axes run now."""
    index = np.array(list(itertools.product(*map(range, values.shape))))
    there = nib.affines.apply_affine(np.linalg.inv(read.affine.numpy()) @ affine, index)
    whole = np.rint(there).astype(int)
    assert np.abs(there - whole).max() < 0.01
    assert sorted(read.shape[1:]) == sorted(values.shape)
    np.testing.assert_array_equal(read[0].numpy()[tuple(whole.T)], values[tuple(index.T)])


@few
@given(affines(), shapes, seeds)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "dicom"])
def test_there_and_back(tmp_path_factory, name, affine, shape, seed):
    values, path = voxels(shape, seed), tmp_path_factory.mktemp("a") / name
    if name == "dicom":
        write_instances(path, new_series(image(values, affine), "MR", new_study(seed)))
    else:
        save_volume(path, values[None], affine, {})
    assert_lies_where_it_lay(read_image(path), values, affine)


@few
@given(affines(), shapes, seeds, st.permutations(["a.nii.gz", "a.nrrd", "a.mha", "dicom"]))
def test_around_all_forms(tmp_path_factory, affine, shape, seed, names):
    """However often it is converted."""
    values, folder = voxels(shape, seed), tmp_path_factory.mktemp("a")
    save_volume(folder / "first.nii", values[None], affine, {})
    source = folder / "first.nii"
    for name in names:
        convert_image(source, folder / name, modality="MR")
        source = folder / name
    assert_lies_where_it_lay(read_image(source), values, affine)


# units


@few
@given(affines(), shapes, seeds, numbers(1, 3000))
@pytest.mark.parametrize(
    ("modality", "meta", "units"),
    [("CT", {}, "HU"), ("PT", {}, "SUV"), ("PT", {"units": "Bq/ml"}, "Bq/ml"), ("MR", {}, "stored")],
)
def test_values_keep_their_unit(tmp_path_factory, modality, meta, units, affine, shape, seed, most):
    """To half a step of the 16 bit they are stored in."""
    values = np.random.default_rng(seed).uniform(-1000 if modality == "CT" else 0, most, shape)
    folder = tmp_path_factory.mktemp("a")
    write_instances(folder / "a", new_series(image(values, affine, **meta), modality, new_study(seed)))
    read = read_series(pick_series(folder / "a"))
    assert read.meta["units"] == units
    step = np.abs(values).max() / (2**15 - 1)
    np.testing.assert_allclose(np.sort(read.numpy(), axis=None), np.sort(values, axis=None), atol=0.51 * step, rtol=0)


@few
@given(
    dose=numbers(5e7, 1e9),
    weight=numbers(30, 200),
    minutes=numbers(0, 180),  # not ten half-lives, see test_dicom_units.py
    half_life=st.sampled_from((6586.2, 1223.4, 4062.6)),
)
def test_uptake_by_its_definition(tmp_path_factory, dose, weight, minutes, half_life):
    """SUV = activity * weight / dose that is left (PS3.3 C.8.9)."""
    from pydicom import Dataset
    from pydicom.valuerep import format_number_as_ds as ds

    tracer, details = Dataset(), Dataset()
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = ds(dose), ds(half_life)
    tracer.RadiopharmaceuticalStartDateTime = "20260105060000"
    seconds = round(60 * minutes)
    clock = f"{6 + seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
    details.RadiopharmaceuticalInformationSequence = [tracer]
    details.PatientWeight, details.CorrectedImage, details.DecayCorrection = ds(weight), ["ATTN", "DECY"], "START"
    details.SeriesDate = details.AcquisitionDate = "20260105"
    details.SeriesTime = details.AcquisitionTime = clock
    values, folder = voxels((3, 4, 2), 0) * 1000.0, tmp_path_factory.mktemp("a")
    activity = image(values, np.diag([2.0, 2, 2, 1]), units="Bq/ml")
    write_instances(folder / "a", new_series(activity, "PT", new_study(), details=details))
    read = read_series(pick_series(folder / "a"))
    assert read.meta["units"] == "SUV"
    wanted = values * weight * 1000 / (dose * 0.5 ** (seconds / half_life))
    np.testing.assert_allclose(read.max(), wanted.max(), rtol=1e-4)
    np.testing.assert_allclose(np.sort(read.numpy(), axis=None), np.sort(wanted, axis=None), rtol=1e-3)


# windows


windows = st.tuples(numbers(-2000, 2000), numbers(1, 4000)).map(lambda of: (of[0], of[0] + of[1]))
levels = st.lists(numbers(-1e4, 1e4), min_size=4, max_size=40).map(lambda values: torch.tensor([[values]]))


@few
@given(levels, windows)
def test_a_window_keeps_order_and_ends(values, window):
    low, high = window
    shown = ScaleToDisplayRange(window)(values)
    assert 0 <= shown.min() <= shown.max() <= 1
    assert (shown.flatten()[values.flatten().argsort()].diff() >= 0).all()
    assert (shown[values <= low] == 0).all()
    assert (shown[values >= high] == 1).all()
    ends = ScaleToDisplayRange(window)(torch.tensor([[[low, high]]], dtype=torch.float64))
    assert ends.flatten().tolist() == [0, 1]


@few
@given(shapes, seeds, st.sampled_from(("MR", "CT", "PT", "NM", "")), numbers(0.01, 1e4), numbers(-1e3, 1e3))
def test_a_recorded_range_shows_the_same(shape, seed, modality, scale, offset):
    """Exactly, whatever rule it was taken by."""
    shift = 0 if modality in ("PT", "NM") else offset
    values = np.random.default_rng(seed).gamma(2, scale, shape) + shift
    source = image(values, np.eye(4), modality=modality, units="HU" if modality == "CT" else "stored")
    shown = ScaleToDisplayRange()(source)
    again = ScaleToDisplayRange(shown.meta["display_range"])(source)
    assert torch.equal(shown.as_tensor(), again.as_tensor())
    assert 0 <= shown.min() <= shown.max() <= 1


# resampling


@few
@given(affines(), shapes, seeds, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_axes_in_another_order_are_the_same_grid(affine, shape, seed, order, flips):
    values = voxels(shape, seed)
    turn = np.column_stack([order, [-1 if flip else 1 for flip in flips]])
    turned = nib.orientations.apply_orientation(values, turn)
    there = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    back = resample_onto(image(turned, there), image(values, affine))
    np.testing.assert_allclose(back[0], values, atol=1e-2 * np.ptp(values))


@few
@given(affines(), affines(), shapes, shapes, seeds, numbers(-1000, 1000))
def test_resampling_invents_no_values(source, target, shape, size, seed, constant):
    """Between those that were there and nothing, which is the minimum; and what is constant stays so."""
    values = np.random.default_rng(seed).normal(0, 100, shape)
    moved = resample_onto(image(values, source), image(np.zeros(size), target))
    assert moved.shape[1:] == size
    assert torch.equal(moved.affine, torch.from_numpy(target))
    assert values.min() - 1e-3 <= moved.min() <= moved.max() <= values.max() + 1e-3
    flat = resample_onto(image(np.full(shape, constant), source), image(np.zeros(size), target))
    np.testing.assert_allclose(flat, constant, atol=1e-3 * max(1, abs(constant)))


@few
@given(affines(), affines(), shapes, seeds)
def test_a_transform_is_a_change_of_place(affine, transform, shape, seed):
    """To say that the overlay lies elsewhere is to say where it lies."""
    values, target = voxels(shape, seed), image(np.zeros((4, 5, 3)), affine)
    rigid = nib.affines.from_matvec(transform[:3, :3] / np.linalg.norm(transform[:3, :3], axis=0), transform[:3, 3])
    told = resample_onto(image(values, rigid @ affine), target, rigid)
    np.testing.assert_allclose(told, resample_onto(image(values, affine), target), atol=1e-2 * np.ptp(values))
