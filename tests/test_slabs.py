"""What goes through a volume slab by slab gives what NumPy, SciPy and torch give of the whole."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from fusion_nets import slabs


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Volumes that lie in memory, or in files and slabs of a few slices."""
    if request.param == "large":
        monkeypatch.setattr(slabs, "LARGE", 1000)
        monkeypatch.setattr(slabs, "SLAB", 1500)
    monkeypatch.setattr(slabs, "LISTED", 700)
    return request.param


def noise(shape=(17, 19, 23)):
    array = slabs.zeros(shape)
    array[...] = np.random.default_rng(0).normal(size=shape)
    return array


@pytest.mark.parametrize("every", [1, 2, 7, 100000])
def test_places_are_those_of_argwhere(every, size):
    mask = noise() > 0.3
    found = list(slabs.places(mask, every))
    assert len(found) > 5
    assert np.array_equal(np.concatenate(found), np.argwhere(mask)[::every])
    assert [len(part) for part in slabs.places(np.zeros((3, 4, 5), bool))] == [0]


def test_some_places_are_evenly_spread(size):
    mask = noise() > 0.3
    count = np.count_nonzero(mask)
    assert np.array_equal(slabs.some_places(mask, count), np.argwhere(mask))
    assert np.array_equal(slabs.some_places(mask, count - 1), np.argwhere(mask)[::2])
    assert slabs.some_places(np.zeros_like(mask), 5).shape == (0, 3)


def test_extremes(size):
    image = MetaTensor(torch.from_numpy(noise())[None])
    assert slabs.extremes(image) == (float(image.min()), float(image.max()))
    assert slabs.extremes(image.double()[0, ..., 3]) == (float(image[..., 3].min()), float(image[..., 3].max()))
    image[0, 2, 3, 11] = torch.nan
    assert all(np.isnan(slabs.extremes(image)))


def test_a_filter_sees_what_lies_beside_a_slab(size):
    array = noise()

    def smooth(part):
        return ndimage.gaussian_filter(part, 1, mode="nearest")

    assert np.array_equal(slabs.filtered(smooth, array, 4), smooth(array))
