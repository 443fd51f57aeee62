"""Options of every command and program: their names and no others."""

import argparse
import ast
from pathlib import Path

import pytest

from fusion_nets import cli
from fusion_nets.commands import checks

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


FUSED = ["fuse", "--anatomy", "a", "--overlay", "b", "--output_dir", "c"]
RECEIVED = ["receive", "--spool", "a", "--rules", "b", "--to", "dicom://C@d:1", "--port", "0", "--allow", "E"]
EVALUATED = ["evaluate", "--method", "a=b", "--output_dir", "c"]
DESCRIBED = ["describe", "--datalist", "a.json", "--output", "b.json"]
GENERATED = ["--describer", "generated", "--model", "folder"]
LISTED = ["--datalist", "a.json"]


@pytest.mark.parametrize(
    ("command", "option", "of", "told"),
    [
        (FUSED, ["--describe"], ["--method", "smfusion"], "--method smfusion"),
        ([*FUSED, "--register", "none"], ["--register_limits", "2"], ["--register", "rigid"], "a registration"),
        ([*FUSED, "--register", "none"], ["--register_fallback"], ["--register", "auto"], "a registration"),
        ([*FUSED, "--transform", "a.tfm"], ["--register_fallback"], None, "a registration"),
        (["view", "c"], ["--anatomy_modality", "MR"], ["--anatomy", "a", "--overlay", "b"], "--anatomy and --overlay"),
        (["view", "c"], ["--overlay_series_uid", "1"], ["--anatomy", "a", "--overlay", "b"], "--anatomy and --overlay"),
        (RECEIVED, ["--poll_from_start"], ["--poll", "http://localhost"], "--poll"),
        ([*EVALUATED, *LISTED], ["--section", "val"], None, "--dataset_dir"),
        ([*EVALUATED, "--lesions", "d"], ["--section", "val"], None, "--dataset_dir"),
        (["lesions", *LISTED, "--output_dir", "c"], ["--section", "val"], None, "--dataset_dir"),
        (DESCRIBED, ["--section", "val"], None, "--dataset_dir"),
        (DESCRIBED, ["--model", "folder"], ["--describer", "generated"], "--describer generated"),
        (DESCRIBED, ["--revision", "0" * 40], GENERATED, "--describer generated"),
        (DESCRIBED, ["--prompt", "What?"], GENERATED, "--describer generated"),
        (DESCRIBED, ["--max_new_tokens", "0"], GENERATED, "--describer generated"),
        (DESCRIBED, ["--dtype", "float32"], GENERATED, "--describer generated"),
        (DESCRIBED, ["--download"], GENERATED, "--describer generated"),
        ([*DESCRIBED, "--describer", "given"], ["--accept_research_licence"], GENERATED, "--describer generated"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(command, option, of, told, capsys):
    assert cli.main([*command, *option]) == 2
    assert capsys.readouterr().err.strip() == f"fusion-nets {command[0]}: {option[0]} belongs to {told}" + (
        ", and none is asked for" if told == "a registration" else ""
    )
    checks.check_options(PARSER.parse_args(command))
    if of:
        checks.check_options(PARSER.parse_args([*without(command, of), *of, *option]))


def without(command, of):
    """The command, and not the option that is given another value."""
    if of[0] not in command:
        return command
    at = command.index(of[0])
    return [*command[:at], *command[at + 2 :]]


def test_of_several_overlays_one_that_is_registered_is_enough():
    moved = [*FUSED, "--overlay", "d", "--transform", "a.tfm", "--transform"]
    checks.check_options(PARSER.parse_args([*moved, "", "--register_fallback", "--register_limits", "2"]))
    with pytest.raises(ValueError, match="--register_fallback belongs to a registration"):
        checks.check_options(PARSER.parse_args([*moved, "b.tfm", "--register_fallback"]))
    one_of_them = [*FUSED, "--overlay", "d", "--register", "none", "--register"]
    checks.check_options(PARSER.parse_args([*one_of_them, "affine", "--register_fallback"]))
    with pytest.raises(ValueError, match="--register_fallback belongs to a registration"):
        checks.check_options(
            PARSER.parse_args(
                [*one_of_them, "affine", "--transform", "", "--transform", "b.tfm", "--register_fallback"]
            )
        )


@pytest.mark.parametrize("command", [["evaluate", "--method", "a=b"], ["lesions"], ["describe"]])
def test_a_section_of_a_dataset(command):
    ends = ["--output", "c.json"] if command == ["describe"] else ["--output_dir", "c"]
    arguments = PARSER.parse_args([*command, *ends, "--dataset_dir", "a", "--section", "val", "test"])
    checks.check_options(arguments)
    assert arguments.section == ["val", "test"]
