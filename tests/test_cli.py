import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import fusion_nets
from fusion_nets import cli, commands, datalists, drawing, registration, text, workflows
from fusion_nets.networks import DMFNet


def write_volume(path):
    volume = np.zeros((16, 16, 8), dtype=np.float32)
    volume[4:12, 4:12, 2:6] = 1
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)


def montage_arguments(folder, **replaced):
    """Arguments for three volumes of the folder, made when missing, or for those that replace them."""
    paths = {name: folder / f"{name}.nii.gz" for name in ("anatomy", "overlay", "fused")}
    for path in paths.values():
        if not path.exists():
            write_volume(path)
    named = [part for name, path in (paths | replaced).items() for part in (f"--{name}", str(path))]
    return ["montage", "--output", str(folder / "out" / "montage.png"), *named]


def assert_one_line(capsys, *words):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fusion-nets ")
    assert all(word in captured.err for word in words), captured.err


def test_sample(tmp_path, capsys):
    pytest.importorskip("nilearn")
    assert cli.main(["sample", "--output_dir", str(tmp_path / "demo"), "--spacing", "4", "--seed", "7"]) == 0
    printed = capsys.readouterr().out.splitlines()
    names = ["mri.nii.gz", "pet.nii.gz", "ct.nii.gz", "study.json", "pairs.json"]
    assert printed == [str(tmp_path / "demo" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == sorted(names)
    assert nib.load(printed[0]).header.get_zooms() == (4, 4, 4)
    assert b"seed 7" in nib.load(printed[1]).header["descrip"].item()


def test_montage_of_volumes(tmp_path, capsys):
    arguments = montage_arguments(tmp_path)
    assert cli.main([*arguments, "--titles", "MRI", "CT", "Fused", "--overlay_window", "0", "80", "--slices", "2"]) == 0
    path = tmp_path / "out" / "montage.png"
    assert capsys.readouterr().out == f"{path}\n"
    two = Image.open(path).size
    assert cli.main([*arguments, "--slices", "4"]) == 0
    assert Image.open(path).size[0] > 1.5 * two[0]


def test_montage_of_pictures(tmp_path):
    values = np.full((20, 30, 3), 90, dtype=np.uint8)
    values[2:5, 2:5] = (255, 0, 0)
    colour, grey, alpha = (str(tmp_path / f"{name}.png") for name in ("colour", "grey", "alpha"))
    Image.fromarray(values).save(colour)
    Image.fromarray(values).convert("L").save(grey)
    Image.fromarray(values).convert("RGBA").save(alpha)
    assert cli.main(montage_arguments(tmp_path, anatomy=grey, overlay=alpha, fused=colour)) == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "montage.png").convert("RGB"))
    red = (picture == (255, 0, 0)).all(axis=-1).any(axis=1)
    assert np.diff(red.astype(int)).tolist().count(1) == 2  # overlay and fused image


def test_what_the_montage_gets(tmp_path, monkeypatch):
    """Pictures with the range of their pixels and no affine, slices as volumes of one slice."""
    got = {}
    monkeypatch.setattr(drawing, "write_montage", lambda path, **how: got.update(how))
    deep, grey, single = (str(tmp_path / name) for name in ("deep.png", "grey.png", "single.nii"))
    values = np.arange(600, dtype=np.uint8).reshape(20, 30)
    Image.fromarray(values.astype(np.uint16) * 100).save(deep)
    Image.fromarray(values).save(grey)
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1, 2, 3, 1])), single)
    assert cli.main([*montage_arguments(tmp_path, anatomy=deep, overlay=grey, fused=single), "--slices", "3"]) == 0
    assert got["slices"] == 3
    assert got["windows"] == [(0, 65535), (0, 255), None]
    for name, factor in (("anatomy", 100), ("overlay", 1)):
        assert not hasattr(got[name], "affine")
        np.testing.assert_array_equal(got[name][0], values.astype(int) * factor)
    assert got["fused"][0].shape == (1, 20, 30, 1)
    np.testing.assert_array_equal(got["fused"][0].affine, np.diag([1, 2, 3, 1]))
    assert got["notes"] == []

    description = {"anatomy_text": "Axial MR.", "overlay_text": "Axial PET.", "fused_text": "Both.", "scores": {}}
    (tmp_path / "description.json").write_text(json.dumps(description))
    several = ["--fused", single, grey, "--titles", "MRI", "PET", "One", "Other"]
    arguments = [*montage_arguments(tmp_path, anatomy=deep, overlay=grey), *several]
    assert cli.main([*arguments, "--description", str(tmp_path / "description.json")]) == 0
    assert len(got["fused"]) == 2
    assert got["windows"] == [(0, 65535), (0, 255), None, (0, 255)]
    assert got["notes"] == ["MRI: Axial MR.", "PET: Axial PET.", "Other: Both."]

    assert cli.main([*montage_arguments(tmp_path, overlay=grey), "--overlay_window", "10", "200"]) == 0
    assert got["windows"] == [None, [10, 200], None]


def test_montage_of_slices_shows_the_patients_right_on_the_left(tmp_path):
    values = np.full((20, 30), 51, dtype=np.float32) / 255
    values[12:18, 22:28] = 0.9  # to the right and front
    path = str(tmp_path / "slice.nii")
    nib.save(nib.Nifti1Image(values[::-1], np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), path)
    assert cli.main(montage_arguments(tmp_path, anatomy=path, overlay=path, fused=path)) == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "montage.png").convert("L"))
    around, marker = picture == 51, abs(picture.astype(int) - 230) <= 1
    columns, marked = np.flatnonzero(around.sum(axis=0) > 100), np.flatnonzero(marker.sum(axis=0) > 100)
    assert marked.max() < columns.mean()
    rows, marked = np.flatnonzero(around.sum(axis=1) > 100), np.flatnonzero(marker.sum(axis=1) > 30)
    first, last = (np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)[k] for k in (0, -1))
    assert marked.min() < first.mean()
    assert not ((marked > first.mean()) & (marked <= first.max())).any()
    assert not (marked > last.mean()).any()


def test_seed_and_spacing_are_checked(tmp_path, capsys):
    assert cli.main(["sample", "--output_dir", str(tmp_path), "--spacing", "9"]) == 2
    assert_one_line(capsys, "sample", "spacing is 9 mm", "between 1 and 4 mm")
    assert cli.main(["sample", "--output_dir", str(tmp_path), "--seed", "-1"]) == 2
    assert_one_line(capsys, "seed is -1")


def test_output_folder_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["sample", "--output_dir", str(tmp_path / "file")]) == 2
    assert_one_line(capsys, str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["absent.nii.gz", "absent.png"])
def test_absent_file(tmp_path, capsys, name):
    assert cli.main(montage_arguments(tmp_path, overlay=str(tmp_path / name))) == 2
    assert_one_line(capsys, name, "no such file")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.nii.gz", "not a readable NIfTI"),
        ("text.png", "not a readable picture"),
        ("text.txt", "unknown kind of file"),
    ],
)
def test_file_of_another_kind(tmp_path, capsys, name, reason):
    (tmp_path / name).write_text("text")
    assert cli.main(montage_arguments(tmp_path, overlay=str(tmp_path / name))) == 2
    assert_one_line(capsys, name, reason, "accepted")


@pytest.mark.parametrize("part", ["compressed", "content"])
def test_truncated_volume(tmp_path, capsys, part):
    path = tmp_path / "overlay.nii.gz"
    whole = tmp_path / "whole.nii.gz"
    write_volume(whole)
    if part == "compressed":
        path.write_bytes(whole.read_bytes()[:-30])
    else:
        path.write_bytes(gzip.compress(gzip.decompress(whole.read_bytes())[:-1000]))
    assert cli.main(montage_arguments(tmp_path)) == 2
    assert_one_line(capsys, "overlay.nii.gz", "not a readable NIfTI image")
    assert not (tmp_path / "out").exists()


def test_sources_that_do_not_fit(tmp_path, capsys):
    picture = str(tmp_path / "picture.png")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(picture)
    assert cli.main(montage_arguments(tmp_path, overlay=picture)) == 2
    assert_one_line(capsys, "Overlay has 20 x 30 x 1 voxels, the anatomy 16 x 16 x 8")


def test_missing_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    assert cli.main(["sample", "--output_dir", str(tmp_path)]) == 2
    assert_one_line(capsys, "pip install fusion-nets[sample]")


def test_missing_engine(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in ("anatomy", "overlay"):
        Image.linear_gradient("L").resize((64, 48)).save(tmp_path / f"{name}.png")
    sources = [word for name in ("anatomy", "overlay") for word in (f"--{name}", str(tmp_path / f"{name}.png"))]
    assert cli.main(["fuse", *sources, "--output_dir", str(tmp_path / "out"), "--engine", "openvino"]) == 2
    assert_one_line(capsys, "engine is 'openvino'", 'pip install "fusion-nets[fast]"')


def test_import_weights_writes_what_a_bundle_loads(released, tmp_path, capsys):
    stage1, stage2 = released
    output = tmp_path / "models" / "model.pt"
    assert cli.main(["import-weights", "--stage1", str(stage1), "--stage2", str(stage2), "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    network = DMFNet()
    network.load_state_dict(torch.load(output, weights_only=True))
    wanted = torch.load(stage2, weights_only=True)["rgb_decode1.conv.weight"]
    assert torch.equal(network.fusion.head[2].weight, wanted)


def test_import_weights_names_the_file_that_does_not_fit(released, tmp_path, capsys):
    stage1, _ = released
    output = tmp_path / "model.pt"
    assert cli.main(["import-weights", "--stage1", str(stage1), "--stage2", str(stage1), "--output", str(output)]) == 2
    assert_one_line(capsys, "stage1.pt", "missing")
    assert not output.exists()


def devices(monkeypatch, count):
    """A machine with so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


COMPUTING = {
    "fuse": ["--anatomy", "a", "--overlay", "b", "--output_dir", "c"],
    "evaluate": ["--datalist", "a", "--method", "b=c", "--output_dir", "d"],
    "describe": ["--datalist", "a", "--output", "b"],
}


@pytest.mark.parametrize("command", COMPUTING)
@pytest.mark.parametrize(
    ("count", "asked", "got"),
    [
        (0, "auto", "cpu"),
        (0, None, "cpu"),
        (2, "auto", "cuda:0"),
        (2, None, "cuda:0"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_device(monkeypatch, command, count, asked, got):
    devices(monkeypatch, count)
    seen = []
    monkeypatch.setattr(commands, command, lambda arguments: seen.append(arguments.device))
    assert cli.main([command, *COMPUTING[command], *(["--device", asked] if asked else [])]) == 0
    assert seen == [got]


@pytest.mark.parametrize("command", COMPUTING)
@pytest.mark.parametrize(("count", "asked"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2"), (2, "gpu"), (2, "cuda:x")])
def test_device_that_is_not_there(monkeypatch, capsys, command, count, asked):
    devices(monkeypatch, count)
    assert cli.main([command, *COMPUTING[command], "--device", asked]) == 2
    assert_one_line(
        capsys, command, f"--device is '{asked}'", "accepted are auto, cpu" + ", cuda, cuda:0" * (count > 0)
    )


def test_fuse_computes_where_it_was_told(monkeypatch, capsys):
    devices(monkeypatch, 2)
    given = {}
    monkeypatch.setattr(workflows, "fuse_pair", lambda *paths, **how: given.update(how) or [])
    assert cli.main(["fuse", *COMPUTING["fuse"], "--device", "cuda:1"]) == 0
    assert given["device"] == torch.device("cuda:1")


SEVERAL = ["fuse", "--anatomy", "mri", "--overlay", "ct", "--overlay", "pet", "--output_dir", "out"]


def test_fuse_takes_what_each_overlay_has(monkeypatch):
    given = {}
    monkeypatch.setattr(workflows, "fuse_pair", lambda *paths, **how: given.update(how, paths=paths) or [])
    each = ["--overlay_modality", "CT", "--overlay_modality", "", "--overlay_window", "0", "80", "--overlay_window", ""]
    each += ["--register", "rigid", "--overlay_palette", "none", "--overlay_palette", "cold"]
    assert cli.main([*SEVERAL, *each, "--transform", "", "--transform", "a.tfm"]) == 0
    assert given["paths"] == ("mri", ["ct", "pet"], "out")
    assert given["overlay_modality"] == ["CT", ""]
    assert given["overlay_window"] == [[0, 80], None]
    assert given["overlay_palette"] == ["none", "cold"]
    assert given["transform"] == ["", "a.tfm"]
    assert (given["register"], given["overlay_volume"]) == ("rigid", None)


def test_fuse_takes_one_overlay_as_it_did(monkeypatch):
    given = {}
    monkeypatch.setattr(workflows, "fuse_pair", lambda *paths, **how: given.update(how, paths=paths) or [])
    assert cli.main(["fuse", *COMPUTING["fuse"], "--overlay_window", "brain", "--transform", "a.tfm"]) == 0
    assert given["paths"] == ("a", "b", "c")
    assert (given["overlay_window"], given["transform"], given["register"]) == ("brain", "a.tfm", None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            ["--overlay_modality", "CT"] * 3,
            "--overlay_modality has 3 values for 2 overlays; one for all or one for each",
        ),
        (["--register", "rigid"] * 3, "--register has 3 values for 2 overlays"),
        (["--overlay_window", "0", "1"] * 3, "--overlay_window has 3 values for 2 overlays"),
        (["--overlay_window", "0", "x"], "a window is LOW HIGH"),
        (["--overlay", "spect", "--overlay", "more"], "--overlay is given 4 times; up to 3"),
    ],
)
def test_other_numbers_of_values_are_refused(capsys, more, words):
    assert cli.main([*SEVERAL, *more]) == 2
    assert_one_line(capsys, "fuse", words)


def test_values_for_each_of_a_dataset_are_refused(capsys):
    assert cli.main(["fuse", "--bids_dir", "a", "--output_dir", "b", *["--register", "rigid"] * 2]) == 2
    assert_one_line(capsys, "fuse", "--register has 2 values for 1 overlay; one for all is accepted")


@pytest.mark.parametrize(
    "arguments",
    [
        ["view", "out", "--anatomy", "a", "--anatomy", "b", "--overlay", "c"],
        ["montage", "--anatomy", "a", "--overlay", "b", "--overlay", "c", "--fused", "d", "--output", "e.png"],
        ["fuse", "--anatomy", "a", "--anatomy", "b", "--overlay", "c", "--output_dir", "d"],
    ],
)
def test_what_takes_one_image_refuses_two(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "is given twice; one is accepted here" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "behind", "environment"])
def test_traceback(tmp_path, capsys, monkeypatch, place):
    """Where the error was found, above the line that is always there."""
    arguments = montage_arguments(tmp_path, overlay=str(tmp_path / "absent.png"))
    arguments = [*["--traceback"] * (place == "before"), *arguments, *["--traceback"] * (place == "behind")]
    if place == "environment":
        monkeypatch.setenv("FUSION_NETS_TRACEBACK", "1")
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert "in read_image" in error
    assert error.splitlines()[-1].startswith("fusion-nets montage: ")


@pytest.mark.parametrize("value", ["", "0", None])
def test_no_traceback_without_asking(tmp_path, capsys, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("FUSION_NETS_TRACEBACK", value)
    assert cli.main(montage_arguments(tmp_path, overlay=str(tmp_path / "absent.png"))) == 2
    assert_one_line(capsys, "absent.png")


class Naming:
    """Stands for a describer: tells its arguments, the modality and the shape."""

    def __init__(self, **how):
        self.configuration = {"kind": "naming", **how}

    def __call__(self, images):
        return [f"{image.meta.get('modality')} {tuple(image.shape)}" for image in images]


@pytest.fixture
def describers(monkeypatch):
    for name in ("MeasuredText", "GeneratedText"):
        monkeypatch.setattr(text, name, Naming, raising=False)


def write_pairs(folder, **more):
    folder.mkdir()
    for name in ("a", "b"):
        write_volume(folder / f"{name}.nii.gz")
    pairs = [{"anatomy": "a.nii.gz", "overlay": "b.nii.gz", "overlay_modality": "PT", **more}]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return str(folder / "pairs.json")


def test_describe_a_datalist(tmp_path, capsys, describers):
    pairs, output = write_pairs(tmp_path / "data"), tmp_path / "out" / "texts.json"
    assert cli.main(["describe", "--datalist", pairs, "--output", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "2/2" in captured.err
    written = json.loads(output.read_text())
    assert written["description"]["describer"] == {"kind": "naming"}
    assert written["pairs"][0] == {
        "anatomy": "../data/a.nii.gz",
        "overlay": "../data/b.nii.gz",
        "overlay_modality": "PT",
        "name": "a",
        "anatomy_text": "None (1, 16, 16, 8)",
        "overlay_text": "PT (1, 16, 16, 8)",
    }
    assert cli.main(["describe", "--datalist", pairs, "--output", str(output), "--per", "slice"]) == 0
    (pair,) = datalists.load_pairs(output)
    assert pair["overlay_text"] == ["PT (1, 16, 16)"] * 8


def test_describe_by_a_model(tmp_path, describers, monkeypatch):
    devices(monkeypatch, 2)
    pairs, output = write_pairs(tmp_path / "data"), tmp_path / "texts.json"
    arguments = ["describe", "--datalist", pairs, "--output", str(output), "--describer", "generated"]
    arguments += ["--model", "some/model", "--revision", "0" * 40, "--prompt", "Describe this {modality} image."]
    arguments += ["--batch_size", "4", "--device", "cuda:1", "--dtype", "bfloat16", "--max_new_tokens", "33"]
    assert cli.main(arguments) == 0
    assert json.loads(output.read_text())["description"]["describer"] == {
        "kind": "naming",
        "model": "some/model",
        "revision": "0" * 40,
        "prompt": "Describe this {modality} image.",
        "generation": {"max_new_tokens": 33},
        "batch_size": 4,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "download": False,
        "accept_research_licence": False,
    }


def test_describe_by_what_is_given(tmp_path, capsys):
    pairs, output = write_pairs(tmp_path / "data", anatomy_text="T1."), tmp_path / "texts.json"
    assert cli.main(["describe", "--datalist", pairs, "--output", str(output), "--describer", "given"]) == 2
    error = capsys.readouterr().err
    assert "b.nii.gz: came without a text" in error
    assert error.splitlines()[-1].startswith("fusion-nets describe: 1 of 1 pairs could not be described")
    assert not output.exists()


def test_describe_aanlib(tmp_path, describers):
    splits = {}
    for pair in datalists.AANLIB_PAIRS:
        splits[pair] = {section: [f"{section}.png"] for section in ("train", "val", "test")}
        for modality in ("MRI", pair.split("-")[0]):
            (tmp_path / "aanlib" / pair / modality).mkdir(parents=True)
            for section in splits[pair]:
                picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
                Image.fromarray(picture).save(tmp_path / "aanlib" / pair / modality / f"{section}.png")
    (tmp_path / "aanlib" / "splits.json").write_text(json.dumps(splits))
    arguments = ["describe", "--dataset_dir", str(tmp_path / "aanlib"), "--output", str(tmp_path / "texts.json")]
    assert cli.main([*arguments, "--section", "train", "test"]) == 0
    texts = {pair["name"]: pair["overlay_text"] for pair in datalists.load_pairs(tmp_path / "texts.json")}
    assert len(texts) == 6
    assert texts["SPECT-MRI_test"] == "NM (1, 8, 8)"
    assert cli.main(arguments) == 0
    assert len(datalists.load_pairs(tmp_path / "texts.json")) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--describer", "generated"], ["needs a --model"]),
        (["--model", "x"], ["--model belongs to --describer generated"]),
        (["--describer", "generated", "--model", "some/model"], ["some/model", "commit hash"]),
        (["--describer", "generated", "--model", "some/absent", "--revision", "0" * 40], ["`hf download some/absent"]),
    ],
)
def test_describe_says_what_to_mend(tmp_path, capsys, arguments, words):
    pairs = write_pairs(tmp_path / "data")
    assert cli.main(["describe", "--datalist", pairs, "--output", str(tmp_path / "texts.json"), *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fusion-nets describe: ")
    assert all(word in last for word in words), last


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["sample"], ["sample", "--output_dir", "x", "--seed", "a"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: fusion-nets" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["fusion_nets", "fusion_nets.cli"])
def test_runs_as_module_and_help_imports_nothing_heavy(module):
    shown = subprocess.run([sys.executable, "-X", "importtime", "-m", module, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in ("sample", "montage"))
    assert "argparse" in shown.stderr
    assert not any(heavy in shown.stderr for heavy in ("numpy", "torch", "nibabel", "matplotlib"))


PROMPT = """
import contextlib, io, sys
from fusion_nets import cli

(parsers,) = (action for action in cli.build_parser()._actions if isinstance(action.choices, dict))
for arguments in [["--help"], ["--version"], *([name, "--help"] for name in parsers.choices), ["fuse"], ["fusse"]]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            cli.main(arguments)
        except SystemExit as ended:
            assert ended.code == (0 if arguments[-1].startswith("--") else 2), said.getvalue()
pair = ["--anatomy", "a.png", "--overlay", "b.png", "--output_dir", "out"]
for arguments, reason in [
    (["fuse", *pair, "--describe"], "--describe belongs to --method smfusion"),
    (["fuse", *pair, "--overlay_window", "1", "2", "x"], "a window is LOW HIGH"),
    (["evaluate", "--datalist", "a.json", "--output_dir", "out", "--method", "a"], "NAME=FOLDER is accepted"),
    (["describe", "--datalist", "a.json", "--output", "b.json", "--describer", "generated"], "needs a --model"),
    (["describe", "--datalist", "a.json", "--output", "b.json", "--prompt", "What?"], "belongs to --describer"),
]:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert cli.main(arguments) == 2
    assert reason in said.getvalue(), said.getvalue()
print(len(parsers.choices), sorted({"torch", "monai", "numpy", "nibabel", "matplotlib"} & set(sys.modules)))
"""


def test_help_of_every_command_and_errors_of_options_import_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROMPT], capture_output=True, text=True)
    count, _, heavy = done.stdout.strip().partition(" ")
    assert (int(count or 0) >= 10, heavy) == (True, "[]"), done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert (stopped.value.code, capsys.readouterr().out) == (0, f"fusion-nets {fusion_nets.__version__}\n")


def test_montage_with_the_overlay_where_a_registration_puts_it(tmp_path):
    """An overlay that was moved, and its registration, give the picture of the one that was not."""
    from fusion_nets.registration import Registration, write_transform

    arguments = montage_arguments(tmp_path)
    assert cli.main(arguments) == 0
    wanted = np.asarray(Image.open(tmp_path / "out" / "montage.png"))
    matrix = np.eye(4)
    matrix[:3, 3] = 3, -2, 1
    overlay = nib.load(tmp_path / "overlay.nii.gz")
    nib.save(nib.Nifti1Image(overlay.get_fdata(), matrix @ overlay.affine), tmp_path / "overlay.nii.gz")
    write_transform(tmp_path / "a.tfm", Registration(matrix, "rigid", "rigid", None, None, ""))
    assert cli.main([*arguments, "--transform", str(tmp_path / "a.tfm")]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "montage.png")), wanted)


def test_montage_with_projections_of_the_overlay(tmp_path, capsys):
    """In its window; of a picture there are none, which is said before anything is drawn."""
    arguments = [*montage_arguments(tmp_path), "--mip", str(tmp_path / "mip.png"), "--overlay_window", "0", "2"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / "montage.png"), str(tmp_path / "mip.png")]
    grey = np.asarray(Image.open(tmp_path / "mip.png"))
    assert grey.ndim == 2
    assert grey.max() == 255
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    arguments[arguments.index("--overlay") + 1] = str(tmp_path / "a.png")
    arguments[arguments.index("--mip") + 1] = str(tmp_path / "other.png")
    assert cli.main(arguments) != 0
    assert "a.png: a picture has no projections" in capsys.readouterr().err
    assert not (tmp_path / "other.png").exists()


# what users write


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fuse", *COMPUTING["fuse"], "--regsiter", "rigid"], "arguments: --regsiter, perhaps '--register'"),
        (["fuse", *COMPUTING["fuse"], "--overlay-palette=hot"], "perhaps '--overlay_palette'"),
        (["describe", *COMPUTING["describe"], "--modle", "x"], "perhaps '--model'"),
        (["montage", "--antomy", "a"], "arguments: --antomy, perhaps '--anatomy'"),
        (["fuse", *COMPUTING["fuse"], "--register", "rigd"], "perhaps 'rigid'"),
        (["convrt", "a", "b"], "perhaps 'convert'"),
        (["fuse", *COMPUTING["fuse"], "rigid"], "unrecognized arguments: rigid\n"),
    ],
)  # fmt: skip
def test_what_is_misspelt_is_told_with_the_nearest_right_one(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "usage: fusion-nets" in error
    assert words in error


def test_what_the_advice_says_is_an_option(monkeypatch):
    """Of a registration that cannot be used: a flag of the command line takes no value."""
    sources = "".join(path.read_text() for path in Path(registration.__file__).parent.glob("*.py"))
    advice = set(re.findall(r"--register\w*(?: \w+)?(?=[ ,.;])", sources))
    assert advice >= {"--register none", "--register_fallback to"}
    monkeypatch.setattr(commands, "fuse", lambda arguments: None)
    for words in advice:
        assert cli.main(["fuse", *COMPUTING["fuse"], *words.removesuffix(" to").split()]) == 0


@pytest.mark.parametrize("option", ["--overlay_palette", "--settings", "--regions", "--transform", "--bundle_root"])
@pytest.mark.parametrize("value", ["$__import__('pathlib').Path('mark').touch()", "@device", "%a#b"])
def test_options_are_data(tmp_path, monkeypatch, capsys, option, value):
    """Which are refused as they are."""
    monkeypatch.chdir(tmp_path)
    write_volume("a.nii.gz")
    sources = ["--anatomy", "a.nii.gz", "--overlay", "a.nii.gz"]
    assert cli.main(["fuse", *sources, "--output_dir", "out", option, value, "--method", "smfusion"]) == 2
    assert value in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_folders_and_names_that_are_no_unicode(tmp_path):
    """Printed as they are."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    made = [sys.executable, "-m", "fusion_nets", "montage", "--output", folder + b"/a.png"]
    write_volume(tmp_path / "a.nii.gz")
    for name in ("anatomy", "overlay", "fused"):
        made += [f"--{name}", str(tmp_path / "a.nii.gz")]
    done = subprocess.run(made, capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == folder + b"/a.png\n"


@pytest.mark.parametrize("read", ["anatomy", "overlay", "fused"])
def test_a_montage_is_not_written_over_what_it_shows(tmp_path, capsys, read):
    for name in ("anatomy", "overlay", "fused"):
        Image.linear_gradient("L").save(tmp_path / f"{name}.png")
    (tmp_path / "link.png").symlink_to(tmp_path / f"{read}.png")
    before = (tmp_path / f"{read}.png").read_bytes()
    named = [part for name in ("anatomy", "overlay", "fused") for part in (f"--{name}", str(tmp_path / f"{name}.png"))]
    for output in (f"{read}.png", "link.png"):
        assert cli.main(["montage", "--output", str(tmp_path / output), *named]) == 2
        assert_one_line(capsys, output, "which is read")
    assert (tmp_path / f"{read}.png").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"anatomy_text": "a"}', 5000 * "["])
def test_a_description_that_is_none(tmp_path, capsys, content):
    (tmp_path / "a.json").write_text(content)
    assert cli.main([*montage_arguments(tmp_path), "--description", str(tmp_path / "a.json")]) == 2
    assert_one_line(capsys, "a.json: no description")


def test_weights_are_not_written_over_what_they_are_made_of(released, capsys):
    stage1, stage2 = released
    before = stage2.read_bytes()
    for output in (stage1, stage2):
        files = ["--stage1", str(stage1), "--stage2", str(stage2), "--output", str(output)]
        assert cli.main(["import-weights", *files]) == 2
        assert_one_line(capsys, "which is read")
    assert stage2.read_bytes() == before


def test_a_datalist_is_not_written_over_an_image(tmp_path, capsys, describers):
    pairs = write_pairs(tmp_path / "data")
    before = (tmp_path / "data" / "a.nii.gz").read_bytes()
    assert cli.main(["describe", "--datalist", pairs, "--output", str(tmp_path / "data" / "a.nii.gz")]) == 2
    assert_one_line(capsys, "a.nii.gz", "which is read")
    assert (tmp_path / "data" / "a.nii.gz").read_bytes() == before
