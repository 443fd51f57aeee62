"""A fused study in OHIF: an Orthanc that holds it, and OHIF's viewer beside it under one address, until Ctrl-C.

    npm pack @ohif/app@3.13.2 && tar xf ohif-app-3.13.2.tgz
    python tests/benchmarks/ohif.py package/dist demo/mri demo/pet demo/dmfnet/head_dicom --picture docs/ohif.png

Needs Orthanc with DICOMweb and dcmtk (apt-get install orthanc orthanc-dicomweb dcmtk); a picture needs Chromium, too.
"""

import argparse
import io
import json
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clinical"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # first: tests has an evaluation/, too

from drawing.browser import INSTALL, chromium, is_installed
from orthanc import start

WEB_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
SETTINGS = """window.config = {
  routerBasename: null, extensions: [], modes: [], showStudyList: true, investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      wadoUriRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
    },
  }],
};
"""


class Viewer(SimpleHTTPRequestHandler):
    """OHIF's files, its one page for all of its places, and what it asks of the archive, which the archive answers."""

    def __init__(self, archive, *args, **kwargs):
        self.archive = archive
        super().__init__(*args, **kwargs)

    def do_GET(self):
        path = urlsplit(self.path).path
        if path.startswith("/dicom-web"):
            self._from_archive()
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", SETTINGS.encode())
        else:
            if not Path(self.translate_path(path)).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _from_archive(self):
        asked = Request(self.archive + self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
        try:
            with urlopen(asked, timeout=60) as answer:
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except HTTPError as error:
            self._answer(error.code, "text/plain", error.read())

    def _answer(self, status, kind, content):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: addresses name patients' studies."""


@contextmanager
def served(dist, archive, port):
    """The address of the viewer."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(Viewer, archive, directory=str(dist))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


SKIP = "[...document.querySelectorAll('button, a, span')].find(one => one.textContent === 'Skip all')?.click()"


def middle_of(pacs, study, description):
    """Of a series whose description begins so, what opens it at its middle."""
    path = f"/dicom-web/studies/{study}/series"
    for series in json.loads(pacs.get(path, "application/dicom+json")[1]):
        uid = series["0020000E"]["Value"][0]
        if str(series.get("0008103E", {}).get("Value", [""])[0]).startswith(description):
            found = json.loads(pacs.get(f"{path}/{uid}/instances", "application/dicom+json")[1])
            found.sort(key=lambda one: int(one["00200013"]["Value"][0]))
            instance = found[len(found) // 2]["00080018"]["Value"][0]
            return f"&initialSeriesInstanceUID={uid}&initialSopInstanceUid={instance}"
    return ""


def picture(address, path, seconds):
    """What a browser shows, when its images are there."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder), WEB_GL) as browser:
        browser.set_window_size(1400, 900)
        browser.get(address)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and len(browser.find_elements("css selector", "canvas")) == 0:
            time.sleep(1)
        time.sleep(seconds / 8)  # canvases are there before what they show
        browser.execute_script(SKIP)  # the tour for those who are new
        time.sleep(seconds / 8)
        taken = browser.get_screenshot_as_png()
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(256).save(path, optimize=True)
    print(path)


def main() -> None:
    """Start both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("dist", type=Path, help="folder dist of npm's @ohif/app")
    parser.add_argument("studies", type=Path, nargs="+", help="folders of DICOM")
    parser.add_argument("--port", type=int, default=0, help="of the viewer; by default a free one")
    parser.add_argument("--picture", type=Path, help="take one, and end")
    parser.add_argument("--seconds", type=float, default=120, help="that a picture may take (default: %(default)s)")
    arguments = parser.parse_args()
    if not (arguments.dist / "index.html").is_file():
        raise SystemExit(f"{arguments.dist}: no index.html; the folder dist of npm's @ohif/app is accepted")
    if arguments.picture and not is_installed():
        raise SystemExit(INSTALL)
    with tempfile.TemporaryDirectory() as folder, contextmanager(start)(Path(folder)) as pacs:
        for study in arguments.studies:
            pacs.store(study)
        (uid,) = {one["MainDicomTags"]["StudyInstanceUID"] for one in json.loads(pacs.get("/studies?expand")[1])}
        with served(arguments.dist, pacs.url, arguments.port) as viewer:
            address = f"{viewer}/viewer?StudyInstanceUIDs={uid}{middle_of(pacs, uid, 'Fused by')}"
            if arguments.picture:
                picture(address, arguments.picture, arguments.seconds)
                return
            print(f"{address}\nCtrl-C ends it", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
