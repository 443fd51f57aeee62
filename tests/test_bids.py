"""Which images of a dataset belong together, whatever its files are called; said is what has no partner."""

import json
import logging

import pytest
from bids_sets import dataset

from fusion_nets import cli
from fusion_nets.bids import bids_pairs, on_grid_place, place_of
from fusion_nets.datalists import load_pairs
from fusion_nets.workflows import fuse_dataset


def names(*arguments, **options):
    return [pair["name"] for pair in bids_pairs(*arguments, **options)]


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "fusion_nets.bids")
    return lambda: [record.getMessage() for record in caplog.records]


def test_without_sessions(tmp_path, said):
    root = dataset(tmp_path, "sub-02_T1w", "sub-02_ct", "sub-01_T2w", "sub-01_T1w", "sub-01_trc-FDG_pet", "sub-01_ct")
    (first, second, third) = bids_pairs(root)
    assert first == {
        "anatomy": str(root / "sub-01/anat/sub-01_T1w.nii.gz"),
        "overlay": str(root / "sub-01/ct/sub-01_ct.nii.gz"),
        "name": "sub-01_desc-fusedct_T1w",
        "subject": "sub-01",
        "anatomy_modality": "MR",
        "overlay_modality": "CT",
    }
    assert second["name"] == "sub-01_desc-fusedpetTrcFDG_T1w"
    assert (third["name"], third["subject"]) == ("sub-02_desc-fusedct_T1w", "sub-02")
    assert load_pairs(bids=[first, second, third]) == [first, second, third]
    assert not said()


def test_sessions(tmp_path, said):
    """The anatomy is that of the session, or of the only other one; of several it is not guessed."""
    root = dataset(
        tmp_path,
        *("sub-01_ses-1_T1w", "sub-01_ses-1_pet", "sub-01_ses-2_T1w", "sub-01_ses-2_pet"),
        *("sub-02_ses-mr_FLAIR", "sub-02_ses-pet_pet"),
        *("sub-03_ses-1_T1w", "sub-03_ses-2_T1w", "sub-03_ses-3_pet"),
        "sub-04_ses-1_ct",
    )
    assert names(root) == [
        "sub-01_ses-1_desc-fusedpet_T1w",
        "sub-01_ses-2_desc-fusedpet_T1w",
        "sub-02_ses-mr_desc-fusedpetSespet_FLAIR",
    ]
    assert "sub-02 ses-pet: its anatomy is sub-02_ses-mr_FLAIR.nii.gz, of another session" in said()
    assert "sub-03 ses-3: has no anatomy (2 other sessions have one); nothing is fused there" in said()
    assert "sub-04 ses-1: has no anatomy (T1w, T2w, FLAIR); nothing is fused there" in said()
    assert names(root, session_label="ses-2") == ["sub-01_ses-2_desc-fusedpet_T1w"]
    assert names(root, "02", "pet") == ["sub-02_ses-mr_desc-fusedpetSespet_FLAIR"]


def test_what_has_no_partner_is_said_and_the_others_go_on(tmp_path, said):
    root = dataset(tmp_path, "sub-01_T1w", "sub-02_T1w", "sub-02_pet", "sub-03_pet")
    assert names(root) == ["sub-02_desc-fusedpet_T1w"]
    assert said() == [
        "sub-01: has no overlay (pet, ct); nothing is fused there",
        "sub-03: has no anatomy (T1w, T2w, FLAIR); nothing is fused there",
    ]


def test_several_runs(tmp_path, said):
    """Of anatomies the first, by number; of overlays each."""
    root = dataset(tmp_path, *(f"sub-01_run-{n}_T1w" for n in ("10", "2")), *(f"sub-01_run-{n}_pet" for n in (1, 2)))
    assert names(root) == ["sub-01_run-2_desc-fusedpetRun1_T1w", "sub-01_run-2_desc-fusedpetRun2_T1w"]
    assert said() == [
        "sub-01_run-2_T1w.nii.gz: is the anatomy of its session, of 2 that are T1w; another one by anatomy_suffix"
    ]
    assert names(root, anatomy_suffix="run-10_T1w", overlay_suffix="run-1_pet") == [
        "sub-01_run-10_desc-fusedpetRun1_T1w"
    ]


def test_suffixes(tmp_path):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_ce-gad_T1w", "sub-01_FLAIR", "sub-01_part-phase_T2w", "sub-01_spect")
    assert names(root, overlay_suffix="spect", anatomy_suffix="ce-gad_T1w,T1w") == ["sub-01_ce-gad_desc-fusedspect_T1w"]
    (pair,) = bids_pairs(root, overlay_suffix=["spect"], anatomy_suffix=["FLAIR", "T1w"])
    assert (pair["name"], pair["overlay_modality"]) == ("sub-01_desc-fusedspect_FLAIR", "NM")
    for anatomy, overlay in (("T2w", "spect"), ("T1w", "pet")):
        with pytest.raises(ValueError, match="has no pair of"):
            bids_pairs(root, anatomy_suffix=anatomy, overlay_suffix=overlay)


@pytest.mark.parametrize("given", ["01", "sub-01", ["01"], "01,10", ["sub-01", "sub-10"], 10, ("01", 10), "01 10"])
def test_labels_as_people_and_command_lines_give_them(tmp_path, given):
    root = dataset(tmp_path, *(f"sub-{label}_{suffix}" for label in ("01", "02", "10") for suffix in ("T1w", "pet")))
    found = {name[4:6] for name in names(root, given)}
    assert found <= {"01", "10"}
    assert len(found) == (2 if "10" in str(given) and "01" in str(given) else 1)


@pytest.mark.parametrize(
    "given", ["9", "$1", "@pairs", "../01", "0 1", 1e2, True, {"a": 1}, [["01"]], "sub-01/ses-1", "é"]
)
def test_labels_that_are_none(tmp_path, given):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_pet")
    with pytest.raises(ValueError, match="participant"):
        bids_pairs(root, participant_label=given)


@pytest.mark.parametrize("given", ["$T1w", "T1w.nii", "_T1w", "acq_T1w", 1.5, "*"])
def test_suffixes_that_are_none(tmp_path, given):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_pet")
    with pytest.raises(ValueError, match="anatomy_suffix"):
        bids_pairs(root, anatomy_suffix=given)


HOSTILE = (
    "$1 + 1",
    "@pairs",
    "%x#y",
    "sub-01_$(id)_pet",
    "sub-02_pet",
    "sub-01_ses-1_pet",
    "sub-01_run-1_run-2_pet",
    "pet",
)


def test_hostile_names_are_data(tmp_path, said):
    root = dataset(tmp_path, "sub-01_T1w", "sub-01_pet", "sub-+$x_pet")
    whole = root / "sub-01/pet/sub-01_pet.nii.gz"
    for name in HOSTILE:
        (root / "sub-01/pet" / f"{name}.nii.gz").write_bytes(whole.read_bytes())
    (root / "sub-01/pet/sub-01_pet.nii").write_bytes(b"there twice")
    (root / "sub-@x").mkdir()
    assert names(root) == ["sub-01_desc-fusedpet_T1w"]
    assert f"sub-01: {len(HOSTILE) + 1} files" in said()[1]
    assert "2 folders sub-*" in said()[0]
    assert not any(name in line for line in said() for name in ("$", "@x", "%x"))
    (root / "sub-01/pet/sub-01_run-1a_trc-a+b_pet.nii.gz").write_bytes(whole.read_bytes())
    assert names(root)[1] == "sub-01_desc-fusedpetRun1aTrca+b_T1w"


@pytest.mark.parametrize("about", [None, "{", "[]", "[" * 100000])
def test_what_is_no_dataset(tmp_path, about, capsys):
    dataset(tmp_path, "sub-01_T1w", "sub-01_pet")
    (tmp_path / "dataset_description.json").unlink()
    if about is not None:
        (tmp_path / "dataset_description.json").write_text(about)
    assert cli.main(["fuse", "--bids_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    assert "dataset_description.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--anatomy", "a"], "--anatomy is of one pair"),
        (["--transform", "a.tfm"], "--transform is of one pair"),
        (["--settings", "a.json"], "--settings is of one pair"),
        (["--format", "nrrd"], "output_format is 'nrrd'; of a BIDS dataset, nifti, png and html are accepted"),
        (["--participant_label", "02"], "has no participant '02'"),
        (["--session_label", "1"], "has no session '1'"),
    ],
)
def test_options_of_the_command(tmp_path, words, said, capsys):
    root = dataset(tmp_path / "set", "sub-01_T1w", "sub-01_pet")
    assert cli.main(["fuse", "--bids_dir", str(root), "--output_dir", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["fuse", "--output_dir", "out", "--anatomy", "a"]) == 2
    assert "required: --overlay, or --bids_dir" in capsys.readouterr().err
    pair = ["--anatomy", "a", "--overlay", "b"]
    assert cli.main(["fuse", *pair, "--output_dir", "out", "--session_label", "1"]) == 2
    assert "--session_label goes with --bids_dir" in capsys.readouterr().err


def test_a_source_that_is_none_is_not_saved(tmp_path):
    root = dataset(tmp_path / "set", "sub-01_T1w", "sub-01_pet")
    with pytest.raises(ValueError, match="save is 'overlays', perhaps 'overlay'; accepted are anatomy and overlay"):
        fuse_dataset(root, tmp_path / "out", save="overlays")


@pytest.mark.parametrize(
    ("source", "anatomy", "place"),
    [
        ("sub-1/pet/sub-1_trc-FDG_pet.nii.gz", "sub-1_T1w.nii", "sub-1/pet/sub-1_trc-FDG_space-T1w_pet"),
        ("sub-1/ct/sub-1_ct.nii", "sub-1_ce-gad_run-2_T1w.nii", "sub-1/ct/sub-1_space-T1wCegadRun2_ct"),
        ("ses-b/pet/sub-1_ses-b_pet.nii", "sub-1_ses-a_FLAIR.nii", "sub-1/ses-b/pet/sub-1_ses-b_space-FLAIRSesa_pet"),
        ("ses-b/pet/sub-1_ses-b_pet.nii", "sub-1_ses-b_T2w.nii", "sub-1/ses-b/pet/sub-1_ses-b_space-T2w_pet"),
        ("sub-1/anat/sub-1_ce-gad_T1w.nii.gz", None, "sub-1/anat/sub-1_ce-gad_desc-values_T1w"),
    ],
)
def test_places_of_sources_on_the_grid(source, anatomy, place):
    assert on_grid_place(source, anatomy).as_posix() == place


def test_a_place_needs_names_by_bids():
    with pytest.raises(ValueError, match="names by BIDS"):
        on_grid_place("pet.nii.gz", "sub-1_T1w.nii.gz")


@pytest.mark.parametrize("out", ["set", "set/sub-01", "set/results", "other"])
def test_where_no_result_may_go(tmp_path, out, capsys):
    root = dataset(tmp_path / "set", "sub-01_T1w", "sub-01_pet")
    about = (dataset(tmp_path / "other") / "dataset_description.json").read_text()
    assert cli.main(["fuse", "--bids_dir", str(root), "--output_dir", str(tmp_path / out)]) == 2
    assert "is accepted" in capsys.readouterr().err
    assert (tmp_path / "other" / "dataset_description.json").read_text() == about
    assert json.loads((root / "dataset_description.json").read_text())["Name"] == "Nobody"


def test_beside_a_datalist(tmp_path):
    pairs = bids_pairs(dataset(tmp_path, "sub-01_T1w", "sub-01_pet"))
    (pair,) = load_pairs(bids=pairs, overlay_volume="mean", overlay_modality="NM", anatomy_volume=None)
    assert (pair["overlay_volume"], pair["overlay_modality"]) == ("mean", "NM")
    for wrong in ({"datalist": pairs}, {"anatomy": "a", "overlay": "b"}, {"regions": "a"}, {"overlay_series_uid": "1"}):
        with pytest.raises(ValueError, match="bids_dir"):
            load_pairs(bids=pairs, **wrong)
    assert bids_pairs(None) is bids_pairs("") is None


def test_place():
    assert place_of("sub-01_acq-x_desc-fusedct_T1w").as_posix() == "sub-01/anat"
    for name in ("sub-01_T1w", "../sub-01_desc-fused_T1w", "case1"):
        with pytest.raises(ValueError, match="no name of a result"):
            place_of(name)
