import json
import shutil

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from fusion_nets import cli
from fusion_nets.datalists import aanlib_pairs, load_pairs
from fusion_nets.text import parse_findings, truth_findings
from fusion_nets.workflows import simulating, write_simulated_set

pytest.importorskip("nilearn")

OPTIONS = {"size": 64, "seed": 4, "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "set"
    write_simulated_set(folder, 7, **OPTIONS)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def picture(path):
    return np.asarray(Image.open(path)).astype(int)


def test_a_set_is_a_training_folder_and_a_datalist(folder):
    pairs = load_pairs(folder / "pairs.json")
    assert len(pairs) == 7
    assert [pair["pair"] for pair in pairs[:3]] == ["CT-MRI", "PET-MRI", "SPECT-MRI"]
    trained = aanlib_pairs(folder, "train")
    assert {pair["name"] for pair in trained} == {pair["name"] for pair in pairs}
    same = load_decathlon_datalist(str(folder / "pairs.json"), data_list_key="pairs")
    assert [pair["anatomy"] for pair in same] == [pair["anatomy"] for pair in pairs]
    assert all(picture(pair[key]).shape == (64, 64) for pair in pairs for key in ("anatomy", "overlay"))


def test_pictures_differ_where_the_map_says(folder):
    for pair in load_pairs(folder / "pairs.json"):
        kind, name = pair["pair"], pair["name"].rpartition("_")[2]
        overlay, anatomy = kind.split("-")
        differs = np.zeros((64, 64), dtype=bool)
        for source in (anatomy, overlay):
            without = picture(folder / kind / "without_lesions" / source / f"{name}.png")
            differs |= picture(folder / kind / source / f"{name}.png") != without
        lesions = picture(folder / kind / "lesions" / f"{name}.png")
        assert not (differs & (lesions == 0)).any()
        truth = json.loads((folder / kind / "truth" / f"{name}.json").read_text())
        assert set(np.unique(lesions)) - {0} == {lesion["label"] for lesion in truth["lesions"]}


def test_texts_say_the_truth(folder):
    told = 0
    for pair in load_pairs(folder / "pairs.json"):
        truth = json.loads((folder / pair["pair"] / "truth" / f"{pair['name'][-6:]}.json").read_text())
        for source in ("anatomy", "overlay"):
            findings = parse_findings(pair[f"{source}_text"])
            assert findings == truth_findings(truth, source)
            told += len(findings)
    assert told


def test_card_and_sheet_show_the_set(folder):
    card = (folder / "README.md").read_text()
    assert "7 pairs of 64 x 64 pixels" in card
    assert "3 CT-MRI, 2 PET-MRI, 2 SPECT-MRI" in card
    assert "What it is not" in card
    assert Image.open(folder / "contact_sheet.png").size == (8 * 128, 6 * 128)


def test_a_stopped_run_goes_on(folder, tmp_path, monkeypatch):
    written, write = [], simulating._write_pair

    def interrupted(*arguments):
        if len(written) == 3:
            raise KeyboardInterrupt
        write(*arguments)
        written.append(arguments)

    monkeypatch.setattr(simulating, "_write_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_simulated_set(tmp_path / "set", 7, **OPTIONS)
    assert not (tmp_path / "set" / "pairs.json").exists()
    monkeypatch.setattr(simulating, "_write_pair", lambda *a: written.append(a) or write(*a))
    write_simulated_set(tmp_path / "set", 7, **OPTIONS)
    assert len(written) == 7
    assert contents(tmp_path / "set") == contents(folder)


def test_what_is_cut_short_is_made_again(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    there = sorted(path for path in (tmp_path / "set").glob("*-MRI/**/*") if path.is_file())
    assert {path.suffix for path in there} == {".png", ".json"}
    for number, path in enumerate(there[::5]):
        path.write_bytes([b"", path.read_bytes()[:-1], path.read_bytes()[:100]][number % 3])
    there[1].unlink()
    write_simulated_set(tmp_path / "set", 7, **OPTIONS)
    assert contents(tmp_path / "set") == contents(folder)


def test_more_can_be_added(tmp_path, folder):
    write_simulated_set(tmp_path, 2, **OPTIONS)
    write_simulated_set(tmp_path, 7, **OPTIONS)
    assert contents(tmp_path) == contents(folder)


def test_other_settings_are_refused(folder, tmp_path):
    before = contents(folder)
    with pytest.raises(ValueError, match=r"other settings \(seed, size\)"):
        write_simulated_set(folder, 7, seed=5, size=96, progress=False)
    assert contents(folder) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="something else"):
        write_simulated_set(tmp_path, 2, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ({"count": 0}, "1 to 1000000"),
        ({"seed": -1}, "seed is -1; 0 to"),
        ({"size": 8}, "32 to 4096"),
        ({"shapes_share": 1.5}, "0 to 1 are"),
        ({"lesions": 21}, "0 to 20"),
        ({"modalities": ["MR"]}, "CT, PT, NM"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(options, accepted, tmp_path):
    with pytest.raises(ValueError, match=accepted):
        write_simulated_set(tmp_path / "set", **{"progress": False, **options})
    assert not (tmp_path / "set").exists()


def test_command(tmp_path, capsys):
    arguments = ["simulate", "--output_dir", str(tmp_path / "set"), "--count", "2", "--size", "48"]
    assert cli.main([*arguments, "--modalities", "CT", "--shapes_share", "1"]) == 0
    names = ("pairs.json", "splits.json", "contact_sheet.png", "README.md")
    assert capsys.readouterr().out.split() == [str(tmp_path / "set" / name) for name in names]
    assert len(load_pairs(tmp_path / "set" / "pairs.json")) == 2
    assert cli.main([*arguments, "--modalities", "US"]) == 2
    assert "accepted are one or more of CT, PT, NM" in capsys.readouterr().err
