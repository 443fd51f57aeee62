import csv
import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import decollate_batch, list_data_collate
from PIL import Image
from refusals import refused

from fusion_nets.clinical import Reason, convert_image, read_image
from fusion_nets.transforms import (
    JudgeRegions,
    JudgeRegionsd,
    LoadRegions,
    LoadRegionsd,
    LoadStudyImaged,
    MeasureRegions,
    MeasureRegionsd,
    RecordChoicesd,
    ScaleToDisplayRanged,
)

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
SHAPE = (48, 44, 12)
KEYS = ("anatomy", "overlay")


def saved(path, values, affine=AFFINE):
    nib.save(nib.Nifti1Image(values, affine), path)
    return str(path)


@pytest.fixture
def study(tmp_path):
    """An MRI, a CT in HU with a bleeding (1) and a calcification (2) that the MRI does not show, and their labels."""
    rng = np.random.default_rng(0)
    head = np.zeros(SHAPE, dtype=bool)
    head[4:44, 4:40] = True
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[12:18, 12:18, 4:8], labels[30:34, 26:30, 5:7] = 1, 2
    mri = np.where(head, 500 + 40 * rng.standard_normal(SHAPE), 0)
    ct = np.where(head, 35 + 3 * rng.standard_normal(SHAPE), -1000) + 30.0 * (labels == 1) + 400.0 * (labels == 2)
    files = {"anatomy": mri.astype(np.float32), "overlay": ct.astype(np.float32), "regions": labels}
    return {
        "name": "case",
        "overlay_modality": "CT",
        **{key: saved(tmp_path / f"{key}.nii.gz", values) for key, values in files.items()},
    }


def measured(study, overlay_window=None):
    """A pair up to its fusion."""
    d = LoadRegionsd()(LoadStudyImaged()(study))
    d = MeasureRegionsd()(d)
    d = ScaleToDisplayRanged("overlay", overlay_window)(ScaleToDisplayRanged("anatomy")(d))
    d = RecordChoicesd()(d)
    return {**d, "image": torch.cat([d[key] for key in KEYS])}


def judged(d, pred, folder):
    d = decollate_batch(list_data_collate([{**d, "pred": pred}]))[0]  # as an engine hands it on
    return JudgeRegionsd(output_dir=folder)(d)


def test_measures_are_in_the_sources_own_units(study):
    bleeding, calcification = json.loads(measured(study)["region_table"])
    assert (bleeding["region"], bleeding["voxels"], bleeding["volume_ml"]) == (1, 144, 0.288)
    assert bleeding["overlay"]["mean"] == pytest.approx(65, abs=1)
    assert bleeding["overlay"]["contrast"] == pytest.approx(30, abs=1)
    assert bleeding["overlay"]["cnr"] == pytest.approx(10, abs=1.5)
    assert bleeding["anatomy"]["mean"] == pytest.approx(500, abs=15)
    assert bleeding["anatomy"]["cnr"] < 0.5
    assert calcification["overlay"]["contrast"] == pytest.approx(400, abs=3)


def test_a_ring_leaves_out_air_and_the_other_region(study):
    labels, rings = LoadRegionsd()(LoadStudyImaged()(study))["regions"].as_tensor()
    anatomy = read_image(study["anatomy"])[0]
    assert set(rings.unique().tolist()) == {0, 1, 2}
    assert not rings[labels > 0].any()
    assert (anatomy[rings > 0] > 100).all()


def test_a_region_that_is_not_kept_is_warned_of(study, tmp_path, caplog):
    d = measured(study)
    with caplog.at_level(logging.WARNING):
        told = judged(d, d["image"][:1], tmp_path)
    found = json.loads(told["record"])["record"]["regions"]
    bleeding, calcification = found["regions"]
    assert bleeding["overlay"]["recovery"] == pytest.approx(0, abs=1e-6)
    assert bleeding["overlay"]["shown"] == pytest.approx(1, abs=0.01)
    assert bleeding["anatomy"]["recovery"] == pytest.approx(1, abs=1e-6)
    assert "the fused image keeps 0.00 of it" in bleeding["warnings"][0]
    assert calcification["overlay"]["shown"] < 0.25  # 0 to 80 HU
    assert "its display range does not" in calcification["warnings"][0]
    assert [record.getMessage() for record in caplog.records] == [f"case: {one}" for one in found["warnings"]]
    assert len(found["warnings"]) == 2
    assert str(tmp_path) not in caplog.text


def test_what_is_kept_is_not_warned_of(study, tmp_path, caplog):
    d = measured(study, (-100, 600))
    told = judged(d, d["image"].mean(0, keepdim=True), tmp_path)
    found = json.loads(told["record"])["record"]["regions"]
    for region in found["regions"]:
        assert region["overlay"]["recovery"] == pytest.approx(0.5, abs=1e-5)
        assert region["overlay"]["shown"] == pytest.approx(1, abs=0.01)
        assert region["warnings"] == []
    assert found["warnings"] == []
    assert caplog.records == []


def test_the_table_holds_what_the_record_does(study, tmp_path):
    d = measured(study)
    told = judged({**d, "saved": ["before"]}, d["image"][:1], tmp_path / "out")
    assert told["saved"] == ["before", "case_regions.csv"]
    rows = list(csv.DictReader((tmp_path / "out" / "case_regions.csv").open(newline="")))
    regions = json.loads(told["record"])["record"]["regions"]["regions"]
    assert [int(row["region"]) for row in rows] == [1, 2]
    for row, region in zip(rows, regions, strict=True):
        assert row["overlay_units"] == region["overlay"]["units"]
        assert float(row["overlay_contrast"]) == region["overlay"]["contrast"]
        assert float(row["fused_cnr"]) == region["fused"]["cnr"]
        assert row["warnings"] == "; ".join(region["warnings"])


def test_without_regions_nothing_is_done(study, tmp_path):
    del study["regions"]
    d = LoadRegionsd(allow_missing_keys=True)(LoadStudyImaged()(study))
    assert set(MeasureRegionsd()(d)) == set(d)
    assert set(JudgeRegionsd(output_dir=tmp_path / "out")(d)) == set(d)
    assert not (tmp_path / "out").exists()


def test_twins_find_the_same(study, tmp_path):
    loaded = LoadStudyImaged()(study)
    regions = LoadRegions()(study["regions"], loaded["anatomy"])
    table = MeasureRegions()(regions, {key: loaded[key] for key in KEYS})
    d = measured(study)
    assert table == d["region_table"]
    torch.testing.assert_close(regions.as_tensor(), d["regions"].as_tensor())
    ranges = {key: json.loads(d["record"])["record"][key]["display"]["range"] for key in KEYS}
    found = JudgeRegions()(d["image"][:1], d["image"], regions, table, ranges)
    told = judged(d, d["image"][:1], tmp_path)
    assert found == json.loads(told["record"])["record"]["regions"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_labels_of_any_form_and_grid(study, tmp_path, ending):
    anatomy = read_image(study["anatomy"])
    other = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    other[:2, 3] = [SHAPE[0] - 1, SHAPE[1] - 1]
    labels = nib.load(study["regions"]).get_fdata()[::-1, ::-1].astype(np.float32)
    other = other @ np.diag([1, 1, 0.5, 1])
    other[2, 3] = -0.5
    fine = saved(tmp_path / "fine.nii", np.repeat(labels, 2, axis=2), other)
    path = tmp_path / f"again{ending}"
    convert_image(fine, path)
    moved, own = (LoadRegions()(one, anatomy) for one in (path, study["regions"]))
    assert torch.equal(moved.as_tensor(), own.as_tensor())
    assert moved.dtype == torch.int32


def test_labels_of_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(50, 256, (40, 36), dtype=np.uint8)).save(tmp_path / name)
    mask = np.zeros((40, 36), dtype=np.uint8)
    mask[18:24, 14:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    d = {"anatomy": str(tmp_path / "a.png"), "overlay": str(tmp_path / "b.png"), "regions": str(tmp_path / "mask.png")}
    (row,) = json.loads(MeasureRegionsd()(LoadRegionsd()(LoadStudyImaged()(d)))["region_table"])
    assert (row["region"], row["voxels"]) == (255, 36)
    assert "volume_ml" not in row
    Image.fromarray(mask[:30]).save(tmp_path / "small.png")
    with refused(Reason.GRID, "small.png", "(30, 36)"):
        LoadRegions()(tmp_path / "small.png", read_image(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (lambda labels: labels * 0.5, Reason.VALUES, "whole numbers"),
        (lambda labels: labels - 1.0, Reason.VALUES, "whole numbers"),
        (lambda labels: labels * 2.0**24, Reason.VALUES, "whole numbers"),
        (lambda labels: labels * 0.0, Reason.EMPTY, "value 0"),
        (lambda labels: np.where(labels == 2, np.nan, labels), Reason.NOT_FINITE, "NaN in 32 voxels"),
    ],
)
def test_what_is_no_label_image_is_refused(study, tmp_path, change, reason, said):
    labels = nib.load(study["regions"]).get_fdata()
    path = saved(tmp_path / "bad.nii.gz", change(labels).astype(np.float32))
    with refused(reason, "bad.nii.gz", said):
        LoadRegionsd()({**LoadStudyImaged()(study), "regions": path})


def test_a_region_outside_the_anatomy_is_refused(study, tmp_path):
    labels = nib.load(study["regions"]).get_fdata().astype(np.float32)
    away = AFFINE.copy()
    away[0, 3] = 28  # the second region leaves
    anatomy = read_image(study["anatomy"])
    with refused(Reason.GRID, "away.nii.gz", "region 2 of it covers no voxel"):
        LoadRegions()(saved(tmp_path / "away.nii.gz", labels, away), anatomy)
    away[0, 3] = 200
    with refused(Reason.GRID, "far.nii.gz", "regions 1, 2 of it cover no voxel"):
        LoadRegions()(saved(tmp_path / "far.nii.gz", labels, away), anatomy)
    with refused(Reason.MISSING, "none.nii.gz"):
        LoadRegions()(tmp_path / "none.nii.gz", anatomy)


def test_a_region_without_surroundings_cannot_be_judged(study, tmp_path):
    everywhere = np.ones(SHAPE, dtype=np.uint8)
    everywhere[0] = 0
    path = saved(tmp_path / "all.nii.gz", everywhere)
    d = measured({**study, "regions": path})
    found = JudgeRegions()(d["image"][:1], d["image"], d["regions"], d["region_table"])
    assert found["regions"][0]["overlay"]["contrast"] is None
    assert "cannot be judged" in found["warnings"][0]
    json.dumps(found, allow_nan=False)


def test_surroundings_of_one_value_have_no_noise(study, tmp_path):
    """A hot spot in what is zero everywhere else."""
    labels = nib.load(study["regions"]).get_fdata()
    study["overlay"] = saved(tmp_path / "pet.nii.gz", (3.0 * (labels == 1)).astype(np.float32))
    study["overlay_modality"] = "PT"
    d = measured(study, (0, 4))
    found = JudgeRegions()(d["image"][:1], d["image"], d["regions"], d["region_table"], {"overlay": [0, 4]})
    assert found["regions"][0]["overlay"]["cnr"] is None
    assert "without noise" in found["warnings"][0]
    assert len(found["warnings"]) == 1  # the other shows nothing
