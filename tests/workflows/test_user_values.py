"""What users say stays as it is in a configuration."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run

from fusion_nets.workflows.user_values import check_options, check_values, set_values

CONFIGS = [
    Path(__file__).parents[2] / "bundles" / name / "configs" / "inference.json" for name in ("dmfnet", "smfusion")
]

HOSTILE = (
    "$__import__('pathlib').Path('{mark}').touch()",
    "$import pathlib",
    "$",
    "$1 +",
    "@network_def",
    "@",
    "@@##name",
    "%",
    "%output_dir",
    "%/etc/passwd.json#a",
    "a#b::c",
    "#",
    "{modality} %s %d ${HOME}",
    "__import__('os')",
    "'; touch {mark} #",
    "\ud800",
)


@pytest.fixture(params=HOSTILE)
def hostile(request, tmp_path):
    """A string that would touch a file, or change, if it were taken for code."""
    mark = tmp_path / "mark"
    yield request.param.replace("{mark}", str(mark))
    assert not mark.exists()


def test_values_arrive_as_they_are(hostile, tmp_path):
    """At any depth, in entries that others take by reference, in an expression or by a macro."""
    values = {"name": hostile, "list": [hostile, {hostile: [hostile]}], "inner::0::value": hostile, "none": None}
    config = {
        "name": "its own",
        "list": [],
        "none": 1,
        "inner": [{"value": "its own"}],
        "by_reference": {"of": ["@name", "@list"]},
        "by_expression": "$[@name, @list][0] + 'x'",
        "by_macro": "%name",
        "made": {"_target_": "builtins.dict", "name": "@name", "none": "@none"},
    }
    parser = ConfigParser(config)
    set_values(parser, values)
    assert parser.get_parsed_content("by_reference") == {"of": [hostile, values["list"]]}
    assert parser.get_parsed_content("by_expression") == f"{hostile}x"
    assert parser.get_parsed_content("by_macro") == hostile
    assert parser.get_parsed_content("made") == {"name": hostile, "none": None}
    assert parser.get_parsed_content("inner") == [{"value": hostile}]
    parser.parse(reset=True)  # as a workflow does when it is initialised
    assert parser.get_parsed_content("list") == values["list"]


def test_values_are_set_one_after_another():
    parser = ConfigParser({"a": 1, "b": 2})
    set_values(parser, {"a": "$3"})
    set_values(parser, {"b": "@a", "a": "$4"})
    assert (parser.get_parsed_content("a"), parser.get_parsed_content("b")) == ("$4", "@a")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parents[1].name)
def test_every_entry_of_a_bundle_takes_any_string(config, hostile, tmp_path):
    """All that are a value in the file are data when they are set."""
    entries = json.loads(config.read_text())
    plain = [name for name, value in entries.items() if not isinstance(value, (dict, list))]
    workflow = ConfigWorkflow(str(config), workflow_type="inference", logging_file=False)
    set_values(workflow.parser, dict.fromkeys(plain, hostile))
    workflow.initialize()
    assert {name: workflow.parser.get_parsed_content(name) for name in plain} == dict.fromkeys(plain, hostile)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("regsiter", "unknown option 'regsiter', perhaps 'register'; accepted are .*, register, "),
        ("overlay_textt", "perhaps 'overlay_text'"),
        ("inferer#sw_batch_sise", "unknown option 'inferer#sw_batch_sise'"),
        ("inferer#_target_", "code"),
        ("handlers#7#_disabled_", "unknown option"),
        ("_user_values_", "unknown option"),
        ("$register", "unknown option '\\$register', perhaps 'register'"),
    ],
)
def test_options_that_there_are_not(name, words):
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS[0]))
    check_options(parser, {"inferer#sw_batch_size": 2, "register": "$x", "handlers#0#_disabled_": True})
    with pytest.raises(ValueError, match=words):
        check_options(parser, {name: "x"}, ("overlay_text",))


@pytest.mark.parametrize("nested", [lambda code: code, lambda code: [1, {"a": code}], lambda code: {"a": [code]}])
def test_configurations_are_no_values(nested):
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS[0]))
    with pytest.raises(ValueError, match=r"network_def: .* is code"):
        check_options(parser, {"network_def": nested({"_target_": "os.system", "command": "true"})})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("anatomy_window", "overlay_window")
          for value in ([1], [0, 1, 2], [0, None], [0, "1"], [0, float("nan")], [0, float("inf")], [0, 10**400], {}, 7,
                        [[0, 1]], [True, 2])),
        *(("transform", value) for value in (7, [], {}, [[1]], np.eye(3), np.full((4, 4), np.nan), [[None] * 4] * 4)),
        *((name, value) for name in ("register", "overlay_palette") for value in (7, None, ["none"], {})),
    ],
)  # fmt: skip
def test_values_of_another_kind(name, value):
    with pytest.raises(ValueError, match=f"^{name} is .* accepted"):
        check_values({name: value})


def test_values_as_they_should_be():
    for window in (None, "brain", [0, 8], (0.5, 8), np.array([0, 8])):
        check_values({"anatomy_window": window, "overlay_window": window})
    for transform in (None, "a.tfm", Path("a.tfm"), np.eye(4), np.eye(4).tolist(), torch.eye(4)):
        check_values({"transform": transform})


BUNDLES = Path(__file__).parents[2] / "bundles"


def commands():
    """Every configuration that runs, alone and with all that may come on top of it."""
    for root in sorted(BUNDLES.glob("*/configs")):
        files = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.glob("*.json"))}
        files.pop("metadata.json")
        own = [name for name, entries in files.items() if "initialize" in entries]
        yield from ((root, [name]) for name in own)
        for name in files:
            if name.startswith("multi_gpu_"):
                yield root, ["train.json" if "train" in name else "inference.json", name]


@pytest.mark.parametrize(("root", "names"), commands(), ids=lambda value: getattr(value, "parent", value))
def test_a_command_sets_nothing_that_no_configuration_has(root, names):
    configs = [str(root / name) for name in names]
    with pytest.raises(SystemExit, match=r"unknown option 'output_dri', perhaps 'output(_dir)?'; accepted are"):
        run(config_file=configs, output_dri="out")


def test_configurations_that_run_look_at_what_commands_set():
    told = {(root.parent.name, *names) for root, names in commands()}
    runs = {
        (path.parents[1].name, path.name)
        for path in BUNDLES.glob("*/configs/*.json")
        if "run" in (entries := json.loads(path.read_text(encoding="utf-8"))) and "bundle_root" in entries
    }
    assert runs
    assert {(bundle, name) for bundle, name in runs if (bundle, name) not in told} == set()


@pytest.fixture
def known(tmp_path):
    config = {
        "initialize": [{"_target_": "fusion_nets.workflows.check_arguments"}],
        "deep": {"_target_": "builtins.dict", "inner": [1, 2]},
        "size": 1,
        "file": "made",
        "told": "$[@size, @deep]",
        "run": ["$pathlib.Path(@file).write_text(str(@told))"],
        "imports": ["$import pathlib"],
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": 3}, [3, {"inner": [1, 2]}]),
        ({"deep#more": 4}, [1, {"inner": [1, 2], "more": 4}]),
        ({"deep::inner::0": 5, "run_id": "run", "logging_file": False}, [1, {"inner": [5, 2]}]),
        ({"_meta_#version": "2"}, [1, {"inner": [1, 2]}]),
    ],
)
def test_what_a_command_may_set(known, tmp_path, given, told):
    run(config_file=str(known), file=str(tmp_path / "made"), **given)
    assert (tmp_path / "made").read_text() == str(told)


@pytest.mark.parametrize("name", ["siez", "deeper", "workflow"])
@pytest.mark.parametrize("how", ["argument", "file", "second"])
def test_what_a_command_may_not_set(known, tmp_path, name, how):
    given = {"file": str(tmp_path / "made"), name: 3}
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({**given, "config_file": str(known)} if how == "file" else {}))
    (tmp_path / "second.json").write_text('{"size": 2}')
    files = [str(known), str(tmp_path / "second.json")] if how == "second" else str(known)
    with pytest.raises(SystemExit, match=f"unknown option '{name}'"):
        run(args_file=str(arguments)) if how == "file" else run(config_file=files, **given)
    assert not (tmp_path / "made").exists()


def test_a_second_file_of_ones_own_brings_what_it_likes(known, tmp_path):
    (tmp_path / "second.json").write_text('{"mine": 2, "told": "$@mine"}')
    run(config_file=[str(known), str(tmp_path / "second.json")], file=str(tmp_path / "made"), mine=7)
    assert (tmp_path / "made").read_text() == "7"
