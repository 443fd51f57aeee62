"""The benchmark that makes the tables of the model cards: the reference judge's figures, in memory and of files."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import head_pair
from monai.data import MetaTensor
from PIL import Image

from evaluation.functional import nabf, qabf, quantise
from evaluation.observers import LESION_KINDS
from fusion_nets.datalists import aanlib_pairs
from fusion_nets.transforms import MergeChroma, PaletteChroma
from fusion_nets.workflows import write_lesion_pairs

pytestmark = pytest.mark.slow

KINDS = ("CT", "PET")
COUNT = 5


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("lesions")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Five subjects with a slice each, CT and PET, as an AANLIB folder; one of each is published."""
    root = tmp_path_factory.mktemp("atlas")
    splits = {}
    for kind in KINDS:
        names = [f"{subject}001.png" for subject in range(1, COUNT + 1)]
        for number, name in enumerate(names):
            for folder, image in zip(("MRI", kind), head_pair(number, kind == "CT", 144), strict=True):
                save(root / f"{kind}-MRI" / folder / name, image)
        splits[f"{kind}-MRI"] = {"train": names[:3], "val": names[3:4], "test": names[4:], "published": names[4:]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


def save(path, image):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


def levels(path):
    return np.asarray(Image.open(path)) / 255


def tables_of(printed):
    """Of each table the rows, by the first cell, and the head."""
    found = {}
    for name, table in re.findall(r"^(\w+)\n\n((?:\|.*\n)+)", printed, re.MULTILINE):
        rows = [line[1:-1].split("|") for line in table.splitlines()]
        found[name] = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    return found


def test_of_a_rule_as_the_reference_judge(benchmark, dataset, judge, tmp_path, capsys):
    asked = ["--dataset_dir", str(dataset), "--rule", "maximum", "--tables", "lost", "makes", "curve"]
    benchmark.main([*asked, "--output_dir", str(tmp_path / "out")])
    tables = tables_of(capsys.readouterr().out)
    pairs = [
        {
            "name": pair["name"],
            "group": pair["pair"].split("-")[0],
            "anatomy": pair["anatomy"],
            "overlay": pair["overlay"],
        }
        for pair in aanlib_pairs(dataset, ["train", "val", "test"])
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    judge.make(tmp_path / "pairs.json", tmp_path / "cases", per=5, most=24, seed=0)
    for pair in json.loads((tmp_path / "cases" / "datalist.json").read_text()):
        sources = [levels(tmp_path / "cases" / pair[key]) for key in ("anatomy", "overlay")]
        save(tmp_path / "fused" / f"{pair['name']}_fused.png", np.max(sources, axis=0))
    judge.score(tmp_path / "cases", str(tmp_path / "fused"))
    expected = json.loads((tmp_path / "fused" / "lesions.json").read_text())

    labels = importlib.import_module("card_tables").KINDS
    assert set(labels) == set(LESION_KINDS)
    worst = dict.fromkeys(KINDS, 0.0)
    for kind, label in labels.items():
        row = tables["lost"][label]
        for number, group in enumerate(KINDS):
            of = expected[f"{group}: {kind}"]
            recovery, lost, areas = row[3 * number : 3 * number + 3]
            assert recovery == f"{of['recovery']:.2f}"
            assert lost.split(" (")[0] == f"{100 * of['lost']:.0f} %"
            assert areas == f"{of['visible']:.2f} ({of['side by side']:.2f})"
            if "both" not in kind and "," not in kind:
                worst[group] = max(worst[group], of["lost"])
    assert tables["lost"]["**worst of one source**"][1::3] == [f"**{100 * worst[group]:.0f} %**" for group in KINDS]
    assert max(worst.values()) > 0.2

    # what is lost of discs, in the table of makes, is the headline's
    makes = tables["makes"]
    assert [cell.split(" %")[0] for cell in makes["discs"][::2]] == [f"{100 * worst[group]:.0f}" for group in KINDS]
    assert set(makes) == {"make", "---", "discs", "small", "large", "faint", "strong", "rings", "ragged"}
    curve = tables["curve"]
    assert set(curve) > {"contrast 0.07", "contrast 0.16", "contrast 0.30", "radius 2", "radius 4", "radius 7"}
    pooled = [expected[f"CT: {kind}"] for kind in ("overlay bright", "overlay dark")]
    share = sum(of["lost"] for of in pooled) / 2  # as many lesions of either
    area, beside = (sum(of[key] for of in pooled) / 2 for key in ("visible", "side by side"))
    assert curve["contrast 0.16"][0] == f"{100 * share:.0f} %, {area:.2f} ({beside:.2f})"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"lesions.csv", "lesion_kinds.csv", "psychometric.csv", "psychometric.png"}


def test_colour_in_memory_is_that_of_files(benchmark, dataset, tmp_path, capsys):
    benchmark.main(["--dataset_dir", str(dataset), "--rule", "mean", "--tables", "colour"])
    in_memory = tables_of(capsys.readouterr().out)["colour"]
    pairs = [
        {key: value for key, value in pair.items() if key != "subject"}
        for pair in aanlib_pairs(dataset, ["train", "val", "test"], ["PET-MRI"])
    ]
    write_lesion_pairs(pairs, tmp_path / "cases", ["discs"], progress=False)
    for pair in json.loads((tmp_path / "cases" / "datalist.json").read_text()):
        anatomy, overlay = (
            torch.from_numpy(levels(tmp_path / "cases" / pair[key]))[None] for key in ("anatomy", "overlay")
        )
        chroma = PaletteChroma("ember")(MetaTensor(overlay))
        image = MergeChroma()((anatomy + overlay) / 2, chroma)
        save(tmp_path / "fused" / f"{pair['name']}.png", np.moveaxis(image.numpy(), 0, -1))
    asked = ["--cases", str(tmp_path / "cases"), "--fused", str(tmp_path / "fused"), "--tables", "colour", "lost"]
    benchmark.main(asked)
    assert tables_of(capsys.readouterr().out)["colour"] == in_memory
    assert all(0.5 < float(row[0].strip("*")) <= 1 for name, row in in_memory.items() if name[:3] in ("the", "bot"))


def test_metrics_of_published_images_and_into_a_card(benchmark, dataset, tmp_path, capsys):
    for kind in KINDS:
        image = levels(dataset / f"{kind}-MRI" / "MRI" / "5001.png")
        save(tmp_path / "published" / f"{kind}-MRI" / "5001.jpg", image)
    card = tmp_path / "card.md"
    card.write_text(
        "# Card\n\n<!-- table: lost -->\n\nkept\n\n<!-- table: published -->\n<!-- end -->\n\n<!-- table: atlas -->\n"
        "\nold\n\n<!-- end -->\n\nkept\n"
    )
    asked = ["--dataset_dir", str(dataset), "--published_dir", str(tmp_path / "published"), "--rule", "maximum"]
    benchmark.main([*asked, "--tables", "published", "atlas", "--card", str(card)])
    printed = capsys.readouterr().out
    tables = tables_of(printed)
    metrics = ["Qabf", "VIF", "SSIM", "MI", "Nabf"]
    assert tables["published"][""] == ["", *metrics]
    ct = [torch.from_numpy(levels(dataset / "CT-MRI" / folder / "5001.png"))[None, None] for folder in ("MRI", "CT")]
    grey = [quantise(one) for one in ct]
    fused = ((grey[0] + grey[1]) / 2).round(), *grey
    row = tables["published"]["CT-MRI, pointwise mean"]
    assert row[1].split(" ")[0].strip("*") == f"{qabf(*fused, data_range=255).item():.4f}"
    assert row[5].split(" ")[0].strip("*") == f"{nabf(*fused, data_range=255).item():.4f}"
    assert tables["published"]["PET-MRI, pointwise maximum"][0] == "1 pairs, 1 subjects"
    assert tables["atlas"]["PET-MRI, pointwise maximum"][0] == "5 pairs, 5 subjects"
    assert "CT-MRI, DM-FNet (published images)" in tables["published"]
    assert "CT-MRI, DM-FNet (published images)" not in tables["atlas"]
    text = card.read_text()
    assert text.startswith("# Card\n\n<!-- table: lost -->\n\nkept\n\n<!-- table: published -->\n\n|  |  | Qabf |")
    assert text.endswith("|\n\n<!-- end -->\n\nkept\n")
    assert "old" not in text
    assert text.count("CT-MRI, pointwise maximum") == 2
    assert "no place" not in printed
    benchmark.main([*asked, "--tables", "published", "--card", str(card)])
    assert card.read_text() == text
    put_into = importlib.import_module("card_tables").put_into
    assert not put_into(card, "lost", "a table whose end is missing")
    assert card.read_text() == text
