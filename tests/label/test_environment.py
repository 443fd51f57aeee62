import re
from importlib.metadata import version

import pytest
from label_server import INSTALL, ROOT, monailabel

PINNED = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "bundles/monailabel/requirements.txt").read_text(), re.MULTILINE)


def test_names_what_binds_it():
    assert {"monailabel", "monai", "torch", "torchvision", "pydicom", "highdicom", "setuptools"} <= set(dict(PINNED))


@pytest.mark.parametrize(("name", "pinned"), PINNED)
def test_is_made_of_what_is_written_down(name, pinned):
    monailabel()
    assert version(name).split("+")[0] == pinned, INSTALL
