import json

import pytest
import torch
from monai.data import CacheDataset
from PIL import Image

from fusion_nets.simulation import SimulatedPairs
from fusion_nets.text import WriteTruthd
from fusion_nets.workflows import drawn_pairs, training_pairs, training_sources, training_texts


def read(entry):
    return entry["name"]


def test_without_a_folder_pairs_are_simulated():
    pairs = training_pairs(None, "train", read, {"seed": 3, "length": 5, "size": 32})
    assert isinstance(pairs, SimulatedPairs)
    assert (len(pairs), pairs.seed, pairs.size) == (5, 3, 32)


def test_pairs_of_a_folder_go_through_the_transform(tmp_path):
    sections = {"train": ["2001.png", "2002.png"], "val": ["3001.png"]}
    for modality in ("MRI", "PET"):
        (tmp_path / "PET-MRI" / modality).mkdir(parents=True)
        for name in ("2001.png", "2002.png", "3001.png"):
            Image.new("L", (8, 8), 90).save(tmp_path / "PET-MRI" / modality / name)
    (tmp_path / "splits.json").write_text(json.dumps({"PET-MRI": sections}))
    train, val = (training_pairs(tmp_path, section, read, {}) for section in ("train", "val"))
    assert isinstance(train, CacheDataset)
    assert [train[i] for i in range(len(train))] == ["PET-MRI_2001", "PET-MRI_2002"]
    assert [val[i] for i in range(len(val))] == ["PET-MRI_3001"]


def test_pairs_are_drawn_by_the_seed_and_so_many():
    pairs = training_pairs(None, "train", read, {"length": 1000})
    torch.manual_seed(1)
    first, second = list(drawn_pairs(pairs, 40)), list(drawn_pairs(pairs, 40))
    torch.manual_seed(1)
    assert list(drawn_pairs(pairs, 40)) == first != second
    assert len(first) == 40
    assert all(0 <= number < 1000 for number in first)


def test_kinds_of_pairs_of_a_folder_are_drawn_alike(tmp_path):
    kinds = ["CT-MRI"] * 2 + ["PET-MRI"] * 18
    pairs = CacheDataset([{"pair": kind} for kind in kinds], None, progress=False)
    torch.manual_seed(0)
    drawn = [kinds[number] for number in drawn_pairs(pairs, 4000)]
    assert 0.45 < drawn.count("CT-MRI") / 4000 < 0.55
    drawn = [kinds[number] for number in drawn_pairs(pairs, 4000, emphasis={"CT-MRI": 3})]
    assert 0.7 < drawn.count("CT-MRI") / 4000 < 0.8


def sources_of(texts):
    """A list, as a reader would write it."""
    return [
        {
            "anatomy": f"{name}/mr.png",
            "overlay": f"{name}/pet.png",
            "overlay_modality": "PT",
            "overlay_text": text,
            "name": name,
        }
        for name, text in texts.items()
    ]


def test_sources_and_what_is_said_of_them_come_from_the_lists():
    lists = {"train": sources_of({"a": "Hot.", "b": "Cold."}), "val": sources_of({"c": "Warm."})}
    for section, told in (("train", ["Hot.", "Cold."]), ("val", ["Warm."])):
        sources = training_sources(None, section, lambda item: (item["overlay_text"], item["kind"]), {}, lists)
        assert isinstance(sources, CacheDataset)
        assert [sources[i] for i in range(len(sources))] == [(text, "PT") for text in told]
        assert training_texts(None, section, {}, lists) == told


def test_without_a_list_or_a_folder_sources_are_simulated():
    made = {"seed": 3, "length": 4, "size": 48, "truth": True, "transform": WriteTruthd()}
    sources = training_sources(None, "val", read, made, {"train": None, "val": None})
    assert isinstance(sources, SimulatedPairs)
    told = training_texts(None, "val", made)
    assert told == [item[key] for item in (sources[i] for i in range(4)) for key in ("anatomy_text", "overlay_text")]


def test_what_one_s_own_images_lack_is_not_simulated():
    lists = {"train": sources_of({"a": "Hot."}), "val": None}
    with pytest.raises(ValueError, match='a list is given of "train" and none of "val"'):
        training_sources(None, "val", read, {}, lists)
    for training in (training_pairs, training_sources):
        with pytest.raises(ValueError, match="texts are given without the folder"):
            training(None, "train", read, {"length": 4}, texts="texts.json")


@pytest.mark.parametrize("beside", [{"data": "set"}, {"texts": "texts.json"}])
def test_a_folder_beside_lists_of_all_sections_is_not_left_aside(beside):
    lists = {"train": sources_of({"a": "Hot."}), "val": sources_of({"b": "Warm."})}
    for given in (training_sources, training_texts):
        called = {"section": "val", "simulated": {}, "datalists": lists, "data": None, **beside}
        if given is training_sources:
            called["transform"] = read
        with pytest.raises(ValueError, match="lists of all sections are given, and a folder or its texts as well"):
            given(**called)


def test_kinds_of_sources_are_drawn_alike():
    kinds = ["MR"] * 2 + ["PT"] * 18
    sources = CacheDataset([{"kind": kind} for kind in kinds], None, progress=False)
    torch.manual_seed(0)
    drawn = [kinds[number] for number in drawn_pairs(sources, 4000, {"MR": 3}, "kind")]
    assert 0.7 < drawn.count("MR") / 4000 < 0.8
