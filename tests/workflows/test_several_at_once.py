"""The benchmark of several overlays fused at once, by rules whose figures are known."""

import csv
import importlib
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.functional import quantise, vif_single
from fusion_nets.networks import FusionUNet


@pytest.fixture
def several(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("several")


@pytest.fixture
def of_three(several):
    return next(several.simulated(5, ("CT", "PT", "NM"), 144))


def mean(images):
    return images.mean(1, keepdim=True)


def test_sets_have_lesions_in_one_source_at_a_time(several, of_three):
    assert of_three.images.shape == (9, 4, 144, 144)
    changed = (of_three.images[1:] != of_three.images[:1]).any(-1).any(-1)
    assert changed.sum(1).tolist() == [1] * 8
    assert changed.sum(0).tolist() == [2] * 4
    again, other = (list(islice(several.simulated(seed, ("CT", "PT"), 144), 2)) for seed in (5, 6))
    assert len({of.name for of in again}) == 2
    assert not torch.equal(again[0].images[0], other[0].images[0])
    assert again[0].group == "MRI, CT, PET"


def test_pairs_in_turns(several):
    images = torch.tensor([40, 80, 160, 240]).view(1, 4, 1, 1).double() / 255
    # ((40 + 80) / 2 + 160) / 2 = 110; (110 + 240) / 2 = 175; the reverse 140, 150, 115
    for order, level in (((1, 2, 3), 175), ((3, 2, 1), 115)):
        assert quantise(several.in_turns(mean, order)(images)).item() == level
    names = list(several.methods_of("Mean", mean, ("CT", "PT", "NM")))
    assert names[1:] == ["Mean one after the other: CT, PET, SPECT", "Mean one after the other: SPECT, PET, CT"]


def test_a_lesion_is_followed_in_its_own_source(several, of_three):
    of_methods = {f"shows {place}": lambda images, place=place: images[:, place, None] for place in range(4)}
    found = several.judged(of_three, of_methods)
    for place, method in enumerate(of_methods):
        cells = several.cells_of([score for score in found.scores if score.method == method], of_three.modalities)
        assert cells == ["0 %, 1.00" if place == other else "100 %, 0.00" for other in range(4)]
    alone = [score.recovery for score in found.scores if score.method == several.ITSELF]
    assert alone == pytest.approx([1] * (8 * len(of_three.cases[0].lesions)))
    clean = of_three.images[:1].split(1, dim=1)
    shown = sum(vif_single(clean[2], source).item() for source in clean)
    assert found.metrics["shows 2"]["VIF"] == pytest.approx(shown, rel=1e-3)


def test_an_observer_of_few_lesions_is_left_out(several, of_three, monkeypatch):
    other = list(islice(several.simulated(5, ("CT", "PT", "NM"), 144), 5))
    scores = [score for of in other for score in several.judged(of, {}).scores]
    assert all(cell.count(",") == 1 for cell in several.cells_of(scores, of_three.modalities))
    monkeypatch.setattr(several, "LEAST", 5)
    areas = [float(cell.split(", ")[2]) for cell in several.cells_of(scores, of_three.modalities)]
    assert all(0.3 < area <= 1 for area in areas)


def test_order_and_number(several, of_three):
    of_two = next(several.simulated(5, ("CT", "PT"), 144))
    rows = several.order_table(lambda images: images.amax(1, keepdim=True), [of_two, of_three])
    assert len(rows) == 8
    assert {row[2] for row in rows} == {"0.000, 0"}
    told = {(one, other): cell for one, other, cell in several.order_table(mean, [of_two, of_three])}
    assert told["MRI, CT, PET", "MRI, PET, CT"] == "0.000, 0"
    assert told["MRI, CT", "MRI, CT, CT"] != "0.000, 0"
    first = [image / 255 for image in quantise(of_two.images[:1])]
    levels = 255 * np.abs(first[0][:2].mean(0) - first[0][[0, 1, 1]].mean(0)).mean().item()
    assert float(told["MRI, CT", "MRI, CT, CT"].split(", ")[0]) == pytest.approx(levels, abs=0.3)


def test_whether_the_attention_has_a_part(several):
    pairs = torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    for overlays, same in ((1, True), (2, False)):
        network = FusionUNet(8).eval()
        torch.nn.init.normal_(network.head.weight, std=0.05)

        def fuse(images, network=network, overlays=overlays):
            return network(images[:, [0, *[1] * overlays]])

        assert several.has_no_part_in_pairs(network, fuse, pairs) is same


def test_of_rules(several, tmp_path, capsys):
    several.main(["--pairs", "2", "--size", "144", "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", printed, re.MULTILINE)]
    assert [row[:2] for row in rows[2:]] == [
        *(["MRI, CT, PET", "pointwise maximum"], ["", "pointwise mean"], ["", several.ITSELF]),
        *(["MRI, CT, PET, SPECT", "pointwise maximum"], ["", "pointwise mean"], ["", several.ITSELF]),
    ]
    # the mean keeps a third, and of four sources a quarter
    assert rows[3][2:6] == ["0 %, 0.33"] * 3 + ["-"]
    assert [cell.split(", ")[1] for cell in rows[6][2:6]] == ["0.25"] * 4
    lesions = list(csv.DictReader((tmp_path / "several.csv").open()))
    assert {row["source"] for row in lesions} == {"anatomy", "overlay", "overlay 2", "overlay 3"}
    for name in ("CT-PT.png", "CT-PT-NM.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
