"""What no file, page or tokenizer takes, in one entry of a datalist: it costs its own pair, with a line of its own."""

import json
import os
import shutil

import numpy as np
import pytest
from heads import head_pair
from monai.bundle import ConfigWorkflow
from PIL import Image

from fusion_nets.clinical import ImageError
from fusion_nets.datalists import load_pairs
from fusion_nets.names import shown
from fusion_nets.text import GivenText, MeasuredText
from fusion_nets.workflows import describe_pairs, evaluate_methods, find_bundle, slice_pairs, write_lesion_pairs

TEXTS = {"anatomy_text": "A head.", "overlay_text": "A mass."}
HALF, BYTES, NUL, LONG = "a\ud800", "a\udcff", "a\0b", 300 * "n"
"""The second stands in the file as a byte that is no UTF-8."""

BAD = [
    *({"name": name} for name in (HALF, BYTES, NUL, LONG, "n/a")),
    *({"anatomy_text": text} for text in (HALF, BYTES)),
    *({"overlay_text": text} for text in (HALF, [HALF])),
    *({"anatomy": path} for path in (f"{HALF}.png", f"{BYTES}.png", f"{NUL}.png", f"{LONG}.png", f"{LONG}.mhd")),
    *({"overlay": path} for path in (f"{HALF}.png", f"{NUL}.nii", LONG, f"{HALF}/b.png")),
    *({"subject": text} for text in (HALF, BYTES)),
    *({"pair": text} for text in (f"{HALF}-MRI", f"{BYTES}-MRI")),
    {"overlay_series_uid": HALF},
]


@pytest.fixture
def datalist(tmp_path):
    """A file of good pairs between which bad ones stand; beside it the sources."""
    for number, name in enumerate(("mri", "ct")):
        levels = (head_pair(1, ct=True)[number] * 255).round().astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / f"{name}.png")
    pair = {"anatomy": "mri.png", "overlay": "ct.png", "overlay_modality": "CT", "pair": "CT-MRI", **TEXTS}
    entries = [{**pair, "name": "first"}, *({**pair, "name": f"bad{i}", **bad} for i, bad in enumerate(BAD))]
    content = json.dumps([*entries, {**pair, "name": "last"}]).replace(r"\udcff", "\udcff")
    (tmp_path / "pairs.json").write_bytes(content.encode(errors="surrogateescape"))
    return tmp_path / "pairs.json"


def check_lines(caplog, pairs, words):
    """Every pair has one line, which a log can hold."""
    told = [shown(record.getMessage()) for record in caplog.records if words in record.getMessage()]
    for pair in pairs:
        assert (
            sum(line.startswith(tuple(f"{shown(pair['name'])}{end} " for end in (":", ", copy:"))) for line in told)
            == 1
        )
    assert len(told) == len(pairs)


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_fusing(datalist, tmp_path, caplog, method):
    root = find_bundle(method)
    run = ConfigWorkflow(str(root / "configs/inference.json"), workflow_type="inference", logging_file=False,
                         bundle_root=str(root), datalist=str(datalist), output_dir=str(tmp_path / "out"),
                         register="none")  # fmt: skip
    run.initialize()
    with pytest.raises(SystemExit, match=f"{len(BAD)} of {len(BAD) + 2} pairs"):
        run.run()
    check_lines(caplog, load_pairs(datalist)[1:-1], "not fused")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"first_fused.png", "last_fused.png"}


def test_evaluating(datalist, tmp_path, caplog):
    pairs = load_pairs(datalist)
    (tmp_path / "fused").mkdir()
    for name in ("first", "last", *(f"bad{i}" for i in range(len(BAD)))):
        shutil.copy(tmp_path / "mri.png", tmp_path / "fused" / f"{name}_fused.png")
    with pytest.raises(ImageError, match=f"^{len(BAD)} images"):
        evaluate_methods(pairs, {"copy": tmp_path / "fused"}, tmp_path / "out", metrics=["SSIM"], progress=False)
    check_lines(caplog, pairs[1:-1], "not measured")
    cases = (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8")
    assert [line.split(",")[0] for line in cases.splitlines()[1:]] == ["first", "last"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert r"a\ud800" in page


def test_slicing(datalist, tmp_path, caplog):
    pairs = load_pairs(datalist)
    with pytest.raises(ImageError, match=f"^{len(BAD)} of"):
        slice_pairs(pairs, tmp_path / "set", progress=False)
    check_lines(caplog, pairs[1:-1], "not sliced")
    noted = json.loads((tmp_path / "set" / "splits.json").read_text(encoding="utf-8"))
    assert noted == {"CT-MRI": {"train": ["first_0001.png", "last_0001.png"]}}


def test_inserting_lesions(datalist, tmp_path, caplog):
    pairs = load_pairs(datalist)
    with pytest.raises(ImageError, match=f"^{len(BAD)} pairs"):
        write_lesion_pairs(pairs, tmp_path / "out", ["discs"], most=1, progress=False)
    check_lines(caplog, pairs[1:-1], "no lesion inserted")
    subjects = {entry["subject"] for entry in json.loads((tmp_path / "out" / "datalist.json").read_text())}
    assert subjects == {"first", "last"}


def test_describing(datalist, tmp_path, caplog):
    """Names are not those of files here."""
    pairs = load_pairs(datalist)
    described = [pair for pair, bad in zip(pairs[1:-1], BAD, strict=True) if bad.get("name") in (NUL, LONG, "n/a")]
    given = {"anatomy_text", "overlay_text"}
    wanted = [{key: value for key, value in pair.items() if key not in given} for pair in pairs]
    wanted = [{**pair, **{k: v for k, v in old.items() if k in given and v not in TEXTS.values()}}
              for pair, old in zip(wanted, pairs, strict=True)]  # fmt: skip
    with pytest.raises(ImageError, match=f"^{len(BAD) - len(described)} of"):
        describe_pairs(wanted, MeasuredText(), tmp_path / "texts.json", progress=False)
    told = {record.getMessage().split(": not described")[0] for record in caplog.records}
    assert told == {shown(pair["name"]) for pair in pairs[1:-1] if pair not in described}
    good = describe_pairs([wanted[0], *described], MeasuredText(), tmp_path / "texts.json", progress=False)
    assert [pair["name"] for pair in load_pairs(good)] == ["first", NUL, LONG, "n/a"]


def test_a_path_of_bytes_comes_back(tmp_path):
    """As file systems have them, though JSON does not."""
    for name in ("mri", "ct"):
        Image.linear_gradient("L").save(os.fsencode(tmp_path / name) + b"\xff.png")
    (tmp_path / "pairs.json").write_bytes(b'[{"anatomy": "mri\xff.png", "overlay": "ct\xff.png", "name": "a"}]')
    pairs = [{**pair, **TEXTS} for pair in load_pairs(tmp_path / "pairs.json")]
    assert load_pairs(describe_pairs(pairs, GivenText(), tmp_path / "texts.json", progress=False)) == pairs
    json.loads((tmp_path / "texts.json").read_text(encoding="utf-8"))
