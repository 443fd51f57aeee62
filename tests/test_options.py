"""Options of every command and program: their names and no others."""

import argparse
import ast
from pathlib import Path

import pytest

from fusion_nets import cli

ROOT = Path(__file__).resolve().parents[1]
PARSER = cli.build_parser()
(COMMANDS,) = (action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))


def beginnings(options):
    """Of every option what is none itself, from the third letter on, and the option with a letter too many."""
    for option in options:
        yield from (option[:end] for end in range(5, len(option)) if option[:end] not in options)
        yield f"{option}s"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("value", [[], ["x"], "="])
def test_no_beginning_of_an_option_is_taken_for_it(command, value, capsys):
    """Nor is what is missing told instead."""
    options = [option for option in COMMANDS[command]._option_string_actions if option.startswith("--")]
    assert len(options) > 2
    for word in beginnings(options):
        with pytest.raises(SystemExit) as stopped:
            PARSER.parse_known_args([command, f"{word}=x"] if value == "=" else [command, word, *value])
        told = capsys.readouterr().err
        assert stopped.value.code == 2
        assert f"fusion-nets {command}: error: unrecognized arguments: {word}" in told
        meant = told.rpartition(", perhaps '")[2].rstrip("'\n")
        assert meant in options
        assert meant.startswith(word.rstrip("s")) or word.startswith(meant)


def test_nor_before_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--trace", "sample", "--output_dir", "x"])
    assert stopped.value.code == 2
    assert "--trace, perhaps '--traceback'" in capsys.readouterr().err


def test_what_only_looks_like_an_option_is_a_value():
    arguments, unknown = PARSER.parse_known_args(["convert", "a", "--volume=--b=1000", "--units", "-- stored", "c"])
    assert (arguments.volume, arguments.units, arguments.destination, unknown) == ("--b=1000", "-- stored", "c", [])


def test_every_program_of_the_repository_does_so():
    programs = [*(ROOT / "tests").rglob("*.py"), *(ROOT / ".ci").glob("*.py"), *(ROOT / "docs").rglob("*.py")]
    made = [
        (program.name, node)
        for program in programs
        for node in ast.walk(ast.parse(program.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser")
    ]
    assert len(made) > 8
    for name, call in made:
        assert [key.value.value for key in call.keywords if key.arg == "allow_abbrev"] == [False], name
