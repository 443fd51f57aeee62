import json
import sys

import pytest
from receivers import RULE

from fusion_nets import cli
from fusion_nets.receiving import Counters, SendError, Settings, Spool, destination, listening, receive
from fusion_nets.receiving.journal import FAILED, Journal, Pair

PORT = ["--port", "0", "--allow", "SCANNER"]


def run(tmp_path, *options, rules=None):
    (tmp_path / "rules.json").write_text(json.dumps(rules or {"pairs": [RULE]}))
    return cli.main(["receive", "--spool", str(tmp_path / "spool"), *options])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (PORT, "--rules is missing"),
        (["--rules", "RULES", *PORT], "--to is missing"),
        (["--rules", "RULES", "--to", "dicom://A@h:1"], "neither --port nor --poll"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", "--port", "0"], "--port needs --allow"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", "--poll", "http://h", "--allow", "A"], "--allow belongs"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", *PORT, "--tls_cert", "x"], "--tls_cert and --tls_key"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", *PORT, "--tls_ca", "x"], "--tls_ca with them"),
        (["--rules", "RULES", "--to", "A@h:1", *PORT], "--to is no address"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", "--poll", "http://me:secret@h"], "--poll is no address"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", *PORT, "--quiet", "-1"], "quiet is -1"),
        (["--rules", "RULES", "--to", "dicom://A@h:1", *PORT, "--aet", "x" * 20], "AE title"),
        (["--rules", "nowhere.json", "--to", "dicom://A@h:1", *PORT], "nowhere.json"),
        (["--list"], "no such folder"),
        (["--retry"], "no such folder"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_received(tmp_path, capsys, options, told):
    options = [str(tmp_path / "rules.json") if option == "RULES" else option for option in options]
    assert run(tmp_path, *options) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert "secret" not in said


def test_rules_are_looked_at_first(tmp_path, capsys):
    options = ["--rules", str(tmp_path / "rules.json"), "--to", "dicom://A@h:1", *PORT]
    assert run(tmp_path, *options, rules={"pairs": [{**RULE, "metod": "dmfnet"}]}) == 2
    assert "unknown key 'metod', perhaps 'method'" in capsys.readouterr().err
    assert not (tmp_path / "spool").exists()


def test_list_and_retry(tmp_path, capsys):
    journal = Journal(tmp_path / "spool" / "pairs")
    journal.note(Pair("0123456789abcdef", "head", "f" * 32, "a", "b", "", FAILED, "fusing", "a slice is missing"))
    assert run(tmp_path, "--list") == 0
    assert capsys.readouterr().out == "0123456789abcdef head ffffffff failed a slice is missing\n"
    assert run(tmp_path, "--retry", "0123") == 2
    assert "'0123' is no pair that failed; 0123456789abcdef are accepted" in capsys.readouterr().err
    assert run(tmp_path, "--retry") == 0
    assert capsys.readouterr().out.startswith("0123456789abcdef")
    assert [pair.state for pair in journal.take_asked()] == ["pending"]


def test_without_the_extra(tmp_path, monkeypatch):
    for name in ("pynetdicom", "dicomweb_client.web", "dicomweb_client", "requests"):
        monkeypatch.setitem(sys.modules, name, None)
    told = r'is not installed, which receiving and sending need: pip install "fusion-nets\[pacs\]"'
    with (
        pytest.raises(ModuleNotFoundError, match=f"pynetdicom {told}"),
        listening(Spool(tmp_path), "A", ("127.0.0.1", 0), ["B"], Counters()),
    ):
        pass
    for address in ("dicom://A@127.0.0.1:1", "http://127.0.0.1:1"):
        with pytest.raises(ModuleNotFoundError, match=told):
            destination(address, "FUSION").send([], lambda files: None)
    with pytest.raises(ModuleNotFoundError, match=told):
        receive(Spool(tmp_path), Settings([], [], poll="http://127.0.0.1:1"), once=True)


@pytest.mark.parametrize("address", ["dicom://A@127.0.0.1:9", "http://127.0.0.1:9/dicom-web"])
def test_an_archive_that_is_not_there(address, tmp_path, dicom_study):
    pytest.importorskip("pynetdicom")
    with pytest.raises(SendError, match="cannot be reached") as error:
        destination(address, "FUSION").send([next(dicom_study["mri"].iterdir())], lambda files: None)
    assert error.value.may_pass
