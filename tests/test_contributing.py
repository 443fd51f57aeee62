"""What CONTRIBUTING.md shows works; CHANGELOG.md and CITATION.cff know the version that is there."""

import re
from pathlib import Path

import yaml

from fusion_nets import __version__

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_worked_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(blocks) == 6
    names = {"__name__": "contributing"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"CONTRIBUTING.md, block {number}", "exec"), names)


def test_files_that_are_named_are_there():
    for page in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all((ROOT / link).is_file() for link in re.findall(r"\]\((?!http)([^)#]+)\)", text))
        named = re.findall(r"`((?:tests|docs|fusion_nets|evaluation)/[\w/.]+)`", text)
        assert named
        assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_newest_entry_is_this_version():
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert newest == __version__


def test_the_citation():
    """The required keys of the Citation File Format 1.2.0, and this version."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", __version__)
    assert citation["license"] == "Apache-2.0"
    assert all(reference["title"] and reference["authors"] for reference in citation["references"])
