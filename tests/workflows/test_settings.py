"""What of an earlier result's settings holds for another run, and what is warned of."""

import json

import nibabel as nib
import numpy as np
import pytest
from refusals import refused

from fusion_nets.clinical import Reason, source_sha256
from fusion_nets.clinical.volume_files import save_volume
from fusion_nets.workflows.settings import repeated_settings

MATRIX = [[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
SETTINGS = {
    "anatomy_window": [0, 900],
    "overlay_window": [0, 8],
    "overlay_palette": "hot_iron",
    "register": "none",
    "transform": MATRIX,
}
WITHOUT_REGISTRATION = {name: value for name, value in SETTINGS.items() if name not in ("register", "transform")}


def volume(path, seed, modality, units):
    values = np.random.default_rng(seed).random((1, 8, 9, 4), dtype=np.float32)
    save_volume(path, values, np.eye(4), {"modality": modality, "units": units})
    return str(path)


@pytest.fixture
def pair(tmp_path):
    return {
        "anatomy": volume(tmp_path / "mri.nii.gz", 0, "MR", "stored"),
        "overlay": volume(tmp_path / "pet.nii.gz", 1, "PT", "SUV"),
        "name": "case",
    }


@pytest.fixture
def settings(pair, tmp_path):
    told = {
        key: {"sha256": source_sha256(pair[key]), "units": units}
        for key, units in (("anatomy", "stored"), ("overlay", "SUV"))
    }
    return written(tmp_path, {**SETTINGS, "record": told})


def written(folder, content):
    (folder / "settings.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "settings.json"


def test_of_the_same_sources_all_is_taken(settings, pair, caplog):
    assert repeated_settings(settings, pair, {}) == SETTINGS
    assert repeated_settings(None, pair, {}) == {}
    assert caplog.text == ""


@pytest.mark.parametrize(("chosen", "is_taken"), [("2", True), (2, True), ("1", False)])
def test_of_another_volume_of_the_same_file(pair, tmp_path, chosen, is_taken):
    dynamic = nib.Nifti1Image(np.random.default_rng(2).random((8, 9, 4, 2), dtype=np.float32), np.eye(4))
    nib.save(dynamic, pair["overlay"])
    record = {key: {"sha256": source_sha256(pair[key])} for key in ("anatomy", "overlay")}
    record["overlay"]["volume"] = "2"
    taken = repeated_settings(written(tmp_path, {**SETTINGS, "record": record}), {**pair, "overlay_volume": chosen}, {})
    assert ("transform" in taken) is is_taken
    assert "register" not in taken or is_taken


def test_of_the_same_sources_under_other_names(settings, pair, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    other = {**pair, "overlay": str(moved / "a.nii.gz")}
    (moved / "a.nii.gz").write_bytes((tmp_path / "pet.nii.gz").read_bytes())
    assert repeated_settings(settings, other, {}) == SETTINGS


@pytest.mark.parametrize("key", ["anatomy", "overlay"])
def test_a_registration_is_that_of_its_own_sources(settings, pair, tmp_path, caplog, key):
    modality, units = ("MR", "stored") if key == "anatomy" else ("PT", "SUV")
    other = {**pair, key: volume(tmp_path / "other.nii.gz", 7, modality, units)}
    assert repeated_settings(settings, other, {}) == WITHOUT_REGISTRATION
    assert f"the registration of the settings is not taken, because the {key} is another" in caplog.text
    assert "window" not in caplog.text  # of the same units


def test_a_display_range_is_that_of_its_own_units(settings, pair, tmp_path, caplog):
    other = {**pair, "overlay": volume(tmp_path / "ct.nii.gz", 7, "CT", "HU")}
    wanted = {name: value for name, value in WITHOUT_REGISTRATION.items() if name != "overlay_window"}
    assert repeated_settings(settings, other, {}) == wanted
    assert "the overlay_window of the settings is not taken, because it is in SUV, and the overlay in HU" in caplog.text


def test_a_record_that_does_not_tell_its_sources(pair, tmp_path, caplog):
    """As those of earlier versions do not."""
    settings = written(tmp_path, {**SETTINGS, "record": {"anatomy": {"units": "stored"}, "overlay": {"units": "SUV"}}})
    assert repeated_settings(settings, pair, {}) == WITHOUT_REGISTRATION
    assert "registration of the settings is not taken" in caplog.text
    caplog.clear()
    settings = written(tmp_path, {**SETTINGS, "record": {}})
    assert repeated_settings(settings, pair, {}) == {"overlay_palette": "hot_iron"}
    assert "in units that it does not tell" in caplog.text


@pytest.mark.parametrize("register", ["rigid", "affine", "none", "auto"])
def test_an_option_wins(settings, pair, register):
    """To ask for a registration is to ask for no other's result."""
    taken = repeated_settings(settings, pair, {"register": register, "overlay_window": [0, 5]})
    assert taken == {"anatomy_window": [0, 900], "overlay_palette": "hot_iron"}
    taken = repeated_settings(settings, pair, {"transform": "own.tfm"})
    assert "transform" not in taken


def test_an_option_wins_without_a_word(settings, pair, tmp_path, caplog):
    other = {**pair, "overlay": volume(tmp_path / "ct.nii.gz", 7, "CT", "HU")}
    repeated_settings(settings, other, {"register": "rigid", "overlay_window": "bone"})
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        (5000 * "[", "not JSON"),
        ("[]", "the record of an earlier result"),
        ('{"anatomy_window": [0, 1]}', "the record of an earlier result"),
        ('{"record": []}', "the record of an earlier result"),
        (
            {"overlay_windwo": [0, 1], "record": {}},
            "unknown entry 'overlay_windwo', perhaps 'overlay_window'; accepted",
        ),
        ({"network_def": {"_target_": "os.system"}, "record": {}}, "unknown entry 'network_def'"),
        ({"imports": ["$import os"], "record": {}}, "unknown entry 'imports'"),
    ],
)
def test_what_is_no_record(pair, tmp_path, content, words):
    with pytest.raises(ValueError, match=rf"settings\.json: .*{words}"):
        repeated_settings(written(tmp_path, content), pair, {})


def test_a_source_that_is_not_there(settings, pair):
    with refused(Reason.MISSING, "absent.nii"):
        repeated_settings(settings, {**pair, "overlay": "absent.nii"}, {})


def test_transform_that_bends_is_asked_for(tmp_path, pair):
    """A record does not hold it, and must not repeat its linear part alone."""
    told = {"registration": {"mode": "given", "bending": {"folded": 0.0}}}
    settings = written(tmp_path, {"register": "none", "record": told})
    with pytest.raises(ValueError, match="its file as transform"):
        repeated_settings(settings, pair, {})
    assert repeated_settings(settings, pair, {"transform": "a.tfm"}) == {"register": "none"}
    found = written(tmp_path, {"register": "deformable", "record": {"registration": {"mode": "deformable"}}})
    assert repeated_settings(found, pair, {}) == {"register": "deformable"}
