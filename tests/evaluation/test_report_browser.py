"""The page in Chromium, from disk, as a user opens it."""

import shutil

import numpy as np
import pytest

from evaluation.report import Comparison, Example, Failure, Picture, Score, boxplots, montage, report_html

selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000"),
)
METHODS = ["ours", "theirs", "10th"]


@pytest.fixture(scope="module")
def comparison():
    generator = np.random.default_rng(0)
    scores = [
        Score(f"case {i}", method, {"Qabf": 0.5 + 0.1 * place + 0.1 * generator.random(), "MSE": 9.0 + 10**i}, "PET")
        for place, method in enumerate(METHODS)
        for i in range(3)
    ]
    scores[0] = scores[0]._replace(values={"Qabf": float("nan"), "MSE": 5.0})
    failures = [Failure("case 9", "theirs", "the fused image: no image of this pair")]
    return Comparison(METHODS, {"Qabf": True, "MSE": False}, scores, failures)


@pytest.fixture(scope="module")
def browser(comparison, tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("report")
    image = np.linspace(0, 1, 4096).reshape(64, 64)
    example = Example("case 1", [image, image.T], [image**2, image**3, image.T])
    figures = [
        Picture(montage([example], METHODS), montage([example], METHODS, True), "Images", "", "images"),
        Picture(boxplots(comparison), boxplots(comparison, True), "Metrics", "", "box plots"),
    ]
    (folder / "report.html").write_text(report_html(comparison, figures, ["a note"]), encoding="utf-8")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = selenium.Chrome(options=options, service=selenium.ChromeService(executable_path=driver))
    try:
        running.get((folder / "report.html").as_uri())
        yield running
    finally:
        running.quit()


def test_it_renders(browser, comparison):
    assert browser.title == "3 fusion methods compared"
    text = browser.find_element("tag name", "body").text
    for words in ("1 image could not be measured", "case 9", "Figure 2", "Paired differences", "a note"):
        assert words in text
    mean = comparison.summary("ours", "MSE").mean
    assert f"{mean:.2f}" in text


def test_its_pictures_load(browser):
    sizes = browser.execute_script("return Array.from(document.images, (i) => [i.complete, i.naturalWidth])")
    assert len(sizes) == 2
    assert all(complete and width > 0 for complete, width in sizes)


def test_the_dark_page_has_the_dark_pictures(browser):
    shown = "return Array.from(document.images, (i) => i.currentSrc.slice(-40))"
    light = browser.execute_script(shown)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    try:
        paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        wait = WebDriverWait(browser, 30)  # a picture changes some time after the page's colours do
        wait.until(lambda browser: all(a != b for a, b in zip(light, browser.execute_script(shown), strict=True)))
        sizes = browser.execute_script("return Array.from(document.images, (i) => i.naturalWidth)")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(sizes) > 0
    assert max(map(int, paper[4:-1].split(", "))) < 60


def column(browser, number):
    """Of the table of all cases."""
    rows = "return Array.from(document.querySelectorAll('.tall tbody tr'), (r) => r.cells[arguments[0]].textContent)"
    return browser.execute_script(rows, number)


def head(browser, number):
    return browser.find_elements("css selector", ".tall thead th")[number]


def test_tables_sort_by_click(browser):
    button = head(browser, 2).find_element("tag name", "button")
    button.click()
    assert head(browser, 2).get_attribute("aria-sort") == "descending"  # the better first
    values = column(browser, 2)
    assert values[-1] == "\u2013"  # what has no value comes last, whichever way
    numbers = [float(value) for value in values[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    button.click()
    assert head(browser, 2).get_attribute("aria-sort") == "ascending"
    values = column(browser, 2)
    assert values[-1] == "\u2013"
    assert [float(value) for value in values[:-1]] == sorted(numbers)


def test_lower_is_better_starts_with_the_lowest_and_numbers_sort_as_numbers(browser):
    head(browser, 3).find_element("tag name", "button").click()
    assert head(browser, 3).get_attribute("aria-sort") == "ascending"
    assert head(browser, 2).get_attribute("aria-sort") is None
    numbers = [float(value) for value in column(browser, 3)]
    assert numbers == sorted(numbers)
    assert numbers[0] == 5
    assert numbers[-1] == 109


@pytest.mark.parametrize("key", ["\ue007", " "])
def test_tables_sort_by_keyboard(browser, key):
    before = head(browser, 1).get_attribute("aria-sort")
    head(browser, 1).find_element("tag name", "button").send_keys(key)
    after = head(browser, 1).get_attribute("aria-sort")
    assert after == ("descending" if before == "ascending" else "ascending")
    methods = column(browser, 1)
    assert methods == sorted(methods, key=["10th", "ours", "theirs"].index, reverse=after == "descending")


def test_its_console_is_clean(browser):
    assert browser.get_log("browser") == []


def test_nothing_is_wider_than_a_telephone(browser):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    widths = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [390, 390]
