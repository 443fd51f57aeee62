"""The page of several overlays in Chromium: the one that is looked at is chosen, and all are told."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from drawing.browser import INSTALL, chromium, is_installed, opened
from drawing.test_viewer_browser import (
    ActionChains,
    Keys,
    WebDriverWait,
    at_share,
    choose,
    number,
    picture,
    pixels,
    press,
)
from drawing.test_viewer_overlays import MOVED, SECOND_AFFINE, SEVERAL, write_second
from drawing.viewed import OVERLAY_AFFINE, SIZE, held, write_case
from scipy import ndimage

from fusion_nets.drawing import write_viewer

KEYS = ("anatomy", "overlay", "overlay2")
MIDDLE = (slice(60, -60), slice(60, -60))
"""Of a picture, without letters."""


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    anatomy, first, fused = write_case(folder)
    overlays = [first, write_second(folder)]
    return write_viewer(folder / "case_fused.html", anatomy, overlays, fused, record=SEVERAL, name="case")


@pytest.fixture(scope="module")
def running(case):
    if not is_installed():
        pytest.skip(INSTALL)
    with chromium(case.parent) as browser:
        yield browser


@pytest.fixture(params=[1280, 800])
def browser(running, case, request):
    """The page anew, drawn, in two widths."""
    running.set_window_size(request.param, 1000)
    opened(running, case)
    WebDriverWait(running, 20).until(lambda it: it.execute_script("return window.innerWidth") == request.param)
    yield running
    assert [entry["message"] for entry in running.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in running.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert [url for url in asked if not url.startswith(("file:", "chrome:", "data:"))] == []


def radio(browser, key):
    return browser.find_element("css selector", f"#overlays input[value={key}]")


def texts(browser, *ids):
    return [browser.find_element("id", one).text for one in ids]


def test_the_overlay_is_chosen_by_a_labelled_control(browser):
    group = browser.find_element("id", "overlays")
    assert group.is_displayed()
    assert (group.aria_role, group.accessible_name) == ("group", "Overlay")
    radios = [radio(browser, key) for key in KEYS[1:]]
    assert [one.accessible_name for one in radios] == ["1 PET", "2 SPECT"]
    assert [one.is_selected() for one in radios] == [True, False]
    assert texts(browser, "title-overlay", "title-third") == ["Overlay 1, PET", "Fused: 1 PET hot, 2 SPECT cold"]
    press(browser, picture(browser), "x")  # without the crosshair
    before = [pixels(browser, picture(browser, "axial", column)) for column in ("anatomy", "overlay", "third")]
    group.find_elements("css selector", "label")[1].click()
    after = [pixels(browser, picture(browser, "axial", column)) for column in ("anatomy", "overlay", "third")]
    changed = [np.abs(one - other).mean() for one, other in zip(before, after, strict=True)]
    assert max(changed[0], changed[2]) < 0.1  # the anatomy, and the image fused of all
    assert changed[1] > 20
    # hot is red before it is blue, cold the other way round
    assert (before[1][MIDDLE][..., 0] >= before[1][MIDDLE][..., 2]).all()
    assert (after[1][MIDDLE][..., 0] <= after[1][MIDDLE][..., 2]).all()
    assert [one.is_selected() for one in radios] == [False, True]
    assert texts(browser, "title-overlay") == ["Overlay 2, SPECT"]
    assert picture(browser, "axial", "overlay").get_attribute("aria-label").startswith("Overlay 2, SPECT, axial")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_it_is_chosen_by_keys(browser):
    press(browser, radio(browser, "overlay"), Keys.ARROW_RIGHT)
    assert texts(browser, "title-overlay") == ["Overlay 2, SPECT"]
    press(browser, picture(browser), "1")
    assert texts(browser, "title-overlay") == ["Overlay 1, PET"]
    assert radio(browser, "overlay").is_selected()
    press(browser, picture(browser), "2", "3")  # of two there is no third
    assert texts(browser, "title-overlay") == ["Overlay 2, SPECT"]
    assert radio(browser, "overlay2").is_selected()
    (spoken,) = texts(browser, "spoken")
    assert re.search(r"anatomy .*HU, overlay 1 \(PET\) .* SUV, overlay 2 \(SPECT\) \d+", spoken)
    keys = browser.find_element("id", "overlay-keys")
    browser.execute_script("arguments[0].closest('details').open = true", keys)
    assert keys.text == "1 2 the overlay that is looked at"


@pytest.mark.parametrize("chosen", KEYS[1:])
def test_pointing_tells_the_values_of_all_sources(browser, case, chosen):
    radio(browser, chosen).click()
    ActionChains(browser).move_to_element_with_offset(*at_share(picture(browser, "coronal"), 0.4, 0.45)).perform()
    assert texts(browser, "at-head") == ["Under the pointer"]
    assert texts(browser, *(f"name-{key}" for key in KEYS)) == ["Anatomy, CT", "Overlay 1, PET", "Overlay 2, SPECT"]
    *values, place = texts(browser, *(f"value-{key}" for key in KEYS), "place")
    voxel = tuple(map(int, place.split("voxel ")[1].split(", ")))
    files = [nib.load(case.parent / f"secret_{key}.nii.gz") for key in KEYS]
    assert values[0] == f"{int(files[0].dataobj[voxel])} HU".replace("-", "\u2212")
    world = nib.affines.apply_affine(files[0].affine, voxel)
    # the second overlay was registered: the anatomy's place, moved, is its own
    for text, file, affine, moved, units in (
        (values[1], files[1], OVERLAY_AFFINE, np.eye(4), "SUV"),
        (values[2], files[2], SECOND_AFFINE, MOVED, "stored"),
    ):
        there = nib.affines.apply_affine(np.linalg.inv(affine) @ moved, world)
        expected = ndimage.map_coordinates(file.get_fdata(), there[:, None], order=1)[0]
        assert text.endswith(f" {units}")
        np.testing.assert_allclose(number(text), expected, atol=0.01)


@pytest.mark.parametrize("chosen", KEYS[1:])
def test_a_region_is_measured_in_all_sources(browser, case, chosen):
    radio(browser, chosen).click()
    choose(browser, "radius", 8)
    press(browser, picture(browser), Keys.ENTER)
    told, volumes = held(case.read_text(encoding="utf-8"))
    i, j, k = (size // 2 for size in SIZE)
    x, y = np.indices(SIZE[:2])
    inside = np.square((x - i) * 2.0) + np.square((y - j) * 1.5) <= 64
    table = browser.find_element("id", "region")
    assert [one.text for one in table.find_elements("css selector", "thead th")] == ["Mean", "SD", "Minimum", "Maximum"]
    for key in KEYS:
        cells = table.find_elements("css selector", f"#region-{key} td")
        values = volumes[key][:, :, k][inside]
        expected = [values.mean(), values.std(ddof=1), values.min(), values.max()]
        np.testing.assert_allclose([number(cell.text) for cell in cells], expected, atol=0.051)
        image = told["images"][key]
        assert texts(browser, f"measured-{key}") == [f"{image['title']}, {image['units']}"]
    assert table.size["width"] <= table.find_element("xpath", "..").size["width"]


def test_blend_checkerboard_and_flicker_are_of_the_chosen(browser):
    press(browser, picture(browser), "x", "2")
    sources = [pixels(browser, picture(browser, "axial", column))[MIDDLE] for column in ("anatomy", "overlay")]
    choose(browser, "blend", 100)
    np.testing.assert_allclose(pixels(browser, picture(browser, "axial", "third"))[MIDDLE], sources[1], atol=1)
    assert texts(browser, "title-third") == ["Blend with overlay 2 (SPECT)"]
    press(browser, picture(browser), "c")
    board = pixels(browser, picture(browser, "axial", "third"))[MIDDLE]
    like = [(np.abs(board - source).max(-1) <= 1).mean() for source in sources]
    assert min(like) > 0.25
    press(browser, picture(browser), "k")
    seen = set()

    def both(_):
        image = pixels(browser, picture(browser, "axial", "third"))[MIDDLE]
        seen.update(k for k, source in enumerate(sources) if (np.abs(image - source) <= 1).all())
        return seen == {0, 1}

    WebDriverWait(browser, 20).until(both)


def test_each_keeps_its_own_window_and_palette(browser):
    press(browser, picture(browser), "x")
    assert [browser.find_element("id", f"windows-{key}").is_displayed() for key in KEYS] == [True, True, False]
    first = pixels(browser, picture(browser, "axial", "overlay"))
    press(browser, picture(browser), "2")
    assert [browser.find_element("id", f"windows-{key}").is_displayed() for key in KEYS] == [True, False, True]
    names = [option.text for option in browser.find_elements("css selector", "#window-overlay2 option")]
    assert names[0] == "as fused (given)"
    before = pixels(browser, picture(browser, "axial", "overlay"))
    choose(browser, "window-overlay2", names.index("all values"))
    choose(browser, "palette-overlay2", "grey")
    second = pixels(browser, picture(browser, "axial", "overlay"))
    assert np.abs(second - before).mean() > 5
    press(browser, picture(browser), "1")
    np.testing.assert_allclose(pixels(browser, picture(browser, "axial", "overlay")), first, atol=1)
    press(browser, picture(browser), "2")
    np.testing.assert_allclose(pixels(browser, picture(browser, "axial", "overlay")), second, atol=1)


def test_the_projection_is_of_the_chosen(browser):
    canvas = browser.find_element("id", "mip")
    first = pixels(browser, canvas)
    assert canvas.get_attribute("aria-label").startswith("Maximum intensity projection of overlay 1 (PET), seen")
    press(browser, picture(browser), "2")
    assert pixels(browser, canvas).shape == first.shape
    assert np.abs(pixels(browser, canvas) - first).mean() > 20
    assert texts(browser, "mip-head") == ["Maximum intensity of overlay 2 (SPECT)"]


def test_an_overlay_without_uptake_has_no_projection(running, case, tmp_path):
    anatomy, first, fused = write_case(tmp_path)
    page = write_viewer(tmp_path / "case_fused.html", anatomy, [first, anatomy], fused)
    opened(running, page)
    section = running.find_element("id", "projection")
    running.find_element("id", "turn").click()
    press(running, picture(running), "2")
    assert not section.is_displayed()
    angle = running.find_element("id", "angle")
    stopped = angle.get_attribute("value")
    running.execute_async_script("setTimeout(arguments[0], 400)")
    assert angle.get_attribute("value") == stopped
    press(running, picture(running), "1")
    assert section.is_displayed()
    assert [entry["message"] for entry in running.get_log("browser")] == []


def test_of_one_overlay_there_is_nothing_to_choose(running, tmp_path):
    opened(running, write_viewer(tmp_path / "case_fused.html", *write_case(tmp_path)))
    assert not running.find_element("id", "overlays").is_displayed()
    assert running.find_elements("css selector", "input[type=radio]") == []
    running.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert not running.find_element("id", "overlay-keys").is_displayed()
    press(running, picture(running), "2")
    assert texts(running, "title-overlay", "title-third") == ["Overlay, PET", "Fused"]
