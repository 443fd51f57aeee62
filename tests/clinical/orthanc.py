"""A PACS for the tests: Orthanc with its DICOMweb plugin, on the loopback, with a temporary folder."""

import json
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from judges import program
from pydicom import dcmread

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
INSTALL = "apt-get install orthanc orthanc-dicomweb dcmtk"


@dataclass
class Pacs:
    http: int
    dicom: int

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http}"

    @property
    def dicomweb_url(self):
        return f"{self.url}/dicom-web"

    def store(self, folder):
        """Send every file of a folder by C-STORE, with dcmtk's storescu."""
        files = sorted(str(path) for path in folder.rglob("*.dcm"))
        send = [program("storescu", "apt-get install dcmtk"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom)]
        sent = subprocess.run([*send, *files], capture_output=True, text=True)
        assert sent.returncode == 0, sent.stdout + sent.stderr

    def get(self, path, accept="application/json"):
        request = Request(f"{self.url}{path}", headers={"Accept": accept})
        with urlopen(request, timeout=30) as answer:
            return answer.headers.get("Content-Type", ""), answer.read()

    def instances(self):
        """How many it holds."""
        return json.loads(self.get("/statistics")[1])["CountInstances"]

    def retrieve(self, instance):
        """The instance of the same UIDs as DICOMweb (WADO-RS, PS3.18 10.4) returns it."""
        path = f"/dicom-web/studies/{instance.StudyInstanceUID}/series/{instance.SeriesInstanceUID}"
        path += f"/instances/{instance.SOPInstanceUID}"
        kind, body = self.get(path, 'multipart/related; type="application/dicom"')
        (part,) = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
        return dcmread(BytesIO(part.get_payload(decode=True)))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(folder):
    """Yield it when it answers, and end it."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    plugin = next((path for path in PLUGINS if Path(path).exists()), None)
    if not found or not plugin:
        pytest.skip(f"needs Orthanc with DICOMweb: {INSTALL}")
    pacs = Pacs(free_port(), free_port())
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "HttpPort": pacs.http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "DicomPort": pacs.dicom,
        "DicomAlwaysAllowStore": True,
        "OverwriteInstances": False,
        "Plugins": [plugin],
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([found, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                pacs.instances()
                break
            except (URLError, ConnectionError):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        else:
            pytest.fail((folder / "log").read_text())
        yield pacs
    finally:
        server.terminate()
        server.wait(30)
