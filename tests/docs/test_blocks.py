"""That every command of the documentation is run by a test, and that what is generated cannot go stale."""

import argparse
import importlib.util
import json
import re

import pytest
from pages import CI, HERE, LABEL, LANGUAGES, ROOT, SUITE, TRAVEL, Block, Newcomer, blocks, pages

from fusion_nets.cli import build_parser

ALL = [block for page in pages() for block in blocks(page)]
RUN = [block for block in ALL if block.language in LANGUAGES]


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_every_block_is_run_by_a_test():
    assert len(RUN) > 20
    for block in ALL:
        assert block.language in (*LANGUAGES, "text", "json") or (block.language, block.runner) == ("diff", SUITE), (
            f"{block}: no test runs {block.language or 'such blocks'}"
        )
        if block.runner == SUITE:
            assert block.page == "CONTRIBUTING.md", f"{block}: test_contributing.py runs no other page"
        if block.language in LANGUAGES:
            assert block.indent == 0, f"{block}: is indented"
            assert block.runner in (HERE, LABEL, TRAVEL, CI, SUITE), f"{block}: nothing is run by {block.runner}"
            assert all(mark == "fails" or mark.startswith(("run by: ", "into: ")) for mark in block.marks), (
                f"{block}: {block.marks}"
            )
    for page in pages():
        ticks = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(ticks) == 2 * sum(block.page == str(page.relative_to(ROOT)) for block in ALL)
        assert not re.search(r"^(    |\t)(fusion-nets|python|make|pip|torchrun|\$) ", page.read_text(), re.MULTILINE)


def test_what_needs_another_environment_is_run_there():
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    made = re.findall(r"^(?:together|alone) ([\w -]+)$", ci, re.MULTILINE)
    targets = {target for line in made for target in line.split()}
    for target in {HERE, *(block.runner for block in RUN)} - {CI}:
        assert re.search(rf"^{target.removeprefix('make ')}:", makefile, re.MULTILINE)
        assert target.removeprefix("make ") in targets
    cards = "".join(path.read_text() for path in ROOT.glob("bundles/*/docs/README.md"))
    for block in RUN:
        if block.runner == TRAVEL:
            assert block.code in cards, f"{block}: is in no model card"
        if block.runner == CI:
            for line in block.code.splitlines():
                make, *asked = line.partition("#")[0].split()
                assert make == "make", f"{block}: {line}"
                assert set(asked) <= targets, f"{block}: {line}"


def test_json_of_the_pages_is_json():
    for block in ALL:
        if block.language == "json":
            json.loads(block.code)


@pytest.mark.parametrize(
    ("code", "language", "marks", "prints", "holds"),
    [
        ("echo one; ls", "bash", (), "one\nbundles\n", True),
        ("echo one", "bash", (), "two\n", False),
        ("echo a 1.234 b", "bash", (), "a ... b\n", True),
        ("false", "bash", (), None, False),
        ("false | true", "bash", (), None, False),
        ("echo no >&2; exit 3", "bash", ("fails",), "no\n", True),
        ("true", "bash", ("fails",), None, False),
        ("print(6 * 7)", "python", (), "42\n", True),
        ("assert False", "python", (), None, False),
        ("fusion-nets --help", "bash", (), "usage: fusion-nets...", True),
    ],
)
def test_a_newcomer_notices(tmp_path, code, language, marks, prints, holds):
    newcomer = Newcomer(tmp_path)
    block = Block("page.md", 1, language, code, 0, marks, prints)
    if holds:
        newcomer.does(block)
    else:
        with pytest.raises(AssertionError):
            newcomer.does(block)


def test_python_goes_on_from_block_to_block(tmp_path):
    newcomer = Newcomer(tmp_path)
    newcomer.does(Block("page.md", 1, "python", "x = 1", 0, (), None))
    newcomer.does(Block("page.md", 2, "python", "print(x)", 0, (), "1"))


def test_blocks_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n<!-- run by: make test-label -->\n<!-- fails -->\n```bash\nls\n```\n\n```text\nx\n```\n\n"
        "```python\n1\n```\nwords\n```text\ny\n```\n"
    )
    first, _, third, _ = blocks(page)
    assert (first.runner, first.marks[-1], first.prints, first.line) == (LABEL, "fails", "x\n", 5)
    assert (third.runner, third.marks, third.prints) == (HERE, (), None)


# --- what is generated


def test_options_of_every_configuration_are_told():
    generated, page = module("generated"), (ROOT / "docs" / "reference" / "options.md").read_text()
    told = re.findall(r"<!-- generated: options (\w+\.json) -->", page)
    there = {path.name: path.read_text() for path in ROOT.glob("bundles/*/configs/*.json")}
    assert set(told) <= set(there)
    assert {name for name, config in there.items() if '"bundle_root"' in config} <= set(told), (
        "one that can be run alone"
    )
    mentioned = set()
    for name in told:
        table = generated.options(name)
        rows = [line.split("`")[1] for line in table.splitlines()[2:]]
        expected = {
            option
            for bundle in ("dmfnet", "smfusion")
            for option in generated.chosen_by_user(ROOT / "bundles" / bundle / "configs" / name)
        }
        assert sorted(rows) == sorted(expected)
        mentioned |= expected
    assert mentioned == set(generated.MEANINGS), "a meaning of no option"
    inference = json.loads((ROOT / "bundles" / "dmfnet" / "configs" / "inference.json").read_text())
    plain = {key for key, value in inference.items() if value is None or isinstance(value, (bool, int, float, str))}
    assert plain - generated.WIRING <= mentioned
    assert set(generated.WIRING) & {"datalist", "weights"} == set()


def test_an_option_without_a_meaning_is_noticed(monkeypatch):
    generated = module("generated")
    monkeypatch.delitem(generated.MEANINGS, "register")
    with pytest.raises(ValueError, match=r"inference\.json: MEANINGS says nothing of register"):
        generated.options("inference.json")


def test_every_command_and_option_is_in_the_command_line_reference():
    text = module("generated").command_line()
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for action in command._actions:
            if action.option_strings and action.dest not in ("help", "traceback"):  # of which the page's head tells
                assert f"| `{action.option_strings[0]}" in section, f"{name} {action.option_strings[0]}"
                assert action.help or action.choices, f"{name} {action.option_strings[0]} says nothing"
    assert "%(" not in text


def test_every_metric_has_a_section():
    from evaluation import FUSION_METRICS

    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    sections = dict(re.findall(r"(?ms)^## ([\w-]+): [^\n]+\n(.*?)(?=^## |\Z)", page))
    assert [name for name in sections if name in FUSION_METRICS] == list(FUSION_METRICS)
    for name, metric in FUSION_METRICS.items():
        section = sections[name]
        assert "$$" in section, name
        assert ("**Higher is better**" in section) == metric.higher_is_better, name
        for word in ("Range", "Constants", "Source", "Elsewhere"):
            assert f"**{word}**" in section, (name, word)
        assert "```python" in section, name


def test_every_room_has_a_page():
    api = module("api") if importlib.util.find_spec("griffe") else None
    written = re.findall(
        r"(?m)^::: ([\w.]+)$", "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    )
    rooms = {
        ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).relative_to(ROOT).parts)
        for top in ("fusion_nets", "evaluation")
        for path in [
            *(ROOT / top).rglob("__init__.py"),
            ROOT / "fusion_nets/bids.py",
            ROOT / "fusion_nets/datalists.py",
            ROOT / "fusion_nets/files.py",
        ]
        if "__all__" in path.read_text()
    }
    others = {"evaluation.functional"}, {"fusion_nets.commands", "fusion_nets.options"}
    assert set(written) == rooms.difference(*others), "handed on by evaluation; the page of the command line's own"
    if api:
        assert set(api.PACKAGES) == set(written)
