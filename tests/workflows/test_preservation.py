import csv
import importlib.util
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image

from fusion_nets.text import Finding
from fusion_nets.workflows import DescriptionPreservation, DescriptionSaver, PairBatch


class Spots:
    """A describer that says how large, in percent of the image, the bright spot of each half is."""

    configuration = {"kind": "spots"}

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen += images
        return [self.text(image) for image in images]

    def text(self, image):
        assert image.shape[0] == 1
        halves = zip(("left", "right"), image.as_tensor().chunk(2, dim=2), strict=True)
        shares = {side: 50 * (half > 0.6).float().mean().item() for side, half in halves}
        return " ".join(f"Spot {side} {share:.2f}." for side, share in shares.items() if share)


def parse(text):
    return [Finding("spot", side, "", float(size), "%") for side, size in re.findall(r"Spot (\w+) ([\d.]+)\.", text)]


def encoder(texts):
    """Counts of "left" and "right", and one."""
    vectors = [[text.count("left"), text.count("right"), 1] for text in texts]
    return SimpleNamespace(vector=torch.tensor(vectors, dtype=torch.float32))


def image(left=0, right=0, **meta):
    """40 x 50 pixels of which ``left`` and ``right`` percent are a bright spot of either half."""
    pixels = torch.zeros(1, 40, 50)
    for first, percent in ((0, left), (25, right)):
        pixels[0, :20, first : first + percent] = 1
    return MetaTensor(pixels, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])), meta=meta)


LEFT, RIGHT, BOTH, NONE = "Spot left 8.00.", "Spot right 4.00.", "Spot left 8.00. Spot right 4.00.", ""


def test_describer_of_these_tests():
    images = [image(8), image(0, 4), image(8, 4), image()]
    assert Spots()(images) == [LEFT, RIGHT, BOTH, NONE]
    assert parse(BOTH) == [Finding("spot", "left", size=8, unit="%"), Finding("spot", "right", size=4, unit="%")]


@pytest.mark.parametrize(
    ("fused", "anatomy", "overlay", "recall", "precision"),
    [
        (BOTH, LEFT, RIGHT, 1, 1),
        (LEFT, LEFT, RIGHT, 0.5, 1),
        (LEFT, LEFT, BOTH, 0.75, 1),
        (NONE, LEFT, RIGHT, 0, math.nan),
        (BOTH, LEFT, LEFT, 1, 0.5),  # the right one is invented
        (BOTH, LEFT, NONE, 1, 0.5),  # a source that says nothing has nothing to lose
        (LEFT, NONE, NONE, math.nan, 0),
        ("Spot left 4.00.", LEFT, LEFT, 0, 0),
    ],
)
def test_findings_of_a_pair(fused, anatomy, overlay, recall, precision):
    scores = DescriptionPreservation(Spots(), parse=parse).compare(fused, anatomy, overlay)
    assert list(scores) == ["finding_recall", "finding_precision", "rouge_l"]
    assert scores["finding_recall"] == pytest.approx(recall, nan_ok=True)
    assert scores["finding_precision"] == pytest.approx(precision, nan_ok=True)


def test_texts_of_a_pair():
    scores = DescriptionPreservation(Spots(), encoder, parse).compare(BOTH, LEFT, RIGHT)
    # of 8 words each source has 4, all of them in order
    assert scores["rouge_l"] == pytest.approx(2 / 3)
    # (1, 1, 1) with (1, 0, 1) and (0, 1, 1)
    assert scores["similarity"] == pytest.approx(2 / 6**0.5)
    scores = DescriptionPreservation(Spots(), encoder, parse).compare(LEFT, LEFT, RIGHT)
    assert scores["similarity"] == pytest.approx((1 + 0.5) / 2)
    assert all(type(value) is float for value in scores.values())


def test_images_of_a_pair():
    describer = Spots()
    anatomy, overlay = image(8, modality="MR"), image(0, 4, modality="PT", text="given")
    tinted = torch.cat([image(8, 4, modality="MR", text="of the input")] * 3) * torch.tensor([0.5, 1, 1])[:, None, None]
    description = DescriptionPreservation(describer, parse=parse)(tinted, anatomy, overlay)
    assert (description.fused_text, description.anatomy_text, description.overlay_text) == (BOTH, LEFT, RIGHT)
    assert description.scores["finding_recall"] == description.scores["finding_precision"] == 1
    assert [seen.meta.get("modality") for seen in describer.seen] == ["fused", "MR", "PT"]
    assert [seen.meta.get("text") for seen in describer.seen] == [None, None, "given"]
    assert all(torch.equal(seen.affine, anatomy.affine) for seen in describer.seen)
    assert anatomy.meta["modality"] == "MR"


def test_plain_tensors_and_descriptions_that_are_there():
    describer = Spots()
    plain = image(8).as_tensor()
    description = DescriptionPreservation(describer, parse=parse)(plain, plain, plain, RIGHT, "")
    assert (description.anatomy_text, description.overlay_text) == (RIGHT, LEFT)
    assert description.scores["finding_recall"] == 0.5
    assert len(describer.seen) == 2
    assert all(isinstance(seen, MetaTensor) for seen in describer.seen)


class Fuse(torch.nn.Module):
    def forward(self, image):
        return image.amax(1, keepdim=True)


def evaluator(items, *handlers, **options):
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=Fuse(),
        prepare_batch=PairBatch(),
        val_handlers=list(handlers),
        **options,
    )


def item(name, anatomy, overlay, **more):
    return {"name": name, "anatomy": anatomy, "overlay": overlay, "image": torch.cat([anatomy, overlay]), **more}


@pytest.fixture
def items():
    return [
        item("both", image(8, modality="MR"), image(0, 4, modality="PT")),
        item("given", image(8), image(0, 4), anatomy_text=BOTH, overlay_modality="CT", overlay_text=["per slice"]),
        item("empty", image(), image()),
    ]


def rows(folder):
    with (folder / "descriptions.csv").open() as file:
        return list(csv.DictReader(file))


def test_descriptions_of_a_run(items, tmp_path):
    describer = Spots()
    engine = evaluator(items, DescriptionSaver(tmp_path, describer, encoder, parse))
    engine.run()
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}_description.json" for name in ("both", "given", "empty")),
        "descriptions.csv",
    }
    both, given, empty = (
        json.loads((tmp_path / f"{row['name']}_description.json").read_text()) for row in rows(tmp_path)
    )
    assert list(both) == ["anatomy_text", "overlay_text", "fused_text", "scores"]
    assert (both["anatomy_text"], both["overlay_text"], both["fused_text"]) == (LEFT, RIGHT, BOTH)
    assert both["scores"] == pytest.approx(
        {"finding_recall": 1, "finding_precision": 1, "rouge_l": 2 / 3, "similarity": 2 / 6**0.5}
    )
    assert (given["anatomy_text"], given["overlay_text"]) == (BOTH, RIGHT)
    assert empty["scores"] == {"finding_recall": None, "finding_precision": None, "rouge_l": 0, "similarity": 1}
    assert [seen.meta.get("modality") for seen in describer.seen] == [
        *("fused", "MR", "PT"),
        *("fused", "CT"),
        *("fused", None, None),
    ]
    table = rows(tmp_path)
    assert [row["name"] for row in table] == ["both", "given", "empty"]
    assert list(table[0]) == ["name", "finding_recall", "finding_precision", "rouge_l", "similarity"]
    assert float(table[0]["rouge_l"]) == both["scores"]["rouge_l"]
    assert math.isnan(float(table[2]["finding_recall"]))


def test_a_second_overlay_is_described_and_counts(tmp_path):
    sources = [image(modality="MR"), image(8, modality="CT"), image(0, 4, modality="PT")]
    case = {"name": "three", "image": torch.cat(sources), "overlay2_modality": "PT", "overlay_text": LEFT}
    engine = evaluator([case], DescriptionSaver(tmp_path, Spots(), encoder, parse))
    engine.run()
    told = json.loads((tmp_path / "three_description.json").read_text())
    assert (told["overlay_text"], told["overlay2_text"], told["fused_text"]) == (LEFT, RIGHT, BOTH)
    assert "overlay3_text" not in told
    # of the fused image's two findings one is each overlay's
    assert (told["scores"]["finding_recall"], told["scores"]["finding_precision"]) == (1, 1)


def test_no_text_in_the_table_and_no_path_anywhere(items, tmp_path):
    items[0]["anatomy_text"] = "Jane Doe: spot."
    items[0]["image"].meta["filename_or_obj"] = "DOE^JANE.png"
    evaluator(items, DescriptionSaver(tmp_path, Spots(), parse=parse)).run()
    assert "Doe" not in (tmp_path / "descriptions.csv").read_text()
    assert "DOE" not in "".join(path.name + path.read_text() for path in tmp_path.iterdir())


def test_a_second_run_starts_afresh(items, tmp_path):
    engine = evaluator(items, DescriptionSaver(tmp_path, Spots(), parse=parse))
    engine.run()
    first = (tmp_path / "descriptions.csv").read_text()
    engine.run()
    assert (tmp_path / "descriptions.csv").read_text() == first


def test_a_run_that_breaks_off_leaves_whole_files(items, tmp_path):
    del items[1]["name"]

    loader = [DataLoader(Dataset([each]), batch_size=1) for each in items]
    engine = evaluator(items, DescriptionSaver(tmp_path, Spots(), parse=parse))
    engine.data_loader = [batch for part in loader for batch in part]
    with pytest.raises(KeyError, match="name"):
        engine.run()
    assert [path.name for path in tmp_path.iterdir()] == ["both_description.json"]
    assert json.loads((tmp_path / "both_description.json").read_text())["fused_text"] == BOTH


def test_order_among_handlers(items, tmp_path):
    """The files of a case are there when its iteration is over."""
    engine = evaluator(items, DescriptionSaver(tmp_path, Spots(), parse=parse))
    counts = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: counts.append(len(list(tmp_path.iterdir()))))
    engine.run()
    assert counts == [1, 2, 3]


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "description_preservation.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_comparison_of_two_methods(benchmark):
    than = np.array([0.2, 0.4, 0.5, math.nan, 0.5, 0.4, 0.3])
    better = np.array([0.3, 0.6, 0.8, 0.5, 0.9, 0.9, math.nan])
    ratio, p = benchmark.compare(better, than)
    assert ratio == pytest.approx(3.5 / 2)
    assert p == pytest.approx(1 / 2**5)  # all five differences up, of 2^5 ways equally likely by chance
    assert benchmark.compare(than, better)[1] == pytest.approx(1)
    assert benchmark.compare(than, than) == (1, 1)
    assert benchmark.compare(better, 0 * than)[0] == math.inf
    assert all(map(math.isnan, benchmark.compare(better[:0], than[:0])))


def test_tables(benchmark):
    names = [f"{pair}_{number}" for pair in ("CT-MRI", "PET-MRI") for number in range(6)]
    level = {benchmark.MEAN: 0.4, "ours": 0.5, "weak": 0.44, benchmark.PUBLISHED: 0.48}
    scores = {
        row: {name: {"finding_recall": value + number / 100} for number, name in enumerate(names)}
        for row, value in level.items()
    }
    del scores["weak"]["PET-MRI_3"]
    common = benchmark.common(scores)
    assert common == [name for name in names if name != "PET-MRI_3"]
    head, _, *lines = benchmark.table(scores, names[:6])
    assert head == "| | CT-MRI recall | all recall | recall / mean's | p |"
    assert lines[:2] == ["| pointwise mean | 0.4250 | 0.4250 |  |  |", "| ours | 0.5250 | 0.5250 | 1.235 | 0.016 |"]
    found = benchmark.verdicts(scores, common, ["ours", "weak", benchmark.PUBLISHED])
    assert [line.split(":")[0] for line in found if ": the claim holds (" in line] == [
        "ours keeps at least 1.15 times the findings of pointwise mean",
        f"ours keeps more than the findings of {benchmark.PUBLISHED}",
        f"{benchmark.PUBLISHED} keeps at least 1.15 times the findings of pointwise mean",
    ]
    assert [line.split(":")[0] for line in found if ": does not hold (" in line] == [
        "weak keeps at least 1.15 times the findings of pointwise mean",
        f"weak keeps more than the findings of {benchmark.PUBLISHED}",
    ]
    assert all("11 pairs" in line for line in found)


@pytest.fixture
def dataset(tmp_path):
    """Two pairs, a left spot in the MRI and a right one in the other, and folders of fused pictures."""
    names = {"PET-MRI": "7.png", "SPECT-MRI": "8.png"}
    (tmp_path / "splits.json").write_text(
        json.dumps({"CT-MRI": {"test": []}} | {pair: {"test": [name]} for pair, name in names.items()})
    )

    def save(picture, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * picture[0]).byte().numpy()).save(path)

    for pair, name in names.items():
        save(image(8), tmp_path / pair / "MRI" / name)
        save(image(0, 4), tmp_path / pair / pair.split("-")[0] / name)
        save(image(8, 4), tmp_path / "ours" / f"{pair}_{Path(name).stem}_fused.png")
    save(image(8), tmp_path / "published" / "PET-MRI" / "7.jpg")
    return tmp_path


def test_whole_benchmark(benchmark, dataset, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "MeasuredText", Spots)
    monkeypatch.setattr(benchmark, "parse_findings", parse)
    benchmark.main(
        [
            *("--dataset_dir", str(dataset), "--published_dir", str(dataset / "published")),
            *("--method", f"ours={dataset / 'ours'}"),
        ]
    )
    first, second = capsys.readouterr().out.split("\n\n\n")[0].split("Of these with a published image: ")
    assert first.startswith("Section test: 2 pairs (of 2)")
    # what is bright in one source alone is half as bright in the mean: no spot
    assert "| pointwise mean | 0.0000 | nan | " in first
    assert "| pointwise maximum | 1.0000 | 1.0000 | 0.6667 | " in first
    assert "| ours | 1.0000 | 1.0000 | 0.6667 | " in first
    assert "published" not in first
    assert second.startswith("1 pairs (of 2)")
    assert f"| {benchmark.PUBLISHED} | 0.5000 | 1.0000 | " in second


def test_statements_that_cannot_be_lost(benchmark):
    always = Finding("mean level", intensity=40.0)
    findings = [Finding("lesion", size=4.0, unit="%"), always, Finding("asymmetry", "left", intensity=5.0)]
    assert benchmark.specific(findings) == [findings[0], findings[2]]


@pytest.mark.parametrize("method", ["ours", "ours=", "pointwise mean=x"])
def test_methods_need_a_name_and_a_folder(benchmark, dataset, method, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--dataset_dir", str(dataset), "--method", method])
    assert "a name of its own" in capsys.readouterr().err


def test_a_folder_without_any_picture(benchmark, dataset):
    with pytest.raises(SystemExit, match=r"2 pairs.* SPECT-MRI_8_fused\.png"):
        benchmark.main(["--dataset_dir", str(dataset), "--method", f"x={dataset / 'PET-MRI'}"])
