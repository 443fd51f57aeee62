"""What the documentation says of MONAI Label, done in its environment."""

from dataclasses import replace

import nibabel as nib
import pytest
from asking import SLICES, few_slices
from pages import LABEL, ROOT, Newcomer, blocks, pages

BLOCKS = [block for page in pages() for block in blocks(page) if block.runner == LABEL]
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def address(label_server, sample_study, tmp_path_factory):
    """Of a server as `make label` starts it, but for its port, and that the sample study is cut to a few slices."""
    folder = tmp_path_factory.mktemp("sample")
    for name in ("mri", "pet", "ct"):
        few_slices(sample_study[name], folder / f"{name}.nii.gz", SLICES["head"])
    server = label_server(ROOT / "bundles" / "monailabel", folder, {"models": "dmfnet,smfusion"})
    yield server.url
    server.stop()


def test_commands(address, tmp_path):
    assert any(ADDRESS in block.code for block in BLOCKS)
    newcomer = Newcomer(tmp_path)
    for block in BLOCKS:
        newcomer.does(replace(block, code=block.code.replace(ADDRESS, address)))
    assert nib.load(newcomer.folder / "fused.nii.gz").ndim >= 3
