"""A real Orthanc as sender, as archive that is polled, and as destination; and the sample study from end to end."""

import json
import threading
from urllib.request import Request, urlopen

import orthanc as server
import pydicom
import pytest
from receivers import RULE, Node, send, tiny_study, until

from fusion_nets import cli
from fusion_nets.receiving import Counters, Orthanc, Settings, Spool, destination, read_rules, receive
from fusion_nets.receiving.journal import SENT, Journal

pytest.importorskip("pynetdicom")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    yield from server.start(tmp_path_factory.mktemp("orthanc"))


def post(pacs, path, content, method="POST"):
    request = Request(f"{pacs.url}{path}", json.dumps(content).encode(), method=method)
    with urlopen(request, timeout=120) as answer:
        return answer.read()


def descriptions(pacs, study):
    found = json.loads(pacs.get(f"/dicom-web/studies/{study}/series?includefield=0008103E")[1])
    return sorted(one.get("0008103E", {"Value": [""]})["Value"][0] for one in found)


def rules(tmp_path, **changes):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"pairs": [{**RULE, **changes}]}))
    return path


def test_polled_and_sent_by_stow(pacs, tmp_path):
    study = tiny_study(tmp_path / "study", 11)
    pacs.store(study)
    before = pacs.instances()
    settings = Settings(
        rules=read_rules(rules(tmp_path)),
        destinations=[destination(pacs.dicomweb_url, "FUSION")],
        quiet=1,
        poll=pacs.url,
        poll_from_start=True,
    )
    receive(Spool(tmp_path / "spool"), settings, once=True)
    assert pacs.instances() == before + 5
    uid = pydicom.dcmread(next(study.rglob("*.dcm"))).StudyInstanceUID
    assert sum("Fused by SMFusion" in one for one in descriptions(pacs, uid)) == 1
    assert [pair.left for pair in Journal(tmp_path / "spool" / "pairs").pairs.values()] == [[]]
    receive(Spool(tmp_path / "spool"), settings, once=True)  # its own results are new there, and no sources
    assert pacs.instances() == before + 5


def test_a_poll_that_is_cut_short_goes_on(pacs, tmp_path):
    pacs.store(tiny_study(tmp_path / "study", 12))
    with Spool(tmp_path / "spool").opened() as spool:
        counters = Counters()
        spool.most_bytes = 1
        archive = Orthanc(pacs.url, spool, counters, from_start=True)
        assert not archive.ask()
        assert counters.get("objects_total", 'result="full"') == 1
        assert not archive.place.exists()
        spool.most_bytes = 2**40
        assert archive.ask()
        count = counters.get("objects_total", 'result="stored"')
        assert count >= 8
        assert archive.ask()
        assert Orthanc(pacs.url, spool, counters).ask()
        assert counters.get("objects_total", 'result="stored"') == count
        assert counters.get("objects_total", 'result="again"') == 0


def test_a_poll_from_now_on(pacs, tmp_path):
    pacs.store(tiny_study(tmp_path / "before", 13))
    with Spool(tmp_path / "spool").opened() as spool:
        archive = Orthanc(pacs.url, spool, Counters())
        assert archive.ask()
        pacs.store(tiny_study(tmp_path / "after", 14))
        assert archive.ask()
        assert len(list(spool.studies.iterdir())) == 1


def test_an_archive_that_is_not_there(tmp_path, caplog):
    with Spool(tmp_path / "spool").opened() as spool:
        counters = Counters()
        archive = Orthanc(f"http://127.0.0.1:{server.free_port()}", spool, counters)
        assert not archive.ask()
        assert not archive.ask()
        assert counters.get("poll_errors_total") == 2
        assert caplog.text.count("does not answer as it should") == 1


def test_sent_by_orthanc_and_back_by_c_store(pacs, tmp_path):
    """In a process of its own, which goes on when the archive that it is to send to refuses it first."""
    study = tiny_study(tmp_path / "study", 15)
    pacs.store(study)
    node = Node(tmp_path / "node", allow=("ORTHANC",), to=f"dicom://ORTHANC@127.0.0.1:{pacs.dicom}")
    try:
        port = node.start().port
        post(pacs, "/modalities/fusion", {"AET": "FUSION", "Host": "127.0.0.1", "Port": port}, "PUT")
        uid = pydicom.dcmread(next(study.rglob("*.dcm"))).StudyInstanceUID
        found = json.loads(post(pacs, "/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": uid}}))
        before = pacs.instances()
        post(pacs, "/modalities/fusion/store", found)
        node.wait(SENT)
        assert pacs.instances() == before + 5
        assert sum("Fused by SMFusion" in one for one in descriptions(pacs, uid)) == 1
    finally:
        node.end()


def test_the_sample_study_from_end_to_end(pacs, dicom_study, tmp_path, capsys):
    """DM-FNet, registered, by the command itself, which ends when it is done."""
    path = rules(tmp_path, name="sample", method="dmfnet", options={"register": "rigid"})
    port, before = server.free_port(), pacs.instances()

    def is_sent():
        return send(port, dicom_study["mri"], dicom_study["pet"], check=False)[0] == 0

    sent = []
    sending = threading.Thread(target=lambda: sent.append(until(is_sent, "the node")))
    sending.start()
    spool, to = str(tmp_path / "spool"), f"dicom://ORTHANC@127.0.0.1:{pacs.dicom}"
    command = ["receive", "--spool", spool, "--rules", str(path), "--to", to, "--device", "cpu"]
    code = cli.main([*command, "--port", str(port), "--allow", "SCANNER", "--quiet", "10", "--once"])
    sending.join()
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert sent == [True]
    slices = len(list(dicom_study["mri"].iterdir()))
    assert pacs.instances() == before + slices + 2  # with the registration, and how to show the sources on each other
    assert cli.main(["receive", "--spool", spool, "--list"]) == 0
    assert capsys.readouterr().out.split()[1:4:2] == ["sample", "sent"]
    assert cli.main(["receive", "--spool", spool, "--retry"]) == 0
    assert capsys.readouterr().out == ""
