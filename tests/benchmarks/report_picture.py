"""A picture of a report, as the documentation shows it: simulated heads, fused by both bundles and two rules.

    python tests/benchmarks/report_picture.py docs/report.png [--folder runs/report]

The report stays in the folder. Drawn by a real Chromium (apt-get install chromium chromium-driver).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # first: tests has an evaluation/, too

from drawing.browser import INSTALL, chromium, is_installed, photographed

from fusion_nets.datalists import load_pairs
from fusion_nets.workflows import evaluate_methods, write_simulated_set

ROOT = Path(__file__).resolve().parents[2]
RULES = {"pointwise maximum": np.max, "pointwise mean": np.mean}
BUNDLES = {"DM-FNet": "dmfnet", "SMFusion": "smfusion"}
HEADS = {"count": 12, "seed": 20261127, "modalities": ("PT",), "shapes_share": 0.0}
METRICS = ("SSIM", "Qabf", "VIF", "MI", "Nabf")


def methods_of(folder: Path, datalist: Path) -> dict[str, Path]:
    """Where each method's images of the pairs lie, which are made here."""
    for bundle in BUNDLES.values():
        root = ROOT / "bundles" / bundle
        command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", root, "--datalist", datalist]
        command += ["--config_file", root / "configs" / "inference.json", "--output_dir", folder / bundle]
        subprocess.run(command, check=True)
    for rule, fuse in RULES.items():
        (folder / rule).mkdir(exist_ok=True)
        for pair in load_pairs(datalist):
            both = [np.asarray(Image.open(pair[key]).convert("L"), float) for key in ("anatomy", "overlay")]
            Image.fromarray(np.rint(fuse(both, axis=0)).astype(np.uint8)).save(folder / rule / f"{pair['name']}.png")
    return {name: folder / bundle for name, bundle in BUNDLES.items()} | {rule: folder / rule for rule in RULES}


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("output", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/report"))
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 2180), help="of what is seen, in pixels")
    arguments = parser.parse_args()
    if not is_installed():
        raise SystemExit(INSTALL)
    datalist = write_simulated_set(arguments.folder / "heads", **HEADS)["pairs"]
    report = arguments.folder / "report"
    evaluate_methods(load_pairs(datalist), methods_of(arguments.folder, datalist), report, metrics=METRICS)
    width, height = arguments.size
    size = {"width": width, "height": height, "deviceScaleFactor": 0.75, "mobile": False}
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((report / "report.html").resolve().as_uri())
        browser.execute_script("document.querySelectorAll('figure')[1].remove();")  # box plots, which take a page
        photographed(browser, arguments.output)


if __name__ == "__main__":
    main()
