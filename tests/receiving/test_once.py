"""`--once` ends when all that came is sent, however slow the disk or the sender is, and says so where it is not."""

import queue
import threading
import time
from contextlib import contextmanager

import pytest
from receivers import RULE, send, tiny_series, tiny_study, until, write

from fusion_nets import files
from fusion_nets.files import WriteError
from fusion_nets.receiving import Settings, Spool, receive, service, spool
from fusion_nets.receiving.journal import SENT, Journal

pytestmark = pytest.mark.slow

pynetdicom = pytest.importorskip("pynetdicom")


@pytest.fixture
def once(tmp_path, receiver, kept, monkeypatch):
    """Receives until it ends by itself, while another thread sends; the states of the pairs, and what that one gave."""
    listening, ports = service.listening, queue.Queue()

    @contextmanager
    def told(*given):
        with listening(*given) as there:
            ports.put(there[0])
            yield there

    monkeypatch.setattr(service, "listening", told)

    def run(sender, rules=(RULE,), quiet=2):
        there, given, stop = Spool(tmp_path / "received"), [], threading.Event()
        settings = Settings(
            receiver(rules).settings.rules, [kept], quiet, address=("127.0.0.1", 0), allowed=["SCANNER"]
        )
        thread = threading.Thread(target=lambda: given.append(sender(ports.get(timeout=60), there)))
        late = threading.Timer(100, stop.set)
        thread.start()
        late.start()
        try:
            receive(there, settings, True, stop)
            assert not stop.is_set(), "it did not end"
        finally:
            late.cancel()
            thread.join()
        return [pair.state for pair in Journal(there.pairs).pairs.values()], given[0]

    return run


def test_a_disk_that_takes_longer_than_a_study_is_to_be_quiet(once, kept, tmp_path, monkeypatch):
    """What is being written has come, and its study is not quiet."""
    study, sync, slept = tiny_study(tmp_path / "study"), files.sync, []

    def slow(path):
        if "studies" in path.parts and path.suffix == ".dcm" and len(slept) < 2:
            slept.append(path)
            time.sleep(3)
        sync(path)

    monkeypatch.setattr(files, "sync", slow)
    states, (code, said) = once(lambda port, _: send(port, study, check=False))
    assert code == 0, said
    assert states == [SENT]
    assert len(kept.taken) == 5


def test_a_sender_that_pauses_longer_than_a_study_is_to_be_quiet(once, kept, tmp_path):
    """As long as it is connected, more may come."""
    anatomy, overlay = tiny_series("MR"), tiny_series("PT", number=2)

    def sender(port, there):
        ae = pynetdicom.AE("SCANNER")
        for first in (anatomy[0], overlay[0]):
            ae.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", port, ae_title="FUSION")
        taken = [association.send_c_store(instance).get("Status") for instance in anatomy]
        until(lambda: there.waiting() == 0, "the study is looked at", 60)
        time.sleep(0.5)
        taken += [association.send_c_store(instance).get("Status") for instance in overlay]
        association.release()
        return taken

    assert once(sender) == ([SENT], [0] * 8)
    assert len(kept.taken) == 5


def test_a_first_object_that_finds_no_room(once, kept, tmp_path, monkeypatch):
    """Its sender was told so, and comes again: nothing has come yet."""
    study, whole_file, refused = tiny_study(tmp_path / "study"), spool.whole_file, []

    @contextmanager
    def full(path, durable=False):
        with whole_file(path, durable) as partial:
            if not refused:
                refused.append(path)
                raise WriteError(28, "No space left on device", str(path))
            yield partial

    monkeypatch.setattr(spool, "whole_file", full)

    def sender(port, there):
        codes = [send(port, next(study.rglob("*.dcm")).parent, check=False)[0]]
        time.sleep(1)
        return [*codes, send(port, study, check=False)[0]]

    states, codes = once(sender)
    assert refused
    assert (states, codes[1]) == ([SENT], 0)
    assert len(kept.taken) == 5


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"overlay": {"modality": "NM"}}, "none of 1 studies has a pair by the rules, and nothing is fused"),
        ({"most": 1}, "1 studies have more pairs by a rule than it takes, and none is fused"),
    ],
)
def test_a_study_of_which_nothing_is_fused_is_told(once, kept, tmp_path, caplog, rule, told):
    caplog.set_level("INFO", "fusion_nets.receiving.service")
    study = write(tmp_path / "study", tiny_series("MR"), tiny_series("PT", number=2), tiny_series("PT", number=3))
    with pytest.raises(ValueError, match=told):
        once(lambda port, _: send(port, study), [{**RULE, **rule}])
    assert kept.taken == []
    assert ("no pair by any rule so far; its series and their files: MR (4), PT (4), PT (4)" in caplog.text) == (
        "overlay" in rule
    )


def test_a_study_without_a_pair_beside_one_that_is_sent(once, kept, tmp_path):
    study = write(tmp_path / "study", tiny_series("MR", 2))
    states, _ = once(lambda port, _: send(port, study, tiny_study(tmp_path / "whole")))
    assert states == [SENT]


def test_a_polled_archive_is_asked_once_more(tmp_path, receiver, kept, monkeypatch):
    """Half of a study was there at first; the other half came while nothing was left to do."""
    series = [
        sorted(write(tmp_path / kind, tiny_series(kind, number=number)).rglob("*.dcm"))
        for number, kind in enumerate(("MR", "PT"), 1)
    ]

    class Archive:
        def __init__(self, address, there, *_):
            self.there, self.asked = there, 0

        def ask(self):
            self.asked += 1
            for path in series.pop(0) if series else ():
                self.there.store(path.read_bytes())
            return True

    monkeypatch.setattr(service, "Orthanc", Archive)
    settings = Settings(receiver().settings.rules, [kept], quiet=0.1, poll="http://127.0.0.1:1", poll_interval=60)
    receive(Spool(tmp_path / "received"), settings, once=True)
    assert [pair.state for pair in Journal(tmp_path / "received" / "pairs").pairs.values()] == [SENT]
    assert len(kept.taken) == 5
