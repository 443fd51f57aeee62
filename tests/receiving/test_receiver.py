"""From received studies to sent results, in this process: what is fused, when, and how often."""

import os
import threading
import time
from io import BytesIO
from urllib.error import HTTPError
from urllib.request import urlopen

import pydicom
import pytest
from receivers import MARK, RULE, tiny_series, tiny_study, write

from fusion_nets.files import WriteError
from fusion_nets.receiving import Counters, Settings, Spool, destination, telling
from fusion_nets.receiving.journal import FAILED, FUSED, FUSING, PENDING, SENT


def give(receiver, folder):
    for path in sorted(folder.rglob("*.dcm")):
        receiver.spool.store(path.read_bytes())


def work(receiver):
    while not receiver.step():
        pass


def states(receiver):
    return [pair.state for pair in receiver.journal.pairs.values()]


def taken(kept):
    return [pydicom.dcmread(BytesIO(content)) for content in kept.taken]


def test_a_study_is_fused_and_sent_once(receiver, kept, tmp_path, caplog):
    node = receiver()
    give(node, tiny_study(tmp_path / "study"))
    work(node)
    assert states(node) == [SENT]
    results = taken(kept)
    source = pydicom.dcmread(next((tmp_path / "study").rglob("*.dcm")))
    assert len(results) == 5  # four slices, and how to show the sources on each other
    assert {one.StudyInstanceUID for one in results} == {source.StudyInstanceUID}
    assert {one.PatientName for one in results} == {source.PatientName}
    assert sum(one.get("SeriesDescription", "").startswith("Fused by SMFusion") for one in results) == 4
    give(node, tiny_study(tmp_path / "study"))
    work(node)
    again = receiver()  # as after a restart, where every study is looked at anew
    again.spool._arrived.update(dict.fromkeys(os.listdir(again.spool.studies), 0.0))
    work(again)
    assert len(kept.taken) == 5
    for content, result in zip(kept.taken[:], results, strict=True):  # an archive that forwards all sends them back
        if "Rows" in result:
            assert again.spool.store(content) == "fused"
    work(again)
    assert len(kept.taken) == 5
    assert MARK not in caplog.text
    assert source.StudyInstanceUID not in caplog.text


def test_a_second_series_that_comes_late(receiver, kept, tmp_path):
    node = receiver()
    give(node, write(tmp_path / "mr", tiny_series("MR")))
    work(node)
    assert (states(node), kept.taken) == ([], [])
    for place in node.spool.studies.rglob("*"):  # an hour ago
        os.utime(place, (time.time() - 3600,) * 2)
    node = receiver()
    give(node, write(tmp_path / "pt", tiny_series("PT", number=2)))
    work(node)
    assert states(node) == [SENT]
    assert len(kept.taken) == 5


def test_studies_whose_objects_come_in_turn_do_not_mix(receiver, kept, tmp_path):
    node = receiver()
    files = [sorted(tiny_study(tmp_path / f"{study}", study).rglob("*.dcm")) for study in (1, 2, 3)]
    for one, two, three in zip(*files, strict=True):
        for path in (one, two, three):
            node.spool.store(path.read_bytes())
    work(node)
    assert states(node) == [SENT] * 3
    by_study = {}
    for one in taken(kept):
        by_study.setdefault(one.StudyInstanceUID, []).append(one)
    assert {len(objects) for objects in by_study.values()} == {5}
    for objects in by_study.values():
        assert len({(str(one.PatientName), one.PatientID) for one in objects}) == 1
        there = {item.ReferencedSOPInstanceUID for one in objects for item in one.get("SourceImageSequence", [])}
        own = {
            pydicom.dcmread(path).SOPInstanceUID
            for group in files
            for path in group
            if pydicom.dcmread(path).StudyInstanceUID == objects[0].StudyInstanceUID
        }
        assert there <= own
        assert there


def test_slices_that_come_late_have_the_pair_fused_anew(receiver, kept, tmp_path):
    node, files = receiver(), sorted(tiny_study(tmp_path / "study").rglob("*.dcm"))
    for path in files[:-1]:
        node.spool.store(path.read_bytes())
    work(node)
    first = {one.SOPInstanceUID for one in taken(kept)}
    node.spool.store(files[-1].read_bytes())
    work(node)
    assert states(node) == [SENT]
    assert len(kept.taken) > len(first)
    assert not first & {one.SOPInstanceUID for one in taken(kept)[len(first) :]}


def test_what_fails_is_kept_with_its_reason(receiver, kept, tmp_path, caplog):
    node = receiver()
    study = write(tmp_path / "study", tiny_series("MR"), tiny_series("PT", number=2))
    files = sorted((study / "0").rglob("*.dcm"))
    files[1].unlink()  # a gap
    give(node, study)
    work(node)
    (pair,) = node.journal.pairs.values()
    assert (pair.state, pair.stage) == (FAILED, "fusing")
    assert "missing" in pair.reason
    assert MARK not in pair.reason + caplog.text
    work(node)
    assert node.counters.get("fusions_total", 'result="failed"') == 1
    node.journal.ask_again([pair.id])
    work(node)
    assert node.counters.get("fusions_total", 'result="failed"') == 2
    give(node, write(tmp_path / "rest", tiny_series("MR")))  # the slice that was missing
    work(node)
    assert states(node) == [SENT]


def test_series_of_two_patients_are_not_fused(receiver, kept, tmp_path):
    node = receiver()
    study = write(tmp_path / "study", tiny_series("MR"), tiny_series("PT", number=2))
    for path in (study / "1").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "another"
        dataset.save_as(path)
    give(node, study)
    work(node)
    (pair,) = node.journal.pairs.values()
    assert pair.state == FAILED
    assert "PatientID" in pair.reason
    node.journal.ask_again([])
    work(node)
    assert states(node) == [FAILED]
    assert kept.taken == []


def test_an_archive_that_is_away_is_tried_again(receiver, kept, tmp_path):
    node = receiver(send_tries=3, send_wait=0.2)
    kept.away = True
    give(node, tiny_study(tmp_path / "study"))
    node.step()
    node.step()
    assert states(node) == [FUSED]
    kept.away = False
    end = time.monotonic() + 60
    while states(node) != [SENT] and time.monotonic() < end:
        node.step()
    assert len(kept.taken) == 5
    assert node.counters.get("send_errors_total") == 1


def test_an_archive_that_stays_away(receiver, kept, tmp_path):
    node = receiver(send_tries=2, send_wait=0.01)
    kept.away = True
    give(node, tiny_study(tmp_path / "study"))
    end = time.monotonic() + 60
    while states(node) != [FAILED] and time.monotonic() < end:
        node.step()
    (pair,) = node.journal.pairs.values()
    assert (pair.stage, pair.reason) == ("sending", "dicom://KEPT@127.0.0.1:104 cannot be reached")
    result = next(node.journal.output(pair).rglob("*.dcm")).stat().st_mtime_ns
    kept.away = False
    node.journal.ask_again([])
    work(node)
    node.step()
    assert states(node) == [SENT]
    assert next(node.journal.output(pair).rglob("*.dcm")).stat().st_mtime_ns == result  # not fused again


def test_a_pair_that_ends_the_process_counts_as_the_reason(receiver, tmp_path):
    node = receiver()
    give(node, tiny_study(tmp_path / "study"))
    for study in node.spool.quiet(0):
        node._look_at(study)
    (pair,) = node.journal.pairs.values()
    node.journal.note(pair, state=FUSING, fusings=3)
    work(receiver_again := receiver())
    (pair,) = receiver_again.journal.pairs.values()
    assert pair.state == FAILED
    assert "killed 3 times" in pair.reason


def test_more_pairs_than_a_rule_takes(receiver, tmp_path, caplog):
    node = receiver([{**RULE, "most": 1}])
    give(node, write(tmp_path / "study", tiny_series("MR"), tiny_series("MR", number=3), tiny_series("PT", number=2)))
    work(node)
    assert states(node) == []
    assert "2 pairs by rule 'head', which takes 1 at most" in caplog.text


def test_a_rule_that_is_gone_leaves_its_pairs(receiver, tmp_path, kept):
    node = receiver()
    give(node, tiny_study(tmp_path / "study"))
    for study in node.spool.quiet(0):
        node._look_at(study)
    node = receiver([{**RULE, "name": "other", "anatomy": {"modality": "CT"}}])
    work(node)
    assert states(node) == [PENDING]
    assert node.is_done()


def test_old_studies_go_and_are_known_still(receiver, kept, tmp_path):
    node = receiver(keep_days=1)
    give(node, tiny_study(tmp_path / "study"))
    work(node)
    for place in node.spool.studies.rglob("*"):
        os.utime(place, (time.time() - 90000,) * 2)
    node._cleaned = -1000
    work(node)
    assert list(node.spool.studies.iterdir()) == []
    assert list(node.spool.pairs.rglob("*.dcm")) == []
    give(node, tiny_study(tmp_path / "study"))
    work(node)
    assert len(kept.taken) == 5


def test_a_disk_that_is_full_for_a_while(receiver, kept, tmp_path, monkeypatch, caplog):
    node = receiver()
    give(node, tiny_study(tmp_path / "study"))
    note = node.journal.note

    def full(*given, **how):
        raise WriteError(28, "No space left on device", "pair.json")

    monkeypatch.setattr(node.journal, "note", full)
    work(node)
    assert "pair.json: not written (No space left on device)" in caplog.text
    assert node.spool.waiting() == 1
    monkeypatch.setattr(node.journal, "note", note)
    work(node)
    assert states(node) == [SENT]


def test_counters_and_health(receiver, tmp_path):
    node = receiver()
    give(node, tiny_study(tmp_path / "study"))
    with telling("127.0.0.1", 0, node.metrics, node.health) as port:
        text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
        assert "# TYPE fusion_nets_receive_objects_total counter\n" in text
        assert "\nfusion_nets_receive_studies_waiting 1\n" in text
        assert f"\nfusion_nets_receive_spool_bytes {node.spool.used}\n" in text
        assert urlopen(f"http://127.0.0.1:{port}/health", timeout=60).read().startswith(b"ok; pairs: 0 pending")
        node.spool.most_bytes = 1
        with pytest.raises(HTTPError) as error:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=60)
        assert (error.value.code, error.value.read()[:5]) == (503, b"full:")
        with pytest.raises(HTTPError) as error:
            urlopen(f"http://127.0.0.1:{port}/../../etc/passwd", timeout=60)
        assert error.value.code == 404


def test_counters_are_for_many_threads():
    counters = Counters()
    threads = [threading.Thread(target=lambda: [counters.add("sent_total") for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.get("sent_total") == 8000


@pytest.mark.parametrize(
    "address",
    ["archive", "dicom://host:104", "dicom://A@host", "ftp://A@host:1", "http://user:word@host/", "dicom://A:b@host:1"],
)
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match="no address of an archive") as error:
        destination(address, "FUSION")
    assert "word" not in str(error.value).replace("password", "")


def test_other_addresses_that_are_none():
    with pytest.raises(ValueError, match="needs --tls_cert"):
        destination("dicoms://A@host:104", "FUSION")
    with pytest.raises(ValueError, match="AE title"):
        destination("dicom://AAAAAAAAAAAAAAAAAAAA@host:104", "FUSION")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"quiet": -1}, "quiet is -1"),
        ({"keep_days": 0}, "keep_days"),
        ({"most_a_second": 0.5}, "a number from 1"),
        ({"address": ("127.0.0.1", 0)}, "no AE title"),
    ],
)
def test_settings_that_cannot_be(settings, told):
    with pytest.raises(ValueError, match=told):
        Settings(rules=[], destinations=[], **settings)


def test_a_spool_is_one_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), Spool(tmp_path / "file").opened():
        pass
