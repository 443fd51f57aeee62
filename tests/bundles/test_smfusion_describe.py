import json

import numpy as np
import pytest
from monai.bundle import run
from PIL import Image

from fusion_nets import text
from fusion_nets.datalists import load_pairs, with_texts

from .conftest import BUNDLES


class Naming:
    """Stands for a describer: tells modality and file."""

    configuration = {"kind": "naming"}

    def __call__(self, images):
        return [f"{image.meta.get('modality')} {image.meta['filename_or_obj'][-9:]}" for image in images]


def describe(**arguments):
    return run(
        config_file=str(BUNDLES / "smfusion" / "configs" / "describe.json"),
        bundle_root=str(BUNDLES / "smfusion"),
        logging_file=False,
        **arguments,
    )


@pytest.fixture(autouse=True)
def describers(monkeypatch):
    monkeypatch.setattr(text, "MeasuredText", Naming, raising=False)


def test_a_datalist(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name)
    pair = {"anatomy": "a.png", "overlay": "b.png", "overlay_modality": "NM", "anatomy_text": "T1."}
    (tmp_path / "pairs.json").write_text(json.dumps([pair]))
    monkeypatch.chdir(tmp_path)
    describe(datalist="pairs.json", output="out/texts.json")
    written = json.loads((tmp_path / "out" / "texts.json").read_text())
    assert written["description"]["describer"] == {"kind": "naming"}
    assert written["pairs"][0]["anatomy"] == "../a.png"
    assert (written["pairs"][0]["anatomy_text"], written["pairs"][0]["overlay_text"]) == ("T1.", "NM b.png")


def test_all_of_aanlib(dataset_dir, tmp_path):
    describe(dataset_dir=str(dataset_dir), output=str(tmp_path / "texts.json"), images_at_once=5)
    described = load_pairs(tmp_path / "texts.json")
    assert len(described) == 12
    assert described[0]["overlay_text"] == f"CT {described[0]['overlay'][-9:]}"
    assert with_texts([{"name": "PET-MRI_3"}], tmp_path / "texts.json")[0]["anatomy_text"].startswith("MR ")


def test_an_image_that_cannot_be_read(tmp_path, caplog):
    pairs = [{"anatomy": "a.png", "overlay": "b.png"}]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    with pytest.raises(SystemExit, match="1 of 1"):
        describe(datalist=str(tmp_path / "pairs.json"), output=str(tmp_path / "texts.json"))
    assert "a.png: no such file" in caplog.text
    assert not (tmp_path / "texts.json").exists()
