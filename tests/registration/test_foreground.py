import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.registration import foreground


def head(shape=(60, 64, 40), table=False):
    """Where a head is, its skull, the fluid inside; open at the bottom of the volume."""
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    radius = np.sqrt((x / 24) ** 2 + (y / 28) ** 2 + ((z + 20) / 36) ** 2)
    inside = radius < 1
    skull = (radius > 0.8) & (radius < 0.9)
    fluid = np.sqrt(x**2 + y**2 + (z + 5) ** 2) < 8
    plate = (np.abs(x) < 25) & (y > 29) & (y < 31) if table else np.zeros(shape, dtype=bool)
    return inside, skull, fluid, plate


def mri(noise, rng, scale=1.0):
    inside, skull, fluid, _ = head()
    signal = np.where(inside, 0.7, 0.0)
    signal[skull], signal[fluid] = 0.05, 0.2
    grain = rng.normal(0, noise, (2, *signal.shape))
    return np.hypot(signal + grain[0], grain[1]) * scale, inside


def overlap_of(mask, inside):
    return 2 * (mask & inside).sum() / (mask.sum() + inside.sum())


@pytest.mark.parametrize("noise", [0, 0.03, 0.1])
@pytest.mark.parametrize("scale", [1e-3, 1, 4000])
def test_a_head_in_mri_with_its_skull_and_ventricles(noise, scale):
    values, inside = mri(noise, np.random.default_rng(0), scale)
    mask = foreground(MetaTensor(torch.tensor(values[None], dtype=torch.float32)))
    assert mask.dtype == bool
    assert mask.shape == values.shape
    assert overlap_of(mask, inside) > 0.95
    assert mask[30, 32, 10:25].all()  # the fluid


def test_a_head_in_ct_without_the_table_and_with_its_air():
    inside, skull, fluid, plate = head(table=True)
    values = np.where(inside, 40.0, -1000.0)
    values[skull], values[fluid], values[plate] = 1200, -900, 200
    for meta in ({"units": "HU"}, {"modality": "CT"}):
        mask = foreground(MetaTensor(torch.tensor(values[None], dtype=torch.float32), meta=meta))
        assert (mask == inside).all()


def test_a_slice_and_colours():
    values, inside = mri(0.03, np.random.default_rng(0))
    one = torch.tensor(values[None, :, :, 15], dtype=torch.float32)
    assert overlap_of(foreground(MetaTensor(one)), inside[:, :, 15]) > 0.95
    coloured = MetaTensor(torch.cat([one, one * 0.5, one * 0.1]))
    assert overlap_of(foreground(coloured), inside[:, :, 15]) > 0.95


def test_nothing_to_see():
    assert not foreground(MetaTensor(torch.full((1, 8, 8, 8), 3.0))).any()
    assert not foreground(MetaTensor(torch.rand(1, 8, 8, 8) - 1000, meta={"units": "HU"})).any()
    dot = torch.zeros(1, 20, 20, 20)
    dot[0, 10, 10, 10] = 1
    assert 0 < foreground(MetaTensor(dot)).sum() < 200


def test_tissue_everywhere():
    values = torch.tensor(np.random.default_rng(0).normal(100, 5, (1, 30, 30, 30)), dtype=torch.float32)
    assert foreground(MetaTensor(values)).mean() > 0.3
