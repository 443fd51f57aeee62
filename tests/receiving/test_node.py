"""The node in this process, called by dcmtk and by bytes that no program would send."""

import logging
import re
import socket
import ssl
import struct
import subprocess
import threading
import time

import pydicom
import pytest
from judges import program
from receivers import MARK, send, tiny_series, tiny_study, until, write

from fusion_nets.receiving import Counters, SendError, Spool, Tls, destination, listening
from fusion_nets.receiving import node as module

AE = pytest.importorskip("pynetdicom").AE

REFUSED = "associations_refused_total"


class There:
    def __init__(self, spool, port, counters, connections=None):
        self.spool, self.port, self.counters, self.connections = spool, port, counters, connections

    def objects(self):
        return len(list(self.spool.studies.rglob("*.dcm")))

    def is_well(self):
        """Whether it takes an association."""
        echo = [program("echoscu", "apt-get install dcmtk"), "-aet", "SCANNER", "-aec", "FUSION"]
        return subprocess.run([*echo, "127.0.0.1", str(self.port)]).returncode == 0


@pytest.fixture
def there(tmp_path):
    counters = Counters()
    with Spool(tmp_path / "spool", most_object=2**20).opened() as spool:
        how = {"counters": counters, "most_associations": 3}
        with listening(spool, "FUSION", ("127.0.0.1", 0), ["SCANNER"], **how) as (port, connections):
            yield There(spool, port, counters, connections)


def connect(there):
    return socket.create_connection(("127.0.0.1", there.port), timeout=30)


def closed(connection):
    """Whether the other side ends a connection: closes it, or aborts, so that it is ours to close."""
    connection.settimeout(25)
    try:
        while said := connection.recv(4096):
            if said[0] == 7:
                break
    except ConnectionResetError:
        pass
    return True


def test_takes_a_study(there, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    study = tiny_study(tmp_path / "study")
    send(there.port, study)
    assert there.objects() == 8
    assert there.counters.get("objects_total", 'result="stored"') == 8
    send(there.port, study)
    assert there.objects() == 8
    assert there.counters.get("objects_total", 'result="again"') == 8
    said = caplog.text
    assert MARK not in said
    assert not re.search(r"\d+(\.\d+){5,}", said)


def test_takes_compressed_objects(there, tmp_path):
    study = tiny_study(tmp_path / "study")
    for path in study.rglob("*.dcm"):
        subprocess.run([program("dcmcjpeg", "apt-get install dcmtk"), path, path], check=True, capture_output=True)
    send(there.port, study, options=["-xs"])
    path = next(there.spool.studies.rglob("*.dcm"))
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"


@pytest.mark.parametrize("names", [{"title": "STRANGER"}, {"called": "ELSEWHERE"}, {"title": "../../x"}])
def test_other_names_are_refused(there, tmp_path, names, caplog):
    code, said = send(there.port, tiny_study(tmp_path / "study"), check=False, **names)
    assert code != 0
    assert "Rejected" in said
    assert there.objects() == 0
    assert there.counters.get(REFUSED, 'reason="title"') == 1
    assert "an AE title is not allowed" in caplog.text
    assert there.is_well()


def test_other_classes_are_refused(there, tmp_path):
    report = tiny_series("MR")[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    code, said = send(there.port, write(tmp_path / "report", [report]), check=False)
    assert code != 0
    assert "No presentation context" in said or "No Acceptable" in said
    assert there.objects() == 0


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_an_object_whose_uids_are_paths_is_refused(there, keyword):
    (instance, *_) = tiny_series("MR")
    ae = AE("SCANNER")
    ae.add_requested_context(instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
    with pydicom.config.disable_value_validation():
        setattr(instance, keyword, "../../../../tmp/x")
        association = ae.associate("127.0.0.1", there.port, ae_title="FUSION")
        status = association.send_c_store(instance)
        association.release()
    assert status.Status == 0xC000
    assert there.objects() == 0
    assert there.counters.get("objects_total", 'result="damaged"') == 1
    assert there.is_well()


@pytest.mark.parametrize("what", [b"\0" * 1000, b"\x08\x00\x16\x00UI\xff\xff1.2", None])
def test_a_dataset_that_is_none_is_refused(there, what, monkeypatch):
    """As a program would send it that writes what it likes."""
    from pynetdicom import association

    (instance, *_) = tiny_series("MR")
    ae = AE("SCANNER")
    ae.add_requested_context(instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
    encode = association.encode
    monkeypatch.setattr(association, "encode", lambda *given: encode(*given)[:700] if what is None else what)
    there_now = ae.associate("127.0.0.1", there.port, ae_title="FUSION")
    status = there_now.send_c_store(instance)
    assert status.get("Status", 0xC000) >> 12 in (0xA, 0xC)
    there_now.abort()
    assert there.objects() == 0
    assert there.is_well()


def test_an_object_that_is_too_large_closes_its_connection(there, tmp_path):
    large = tiny_series("MR", shape=(900, 800, 1))
    code, _ = send(there.port, write(tmp_path / "large", large), check=False)
    assert code != 0
    assert there.objects() == 0
    assert there.counters.get("objects_total", 'result="too_large"') == 1
    assert there.is_well()


def test_a_full_spool_says_so(there, tmp_path):
    there.spool.most_bytes = 1
    code, said = send(there.port, tiny_study(tmp_path / "study"), check=False)
    assert code != 0 or "Refused" in said
    assert "OutOfResources" in said or "Out of Resources" in said or "0xa700" in said.lower()
    assert there.objects() == 0


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">BBL", 1, 0, 2**32 - 1) + b"\0" * 100,
        struct.pack(">BBL", 4, 0, 2**31) + b"\xff" * 100,
        struct.pack(">BBL", 1, 0, 68) + b"\xff" * 68,
        struct.pack(">BBL", 9, 0, 4) + b"abcd" * 3,
        struct.pack(">BBL", 4, 0, 10) + struct.pack(">LBB", 6, 1, 3) + b"abcd",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 64,
    ],
    ids=["endless association", "endless data", "nonsense", "unknown kind", "data first", "http", "noise"],
)
def test_bytes_that_are_no_association(there, sent, caplog):
    with connect(there) as connection:
        connection.sendall(sent)
        assert closed(connection)
    assert there.is_well()
    assert there.objects() == 0


def test_a_pdu_of_gigabytes_is_not_waited_for(there, caplog):
    with connect(there) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1))
        began = time.monotonic()
        assert closed(connection)
        assert time.monotonic() - began < 20
    assert there.counters.get(REFUSED, 'reason="pdu"') == 1


def test_those_that_say_nothing_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SILENT", 1.0)
    monkeypatch.setattr(module, "GREETING", 1.0)
    with (
        Spool(tmp_path / "spool").opened() as spool,
        listening(spool, "FUSION", ("127.0.0.1", 0), ["SCANNER"], Counters()) as (port, _),
    ):
        there = There(spool, port, None)
        with connect(there) as silent, connect(there) as slow:
            slow.sendall(struct.pack(">BBL", 1, 0, 200) + b"\0" * 10)
            assert closed(silent)
            assert closed(slow)


def test_no_more_at_a_time_than_are_accepted(there):
    kept = [connect(there) for _ in range(40)]
    until(lambda: any(is_ended(one) for one in kept), "a connection is refused", 60)
    for one in kept:
        one.close()
    began = time.monotonic()
    until(there.is_well, "well again", 90)
    assert time.monotonic() - began < module.GREETING, "those that have gone still count"


def test_one_association_too_many_is_refused_as_dicom_says_it(there, tmp_path):
    ae = AE("SCANNER")
    ae.add_requested_context("1.2.840.10008.1.1")
    kept = [ae.associate("127.0.0.1", there.port, ae_title="FUSION") for _ in range(3)]
    assert all(one.is_established for one in kept)
    assert there.connections() == 3
    code, said = send(there.port, tiny_study(tmp_path / "study"), check=False)
    assert code != 0
    assert "Rejected Transient" in said
    assert "Local Limit Exceeded" in said
    assert there.counters.get(REFUSED, 'reason="limit"') == 1
    for one in kept:
        one.release()
    until(lambda: there.connections() == 0, "those that have gone do not count", 60)
    send(there.port, tmp_path / "study")
    assert there.objects() == 8


def test_one_that_sends_fast_waits(tmp_path):
    """As many objects a second as are accepted of one address, over all of its associations."""
    counters, rate, studies = Counters(), 4, [tiny_study(tmp_path / f"{number}", number) for number in (1, 2)]
    with Spool(tmp_path / "spool").opened() as spool:
        how = {"counters": counters, "most_a_second": rate}
        with listening(spool, "FUSION", ("127.0.0.1", 0), ["SCANNER"], **how) as (port, _):
            began = time.monotonic()
            threads = [threading.Thread(target=send, args=(port, study)) for study in studies]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - began
        assert len(list(spool.studies.rglob("*.dcm"))) == 16
    assert took >= 15 / rate
    assert 0 < counters.get("objects_held_total") < 16  # the first one comes at once


def is_ended(connection):
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and what it and another one signed."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        command = [program("openssl", "apt-get install openssl"), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True)

    for authority in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", f"/CN={authority}"),
            *("-keyout", folder / f"{authority}.key", "-out", folder / f"{authority}.pem"),
        )
    for name, authority in (("node", "ca"), ("scanner", "ca"), ("stranger", "other")):
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr"),
        )
        openssl(
            *("x509", "-req", "-days", 2, "-in", folder / f"{name}.csr", "-copy_extensions", "copy"),
            *("-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key", "-CAcreateserial"),
            *("-out", folder / f"{name}.pem"),
        )
    return folder


def tls(folder, name, authority="ca"):
    return Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / f"{authority}.pem"))


def speak(port, context):
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(struct.pack(">BBL", 1, 0, 10))
        while secure.recv(100):
            pass
    raise ConnectionError("ended")


def test_tls_takes_those_whose_certificate_is_signed(certificates, tmp_path):
    counters, study = Counters(), tiny_study(tmp_path / "study")
    with Spool(tmp_path / "spool").opened() as spool:
        how = {"counters": counters, "tls": tls(certificates, "node")}
        with listening(spool, "FUSION", ("127.0.0.1", 0), ["SCANNER"], **how) as (port, _):
            with socket.create_connection(("127.0.0.1", port)):  # one that never begins its handshake
                files = certificates / "scanner.key", certificates / "scanner.pem"
                send(port, study, options=["+tls", *map(str, files), "+cf", str(certificates / "ca.pem")])
            assert len(list(spool.studies.rglob("*.dcm"))) == 8
            assert send(port, study, check=False)[0] != 0
            context = tls(certificates, "stranger", "ca").client()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                speak(port, context)
            until(lambda: counters.get(REFUSED, 'reason="tls"') >= 2, "refusals", 60)


def test_sends_by_tls_to_those_whose_certificate_is_signed(certificates, tmp_path):
    files = sorted(write(tmp_path / "study", tiny_series("MR")).rglob("*.dcm"))
    confirmed = []
    with Spool(tmp_path / "spool").opened() as spool:
        for name, authority in (("node", "ca"), ("stranger", "other")):
            how = {"counters": Counters(), "tls": Tls(*(str(certificates / f"{name}.{end}") for end in ("pem", "key")))}
            with listening(spool, "FUSION", ("127.0.0.1", 0), ["SCANNER"], **how) as (port, _):
                address = f"dicoms://FUSION@127.0.0.1:{port}"
                archive = destination(address, "SCANNER", tls(certificates, "scanner"))
                if authority == "ca":
                    assert archive.send(files, confirmed.extend) == []
                else:
                    with pytest.raises(SendError, match="cannot be reached"):
                        archive.send(files, confirmed.extend)
        assert confirmed == files
        assert len(list(spool.studies.rglob("*.dcm"))) == len(files)


def test_files_that_are_no_certificate(certificates, tmp_path):
    (tmp_path / "x.pem").write_text("x")
    with pytest.raises(ValueError, match=r"--tls_cert .*PEM files"):
        Tls(str(tmp_path / "x.pem"), str(tmp_path / "x.pem")).server()
    with pytest.raises(ValueError, match="cannot be used"):
        Tls(str(certificates / "node.pem"), str(certificates / "other.key")).server()


@pytest.mark.parametrize("title", ["", " ", "x" * 17, "a\\b", "a\nb", "ä"])
def test_titles(title):
    with pytest.raises(ValueError, match="AE title of up to 16"):
        module.check_title(title, "--aet")
