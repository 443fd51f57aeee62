"""What MONAI says of itself on the way does not reach a user."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).parents[1] / "bundles"
LOADS = """
from monai.transforms import LoadImage
LoadImage()
"""
PREPARES = """
import sys
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config(sys.argv[1])
parser["bundle_root"] = sys.argv[2]
assert "fusion_nets" not in sys.modules
print(parser.get_parsed_content("preprocessing").transforms[0])
"""


def said(code, *arguments):
    """By a process of its own, where nothing was imported before and warnings are as a user has them."""
    run = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def test_a_decoder_that_nobody_asked_for_is_not_missed():
    if "nvImageCodec" not in said(LOADS):
        pytest.skip("needs a MONAI that misses it")
    assert said("import fusion_nets" + LOADS) == ""


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_nor_by_a_bundle_that_monai_runs(method):
    told = said(PREPARES, BUNDLES / method / "configs" / "inference.json", BUNDLES / method)
    assert "LoadImaged" in told
    assert "nvimage" not in told.lower()
    assert "NvImgCodec" not in told
