"""The viewer's page in Chromium, from disk, as a user opens it."""

import base64
import io
import json
import re

import nibabel as nib
import numpy as np
import pytest
from drawing.browser import INSTALL, chromium, is_installed, opened
from drawing.viewed import OVERLAY_AFFINE, RECORD, SIZE, held, write_case
from PIL import Image

from fusion_nets.drawing import write_viewer

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
ActionChains = selenium.ActionChains
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
NAME = "</script><script>hacked=1</script>"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    images = write_case(folder)
    return write_viewer(folder / "case_fused.html", *images, record=RECORD, name=NAME)


@pytest.fixture(scope="module")
def running(case):
    if not is_installed():
        pytest.skip(INSTALL)
    with chromium(case.parent) as browser:
        yield browser


@pytest.fixture
def browser(running, case):
    """The page anew, drawn."""
    running.set_window_size(1280, 1000)
    return opened(running, case)


def picture(browser, plane="axial", column="anatomy"):
    return browser.find_element("css selector", f"canvas[data-plane={plane}][data-column={column}]")


def pixels(browser, canvas):
    """What is drawn, once all that was asked for is: (rows, columns, 3) in [0, 255]."""
    url = browser.execute_async_script(
        "const done = arguments[1];"
        "requestAnimationFrame(() => requestAnimationFrame(() => done(arguments[0].toDataURL())));",
        canvas,
    )
    content = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def press(browser, canvas, *keys):
    browser.execute_script("arguments[0].focus()", canvas)
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def choose(browser, control, value):
    browser.execute_script(
        "const control = document.getElementById(arguments[0]); control.value = arguments[1];"
        "for (const kind of ['input', 'change']) control.dispatchEvent(new Event(kind));",
        control,
        value,
    )


def number(text):
    return float(text.replace("\u2212", "-").split()[0])


def told(browser):
    """Heading, both values, place (RAS, mm) and voxel, as the page tells them."""
    text = {
        name: browser.find_element("id", name).text for name in ("at-head", "value-anatomy", "value-overlay", "place")
    }
    where, voxel = text["place"].split("; voxel ")
    place = [float(mm) * (1 if side in "RAS" else -1) for side, mm in re.findall(r"([RLAPSI]) ([\d.]+)", where)]
    return text["at-head"], text["value-anatomy"], text["value-overlay"], place, tuple(map(int, voxel.split(", ")))


def at_share(canvas, across, down):
    """A pointer over a picture, at shares of its width and height."""
    size = canvas.size
    return canvas, round((across - 0.5) * size["width"]), round((down - 0.5) * size["height"])


def test_every_picture_is_drawn(browser):
    assert browser.title == f"{NAME}: fused study"
    canvases = browser.find_elements("css selector", "canvas[data-plane]")
    assert len(canvases) == 9
    for canvas in canvases:
        assert pixels(browser, canvas).std() > 20
    titles = [browser.find_element("id", f"title-{column}").text for column in ("anatomy", "overlay", "third")]
    assert titles == ["Anatomy, CT", "Overlay, PET", "Fused"]


def test_the_patients_right_is_on_the_left(browser):
    """A bright corner lies at the right, front and top of the patient."""
    press(browser, picture(browser), "x")  # without the crosshair
    for plane, steps, rows, columns in (
        ("axial", [(2, -9)], slice(0, 0.12), slice(0, 0.12)),
        ("coronal", [(1, -21)], slice(0, 0.12), slice(0, 0.12)),
        ("sagittal", [(0, -19)], slice(0, 0.12), slice(0, 0.12)),
    ):
        for axis, step in steps:
            slider = browser.find_element("css selector", f"#sliders input[data-axis='{axis}']")
            value = int(slider.get_attribute("value")) + step
            browser.execute_script(
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, value
            )
        image = pixels(browser, picture(browser, plane))
        height, width = image.shape[:2]
        corner = image[int(0.06 * height) : int(rows.stop * height), int(0.02 * width) : int(columns.stop * width)]
        assert corner.mean() > 200, plane
        other = image[int(0.06 * height) : int(rows.stop * height), -int(columns.stop * width) : -int(0.02 * width)]
        assert other.mean() < 60, plane
    text = "the patient's right is on the left"
    assert text in browser.find_element("id", "view").text
    press(browser, picture(browser), "s")
    assert text not in browser.find_element("id", "view").text
    mirrored = pixels(browser, picture(browser, "coronal"))
    height, width = mirrored.shape[:2]
    assert mirrored[int(0.06 * height) : int(0.12 * height), -int(0.12 * width) : -int(0.02 * width)].mean() > 200


@pytest.mark.parametrize(
    ("plane", "across", "down"), [("axial", 0.3, 0.4), ("coronal", 0.62, 0.55), ("sagittal", 0.4, 0.7)]
)
def test_a_click_tells_what_the_files_hold_there(browser, case, plane, across, down):
    ActionChains(browser).move_to_element_with_offset(*at_share(picture(browser, plane), across, down)).perform()
    head, *hovered = told(browser)
    assert head == "Under the pointer"
    ActionChains(browser).click().perform()
    _, anatomy, overlay, place, voxel = told(browser)
    assert [anatomy, overlay, place, voxel] == hovered
    file = nib.load(case.parent / "secret_anatomy.nii.gz")
    assert anatomy == f"{int(file.dataobj[voxel])} HU".replace("-", "\u2212")
    np.testing.assert_allclose(nib.affines.apply_affine(file.affine, voxel), place, atol=0.051)
    extent = dict(zip("xyz", np.multiply(SIZE, (2, 1.5, 3)), strict=True))
    low = dict(zip("xyz", (-42, -32.25, -21.5), strict=True))  # the edge of the outermost voxel
    h, v = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}[plane]
    # right, front and top are on the left and above
    for axis, share in ((h, across), (v, down)):
        expected = low[axis] + (1 - share) * extent[axis]
        assert abs(place["xyz".index(axis)] - expected) <= 2.1
    overlay_file = nib.load(case.parent / "secret_overlay.nii.gz").get_fdata()
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(OVERLAY_AFFINE), place)).astype(int)
    near = overlay_file[tuple(slice(max(n - 1, 0), n + 2) for n in there)]
    assert overlay.endswith(" SUV")
    assert near.min() - 0.01 <= number(overlay) <= near.max() + 0.01


def test_the_crosshairs_are_linked(browser):
    before = {plane: pixels(browser, picture(browser, plane, "third")) for plane in ("axial", "coronal", "sagittal")}
    ActionChains(browser).move_to_element_with_offset(
        *at_share(picture(browser, "axial", "overlay"), 0.26, 0.3)
    ).click().perform()
    for plane, image in before.items():
        assert (pixels(browser, picture(browser, plane, "third")) != image).any(), plane
    slices = {
        name.get_attribute("data-axis"): name.get_attribute("value")
        for name in browser.find_elements("css selector", "#sliders input")
    }
    assert slices["0"] == "10"
    assert int(slices["1"]) in (13, 14)


def test_the_blend_goes_from_anatomy_to_overlay(browser):
    press(browser, picture(browser), "x")
    third = picture(browser, "axial", "third")
    shown = {}
    for percent in (0, 50, 100):
        choose(browser, "blend", percent)
        shown[percent] = pixels(browser, third)
    middle = (slice(60, -60), slice(60, -60))  # without letters
    assert browser.find_element("id", "mode").get_attribute("value") == "blend"
    np.testing.assert_allclose(shown[0][middle], pixels(browser, picture(browser))[middle], atol=1)
    np.testing.assert_allclose(
        shown[100][middle], pixels(browser, picture(browser, "axial", "overlay"))[middle], atol=1
    )
    np.testing.assert_allclose(shown[50][middle], (shown[0][middle] + shown[100][middle]) / 2, atol=3)
    assert np.abs(shown[0][middle] - shown[100][middle]).mean() > 20


def test_checkerboard_and_flicker_show_both(browser):
    press(browser, picture(browser), "x", "c")
    middle = (slice(60, -60), slice(60, -60))
    sources = [pixels(browser, picture(browser, "axial", column))[middle] for column in ("anatomy", "overlay")]
    board = pixels(browser, picture(browser, "axial", "third"))[middle]
    like = [(np.abs(board - source).max(-1) <= 1).mean() for source in sources]
    assert min(like) > 0.25
    assert max(like) < 0.9
    press(browser, picture(browser), "k")
    seen = set()

    def both(_):
        image = pixels(browser, picture(browser, "axial", "third"))[middle]
        seen.update(k for k, source in enumerate(sources) if (np.abs(image - source) <= 1).all())
        return seen == {0, 1}

    WebDriverWait(browser, 20).until(both)


def test_windows_by_name_and_palettes_change_the_picture(browser):
    press(browser, picture(browser), "x")
    before = pixels(browser, picture(browser))
    names = [option.text for option in browser.find_elements("css selector", "#window-anatomy option")]
    assert names[0] == "as fused (given)"
    choose(browser, "window-anatomy", names.index("bone"))
    ends = [browser.find_element("id", f"{end}-anatomy").get_attribute("value") for end in ("low", "high")]
    assert ends == ["-500", "1300"]
    bone = pixels(browser, picture(browser))
    assert np.abs(bone - before).mean() > 5
    choose(browser, "palette-anatomy", "grey_inverted")
    middle = (slice(60, 120), slice(40, 120))
    np.testing.assert_allclose(255 - pixels(browser, picture(browser))[middle], bone[middle], atol=1)


def test_a_region_is_measured_in_both_sources(browser, case):
    choose(browser, "radius", 8)
    press(browser, picture(browser), Keys.ENTER)
    *_, voxel = told(browser)
    _, volumes = held(case.read_text(encoding="utf-8"))
    i, j, k = (39 - voxel[0], voxel[1], 19 - voxel[2])
    x, y = np.indices(SIZE[:2])
    inside = np.square((x - i) * 2.0) + np.square((y - j) * 1.5) <= 64
    cells = browser.find_elements("css selector", "#region td")
    got = np.array([number(cell.text) for cell in cells]).reshape(4, 2)
    for column, key in enumerate(("anatomy", "overlay")):
        values = volumes[key][:, :, k][inside]
        np.testing.assert_allclose(
            got[:, column], [values.mean(), values.std(ddof=1), values.min(), values.max()], atol=0.051
        )
    assert f"{inside.sum()} voxels, {inside.sum() * 3:.0f} mm\u00b2" in browser.find_element("id", "region-where").text
    press(browser, picture(browser), Keys.ESCAPE)
    assert not browser.find_element("id", "region").is_displayed()
    chain = (
        ActionChains(browser).key_down(Keys.SHIFT).move_to_element_with_offset(*at_share(picture(browser), 0.4, 0.4))
    )
    chain.click_and_hold().move_to_element_with_offset(*at_share(picture(browser), 0.6, 0.6)).release().key_up(
        Keys.SHIFT
    ).perform()
    assert re.search(r"axial, slice 11: \d\d+ voxels", browser.find_element("id", "region-where").text)


def test_the_keyboard_does_it_all(browser):
    *_, start = told(browser)
    press(browser, picture(browser), Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.PAGE_UP)
    head, *_, place = told(browser)
    assert head == "At the crosshair"
    # to the patient's right, front and head, along the file's axes
    assert place == (start[0] + 1, start[1] - 1, start[2] + 1)
    spoken = browser.find_element("id", "spoken")
    assert spoken.get_attribute("aria-live") == "polite"
    assert "HU" in spoken.text
    for key, mode in (("b", "blend"), ("c", "checkerboard"), ("k", "flicker"), ("f", "fused")):
        press(browser, picture(browser), key)
        assert browser.find_element("id", "mode").get_attribute("value") == mode
    press(browser, picture(browser), Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("data-column") == "overlay"
    assert focused.get_attribute("aria-label") == f"Overlay, PET, axial, slice {SIZE[2] - place[2]} of 20"
    unnamed = (
        "return Array.from(document.querySelectorAll('input, select, button, canvas[tabindex]'))"
        ".filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).length"
    )
    assert browser.execute_script(unnamed) == 0


def test_the_projection_turns(browser):
    canvas = browser.find_element("id", "mip")
    front = pixels(browser, canvas)
    assert front.std() > 20
    choose(browser, "angle", 90)
    side = pixels(browser, canvas)
    assert np.abs(front - side).mean() > 1
    assert "patient's left" in canvas.get_attribute("aria-label")
    choose(browser, "angle", 180)
    # from behind, the same lines of sight run the other way
    back = pixels(browser, canvas)[40:-40, 30:-30]
    assert np.corrcoef(back.ravel(), front[40:-40, 30:-30][:, ::-1].ravel())[0, 1] > 0.98
    browser.find_element("id", "turn").click()
    WebDriverWait(browser, 20).until(
        lambda browser: browser.find_element("id", "angle").get_attribute("value") != "180"
    )


@pytest.mark.parametrize("width", [1280, 800])
def test_it_fits(browser, width):
    browser.set_window_size(width, 1000)
    WebDriverWait(browser, 20).until(lambda browser: browser.execute_script("return window.innerWidth") == width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for canvas in browser.find_elements("css selector", "canvas[data-plane]"):
        assert canvas.size["width"] > 120
        assert pixels(browser, canvas).std() > 20


def test_strings_stay_data_nothing_is_requested_and_the_console_is_clean(browser, case):
    assert RECORD["record"]["regions"]["warnings"][0] in browser.find_element("id", "warnings").text
    assert browser.execute_script("return [window.hacked, document.images.length]") == [None, 0]
    browser.execute_script("fetch('https://example.org/').catch(() => { window.refused = true; })")
    WebDriverWait(browser, 20).until(lambda browser: browser.execute_script("return window.refused"))
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert case.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "chrome:", "data:"))] == []  # of the empty tab, too
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert [words for words in said if "example.org" not in words] == []  # but for what was asked for just now
    assert said != []
