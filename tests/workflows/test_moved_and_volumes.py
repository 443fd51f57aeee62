"""The benchmarks of sources that do not lie on each other, and of volumes, by rules whose figures are known."""

import csv
import importlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import head_pair
from PIL import Image
from scipy.ndimage import center_of_mass, shift

from evaluation.observers import Lesion, lesion_change


def benchmark(name, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def moved(monkeypatch):
    return benchmark("misregistration", monkeypatch)


@pytest.fixture
def volumes(monkeypatch):
    return benchmark("flicker", monkeypatch)


@pytest.fixture
def dataset(tmp_path):
    """Two subjects with a slice each, CT and PET, as an AANLIB folder."""
    splits = {}
    for kind in ("CT", "PET"):
        names = [f"{subject}001.png" for subject in (1, 2)]
        for number, name in enumerate(names):
            for folder, image in zip(("MRI", kind), head_pair(number, kind == "CT", 144), strict=True):
                path = tmp_path / f"{kind}-MRI" / folder / name
                path.parent.mkdir(exist_ok=True, parents=True)
                Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
        splits[f"{kind}-MRI"] = {"train": names[:1], "val": [], "test": names[1:], "published": []}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    return tmp_path


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize("mm", [0, 3])
def test_lesions_move_with_their_image(moved, number, turn, mm):
    lesion = Lesion(40, 100, 5.0, 0.5)
    move = moved.Move(moved.Displacement(mm, turn), number, (144, 130), pixel=1.5)
    image = move.image(lesion_change([lesion], (144, 130), 0.7))
    place = move.lesion(lesion)
    assert center_of_mass(image) == pytest.approx((place.row, place.column), abs=0.6)
    assert image.sum() == pytest.approx(lesion_change([lesion], (144, 130), 0.7).sum(), rel=0.01)
    if not turn:
        assert np.hypot(place.row - 40, place.column - 100) == mm / 1.5


def test_whole_pixels_are_moved_as_they_are(moved):
    image = np.rint(255 * head_pair(0, ct=True)[1]) / 255
    move = moved.Move(moved.Displacement(2, 0), 1, image.shape, pixel=1.0)
    np.testing.assert_allclose(move.image(image), np.rint(shift(image, (2, 0), order=0) * 255) / 255, atol=1e-12)
    assert moved.Move(moved.Displacement(), 1, image.shape, 1.0).image(image) is image


def test_of_rules(moved, dataset, tmp_path, capsys):
    asked = ["--dataset_dir", str(dataset), "--shifts", "0", "2", "--turns", "3", "--output_dir", str(tmp_path / "out")]
    moved.main(asked)
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", printed, re.MULTILINE)]
    assert [row[1] for row in rows[2:]] == ["none", "2 mm", "3°"] * 2
    # the mean keeps half of each lesion, wherever the overlay lies
    assert [row[2:5] for row in rows[5:]] == [["0 %", "0 %", "0.50"]] * 3
    assert float(rows[2][2].removesuffix(" %")) > 0
    told = list(csv.DictReader((tmp_path / "out" / "misregistration.csv").open()))
    assert len(told) == 2 * 2 * 3 * 2
    clean = {
        row["pair"]: float(row["Qabf"]) for row in told if (row["method"][-4:], row["shift_mm"]) == ("mean", "2.0")
    }
    assert len(clean) == 4
    assert (tmp_path / "out" / "misregistration.png").read_bytes().startswith(b"\x89PNG")


def test_lesions_of_volumes(volumes):
    """The mean keeps half whatever the span; so does what shows each source in every other slice, and flickers."""
    heads = np.stack([head_pair(number % 2, ct=False) for number in range(31)], axis=-1)
    volume = torch.tensor(np.rint(heads * 255) / 255)
    placed = volumes.placed_in(volume.numpy(), "PET")
    assert [one.span for one in placed[:5]] == [1, 2, 3, 4, 5]
    assert all(b.first - a.first == a.span + 3 for a, b in itertools.pairwise(placed))
    shown = volumes.with_lesions(volume, "PET", placed)

    def kept_by(fuse):
        return volumes.recoveries({kind: volumes.fused_by(fuse, one) for kind, one in shown.items()}, shown, placed)

    kept = kept_by(lambda images: images.mean(1, keepdim=True))
    assert all(len(of_kinds) == 4 for of_kinds in kept.values())
    assert torch.cat([one for of_kinds in kept.values() for one in of_kinds.values()]).tolist() == pytest.approx(
        [0.5] * 4 * sum(len(one.lesions) for one in placed), abs=0.02
    )

    def in_turns(images):
        return torch.where(torch.arange(len(images))[:, None, None, None] % 2 == 0, images[:, :1], images[:, 1:])

    of_two = torch.cat(list(kept_by(in_turns)[2].values()))
    assert of_two.tolist() == pytest.approx([0.5] * len(of_two), abs=0.05)
    fused = volumes.fused_by(in_turns, volume)[None]
    assert volumes.flicker(fused, volume[None, :1], volume[None, 1:]) > 1
