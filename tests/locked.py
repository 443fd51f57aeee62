"""What `make lock` wrote, read."""

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def requirements(path: Path) -> list[Requirement]:
    """The lines of a file of requirements."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def applies(requirement: Requirement, python: str) -> bool:
    """Whether a line counts on Linux, for a version of Python such as 3.11."""
    machine = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    return requirement.marker is None or requirement.marker.evaluate(machine)


def pins(path: Path, python: str) -> dict[str, str]:
    """The version of every package that a lock names for a version of Python, by canonical name."""
    found = {}
    for requirement in requirements(path):
        if applies(requirement, python):
            (version,) = requirement.specifier
            assert version.operator == "=="
            assert requirement.url is None
            assert found.setdefault(canonicalize_name(requirement.name), version.version) == version.version
    return found
