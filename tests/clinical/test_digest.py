"""What was read is known again, whatever it is called."""

import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, source_sha256


def test_of_a_file_that_of_its_content(tmp_path):
    for name in ("a.png", "b#c.png"):
        Image.linear_gradient("L").save(tmp_path / name)
    assert source_sha256(tmp_path / "a.png") == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert source_sha256(tmp_path / "a.png") == source_sha256(str(tmp_path / "b#c.png"))
    Image.radial_gradient("L").save(tmp_path / "a.png")
    assert source_sha256(tmp_path / "a.png") != source_sha256(tmp_path / "b#c.png")


def test_of_a_header_with_its_values(tmp_path):
    (tmp_path / "a.mhd").write_text("NDims = 2\nElementDataFile = a.raw\n")
    (tmp_path / "a.raw").write_bytes(np.arange(4, dtype=np.uint8).tobytes())
    before = source_sha256(tmp_path / "a.mhd")
    (tmp_path / "a.raw").write_bytes(np.arange(1, 5, dtype=np.uint8).tobytes())
    assert source_sha256(tmp_path / "a.mhd") != before


def test_of_a_series_its_files_wherever_they_lie(dicom_study, tmp_path):
    """In one folder with another series, under other names."""
    wanted = {key: source_sha256(dicom_study[key]) for key in ("mri", "pet")}
    for key in wanted:
        for number, file in enumerate(sorted(dicom_study[key].iterdir(), reverse=True)):
            shutil.copy(file, tmp_path / f"{key}{number}")
    assert source_sha256(tmp_path, modality="MR") == wanted["mri"]
    assert source_sha256(tmp_path, modality="PT") == wanted["pet"]


@pytest.mark.parametrize("name", ["a.png", "a", "a.mhd"])
def test_nothing_there(tmp_path, name):
    with refused(Reason.MISSING, name):
        source_sha256(tmp_path / name)
