"""The bundles' zip files and the wheel: made alike from one commit, and what MONAI makes of them elsewhere."""

import filecmp
import json
import os
import re
import subprocess
import zipfile
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import load
from PIL import Image

from fusion_nets.workflows import fuse_pair

from .conftest import BUNDLES, EVERY, blobs, git, release

REPOSITORY = BUNDLES.parent


def archive(folder, bundle):
    (path,) = folder.glob(f"{bundle.name}_v*.zip")
    return path


@pytest.fixture(scope="module")
def wheel(handed_out):
    (path,) = handed_out.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_one_commit_gives_the_same_bytes_in_every_clone(commit, handed_out, tmp_path):
    """Where, under which umask, and beside what else a clone lies does not show."""
    clone, there = tmp_path / "clone", tmp_path / "there"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(REPOSITORY), str(clone)], check=True, umask=0o002)
    (clone / "bundles/dmfnet/models/stray.pt").write_bytes(b"ignored by git")
    (clone / "bundles/dmfnet/eval").mkdir()
    (clone / "bundles/dmfnet/eval/patient.nii.gz").write_bytes(b"somebody's head")
    (clone / "bundles/dmfnet/docs/README.md").write_text("changed and not committed")
    (clone / "fusion_nets/stray.py").write_text("raise SystemExit")
    objects = str(REPOSITORY / git("rev-parse", "--git-path", "objects"))
    for what in ("bundles", "wheel"):
        environment = {**os.environ, "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects}
        release(what, there, commit, repository=clone, umask=0o002, env=environment)
    names = sorted(path.name for path in there.iterdir())
    assert names == sorted(path.name for path in handed_out.iterdir())
    assert [Path(name).suffix for name in names] == [".zip", ".whl", ".zip"]
    for name in names:
        assert filecmp.cmp(there / name, handed_out / name, shallow=False), name


@EVERY
def test_a_zip_file_holds_the_bundle_and_nothing_else(bundle, handed_out):
    tracked = git("-C", "bundles", "ls-files", bundle.name).split()
    path = archive(handed_out, bundle)
    version = json.loads((bundle.configs / "metadata.json").read_text())["version"]
    assert path.name == f"{bundle.name}_v{version}.zip"
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == sorted(tracked)
        for name in tracked:
            assert opened.read(name) == (BUNDLES / name).read_bytes(), name


@EVERY
def test_downloaded_by_monai_it_is_the_same_network(bundle, unpacked):
    image = torch.rand(1, 2, 64, 72, generator=torch.Generator().manual_seed(0))
    where = {"from the server": unpacked, "from a folder": BUNDLES}
    fused = []
    for folder in where.values():
        for chosen in ({}, {"workflow_type": "inference"}):
            network = load(bundle.name, bundle_dir=str(folder), device="cpu", **chosen).eval()
            with torch.no_grad():
                fused.append(network(image))
    assert fused[0].std() > 0.01
    for other in fused[1:]:
        assert torch.equal(fused[0], other)


@EVERY
def test_downloaded_by_monai_it_fuses_the_same(bundle, unpacked, tmp_path):
    rng = np.random.default_rng(0)
    pair = {}
    for key in ("anatomy", "overlay"):
        pair[key] = tmp_path / f"{key}.png"
        Image.fromarray(blobs(rng, 48, 56)).save(pair[key])
    for name, folder in (("there", unpacked), ("here", BUNDLES)):
        fuse_pair(**pair, output_dir=tmp_path / name, method=bundle.name, bundle_root=folder / bundle.name, name="case")
    written = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert "case_fused.png" in written
    for name in written:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


def test_the_wheel_holds_both_packages_and_nothing_else(wheel):
    tracked = git("ls-files", "fusion_nets", "evaluation").split()
    assert sorted(name for name in wheel.namelist() if ".dist-info/" not in name) == sorted(tracked)
    assert {"fusion_nets/py.typed", "evaluation/py.typed", "evaluation/report/page.css"} <= set(tracked)


def test_what_a_package_index_shows_of_the_wheel(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["License-Expression"] == "Apache-2.0"
    shown = metadata.get_payload()
    assert "monai.bundle download" in shown
    links = re.findall(r"\]\((.*?)\)", shown)
    assert links
    assert all(link.startswith("https://") for link in links), "a relative link or picture leads nowhere on an index"
