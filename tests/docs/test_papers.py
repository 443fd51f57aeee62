"""CHANGELOG.md and CITATION.cff say what is so."""

import copy
import json
import re

import jsonschema
import pytest
import yaml
from pages import ROOT

from fusion_nets import __version__
from fusion_nets.moved import MODULES, NAMES

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
VERSIONS = re.findall(r"(?m)^## (\S+) - (\d{4}-\d\d-\d\d)$", CHANGELOG)
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

TEXT = {"type": "string", "minLength": 1}
AUTHORS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [
            {"type": "object", "required": ["name"], "properties": {"name": TEXT}, "additionalProperties": False},
            {
                "type": "object",
                "properties": {"family-names": TEXT, "given-names": TEXT},
                "minProperties": 1,
                "additionalProperties": False,
            },
        ]
    },
}
COMMON = {"title": TEXT, "authors": AUTHORS, "abstract": TEXT, "keywords": {"type": "array", "items": TEXT}}
SCHEMA = {
    "type": "object",
    "required": ["cff-version", "message", "title", "authors"],
    "additionalProperties": False,
    "properties": {
        **COMMON,
        "cff-version": {"const": "1.2.0"},
        "message": TEXT,
        "type": {"enum": ["software", "dataset"]},
        "version": TEXT,
        "license": TEXT,
        "references": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "title", "authors"],
                "additionalProperties": False,
                "properties": {
                    **COMMON,
                    "type": {"enum": ["article", "software", "conference-paper"]},
                    "journal": TEXT,
                    "year": {"type": "integer"},
                    "url": {"type": "string", "pattern": "^https://"},
                    "notes": TEXT,
                },
            },
        },
    },
}
"""What the Citation File Format 1.2.0 asks of the keys that are used here."""


def test_the_citation_is_one():
    jsonschema.Draft7Validator(SCHEMA).validate(CITATION)
    assert CITATION["version"] == __version__


@pytest.mark.parametrize("key", ["message", "title", "authors", "cff-version"])
def test_a_citation_that_lacks_something_is_noticed(key):
    lacking = copy.deepcopy(CITATION)
    del lacking[key]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(lacking)


def test_the_papers_are_those_of_the_bundles():
    """A card and a citation name the same paper."""
    assert CITATION["references"]
    for paper in CITATION["references"]:
        card = (ROOT / "bundles" / paper["notes"].rpartition(" ")[2] / "docs" / "README.md").read_text(encoding="utf-8")
        words = " ".join(card.split())
        assert f"{paper['title']}*" in words
        assert paper["url"] in words
        assert ", ".join(author["family-names"] for author in paper["authors"]) in words


def test_the_newest_version_is_this_one():
    assert VERSIONS[0][0] == __version__
    assert sorted(VERSIONS, key=lambda version: tuple(map(int, version[0].split("."))), reverse=True) == VERSIONS
    for metadata in ROOT.glob("bundles/*/configs/metadata.json"):
        assert set(json.loads(metadata.read_text())["changelog"]) <= {version for version, _ in VERSIONS}


def test_sections_are_those_of_keep_a_changelog():
    sections = re.findall(r"(?m)^### (.*)$", CHANGELOG)
    customary = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(sections) - customary == {"What was wrong in the model cards of 0.1"}


def test_everything_that_moved_is_told():
    rows = re.findall(r"(?m)^ *\| (`.*`) \| `([\w.]+)` \|$", CHANGELOG)
    told = {old: new for names, new in rows for old in re.findall(r"`([\w.]+)`", names)}
    modules = {old: new for old, new in told.items() if old.startswith("fusion_nets.")}
    assert modules == MODULES
    rooms = {f"fusion_nets.clinical.{name}": f"{told[name]}.{name}" for name in told.keys() - modules.keys()}
    assert rooms == {old: new for old, new in NAMES.items() if ".clinical." in old}
    for old, new in NAMES.items():
        assert f"`{old.rpartition('.')[2]}`" in CHANGELOG
        assert f"`{new.rpartition('.')[2]}`" in CHANGELOG


def test_links_lead_somewhere():
    for page in ("CHANGELOG.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert link.startswith("https://") or (ROOT / link).exists(), f"{page}: {link}"


def test_files_that_are_named_are_there():
    page = re.sub(r"(?s)^```.*?^```|<!--.*?-->", "", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M)
    named = re.findall(r"`((?:tests|docs|fusion_nets|evaluation)/[\w/.]+)`", page)
    assert "evaluation/functional/agreement.py" in named
    new = {"fusion_nets/clinical/mgh.py"}
    assert {name for name in named if not (ROOT / name).exists()} == new, "which the page adds"
