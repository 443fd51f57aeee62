import json

import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from fusion_nets import __version__
from fusion_nets.transforms import RecordChoices, RecordChoicesd

MATRIX = np.eye(4) + 0.25


def pair(**overlay):
    affine = torch.diag(torch.tensor([1.5, 1.5, 3.0, 1.0], dtype=torch.float64))
    told = {
        "anatomy": {"modality": "MR", "units": "stored", "display": {"window": None, "range": [3.0, 800.5]}},
        "overlay": {"modality": "PT", "display": {"window": None, "range": [0.0, np.float32(12)]}, **overlay},
    }
    return {
        "name": "case",
        **{
            key: MetaTensor(torch.rand(1, 8, 6, 4), affine=affine, meta={"filename_or_obj": "/data/DOE", **meta})
            for key, meta in told.items()
        },
    }


def test_settings_repeat_the_result_and_the_record_tells_the_rest():
    registration = {"mode": "rigid", "matrix_ras_mm": MATRIX.tolist(), "before": None, "after": 1.2}
    d = RecordChoicesd(details={"method": "DM-FNet"})(pair(registration=registration, palette="hot_iron"))
    said = json.loads(d["record"])
    assert said.pop("record") == {
        "fusion_nets": __version__,
        "method": "DM-FNet",
        "anatomy": {
            "size": [8, 6, 4],
            "spacing_mm": [1.5, 1.5, 3.0],
            "modality": "MR",
            "units": "stored",
            "display": {"window": None, "range": [3.0, 800.5]},
        },
        "overlay": {
            "size": [8, 6, 4],
            "spacing_mm": [1.5, 1.5, 3.0],
            "modality": "PT",
            "display": {"window": None, "range": [0.0, 12.0]},
            "palette": "hot_iron",
        },
        "registration": registration,
    }
    assert said == {
        "anatomy_window": [3.0, 800.5],
        "overlay_window": [0.0, 12.0],
        "overlay_palette": "hot_iron",
        "register": "none",
        "transform": MATRIX.tolist(),
    }


def test_twin_leaves_the_images_as_they_are():
    images = {key: image for key, image in pair(window=None).items() if key != "name"}
    record = RecordChoices({"method": "DM-FNet"})(images)
    assert record == RecordChoicesd(details={"method": "DM-FNet"})(pair(window=None))["record"]
    assert images["anatomy"].meta["display"]["range"] == [3.0, 800.5]


def test_no_file_is_named():
    assert "DOE" not in RecordChoicesd()(pair())["record"]


def test_what_remains_can_be_collated():
    d = RecordChoicesd()(pair(registration={"matrix_ras_mm": MATRIX, "before": None}, window=None))
    again = decollate_batch(list_data_collate([d]))[0]
    assert again["record"] == d["record"]
    assert again["overlay"].meta["modality"] == "PT"
    assert json.loads(d["record"])["transform"] == MATRIX.tolist()


def test_deformable_registration_is_found_again_not_kept():
    """Its matrix alone would be another result."""
    for mode, register in (("deformable", "deformable"), ("given", "none")):
        registration = {"mode": mode, "matrix_ras_mm": MATRIX.tolist(), "bending": {"folded": 0.0}}
        said = json.loads(RecordChoicesd()(pair(registration=registration))["record"])
        assert said["register"] == register
        assert "transform" not in said
        assert said["record"]["registration"] == registration
