"""`lesions.json` on top of `inference.json`: pairs are fused without and with lesions and judged in one run."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from heads import head_pair
from PIL import Image

from evaluation.report import lesion_recoveries
from fusion_nets.datalists import load_pairs
from fusion_nets.workflows import read_lesion_pairs, write_lesion_pairs

from .conftest import EVERY, SMFUSION, causes, picture

OVERLAY = ("inference.json", "lesions.json")
TABLES = ["lesion_kinds.csv", "lesions.csv", "psychometric.csv"]


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    """Two pairs with tissue and one without a place for a lesion."""
    folder = tmp_path_factory.mktemp("heads")
    pairs = []
    for number, (name, ct) in enumerate((("ct", True), ("pet", False), ("small", False))):
        images = head_pair(number, ct, side=96 if number < 2 else 48)
        entry = {"name": name, "anatomy_modality": "MR", "overlay_modality": "CT" if ct else "PT", "subject": name}
        for key, image in zip(("anatomy", "overlay"), images, strict=True):
            entry[key] = f"{name}_{key}.png"
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / entry[key])
        pairs.append(entry)
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder / "pairs.json"


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@EVERY
def test_one_run_equals_fusing_written_lesions(bundle, tiny_weights, datalist, tmp_path):
    bundle.fuse(tiny_weights, tmp_path / "out", OVERLAY, datalist=str(datalist), lesions_in_a_pair=2)
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == TABLES, "no image is written"
    rows = rows_of(tmp_path / "out" / "lesions.csv")
    assert {(row["case"], row["pair"], row["method"]) for row in rows} == {
        ("ct", "CT-MRI", "DM-FNet" if bundle is not SMFUSION else "SMFusion"),
        ("pet", "PET-MRI", "DM-FNet" if bundle is not SMFUSION else "SMFusion"),
    }

    write_lesion_pairs(load_pairs(datalist), tmp_path / "written", ["discs"], most=2, progress=False)
    pairs, cases = read_lesion_pairs(tmp_path / "written")
    network, images = bundle.loaded(tiny_weights), {}
    for pair in pairs:
        sources = torch.stack([picture(pair[key]) for key in ("anatomy", "overlay")])
        with torch.no_grad():
            images[pair["name"]] = sources, (network(sources[None])[0].clamp(0, 1) * 255).round() / 255
    told = {}
    for case in cases:
        if case.lesions:
            (sources, fused), (clean, fused_clean) = images[case.name], images[case.clean]
            values = lesion_recoveries(fused, fused_clean, sources, clean, case.signs, case.lesions)
            for lesion, value in zip(case.lesions, values, strict=True):
                told[case.clean, case.kind, lesion.row, lesion.column] = value
    assert len(rows) == len(told) > 12
    for row in rows:
        key = f"{row['case']}-none", row["kind"], int(row["row"]), int(row["column"])
        # one grey level that rounding turns the other way is a hundredth of a lesion's contrast
        assert float(row["recovery"]) == pytest.approx(told[key], abs=0.01)


@EVERY
def test_a_run_that_is_done_is_not_done_again_and_writes_the_same(bundle, tiny_weights, datalist, tmp_path, caplog):
    bundle.fuse(tiny_weights, tmp_path, OVERLAY, datalist=str(datalist), lesions_in_a_pair=1)
    content = {name: (tmp_path / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (tmp_path / name).unlink()
    caplog.set_level(logging.INFO)
    bundle.fuse(tiny_weights, tmp_path, OVERLAY, datalist=str(datalist), lesions_in_a_pair=1)
    assert "3 of 3 pairs were done before" in caplog.text
    assert {name: (tmp_path / name).read_bytes() for name in TABLES} == content
    # other lesions are another result
    bundle.fuse(tiny_weights, tmp_path, OVERLAY, datalist=str(datalist), lesions_in_a_pair=1, seed=1)
    assert (tmp_path / "lesions.csv").read_bytes() != content["lesions.csv"]


def test_texts_go_with_every_slice(tiny_weights, text_encoder, datalist, tmp_path):
    pairs = [
        {**pair, "anatomy_text": "MRI: a dark spot, left.", "overlay_text": "A bright spot, right."}
        for pair in json.loads(datalist.read_text())
    ]
    described = datalist.with_name("described.json")
    described.write_text(json.dumps(pairs))
    for name, given in (("plain", datalist), ("told", described)):
        SMFUSION.fuse(
            tiny_weights,
            tmp_path / name,
            OVERLAY,
            datalist=str(given),
            lesions_in_a_pair=1,
            text_encoder_model=text_encoder,
        )
    plain, told = (rows_of(tmp_path / name / "lesions.csv") for name in ("plain", "told"))
    assert [row["row"] for row in plain] == [row["row"] for row in told]
    assert [row["recovery"] for row in plain] != [row["recovery"] for row in told]


def test_a_make_that_is_not_there_ends_the_command(tiny_weights, datalist, tmp_path):
    with pytest.raises(RuntimeError) as end:
        SMFUSION.fuse(tiny_weights, tmp_path / "out", OVERLAY, datalist=str(datalist), makes=["blobs"])
    assert "discs" in causes(end.value)
