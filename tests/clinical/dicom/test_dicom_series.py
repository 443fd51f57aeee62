import logging
import os
import subprocess
import sys

import pydicom
import pytest
from dicom_phantoms import instances, save
from pydicom.dataset import Dataset
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.clinical.dicom import check_pair, find_series, fingerprint, pick_series, read_series
from fusion_nets.clinical.dicom.new_series import write_file

SMALL = (16, 18, 5)
PRESENTATION_STATE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def mixed(tmp_path):
    """CT, two MR and PET in one folder and the folders in it, among what else lies on a CD."""
    folder = tmp_path / "disc"
    uids = {}
    for number, (name, modality) in enumerate([("ct", "CT"), ("t1", "MR"), ("t2", "MR"), ("pt", "PT")], start=1):
        series = instances(modality, shape=SMALL, number=number, description=f"{name} weighted")
        (folder / ("flat" if number < 3 else name)).mkdir(parents=True, exist_ok=True)
        for k, instance in enumerate(series[::-1]):
            pydicom.dcmwrite(folder / ("flat" if number < 3 else name) / f"{name}{k}", instance)
        uids[name] = series[0].SeriesInstanceUID
    (folder / "README.txt").write_text("no DICOM")
    (folder / "DICOMDIR").write_bytes(
        bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI\x1a\x001.2.840.10008.1.3.10\x00\x00\x00\x00"
    )
    (folder / ".hidden").write_bytes(b"\x08\x00")
    (folder / "empty").touch()
    (folder / ".trash").mkdir()
    (folder / ".trash" / "a.dcm").write_bytes((folder / "flat" / "ct0").read_bytes())
    for name, uid in (("ps", PRESENTATION_STATE), ("seg", SEGMENTATION)):
        other = instances("MR", shape=SMALL, number=9)[0]
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = uid
        other.Modality = name.upper()
        pydicom.dcmwrite(folder / name, other)
    return folder, uids


def test_series_are_told_apart(mixed):
    folder, uids = mixed
    found = find_series(folder)
    assert [series.uid for series in found] == [uids[name] for name in ("ct", "t1", "t2", "pt")]
    assert [series.modality for series in found] == ["CT", "MR", "MR", "PT"]
    assert all(len(series.datasets) == len(series.files) == series.images == 5 for series in found)
    assert all("PixelData" not in dataset for series in found for dataset in series.datasets)


def test_picked_by_uid_fingerprint_or_modality(mixed):
    folder, uids = mixed
    assert pick_series(folder, series_uid=uids["t2"]).uid == uids["t2"]
    assert pick_series(folder, series_uid=fingerprint(uids["t1"])).uid == uids["t1"]
    assert pick_series(folder, modality="ct").uid == uids["ct"]
    assert pick_series(folder / "pt").uid == uids["pt"]
    assert pick_series(folder, fingerprint(uids["t1"]), "MR").uid == uids["t1"]


def test_more_than_one_is_listed(mixed):
    folder, uids = mixed
    with refused(Reason.AMBIGUOUS) as caught:
        pick_series(folder, modality="MR")
    message = str(caught.value)
    for name, number in (("t1", 2), ("t2", 3)):
        assert f"{fingerprint(uids[name])} (MR, series {number}, '{name} weighted', 5 images)" in message
    assert fingerprint(uids["ct"]) not in message
    assert not any(uid in message for uid in uids.values())
    with refused(Reason.AMBIGUOUS):
        pick_series(folder)


@pytest.mark.parametrize("which", [{"modality": "NM"}, {"series_uid": "1.2.3"}, {"series_uid": "ffffffff"}])
def test_none_that_is_meant(mixed, which):
    folder, uids = mixed
    with refused(Reason.MISSING, *map(fingerprint, uids.values())) as caught:
        pick_series(folder, **which)
    assert "1.2.3" not in str(caught.value)


def test_localizer_is_not_meant_by_a_modality(tmp_path):
    scout = instances("CT", shape=SMALL, number=1)[:1]
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    axial = instances("CT", shape=SMALL, number=2)
    save(tmp_path / "a", scout)
    assert pick_series(tmp_path, modality="CT").uid == scout[0].SeriesInstanceUID  # better than nothing
    save(tmp_path / "b", axial)
    assert pick_series(tmp_path, modality="CT").uid == axial[0].SeriesInstanceUID
    assert pick_series(tmp_path).uid == axial[0].SeriesInstanceUID
    assert pick_series(tmp_path, series_uid=scout[0].SeriesInstanceUID).is_localizer


def test_nothing_but_objects_without_pixels(tmp_path):
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "2.25.1", "SR"
    report.file_meta = instances("CT", shape=SMALL)[0].file_meta
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    write_file(tmp_path / "report", report)
    with refused(Reason.NO_PIXELS, "1 of SR"):
        pick_series(tmp_path)
    with refused(Reason.NO_PIXELS):
        pick_series(tmp_path / "report")


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_nothing_at_all(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with refused(Reason.MISSING, name):
        find_series(tmp_path / name)


def test_links_are_followed_once(tmp_path):
    outside = save(tmp_path / "outside", instances("CT", shape=SMALL))
    inside = save(tmp_path / "inside", instances("MR", shape=SMALL))
    os.symlink(outside, inside / "more")
    os.symlink(inside, inside / "round")
    os.mkfifo(inside / "pipe")
    os.rename(inside / "IM0002.dcm", inside / "moved")
    os.symlink("moved", inside / "IM0002.dcm")  # within, and so the same file twice
    assert sorted((series.modality, series.images) for series in find_series(inside)) == [("CT", 5), ("MR", 5)]
    os.symlink(inside / "absent", inside / "dangling")
    with refused(Reason.MISSING, "dangling"):
        find_series(inside)


def test_file_without_preamble(tmp_path):
    folder = save(tmp_path / "ct", instances("CT", shape=SMALL))
    for file in folder.iterdir():
        content = file.read_bytes()[132:]
        file.write_bytes(content)
    assert pick_series(folder).images == 5


@pytest.mark.parametrize(
    "name",
    ["Roe_Jane_5.dcm", "scan-pid4711", "1.2.826.0.1.3680043.8.498.1", "jane/a.dcm", "2.25.329800735698586629.dcm"],
)
def test_names_of_files_that_tell_who_it_is_are_not_told(tmp_path, name):
    folder = save(tmp_path / "ct", instances("CT", shape=SMALL))
    (folder / name).parent.mkdir(exist_ok=True)
    os.rename(folder / "IM0002.dcm", folder / name)
    series = pick_series(folder)
    assert [series.where(k).removeprefix(f"{folder}: ") for k in range(3)] == ["IM0001.dcm", "image 2", "IM0003.dcm"]


def test_short_names_hide_nothing_but_themselves(tmp_path):
    series = instances("CT", shape=SMALL, description="slices Li")
    for instance in series:
        instance.PatientName, instance.PatientID = "Li^X", "1"
    picked = pick_series(save(tmp_path, series))
    assert picked.where(0).endswith("IM0001.dcm")
    assert picked.description == ""
    for instance in series:
        instance.PatientName = "Lice"
    assert pick_series(save(tmp_path, series)).description == ""


def test_damaged_header_is_not_quoted(tmp_path, caplog, capfd):
    """Whatever stumbles over the patient's name must not print it."""
    series = instances("CT", shape=SMALL)
    for instance in series:
        instance.PatientWeight = None
    folder = save(tmp_path / "ct", series)
    for file in folder.iterdir():
        content = file.read_bytes()
        assert b"DS\x04\x001.0 " in content
        file.write_bytes(content.replace(b"DS\x04\x001.0 ", b"DS\x04\x00J^J^"))
    before = logging.getLogger("pydicom").level
    with caplog.at_level(logging.DEBUG), refused(Reason.DAMAGED) as caught:
        read_series(pick_series(folder))
    assert "J^" not in str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert logging.getLogger("pydicom").level == before


def pair(tmp_path, **changes):
    one, other = instances("MR", shape=SMALL), instances("CT", shape=SMALL, number=2)
    for instance in other:
        instance.FrameOfReferenceUID = one[0].FrameOfReferenceUID
        for keyword, value in changes.items():
            setattr(instance, keyword, value)
    return pick_series(save(tmp_path / "a", one)), pick_series(save(tmp_path / "b", other))


def test_pair_that_belongs_together(tmp_path):
    assert check_pair(*pair(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "words", "registered"),
    [
        ({"PatientID": "other"}, "differ", 1),
        ({"IssuerOfPatientID": "other"}, "differ", 1),
        ({"PatientBirthDate": "19500101"}, "differ", 1),
        ({"PatientID": ""}, "PatientID is missing", 1),
        ({"FrameOfReferenceUID": "2.25.77"}, "FrameOfReferenceUID of anatomy and overlay differ", 0),
        ({"FrameOfReferenceUID": ""}, "FrameOfReferenceUID of anatomy and overlay is missing", 0),
        ({"PatientName": "Roe^J", "StudyInstanceUID": "2.25.5"}, None, 0),
    ],
)
def test_pair_that_may_not(tmp_path, changes, words, registered):
    series = pair(tmp_path, **changes)
    warnings = check_pair(*series)
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]
    assert not any(value in warnings[0] for value in ("PID4711", "19500101", "2.25") if warnings)
    assert len(check_pair(*series, register=True)) == registered


@pytest.mark.slow
def test_importing_the_room_needs_no_highdicom():
    code = "import sys, fusion_nets.clinical.dicom; print('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
