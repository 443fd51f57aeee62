"""What is warned of while a pair is fused, in its record and on its page."""

import json
import logging
import threading

import nibabel as nib
import numpy as np
import pytest
from drawing.viewed import held

from fusion_nets.cautions import about, caution, noted, noting
from fusion_nets.workflows import fuse_pair, write_page

LOGGER = logging.getLogger("fusion_nets.example")


def test_it_is_logged_with_the_file_and_noted_without(caplog):
    with noting() as notes, about("overlay"):
        caution(LOGGER, "/data/JANE/a.nii", "%d of %s", 3, "4")
        caution(LOGGER, "/data/JANE/a.nii", "100 % sure")
    assert notes == ["overlay: 3 of 4", "overlay: 100 % sure"]
    assert [record.getMessage() for record in caplog.records] == [
        "/data/JANE/a.nii: 3 of 4",
        "/data/JANE/a.nii: 100 % sure",
    ]
    assert noted() == []


def test_how_the_log_is_kept_does_not_matter():
    was = LOGGER.level, LOGGER.disabled
    LOGGER.setLevel(logging.CRITICAL)
    LOGGER.disabled = True
    try:
        with noting() as notes:
            caution(LOGGER, "a.nii", "slices are missing")
    finally:
        LOGGER.level, LOGGER.disabled = was
    assert notes == ["slices are missing"]


def test_notes_are_those_of_one_thread():
    meet = threading.Barrier(8)
    taken = {}

    def work(number):
        with noting():
            meet.wait(30)
            for _ in range(200):
                caution(LOGGER, "a.nii", "from %d", number)
            taken[number] = noted()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    LOGGER.disabled = True
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        LOGGER.disabled = False
    assert taken == {number: [f"from {number}"] for number in range(8)}


def test_one_line_a_slice_does_not_bury_the_others():
    with noting():
        for number in range(500):
            caution(LOGGER, "a", "slice %d", number)
        assert len(noted()) == 51
        assert noted()[-1] == "450 more warnings are in the log"
        with noting() as inner:
            caution(LOGGER, "a", "another")
            assert len(noted()) == 51
        assert inner == ["another"]
        assert "another" not in noted()


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory):
    """A pair whose files leave things open, under names that tell who it is."""
    folder = tmp_path_factory.mktemp("JANE_ROE")
    generator = np.random.default_rng(0)
    place = np.indices((40, 40, 8)).transpose(1, 2, 3, 0) - (20, 20, 4)
    head = (np.square(place / (16, 18, 9)).sum(-1) < 1) * (1 + generator.random((40, 40, 8)))
    anatomy = nib.Nifti1Image(head.astype(np.float32), np.diag([4.0, 4, 4, 1]))
    anatomy.set_sform(None, 0)
    anatomy.set_qform(None, 0)
    values = head.copy()
    values[0, 0, 0] = np.nan
    overlay = nib.Nifti1Image(values.astype(np.float32), None, anatomy.header)
    for name, image in (("mri", anatomy), ("pet", overlay)):
        nib.save(image, folder / f"JANE_{name}.nii.gz")
    return folder / "JANE_mri.nii.gz", folder / "JANE_pet.nii.gz"


PAIR = {"name": "case", "overlay_modality": "PT"}
GUESS = "anatomy: neither qform_code nor sform_code is set; where it lies in the patient is a guess"
OTHER = GUESS.replace("anatomy", "overlay")
NAN = "overlay: NaN in 1 voxels, 0 of them within the image, became background (0)"


def test_the_page_says_what_the_log_says(doubtful, tmp_path, caplog):
    fuse_pair(*doubtful, tmp_path, output_format=["html", "nifti"], register="none", **PAIR)
    record = json.loads((tmp_path / "case_fused.json").read_text())
    page = (tmp_path / "case_fused.html").read_text(encoding="utf-8")
    assert record["record"]["warnings"] == [GUESS, OTHER, NAN]
    told = held(page)[0]["warnings"]
    assert told[:3] == [GUESS, OTHER, NAN]
    assert told.count(GUESS) == 1
    for text in (page, (tmp_path / "case_fused.json").read_text()):
        assert "JANE" not in text
    logged = [record.getMessage() for record in caplog.records if "NaN in" in record.getMessage()]
    assert logged == [f"{doubtful[1]}: {NAN.partition(': ')[2]}"]  # once, though it was read twice


def test_a_page_made_later_says_it_as_well(doubtful, tmp_path):
    fuse_pair(*doubtful, tmp_path, register="none", **PAIR)
    record = json.loads((tmp_path / "case_fused.json").read_text())
    said = record["record"].pop("warnings")
    (tmp_path / "case_fused.json").write_text(json.dumps(record))  # as of an earlier version
    page = write_page(tmp_path, *doubtful)
    assert held(page.read_text(encoding="utf-8"))[0]["warnings"][:3] == said


def test_settings_that_are_not_taken_are_on_the_page(doubtful, tmp_path):
    fuse_pair(*doubtful, tmp_path / "first", register="none", **PAIR)
    path = tmp_path / "first" / "case_fused.json"
    settings = json.loads(path.read_text())
    settings |= {"register": "none", "transform": np.eye(4).tolist()}
    settings["record"]["overlay"]["sha256"] = "0" * 64
    path.write_text(json.dumps(settings))
    fuse_pair(*doubtful, tmp_path, settings=path, output_format="html", register_fallback=True, **PAIR)
    told = held((tmp_path / "case_fused.html").read_text(encoding="utf-8"))[0]["warnings"]
    assert told[0] == (
        "the registration of the settings is not taken, because the overlay is another than they tell of"
    )
    assert told[1:4] == [GUESS, OTHER, NAN]
