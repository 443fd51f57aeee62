import numpy as np
import pytest
import torch
from colours import GREY

from evaluation.observers import cielab
from fusion_nets.drawing.palettes import palette_colours
from fusion_nets.transforms import luminance

WELL_KNOWN = ["hot_iron", "pet", "hot_metal_blue", "pet_20_step"]


def test_hot_rises_in_luminance():
    grey = torch.linspace(0, 1, 101)[None, None]
    hot = palette_colours(grey, "hot")
    assert hot.shape == (3, 1, 101)
    assert (luminance(hot).diff(dim=-1) > 0).all()
    assert hot[:, 0, 0].tolist() == [0, 0, 0]
    assert hot[:, 0, 100].tolist() == [1, 1, 1]
    torch.testing.assert_close(hot[:, 0, 75], torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(hot[:, 0, 30], torch.tensor([0.8, 0.0, 0.0]))


def test_ember_is_what_is_said_of_it():
    levels = torch.linspace(0, 1, 101)[None, None]
    ember = palette_colours(levels, "ember")
    assert ember[:, 0, 0].tolist() == [0, 0, 0]
    assert (luminance(ember).diff(dim=-1) > 0).all()
    lightness, a, b = cielab(ember[None])[0, :, 0, 20:]
    hue, chroma = torch.rad2deg(torch.atan2(b, a)), torch.hypot(a, b)
    assert lightness[0].item() == pytest.approx(41, abs=1)
    assert lightness[-1].item() == pytest.approx(85, abs=1)
    assert hue[0].item() == pytest.approx(12, abs=1.5)
    assert hue[-1].item() == pytest.approx(102, abs=1.5)
    assert chroma.min() > 45
    assert chroma.max() < 62
    rise = torch.hypot(*cielab(ember[None])[0, 1:, 0, :21])
    assert (rise.diff() > 0).all()
    assert rise[5] < 0.45 * rise[20]
    for steps in (lightness.diff(), hue.diff()):
        assert steps.min() > 0.75 * steps.mean()
        assert steps.max() < 1.25 * steps.mean()


@pytest.mark.parametrize("palette", WELL_KNOWN)
def test_own_colours_are_those_of_the_standard(palette):
    """As pydicom looks them up."""
    try:
        from pydicom.pixels import apply_color_lut
    except ImportError:  # pydicom 2
        from pydicom.pixel_data_handlers import apply_color_lut

    files = {"hot_iron": 1, "pet": 2, "hot_metal_blue": 3, "pet_20_step": 4}
    wanted = apply_color_lut(np.arange(256), palette=f"1.2.840.10008.1.5.{files[palette]}") / 255
    found = palette_colours(GREY, palette)
    np.testing.assert_allclose(found[:, 0].numpy().T, wanted, atol=1e-5)


def test_what_the_standard_says_of_some_entries():
    """PS3.6 B.1.1: hot iron is black, red, orange and white. B.1.4: PET 20 step has 20 colours."""
    iron = (palette_colours(GREY, "hot_iron") * 255).round()[:, 0].T.tolist()
    assert (iron[0], iron[127], iron[255]) == ([0, 0, 0], [254, 0, 0], [255, 255, 255])
    fine = torch.linspace(0, 1, 5001)[None, None]
    steps = palette_colours(fine, "pet_20_step")[:, 0].T
    assert len(torch.unique(steps, dim=0)) == 20
    for palette in ("hot_iron", "pet", "hot_metal_blue", "hot", "ember"):
        between = palette_colours(fine, palette)
        assert between.diff(dim=-1).abs().max() < 0.01  # nothing jumps
