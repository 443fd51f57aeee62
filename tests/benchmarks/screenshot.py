"""A picture of a viewer's page, as the documentation shows it: crosshair and a circle where the overlay is hottest.

    python tests/benchmarks/screenshot.py demo/dmfnet/head_fused.html docs/view.png

Drawn by a real Chromium (apt-get install chromium chromium-driver).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # first: tests has an evaluation/, too

from drawing.browser import INSTALL, chromium, is_installed, opened, photographed
from drawing.viewed import held

AT = """
const [place, radius] = arguments;
for (const slider of document.querySelectorAll("#sliders input")) {
  slider.value = place[slider.dataset.axis];
  slider.dispatchEvent(new Event("input"));
}
document.getElementById("radius").value = radius;
document.getElementById("circle").click();
"""
DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("page", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 1278), help="of what is seen, in pixels")
    parser.add_argument(
        "--scale", type=float, default=0.828, help="pixels of the picture for each (default: %(default)s)"
    )
    parser.add_argument("--radius", type=int, default=6, help="of the circle, in mm (default: %(default)s)")
    arguments = parser.parse_args()
    if not is_installed():
        raise SystemExit(INSTALL)
    overlay = held(arguments.page.read_text(encoding="utf-8"))[1]["overlay"]
    hottest = [int(place) for place in np.unravel_index(overlay.argmax(), overlay.shape)]
    width, height = arguments.size
    size = {"width": width, "height": height, "deviceScaleFactor": arguments.scale, "mobile": False}
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        opened(browser, arguments.page.resolve(), 300)
        browser.execute_script(AT, hottest, arguments.radius)
        browser.execute_async_script(DRAWN)
        photographed(browser, arguments.output)


if __name__ == "__main__":
    main()
