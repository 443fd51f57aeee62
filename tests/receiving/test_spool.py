import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pydicom
import pytest
from receivers import MARK, ROOT, tiny_series, tiny_study, write

from fusion_nets import files
from fusion_nets.clinical.dicom import fingerprint
from fusion_nets.clinical.dicom.derived import this_equipment
from fusion_nets.receiving import Journal, Refusal, Refused, Rule, Spool, Wanted, identify, pairs_by, spool
from fusion_nets.receiving.journal import FAILED, FUSED, PENDING, SENT

RULE = Rule("head", Wanted(("MR",)), Wanted(("PT",)))


@pytest.fixture
def contents(tmp_path):
    return [path.read_bytes() for path in sorted(tiny_study(tmp_path / "study").rglob("*.dcm"))]


@pytest.fixture
def opened(tmp_path):
    with Spool(tmp_path / "spool").opened() as there:
        yield there


def changed(content, tmp_path, **values):
    path = tmp_path / "changed.dcm"
    path.write_bytes(content)
    dataset = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)
    return path.read_bytes()


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_objects_are_kept_as_they_came_under_digests(opened, contents):
    assert [opened.store(content) for content in contents] == ["stored"] * 8
    there = sorted(opened.studies.rglob("*.dcm"))
    assert sorted(path.read_bytes() for path in there) == sorted(contents)
    instance = pydicom.dcmread(there[0])
    for part, uid in zip(
        there[0].relative_to(opened.studies).parts,
        (instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.SOPInstanceUID),
        strict=True,
    ):
        assert part.startswith(fingerprint(uid))
        assert uid not in str(there[0])
    assert opened.used == sum(map(len, contents))
    assert opened.folder.stat().st_mode & 0o077 == 0


def test_the_same_object_again_changes_nothing(opened, contents, tmp_path):
    opened.store(contents[0])
    before = tree(opened.folder)
    assert opened.store(contents[0]) == "again"
    with pytest.raises(Refused) as error:
        opened.store(changed(contents[0], tmp_path, SeriesDescription="another"))
    assert error.value.refusal is Refusal.CHANGED
    assert tree(opened.folder) == before


def test_an_object_that_was_encoded_otherwise_is_the_same(opened, contents, tmp_path):
    opened.store(contents[0])
    path = tmp_path / "implicit.dcm"
    path.write_bytes(contents[0])
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(path, **({"implicit_vr": True} if pydicom.__version_info__[0] > "2" else {}))
    assert opened.store(path.read_bytes()) == "again"


@pytest.mark.parametrize(
    "values",
    [
        {"StudyInstanceUID": "../../../etc/passwd"},
        {"SeriesInstanceUID": "1.2/../3"},
        {"SOPInstanceUID": "1." * 40 + "1"},
        {"SOPInstanceUID": ""},
        {"StudyInstanceUID": "1.2\x00.3"},
        {"Rows": 4000},
        {"NumberOfFrames": 10**9},
    ],
)
def test_an_object_that_cannot_be_so_is_refused(opened, contents, tmp_path, values):
    with pytest.raises(Refused) as error:
        opened.store(changed(contents[0], tmp_path, **values))
    assert error.value.refusal is Refusal.DAMAGED
    assert tree(opened.studies) == {}
    assert MARK not in str(error.value)


@pytest.mark.parametrize("cut", [0, 3, 131, 140, 400, 900, -1, -100])
def test_a_part_of_an_object_is_refused(opened, contents, cut):
    with pytest.raises(Refused):
        opened.store(contents[0][:cut])
    assert tree(opened.studies) == {}


def test_what_is_no_dicom_is_refused(opened):
    for content in (b"", b"\0" * 4096, os.urandom(4096), b"\0" * 128 + b"DICM" + b"\xff" * 4096):
        with pytest.raises(Refused):
            opened.store(content)


def test_the_request_must_name_the_object(opened, contents):
    identity = identify(contents[0])
    with pytest.raises(Refused) as error:
        opened.store(contents[0], "1.2.3.4", identity.sop_class)
    assert error.value.refusal is Refusal.OTHER
    assert opened.store(contents[0], identity.instance, identity.sop_class) == "stored"


def test_results_of_this_library_are_no_sources(opened, contents, tmp_path):
    assert opened.store(changed(contents[0], tmp_path, SeriesDescription="Fused by DM-FNet")) == "fused"
    on_grid = {"SeriesDescription": "PT on the grid of MR", "ContributingEquipmentSequence": [this_equipment()]}
    assert opened.store(changed(contents[0], tmp_path, **on_grid)) == "fused"
    assert tree(opened.studies) == {}


def test_limits(tmp_path, contents, monkeypatch):
    with Spool(tmp_path / "spool", most_bytes=sum(map(len, contents[:2])) + 1, most_object=10**6).opened() as small:
        small.store(contents[0])
        small.store(contents[1])
        assert not small.is_full()
        with pytest.raises(Refused) as error:
            small.store(contents[2])
        assert error.value.refusal is Refusal.FULL
        with pytest.raises(Refused) as error:
            small.store(contents[2] + bytes(10**6))
        assert error.value.refusal is Refusal.TOO_LARGE
    monkeypatch.setattr(spool, "LEFT_FREE", 2**62)
    with Spool(tmp_path / "other").opened() as full:
        assert full.is_full()
        with pytest.raises(Refused, match="disk"):
            full.store(contents[0])


def test_one_process_at_a_time(opened):
    with pytest.raises(ValueError, match="another process"), Spool(opened.folder).opened():
        pass


def test_many_threads_store_the_same_object_once(opened, contents):
    results = []
    threads = [threading.Thread(target=lambda: results.append(opened.store(contents[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["again"] * 7 + ["stored"]
    assert opened.used == len(contents[0])


def test_a_study_is_quiet_once_until_something_comes(opened, contents):
    opened.store(contents[0])
    assert opened.quiet(60) == []
    (study,) = opened.quiet(0)
    assert opened.quiet(0) == []
    opened.store(contents[0])
    assert opened.quiet(0) == []
    opened.store(contents[1])
    assert opened.quiet(0) == [study]


def test_series_without_planning_views(opened, tmp_path):
    scout = tiny_series("MR", number=3)
    for instance in scout:
        instance.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    folder = write(tmp_path / "study", tiny_series("MR", description="T1"), tiny_series("PT", number=2), scout)
    for path in folder.rglob("*.dcm"):
        opened.store(path.read_bytes())
    (study,) = opened.quiet(0)
    there = opened.series(study)
    assert sorted((one.modality, one.description, one.images) for one in there) == [("MR", "T1", 4), ("PT", "a PT", 4)]
    assert len(pairs_by(RULE, there)) == 1


def test_durable_files_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    """Of the file, then its name in the folder, then each new folder's name in the one above."""
    done = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(("sync", os.path.basename(path)[-8:])))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *ways: (done.append(("rename", "")), replace(*ways)))
    with files.whole_file(tmp_path / "new" / "newer" / "file.dcm", durable=True) as partial:
        partial.write_text("x")
    kinds = [kind for kind, _ in done]
    assert kinds[:2] == ["sync", "rename"]
    assert done[0][1] == "file.dcm"
    assert {name for _, name in done[2:]} == {"newer", "new", tmp_path.name[-8:]}


STORING = """
import sys
from pathlib import Path
from fusion_nets.receiving import Spool
with Spool(sys.argv[1]).opened() as spool:
    print("open", flush=True)
    for number, path in enumerate(sorted(Path(sys.argv[2]).rglob("*.dcm"))):
        if number == 100:  # it is to be killed before
            sys.stdin.read()
        spool.store(path.read_bytes())
        print(path, flush=True)
"""


@pytest.mark.slow
def test_what_was_told_to_be_stored_is_there_after_a_kill(tmp_path):
    study = write(tmp_path / "study", *(tiny_series("MR", 1, number) for number in range(1, 40)))
    process = subprocess.Popen(
        [sys.executable, "-c", STORING, tmp_path / "spool", study],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    told = [process.stdout.readline().strip() for _ in range(30)][1:]
    process.kill()
    told += process.stdout.read().split("\n")[:-1]
    process.wait()
    with Spool(tmp_path / "spool").opened() as again:
        there = {path.read_bytes() for path in again.studies.rglob("*.dcm")}
        assert all(Path(path).read_bytes() in there for path in told)
        assert 29 <= len(there) <= 100
        assert not [path for path in again.folder.rglob("*") if "partial" in path.name]
        for path in again.studies.rglob("*"):
            assert path.is_dir() or identify(path.read_bytes())


@pytest.fixture
def noted(opened, contents):
    for content in contents:
        opened.store(content)
    (study,) = opened.quiet(0)
    journal = Journal(opened.pairs)
    ((anatomy, overlay),) = pairs_by(RULE, opened.series(study))
    return journal, (RULE, study, anatomy, overlay)


def test_a_pair_is_noted_once(noted, opened):
    journal, what = noted
    pair = journal.add(*what)
    assert pair.state == PENDING
    assert journal.add(*what) is None
    assert Journal(opened.pairs).add(*what) is None
    assert Journal(opened.pairs).pairs == {pair.id: pair}


def test_a_pair_with_more_objects_is_noted_anew(opened, contents):
    for content in contents[1:]:
        opened.store(content)
    (study,) = opened.quiet(0)
    journal = Journal(opened.pairs)

    def add():
        ((anatomy, overlay),) = pairs_by(RULE, opened.series(study))
        return journal.add(RULE, study, anatomy, overlay)

    pair = journal.note(add(), state=SENT)
    journal.confirm(pair, "x", ["a"])
    assert add() is None
    opened.store(contents[0])
    again = add()
    assert (again.id, again.state) == (pair.id, PENDING)
    assert journal.was_sent(again, "x") == set()


def test_what_was_confirmed_is_known_by_its_destination(noted):
    journal, what = noted
    pair = journal.add(*what)
    journal.confirm(pair, "one", ["a.dcm", "b.dcm"])
    journal.confirm(pair, "two", ["a.dcm"])
    assert journal.was_sent(pair, "one") == {"a.dcm", "b.dcm"}
    assert journal.was_sent(pair, "two") == {"a.dcm"}


@pytest.mark.parametrize(("stage", "state"), [("fusing", PENDING), ("sending", FUSED)])
def test_asked_for_again(noted, opened, stage, state):
    journal, what = noted
    pair = journal.note(journal.add(*what), state=FAILED, stage=stage, reason="because")
    with pytest.raises(ValueError, match=f"--retry: 'x' is no pair that failed; {pair.id} are accepted"):
        Journal(opened.pairs).ask_again(["x"])
    assert journal.take_asked() == []
    assert Journal(opened.pairs).ask_again([]) == [pair]
    (again,) = journal.take_asked()
    assert (again.state, again.reason) == (state, "")
    assert journal.take_asked() == []


def test_a_damaged_record_stops_nothing(noted, opened, caplog):
    journal, what = noted
    pair = journal.add(*what)
    (opened.pairs / pair.id / "pair.json").write_text("{")
    assert Journal(opened.pairs).pairs == {}
    assert "no record of a pair" in caplog.text


def test_what_is_being_written_is_no_object(opened, contents):
    for content in contents:
        opened.store(content)
    (study,) = opened.quiet(0)
    folder = next((opened.studies / study).iterdir())
    with files.whole_file(folder / "late.dcm") as partial:
        partial.write_bytes(contents[0][:50])
        assert [one.images for one in opened.series(study)] == [4, 4]


def test_an_old_study_is_removed_but_not_what_comes_for_it(opened, contents):
    opened.store(contents[0])
    (study,) = opened.quiet(0)
    assert not opened.is_settled(study, 60)
    for place in (opened.studies / study, *(opened.studies / study).iterdir()):
        os.utime(place, (time.time() - 100,) * 2)
    assert opened.is_settled(study, 60)
    opened.store(contents[1])
    assert not opened.is_settled(study, 0)
    assert not opened.remove_study(study)
    opened.quiet(0)
    assert opened.remove_study(study)
    assert opened.used == 0
    assert not list(opened.studies.iterdir())
