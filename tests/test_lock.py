"""The locks hold all that is asked for, on every Python that is named; `make check-lock` asks for wheels, too."""

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.locked import ROOT, applies, pins, requirements

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [
    Requirement(text) for part in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for text in part
]
LOCK = ROOT / "constraints.txt"
LABEL = ROOT / "bundles" / "monailabel"
PYTHONS = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]


def admitted(asked, locked):
    """Fails at the first requirement whose pin is missing or outside of its range."""
    for requirement in asked:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: make lock"
        assert version in requirement.specifier, f"{requirement}, and {version} is locked: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_asked_for_is_pinned(python):
    admitted((one for one in ASKED if one.name != PROJECT["name"] and applies(one, python)), pins(LOCK, python))


def test_every_python_that_is_named_is_asked_for():
    assert PYTHONS == ["3.10", "3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == ">=3.10,<3.14"


def test_torch_comes_without_cuda():
    locked = pins(LOCK, "3.11")
    assert locked["torch"] == "2.13.0"
    assert not [name for name in locked if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_monai_label_has_all_that_is_asked_for():
    locked = pins(LABEL / "requirements.txt", "3.11")
    admitted(requirements(LABEL / "requirements.in"), locked)
    asked = PROJECT["dependencies"] + [
        text for name in ("sample", "minilm") for text in PROJECT["optional-dependencies"][name]
    ]
    admitted(map(Requirement, asked), locked)


@pytest.mark.parametrize("path", [LOCK, LABEL / "requirements.txt"], ids=lambda path: path.name)
def test_names_no_place_to_get_it_from(path):
    content = path.read_text(encoding="utf-8")
    assert "://" not in content
    assert not re.search(r"(?m)^-", content)
