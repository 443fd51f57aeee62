"""Both bundles in MONAI Label's own app for bundles, copied unchanged: a two-channel NIfTI in, the fused one out."""

import shutil
import subprocess

import pytest
import requests
from label_server import ROOT, monailabel

METHODS = ("dmfnet", "smfusion")


@pytest.fixture(scope="module")
def server(label_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("monaibundle")
    download = [*monailabel(), "apps", "--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run(download, check=True, capture_output=True)
    for method in METHODS:
        shutil.copytree(ROOT / "bundles" / method, folder / "monaibundle" / "model" / method)
    (folder / "studies").mkdir()
    conf = {"models": ",".join(METHODS), "zoo_source": "local", "sam2": "false"}
    server = label_server(folder / "monaibundle", folder / "studies", conf)
    yield server
    server.stop()


def test_serves_both_bundles(server):
    assert set(requests.get(f"{server.url}/info/").json()["models"]) == set(METHODS)
