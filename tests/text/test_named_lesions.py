import json

import numpy as np
import pytest
import torch

from fusion_nets.simulation import SimulatedPairs
from fusion_nets.text import (
    Finding,
    FindingEncoder,
    RandNameLesionsd,
    parse_findings,
    phrase_finding,
    truth_findings,
)
from fusion_nets.text.findings import PLACES
from fusion_nets.text.truths import VISIBLE

FINDINGS = [
    Finding("bright region", "right", "frontal", 12.0, "mm", 60.0),
    Finding("dark uptake", "left", "temporal", 5.3, "mm", 20.0),
    Finding("bright hemorrhage", "midline", "occipital", 21.0, "mm", 80.0),
]


@pytest.mark.parametrize("name", ["MRI", "CT", "PET", "SPECT"])
def test_readers_say_the_same_in_other_words(name):
    rng = np.random.default_rng(0)
    said = {phrase_finding(finding, name, rng) for finding in FINDINGS for _ in range(60)}
    assert len(said) > 100
    for sentence in said:
        (read,) = parse_findings(sentence)
        (meant,) = [one for one in FINDINGS if one.side == read.side]
        assert (read.place, read.kind.split()[0]) in {
            (meant.place, meant.kind.split()[0]),
            (meant.place, "region"),
            (meant.place, "uptake"),
        }, sentence
        assert read.size is None or read.size == pytest.approx(meant.size, abs=0.5)


@pytest.fixture(scope="module")
def pairs():
    return SimulatedPairs(seed=3, length=40, size=96, shapes_share=0.3, lesions=3, truth=True, upright=1.0)


def tone_of(text):
    return {finding.kind.split()[0] for finding in parse_findings(text)}


def test_what_is_named_is_there_and_marked(pairs):
    name = RandNameLesionsd(right=1.0).set_random_state(0)
    marked = 0
    for index in range(40):
        item = pairs[index]
        named = name(item)
        assert named["image"].shape == (1, 96, 96)
        assert named["named"].shape == (2, 96, 96)
        assert (named["named"][0] <= named["named"][1]).all()
        if not named["named"][0].any():
            continue
        marked += 1
        change = (item["lesion_image"] - item["image"]).abs()
        which = [i for i in range(2) if torch.equal(named["image"][0], item["lesion_image"][i])]
        assert any(change[i][named["named"][0] > 0].min() > 0 for i in which)
    assert marked > 20


def test_a_wrong_text_marks_nothing(pairs):
    name = RandNameLesionsd(right=0.0).set_random_state(0)
    for index in range(20):
        item = pairs[index]
        named = name(item)
        assert not named["named"][0].any()
        (which,) = {
            i for i in range(2) for v in ("image", "lesion_image") if torch.equal(named["image"][0], item[v][i])
        }
        if torch.equal(named["image"][0], item["image"][which]):
            continue  # it may say what would be there
        truth = json.loads(item["truth"])
        there = {(f.kind.split()[0], f.side, f.place) for f in truth_findings(truth, ("anatomy", "overlay")[which])}
        for said in parse_findings(named["text"]):
            assert (said.kind.split()[0], said.side, said.place) not in there, named["text"]


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_whatever_is_bright_or_dark_as_the_text_says_is_marked_as_alike(pairs, right):
    name, marked, others = RandNameLesionsd(right=right).set_random_state(0), 0, 0
    for index in range(40):
        item = pairs[index]
        named, truth = name(item), json.loads(item["truth"])
        which = [i for i in range(2) if torch.equal(named["image"][0], item["lesion_image"][i])]
        if len(which) != 1 or torch.equal(named["image"][0], item["image"][which[0]]):
            continue
        tones = tone_of(named["text"])
        for lesion in truth["lesions"]:
            contrast = lesion["contrast"][which[0]]
            if abs(contrast) < VISIBLE:
                continue
            is_alike = ("bright" if contrast > 0 else "dark") in tones
            own = (item["lesion_map"][0] == lesion["label"]) & (named["named"][1] > 0)
            assert own.any() == is_alike, (index, lesion["label"])
            marked, others = marked + is_alike, others + (not is_alike)
    assert marked > 10
    assert others > 3


def test_the_same_seed_gives_the_same_text(pairs):
    texts = [RandNameLesionsd().set_random_state(5)(pairs[4])["text"] for _ in range(2)]
    assert texts[0] == texts[1]


def test_texts_as_figures():
    texts = ["Small bright region, right frontal, in the CT.", "No hemorrhage. Left temporal dark mass, 12 mm.", ""]
    states, mask, vector = FindingEncoder()(texts)
    assert mask.tolist() == [[True], [True], [False]]
    assert states.shape == (3, 1, FindingEncoder.width)
    assert torch.equal(vector, states[:, 0])
    assert states[:, 0, 0].tolist() == [1, -1, 0]
    assert states[:, 0, 1:5].tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert states[0, 0, 5 + PLACES.index("frontal")] == 1
    assert states[1, 0, -2:].tolist() == pytest.approx([1, np.log(12) / np.log(25)])


@pytest.mark.parametrize(
    "text",
    ["Head extent 46.0% of the image.", "Mean level 21.5%.", "No other lesion.", "Midline shift.", "Ventricles."],
)
def test_what_lies_nowhere_is_not_looked_for(text):
    assert not FindingEncoder()([text]).mask.any()


def test_a_single_string_is_refused():
    with pytest.raises(ValueError, match="sequence of texts"):
        FindingEncoder()("Bright region.")


def test_a_text_of_thousands_of_findings_takes_no_memory_for_them(caplog):
    """Each would be an image of its own to the network."""
    said = "Right frontal bright region. " * 2000
    assert FindingEncoder()([said]).states.shape[1] == 1
    many = " ".join(f"Left frontal dark region, {size}.5 mm." for size in range(2, 202))
    assert FindingEncoder()([many]).states.shape[1] == 32
    assert "names 200 findings; the first 32" in caplog.text
