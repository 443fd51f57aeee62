import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from fusion_nets.simulation import MODALITIES, SimulatedPairs, simulate_pair
from fusion_nets.text import (
    Finding,
    RandTakeTruthd,
    WriteTruthd,
    displayed,
    parse_findings,
    truth_findings,
    write_truth,
)

LESION = {
    "label": 1,
    "kind": "blob",
    "side": "right",
    "place": "frontal",
    "size": 11.26,
    "centre": [1.0, 2.0],
    "contrast": [0.0, 0.2],
    "level": [0.5, 0.7344],
    "wanted": [0, 1],
}
TRUTH = {
    "modality": "CT",
    "sequences": ["T2", "brain"],
    "spacing": 1.0,
    "is_head": True,
    "plane": "axial",
    "lesions": [LESION],
}


def with_lesions(*lesions, **changes):
    return {**TRUTH, **changes, "lesions": [{**LESION, **lesion} for lesion in lesions]}


def test_a_lesion_is_told_of_where_it_shows():
    assert truth_findings(TRUTH, "overlay") == [Finding("bright region", "right", "frontal", 11.3, "mm", 73.4)]
    assert write_truth(TRUTH, "overlay") == "Axial CT. Right frontal bright region, 11.3 mm across, level 73.4%."
    assert truth_findings(TRUTH, "anatomy") == []
    assert write_truth(TRUTH, "anatomy") == "Axial MRI. No lesion."
    assert parse_findings(write_truth(TRUTH, "anatomy")) == []


def test_the_tone_is_the_source_s_own():
    truth = with_lesions({"kind": "haemorrhage", "contrast": [-0.1, 0.2]})
    assert [finding.kind for finding in truth_findings(truth, "anatomy")] == ["dark hemorrhage"]
    assert [finding.kind for finding in truth_findings(truth, "overlay")] == ["bright hemorrhage"]


def test_the_largest_comes_first_and_some_can_be_left_out():
    truth = with_lesions({"size": 4.0}, {"label": 2, "size": 20.0}, {"label": 3, "size": 9.0, "contrast": [0.0, 0.001]})
    assert [finding.size for finding in truth_findings(truth, "overlay")] == [20.0, 4.0]
    assert [finding.size for finding in truth_findings(truth, "overlay", [1, 3])] == [4.0]
    assert write_truth(truth, "overlay", []) == "Axial CT. No lesion."


@pytest.mark.parametrize(("plane", "side"), [("coronal", "right"), ("sagittal", ""), ("", "")])
def test_sides_are_told_where_a_reader_sees_them(plane, side):
    assert [finding.side for finding in truth_findings(with_lesions({}, plane=plane), "overlay")] == [side]


def test_shapes_have_the_sides_of_the_picture():
    assert truth_findings(with_lesions({}, plane="", is_head=False), "overlay")[0].side == "right"
    assert write_truth(with_lesions({}, plane="", is_head=False), "overlay").startswith("CT. Right")


def test_what_is_written_of_simulated_pairs_is_read_back():
    pytest.importorskip("nilearn")
    told = 0
    for i in range(90):
        truth = simulate_pair([11, i], MODALITIES[i % 3], 96, upright=0.8, lesions=4).truth()
        for source in ("anatomy", "overlay"):
            findings = truth_findings(truth, source)
            assert parse_findings(write_truth(truth, source)) == findings
            told += len(findings)
    assert told > 100


def test_the_transform_takes_json_and_mappings():
    for truth in (TRUTH, json.dumps(TRUTH)):
        item = WriteTruthd()({"truth": truth})
        assert item["anatomy_text"] == write_truth(TRUTH, "anatomy")
        assert item["overlay_text"] == write_truth(TRUTH, "overlay")
    with pytest.raises(KeyError):
        WriteTruthd()({})
    assert WriteTruthd(allow_missing_keys=True)({}) == {}


def test_another_source_is_refused():
    with pytest.raises(ValueError, match="anatomy, overlay"):
        truth_findings(TRUTH, "fused")


def test_either_source_is_taken_with_its_text():
    image = torch.arange(24.0).reshape(2, 3, 4) / 24
    for truth in (TRUTH, json.dumps(TRUTH)):
        take, taken = RandTakeTruthd().set_random_state(seed=0), set()
        for _ in range(20):
            item = take({"lesion_image": image, "truth": truth})
            assert set(item) == {"image", "text"}
            which = int(item["image"].meta["modality"] == "CT")
            assert item["image"].meta["modality"] == ("MR", "CT")[which]
            assert torch.equal(item["image"].as_tensor(), image[which : which + 1])
            assert item["text"] == write_truth(TRUTH, ("anatomy", "overlay")[which])
            taken.add(which)
        assert taken == {0, 1}
    assert RandTakeTruthd(allow_missing_keys=True)({"a": 1}) == {"a": 1}


def test_what_is_taken_is_shown_as_it_lies():
    """So that the patient's right, which the texts tell of, is at the left."""
    image = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    item = RandTakeTruthd()({"lesion_image": image, "truth": {**TRUTH, "modality": "NM"}})
    which = int(item["image"].meta["modality"] == "NM")
    assert np.array_equal(np.asarray(displayed(item["image"]))[..., 0], (image[which] * 255).round().numpy())


def test_a_simulated_item_is_the_same_source_every_time():
    data = SimulatedPairs(seed=3, length=12, size=48, truth=True, transform=Compose([RandTakeTruthd()]))
    first = [data[i] for i in range(12)]
    again = [data[i] for i in reversed(range(12))][::-1]
    assert [item["text"] for item in first] == [item["text"] for item in again]
    assert {item["image"].meta["modality"] for item in first} > {"MR"}
