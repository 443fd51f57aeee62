import json

import pytest
from receivers import RULE

from fusion_nets.receiving import Counters, Destination, Receiver, SendError, Settings, Spool, read_rules


class Kept(Destination):
    """An archive in memory, which can be away."""

    def __init__(self, address="dicom://KEPT@127.0.0.1:104"):
        super().__init__(address, address)
        self.taken, self.away = [], False

    def _send(self, files, confirm):
        for file in files:
            if self.away:
                raise SendError(f"{self.told} cannot be reached", may_pass=True)
            self.taken.append(file.read_bytes())
            confirm([file])
        return []


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def receiver(tmp_path, kept):
    """Makes what works on the spool of this test; a study is quiet at once."""

    def make(rules=(RULE,), **settings):
        path = tmp_path / "rules.json"
        path.write_text(json.dumps({"pairs": list(rules)}))
        settings = {"rules": read_rules(path), "destinations": [kept], "quiet": 0, "send_wait": 0.01, **settings}
        return Receiver(spool, Settings(**settings), Counters())

    spool = Spool(tmp_path / "spool")
    with spool.opened():
        yield make
