"""`fusion-nets receive`, killed in every stage of one study: nothing is lost, fused or sent twice to no purpose."""

import os
import socket
import subprocess
import threading
from collections import Counter

import pydicom
import pytest
from judges import program
from orthanc import free_port
from receivers import MARK, PATIENCE, Node, archive, send, tiny_series, until, write

from fusion_nets.receiving.journal import FUSED, FUSING, SENT

AE = pytest.importorskip("pynetdicom").AE

SLICES = 16


@pytest.fixture
def study(tmp_path):
    shape = (40, 36, SLICES)
    return write(tmp_path / "study", tiny_series("MR", shape=shape), tiny_series("PT", number=2, shape=shape))


def uids(folder):
    return {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in folder.rglob("[!.]*.dcm")}


def sent_in_part(port, study, killed):
    """The files that were confirmed; those of the second series follow after the kill, however fast the first were."""
    instances = [pydicom.dcmread(path) for path in sorted(study.rglob("*.dcm"))]
    ae = AE("SCANNER")
    for first in (instances[0], instances[-1]):
        ae.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title="FUSION")
    for number, instance in enumerate(instances):
        if number == SLICES:
            killed.wait(PATIENCE)
        try:
            status = association.send_c_store(instance)
        except RuntimeError:  # the association is no more
            return
        if status.get("Status") == 0:
            yield instance


def test_killed_in_every_stage(tmp_path, study):
    port = free_port()
    node = Node(tmp_path / "node", quiet=0.5, to=f"dicom://ARCHIVE@127.0.0.1:{port}")
    try:
        confirmed, killed = [], threading.Event()
        there = node.start("--quiet", 3600).port
        sender = threading.Thread(target=lambda: confirmed.extend(sent_in_part(there, study, killed)))
        sender.start()
        until(lambda: node.objects() >= 3, "objects", process=node)
        node.kill()  # while it receives
        killed.set()
        sender.join()
        assert 2 <= len(confirmed) <= node.objects() < 2 * SLICES
        assert uids(node.spool / "studies") <= uids(study)

        send(node.start("--quiet", 3600).port, study)
        assert node.pairs() == []
        node.kill()  # while it waits for quiet
        assert uids(node.spool / "studies") == uids(study)
        assert node.objects() == 2 * SLICES

        node.start().wait(FUSING)
        node.kill()  # while it fuses
        (pair,) = node.pairs()
        assert (pair.state, pair.fusings) == (FUSING, 1)

        with archive(tmp_path / "slow", port, "--sleep-after", "1") as slow:
            node.start().wait(FUSED)
            sent = node.spool / "pairs" / pair.id / "sent.txt"
            until(lambda: sent.exists() and len(sent.read_text().splitlines()) > 1, "some sent", process=node)
            node.kill()  # while it sends
        results = {path: path.stat().st_mtime_ns for path in (node.spool / "pairs" / pair.id / "out").rglob("*.dcm")}
        before = slow.received()
        confirmed = len(sent.read_text().splitlines())
        assert 1 < confirmed <= sum(before.values()) <= confirmed + 1 < len(results)

        with archive(tmp_path / "archive", port) as rest:
            (pair,) = node.start().wait(SENT)
            after = rest.received()
        assert {path: path.stat().st_mtime_ns for path in results} == results  # not fused again
        everything = before + after
        assert len(everything) == len(results)
        assert sorted(everything.values())[-2:] in ([1, 1], [1, 2])  # one may have been on its way
        assert node.end() == 143
    finally:
        node.end()
    said = node.log.read_text()
    assert MARK not in said
    assert not [uid for uid in uids(study) if uid in said]


def test_many_studies_in_one_run(tmp_path):
    """Two senders at a time; `make test-receive` takes two hundred studies."""
    count = int(os.environ.get("STUDIES", "6"))
    folders = [
        write(
            tmp_path / f"{number}",
            *(tiny_series(kind, number, series, shape=(40, 36, 2)) for series, kind in ((1, "MR"), (2, "PT"))),
        )
        for number in range(count)
    ]
    with archive(tmp_path / "archive", free_port()) as place:
        node = Node(tmp_path / "node", to=place.address)
        try:
            port = node.start().port
            senders = [
                threading.Thread(target=lambda some=some: [send(port, folder) for folder in some])
                for some in (folders[::2], folders[1::2])
            ]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            pairs = node.wait(SENT, count, 60 + 20 * count)
        finally:
            node.end()
        assert len({pair.study for pair in pairs}) == count
        assert node.objects() == 4 * count
        assert place.received() == Counter(dict.fromkeys(place.received(), 1))
        assert len(place.received()) == 3 * count


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = Node(tmp_path / "node", port=taken.getsockname()[1]).start()
        assert node.process.wait(240) == 2
    assert "Address already in use" in node.said()


def test_a_node_that_is_asked_by_echo(tmp_path):
    program("echoscu", "apt-get install dcmtk")
    node = Node(tmp_path / "node")
    try:
        command = ["echoscu", "-aet", "SCANNER", "-aec", "FUSION", "127.0.0.1", str(node.start().port)]
        assert subprocess.run(command).returncode == 0
    finally:
        assert node.end() == 143
