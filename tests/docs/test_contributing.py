"""CONTRIBUTING.md's examples that change the library, done to a copy of it; test-docs runs the others."""

import doctest
import os
import re
import shutil
import subprocess
import sys

import pytest
from pages import ROOT, SUITE, blocks

pytestmark = pytest.mark.slow

EXAMPLES = [block for block in blocks(ROOT / "CONTRIBUTING.md") if block.runner == SUITE]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The library with all that the page adds to it."""
    folder = tmp_path_factory.mktemp("changed")
    for top in ("evaluation", "fusion_nets"):
        shutil.copytree(ROOT / top, folder / top, ignore=shutil.ignore_patterns("__pycache__"))
    for block in EXAMPLES:
        if block.language == "diff":
            apply(block.code, folder)
        for mark in block.marks:
            if mark.startswith("into: "):
                file = folder / mark.removeprefix("into: ")
                before = f"{file.read_text(encoding='utf-8')}\n\n" if file.exists() else ""
                file.write_text(before + block.code, encoding="utf-8")
    return folder


def apply(diff, folder):
    """Replace what a diff without line numbers names, which must stand in its file once."""
    for name, change in re.findall(r"^--- (\S+)\n(.*?)(?=^--- |\Z)", diff, re.MULTILINE | re.DOTALL):
        text = (folder / name).read_text(encoding="utf-8")
        for hunk in change.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
            assert text.count(old) == 1, f"CONTRIBUTING.md changes lines of {name} that are not there:\n{old}"
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")


def python(arguments, copy, folder):
    variables = {**os.environ, "PYTHONPATH": str(copy), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", [block for block in EXAMPLES if block.prints is not None], ids=str)
def test_what_is_added_works_as_shown(block, copy, tmp_path):
    said = python(["-c", block.code], copy, tmp_path)
    assert doctest.OutputChecker().check_output(block.prints, said, doctest.NORMALIZE_WHITESPACE), said


def test_the_metric_that_is_added_is_whole(copy, tmp_path):
    code = """
import doctest
import evaluation.functional.agreement as added
from evaluation.functional import FUSION_METRICS
from evaluation.report.glossary import MEANINGS

print(added.__file__)
print("MAE" in FUSION_METRICS, list(FUSION_METRICS) == list(MEANINGS))
print(doctest.run_docstring_examples(added.mean_absolute_error, vars(added)))
"""
    file, *said = python(["-c", code], copy, tmp_path).splitlines()
    assert file.startswith(str(copy))
    assert said == ["True True", "None"], "and a failed example would be printed"


def test_what_is_added_is_written_as_the_rest(copy):
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(copy)]
    for check in (["check"], ["format", "--check"]):
        python(["-m", "ruff", *check, *settings], copy, copy)


@pytest.mark.parametrize("diff", ["--- a.py\n one\n+two\n", "--- a.py\n-three\n+one\n"])
def test_a_change_of_what_is_not_there_is_noticed(tmp_path, diff):
    (tmp_path / "a.py").write_text("one\none\n")
    with pytest.raises(AssertionError, match="not there"):
        apply(diff, tmp_path)
