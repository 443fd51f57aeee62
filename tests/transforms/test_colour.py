import functools

import pytest
import torch
from colours import OVERLAYS, angle, hue_error, tracer
from monai.data import MetaTensor

from fusion_nets.datalists import aanlib_pairs
from fusion_nets.transforms import (
    LoadStudyImage,
    MergeChroma,
    MergeChromad,
    PaletteChromad,
    ScaleToDisplayRange,
    SplitLuminance,
    SplitLuminanced,
    luminance,
    mixed_chroma,
)

FUSED = {
    "maximum": torch.maximum,
    "mean": lambda overlay, anatomy: (overlay + anatomy) / 2,
    "anatomy": lambda overlay, anatomy: anatomy,
    "brighter": lambda overlay, anatomy: overlay**0.5,
    "darker": lambda overlay, anatomy: overlay * 0.2,
}
"""Fused luminances of an overlay's and an anatomy's luminance."""


def random_colours(*shape, seed=0):
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(seed))


def clipped(fused, chroma):
    """What is done elsewhere, and gives fringes."""
    return (fused + chroma).clamp(0, 1)


def luminance_error(colours, fused):
    return (luminance(colours) - fused).abs().max().item()


def assert_luminance_and_hue_are_kept(merged, fused, overlay):
    chroma = overlay - luminance(overlay)
    assert merged.min() >= 0
    assert merged.max() <= 1
    assert luminance_error(merged, fused) <= 1e-5
    assert hue_error(merged, overlay) <= 1e-3

    difference = merged - fused
    factor = (difference * chroma).sum(0) / (chroma**2).sum(0).clamp(min=1e-9)
    assert (difference - factor * chroma).abs().max() <= 1e-5
    coloured = chroma.norm(dim=0) > 0.01
    factor = factor[coloured]
    assert factor.min() >= -1e-4
    assert factor.max() <= 1 + 1e-4
    at_the_limit = ((merged < 1e-5) | (merged > 1 - 1e-5)).any(0)[coloured]
    assert (factor[~at_the_limit] > 1 - 1e-3).all()  # no more saturation is given up than must be

    in_8_bit = torch.round(merged * 255) / 255
    assert luminance_error(in_8_bit, fused) <= 1 / 255


@functools.cache
def slices_of(aanlib, modality):
    """The overlays (3, N, 256, 256) and the luminance of the anatomies (1, N, 256, 256) of section val."""
    load, scale = LoadStudyImage(), ScaleToDisplayRange()
    pairs = aanlib_pairs(aanlib, "val", [modality])
    overlay, anatomy = (
        torch.stack([scale(load(pair[key])).as_tensor() for pair in pairs], dim=1) for key in ("overlay", "anatomy")
    )
    return overlay, luminance(anatomy)


@pytest.fixture(params=["PET-MRI", "SPECT-MRI"])
def slices(request, shared):
    aanlib = shared / "data" / "aanlib"
    if not aanlib.is_dir():
        pytest.skip(f"needs the AANLIB slices in {aanlib}")
    return slices_of(aanlib, request.param)


@pytest.mark.parametrize("fused", FUSED)
def test_luminance_and_hue_of_every_slice_are_kept(slices, fused):
    overlay, anatomy = slices
    assert len(overlay) == 3
    assert overlay.shape[1] >= 10
    grey, chroma = SplitLuminance()(overlay)
    wanted = FUSED[fused](grey, anatomy)
    assert_luminance_and_hue_are_kept(MergeChroma()(wanted, chroma), wanted, overlay)


@pytest.mark.parametrize("fused", FUSED)
def test_clipping_would_not_keep_them(slices, fused):
    overlay, anatomy = slices
    grey, chroma = SplitLuminance()(overlay)
    wanted = FUSED[fused](grey, anatomy)
    fringes = clipped(wanted, chroma)
    assert luminance_error(fringes, wanted) > 5 / 255
    assert hue_error(fringes, overlay) > 0.1
    with pytest.raises(AssertionError):
        assert_luminance_and_hue_are_kept(fringes, wanted, overlay)


def test_own_luminance_gives_every_slice_back(slices):
    overlay, _ = slices
    torch.testing.assert_close(MergeChroma()(*SplitLuminance()(overlay)), overlay, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(32, 40), (16, 10, 8)])
def test_any_colours(shape):
    overlay, wanted = random_colours(*shape), random_colours(*shape, seed=1)[:1]
    _, chroma = SplitLuminance()(overlay)
    assert_luminance_and_hue_are_kept(MergeChroma()(wanted, chroma), wanted, overlay)
    assert luminance_error(clipped(wanted, chroma), wanted) > 0.1


def test_primaries_at_every_luminance():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1])] * 3).T
    overlay = corners[:, :, None].expand(3, 8, 101).contiguous()
    wanted = torch.linspace(0, 1, 101).expand(1, 8, 101)
    merged = MergeChroma()(wanted, SplitLuminance()(overlay)[1])
    assert_luminance_and_hue_are_kept(merged, wanted, overlay)
    assert (merged[:, :, 0] == 0).all()
    assert (merged[:, :, -1] == 1).all()
    torch.testing.assert_close(MergeChroma()(*SplitLuminance()(overlay)).as_tensor(), overlay, atol=1e-6, rtol=0)


def test_luminance_is_that_of_bt601():
    colours = torch.tensor([[255.0, 0, 0, 255, 10], [0, 255, 0, 255, 20], [0, 0, 255, 255, 30]])
    expected = torch.tensor([[76.245, 149.685, 29.07, 255, 18.15]])
    torch.testing.assert_close(luminance(colours), expected)


def test_split_luminance_and_chroma_add_up():
    overlay = random_colours(9, 7)
    grey, chroma = SplitLuminance()(overlay)
    assert grey.shape == (1, 9, 7)
    assert chroma.shape == (3, 9, 7)
    torch.testing.assert_close((grey + chroma).as_tensor(), overlay)
    torch.testing.assert_close(luminance(chroma).as_tensor(), torch.zeros(1, 9, 7), atol=1e-6, rtol=0)


def test_grey_overlay_stays_one_channel():
    overlay, wanted = random_colours(9, 7)[:1], random_colours(9, 7, seed=1)[:1]
    grey, chroma = SplitLuminance()(overlay)
    assert chroma is None
    assert torch.equal(grey.as_tensor(), overlay)
    assert torch.equal(MergeChroma()(wanted, chroma), wanted)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels(channels):
    with pytest.raises(ValueError, match=f"channels, got {channels}"):
        SplitLuminance()(torch.rand(channels, 5, 5))


def test_metadata_is_that_of_the_luminance():
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1], dtype=torch.float64))
    overlay = MetaTensor(random_colours(9, 7), affine=affine, meta={"filename_or_obj": "overlay.png"})
    grey, chroma = SplitLuminance()(overlay)
    for part in (grey, chroma):
        assert torch.equal(part.affine, affine)
        assert part.meta["filename_or_obj"] == "overlay.png"

    pred = MetaTensor(grey.as_tensor() / 2, affine=affine / 2, meta={"filename_or_obj": "anatomy.png"})
    merged = MergeChroma()(pred, chroma)
    assert isinstance(merged, MetaTensor)
    assert torch.equal(merged.affine, affine / 2)
    assert merged.meta["filename_or_obj"] == "anatomy.png"
    plain = MergeChroma()(pred.as_tensor(), chroma)
    assert not isinstance(plain, MetaTensor)
    assert torch.equal(plain, merged.as_tensor())


@pytest.mark.parametrize(
    ("of_luminance", "of_chroma", "expected"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.float64, torch.float64, torch.float64),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float16, torch.float32, torch.float32),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_precision_is_the_better_of_both(of_luminance, of_chroma, expected):
    overlay, wanted = random_colours(32, 40).to(of_chroma), random_colours(32, 40, seed=1)[:1].to(of_luminance)
    merged = MergeChroma()(wanted, SplitLuminance()(overlay)[1])
    assert merged.dtype == expected
    assert luminance_error(merged, wanted.to(expected)) < 1e-6


def test_inputs_are_left_as_they_are():
    overlay, wanted = random_colours(9, 7), random_colours(9, 7, seed=1)[:1]
    before = overlay.clone(), wanted.clone()
    data = {"overlay": overlay, "pred": wanted}
    MergeChromad()(SplitLuminanced("overlay")(data))
    assert set(data) == {"overlay", "pred"}
    assert torch.equal(overlay, before[0])
    assert torch.equal(wanted, before[1])


def test_dictionary_twins_agree():
    overlay, anatomy, wanted = random_colours(9, 7), random_colours(9, 7, seed=1)[:1], random_colours(9, 7, seed=2)[:1]
    grey, chroma = SplitLuminance()(overlay)
    data = SplitLuminanced(["overlay", "anatomy"])(
        {"overlay": overlay, "anatomy": anatomy, "pred": wanted, "name": "a"}
    )
    assert set(data) == {"overlay", "overlay_chroma", "anatomy", "pred", "name"}
    assert torch.equal(data["overlay"], grey)
    assert torch.equal(data["overlay_chroma"], chroma)
    assert torch.equal(data["anatomy"].as_tensor(), anatomy)
    data = MergeChromad()(data)
    assert torch.equal(data["fused"], MergeChroma()(wanted, chroma))
    assert torch.equal(data["pred"], wanted)

    renamed = SplitLuminanced("overlay", chroma_postfix="colour")({"overlay": overlay, "other": wanted})
    renamed = MergeChromad("other", chroma_key="overlay_colour", output_key="result")(renamed)
    assert torch.equal(renamed["result"], data["fused"])


def test_dictionary_twins_of_a_grey_overlay():
    data = MergeChromad()(SplitLuminanced("overlay")({"overlay": torch.rand(1, 9, 7), "pred": torch.rand(1, 9, 7)}))
    assert set(data) == {"overlay", "pred", "fused"}
    assert torch.equal(data["fused"], data["pred"])


@pytest.mark.parametrize("twin", [SplitLuminanced, MergeChromad])
def test_missing_keys(twin):
    with pytest.raises(KeyError):
        twin("absent")({})
    assert twin("absent", allow_missing_keys=True)({"name": "a"}) == {"name": "a"}


# several coloured overlays


def laid(first, second, palettes=("hot", "cold")):
    data = {"overlay": tracer(*first), "overlay2": tracer(*second)}
    return PaletteChromad(OVERLAYS[:2], list(palettes))(data)


def test_where_one_overlay_is_black_the_other_has_its_own_colour():
    data = laid([0.3, 0.7, 0, 0, 0], [0, 0, 0.3, 0.7, 0])
    mixed = mixed_chroma(data, OVERLAYS[:2])
    wanted = torch.cat([data["overlay_chroma"][..., :2], data["overlay2_chroma"][..., 2:]], dim=-1)
    torch.testing.assert_close(mixed, wanted, atol=2e-6, rtol=0)


def test_lights_are_mixed_by_strength_whichever_comes_first():
    """Red and blue of equal strength make magenta; more of one draws the hue to it."""
    data = laid([0.25, 0.25, 0.1], [0.25, 0.1, 0.25])
    mixed = mixed_chroma(data, OVERLAYS[:2])
    turned = mixed_chroma({**laid([0.25, 0.1, 0.25], [0.25, 0.25, 0.1], ("cold", "hot"))}, OVERLAYS[:2])
    torch.testing.assert_close(mixed, turned, atol=1e-6, rtol=0)
    equal, red, blue = angle(mixed)[0].tolist()
    assert equal == pytest.approx(300, abs=0.1)
    assert 300 < red < 360
    assert 240 < blue < 300
    # half of each light: 0.5 of sRGB's white is a value of 0.735
    full = laid([1], [1], ("hot_iron", "hot_iron"))
    assert mixed_chroma(full, OVERLAYS[:2]).shape == (3, 1, 1)
    pure = {"overlay": torch.ones(1, 1, 1), "overlay2": torch.ones(1, 1, 1)}
    for key, colour in (("overlay", (1.0, 0, 0)), ("overlay2", (0, 0, 1.0))):
        pure[f"{key}_chroma"] = SplitLuminance()(torch.tensor(colour).reshape(3, 1, 1))[1]
    seen = mixed_chroma(pure, OVERLAYS)
    torch.testing.assert_close(
        seen - seen.amin(0), torch.tensor([0.7354, 0, 0.7354]).reshape(3, 1, 1), atol=1e-4, rtol=0
    )


def test_a_grey_overlay_takes_no_colour_away():
    data = {"overlay": tracer(0.5, modality="CT"), "overlay2": tracer(0.5), "pred": torch.full((1, 1, 1), 0.5)}
    data = PaletteChromad(OVERLAYS[:2])(data)
    merged = MergeChromad(chroma_key=[f"{key}_chroma" for key in OVERLAYS])(data)
    assert torch.equal(merged["fused"], MergeChroma()(data["pred"], data["overlay2_chroma"]))


def test_the_fused_luminance_stays_as_it_is():
    levels = torch.rand(2, 500, generator=torch.Generator().manual_seed(0))
    data = {**laid(levels[0].tolist(), levels[1].tolist()), "pred": torch.rand(1, 1, 500)}
    fused = MergeChromad(chroma_key=[f"{key}_chroma" for key in OVERLAYS])(data)["fused"]
    torch.testing.assert_close(luminance(fused), data["pred"], atol=1e-5, rtol=0)
