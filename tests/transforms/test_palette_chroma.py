import pytest
import torch
from colours import GREY, OVERLAYS, angle, hue_error, tracer
from monai.data import MetaTensor

from evaluation.observers import cielab
from fusion_nets.drawing.palettes import palette_colours
from fusion_nets.transforms import MergeChroma, PaletteChroma, PaletteChromad, SplitLuminanced, luminance

WELL_KNOWN = ["hot_iron", "pet", "hot_metal_blue", "pet_20_step"]


@pytest.mark.parametrize(
    ("palette", "rises", "last"),
    [
        ("ember", True, 255),
        ("hot", True, 194),
        ("hot_iron", True, 194),
        ("hot_metal_blue", True, 174),
        ("pet", False, 195),
        ("pet_20_step", False, 242),
    ],
)
def test_luminance_stays_that_of_the_grey_image(palette, rises, last):
    """That of the palette would turn warm and hot round where it falls."""
    own = luminance(palette_colours(GREY, palette))
    assert bool((own.diff(dim=-1) >= 0).all()) == rises
    chroma = PaletteChroma(palette)(GREY)
    assert chroma.abs().max() > 0.3
    for fused in (GREY, torch.full_like(GREY, 0.5)):
        coloured = MergeChroma()(fused, chroma)
        torch.testing.assert_close(luminance(coloured), fused, atol=1e-6, rtol=0)
        assert hue_error(coloured, palette_colours(GREY * last / 255, palette)) < 1e-3


@pytest.mark.parametrize("palette", ["ember", "hot", *WELL_KNOWN])
def test_the_highest_uptake_shows_on_a_grey_anatomy(palette):
    """The palette's own end is white, which is no colour on grey."""
    chroma = PaletteChroma(palette)(torch.tensor([[[0.0, 0.25, 0.5, 0.75, 1.0]]]))
    fused = MergeChroma()(torch.full((1, 1, 5), 0.5), chroma)
    saturation = fused.amax(0) - fused.amin(0)
    assert saturation[0, 0] == 0
    assert saturation[0, -1] > (0.35 if palette == "ember" else 0.5)


def test_a_palette_of_its_own_would_turn_hot_and_warm_round():
    image = torch.full((1, 8, 8), 0.65)
    image[0, 2:4, 2:4] = 0.85
    own = luminance(palette_colours(image, "pet_20_step"))
    assert own[0, 2, 2] < own[0, 6, 6]


def test_palettes_leave_colour_alone_and_say_what_they_did():
    source = MetaTensor(GREY.clone(), meta={"modality": "PT", "affine": torch.eye(4, dtype=torch.float64) * 2})
    data = PaletteChromad("overlay", "pet")({"overlay": source})
    assert data["overlay"].meta["palette"] == "pet"
    assert torch.equal(data["overlay"], source)
    assert torch.equal(data["overlay"].affine, source.affine)
    assert torch.equal(data["overlay_chroma"], PaletteChroma("pet")(source))
    assert "palette" not in source.meta
    coloured = SplitLuminanced("overlay")({"overlay": torch.rand(3, 5, 4)})
    assert PaletteChromad("overlay", "hot")(coloured) == coloured
    for nothing in (None, "none"):
        assert PaletteChromad("overlay", nothing)({"overlay": source}) == {"overlay": source}
    assert PaletteChroma("hot_iron")(torch.rand(1, 5, 4, 3)).shape == (3, 5, 4, 3)


@pytest.mark.parametrize(
    ("meta", "palette"),
    [
        ({"modality": "PT"}, "ember"),
        ({"modality": "NM"}, "ember"),
        ({"units": "SUV"}, "ember"),
        ({"modality": "CT", "units": "HU"}, None),
        ({"modality": "MR"}, None),
        ({}, None),
    ],
)
def test_palette_by_modality(meta, palette):
    data = PaletteChromad("overlay")({"overlay": MetaTensor(GREY, meta=meta)})
    assert data["overlay"].meta.get("palette") == palette
    assert ("overlay_chroma" in data) == bool(palette)


def test_beside_an_overlay_with_colours_of_its_own_a_tracer_is_hot():
    data = SplitLuminanced("overlay2")({"overlay": tracer(0.5), "overlay2": torch.rand(3, 1, 1)})
    assert PaletteChromad(OVERLAYS, allow_missing_keys=True)(data)["overlay"].meta["palette"] == "hot"
    data = {"overlay": tracer(0.5), "overlay2": tracer(0.5, modality="CT")}
    assert PaletteChromad(OVERLAYS, allow_missing_keys=True)(data)["overlay"].meta["palette"] == "ember"


def steps_of_colour(palette, brightness):
    """CIELAB's a and b of a tenth more uptake, from .15 to .95, on an anatomy of one brightness."""
    levels = torch.linspace(0.15, 0.95, 9)[None, None]
    seen = MergeChroma()(torch.full_like(levels, brightness), PaletteChroma(palette)(levels))
    return cielab(seen[None])[0, 1:, 0].diff(dim=-1).norm(dim=0)


@pytest.mark.parametrize("brightness", [0.3, 0.4, 0.6, 0.8])
def test_every_step_of_uptake_changes_the_colour(brightness):
    assert steps_of_colour("ember", brightness).min() > 5


@pytest.mark.parametrize("brightness", [0.6, 0.8])
def test_on_a_bright_anatomy_steps_of_hot_do_not(brightness):
    """The red of its lower half is all that there is room for."""
    assert steps_of_colour("hot", brightness).min() < 0.1


def test_brightness_hardly_changes_the_colour_of_an_uptake():
    """What a colour has room for does: that of "hot" is cut down by half where the anatomy is bright."""
    spread = {}
    for palette in ("ember", "hot"):
        levels = torch.linspace(0.2, 1, 9)[None, None]
        chroma = PaletteChroma(palette)(levels)
        seen = torch.stack([MergeChroma()(torch.full_like(levels, 0.1 * k), chroma) for k in range(3, 9)])
        lab = cielab(seen)[:, 1:, 0]
        spread[palette] = (lab.norm(dim=1).std(dim=0) / lab.norm(dim=1).mean(dim=0)).mean().item()
    assert spread["ember"] < 0.7 * spread["hot"]


def test_unknown_palette():
    with pytest.raises(ValueError, match="palette is 'viridis'"):
        PaletteChromad("overlay", "viridis")


# several coloured overlays


def test_each_tracer_gets_a_palette_of_its_own():
    data = {"overlay": tracer(0.5), "overlay2": tracer(0.5, modality="CT"), "overlay3": tracer(0.5, modality="NM")}
    data = PaletteChromad(OVERLAYS)(data)
    assert [data[key].meta.get("palette") for key in OVERLAYS] == ["hot", None, "cold"]
    assert "overlay2_chroma" not in data
    assert angle(data["overlay_chroma"]) < 60
    assert 180 <= angle(data["overlay3_chroma"]) <= 240


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["auto", "hot"], ["cold", "hot"]),
        (["cold", "auto"], ["cold", "hot"]),
        (["none", "auto"], [None, "ember"]),
        (["auto", "none", "none"], ["ember", None, None]),
        (["pet", "auto"], ["pet", "hot"]),
        (["auto", "auto", "auto"], ["hot", "cold", "green"]),
    ],
)
def test_what_was_asked_for_is_kept(asked, found, caplog):
    data = {key: tracer(0.5) for key in OVERLAYS[: len(asked)]}
    data = PaletteChromad(OVERLAYS, asked, allow_missing_keys=True)(data)
    assert [data[key].meta.get("palette") for key in OVERLAYS[: len(asked)]] == found
    assert not caplog.text


def test_one_palette_asked_for_twice_is_warned_of(caplog):
    PaletteChromad(OVERLAYS[:2], "hot")({"overlay": tracer(0.5), "overlay2": tracer(0.5), "name": "case"})
    assert "case: overlay and overlay2 both have the palette hot" in caplog.text


def test_as_many_palettes_as_overlays():
    with pytest.raises(ValueError, match="overlay_palette has 3 values for 2 overlays"):
        PaletteChromad(OVERLAYS, ["hot", "cold", "none"], allow_missing_keys=True)(
            {"overlay": tracer(0.5), "overlay2": tracer(0.5)}
        )
