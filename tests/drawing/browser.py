"""A real Chromium that opens a page from disk, for tests and for pictures of the documentation."""

import base64
import io
import shutil
from contextlib import contextmanager

from PIL import Image

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000"),
)
INSTALL = "needs Chromium: apt-get install chromium chromium-driver"
READY = "return document.documentElement.dataset.ready === 'true' && Number(document.documentElement.dataset.drawn) > 0"


def is_installed():
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def chromium(folder, more=()):
    """One with a profile of its own in a folder and more flags, whose logs tell what it requests."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, *more, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=driver)
    try:
        yield browser
    finally:
        browser.quit()


def opened(browser, page, seconds=60):
    """A viewer's page, once it is drawn."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(page.as_uri())
    WebDriverWait(browser, seconds).until(lambda browser: browser.execute_script(READY))
    return browser


def photographed(browser, output):
    """What is seen, as a PNG of 256 colours, which is half as large."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    picture = Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")
    picture.quantize(256).save(output, optimize=True)
    print(output)
