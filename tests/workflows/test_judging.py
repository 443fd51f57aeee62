"""Lesions through the commands: the reference judge's figures, a page with curves and the worst, tables, refusals."""

import csv
import json

import numpy as np
import pytest
import torch
from heads import coloured, head_pair, unequal
from PIL import Image
from refusals import refused

from evaluation.observers import LESION_KINDS
from fusion_nets.cli import main
from fusion_nets.clinical import Reason
from fusion_nets.workflows import InsertLesions, evaluate_methods, read_lesion_pairs, write_lesion_pairs

pytestmark = pytest.mark.slow

CODES = {"CT": "CT", "PET": "PT"}
COUNT = 5


def save(path, image):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    return str(path)


def heads(folder, count=COUNT, groups=("CT", "PET"), side=144):
    pairs = []
    for group in groups:
        for number in range(count):
            name = f"{group}{number}"
            images = zip(("anatomy", "overlay"), head_pair(number, group == "CT", side), strict=True)
            paths = {key: save(folder / f"{name}_{key}.png", image) for key, image in images}
            modalities = {"anatomy_modality": "MR", "overlay_modality": CODES[group]}
            pairs.append({"name": name, **paths, "pair": f"{group}-MRI", **modalities})
    return pairs


def fuse(folder, into, rule, names=None):
    for pair in json.loads((folder / "datalist.json").read_text()):
        if names is None or pair["name"] in names:
            sources = [np.asarray(Image.open(folder / pair[key])) / 255 for key in ("anatomy", "overlay")]
            save(into / f"{pair['name']}_fused.png", rule(np.stack(sources)))


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A folder with pairs, lesions, three methods' images, and the report of the command."""
    root = tmp_path_factory.mktemp("judged")
    pairs = [{**pair, "subject": f"s{number % COUNT}"} for number, pair in enumerate(heads(root / "pairs"))]
    (root / "pairs.json").write_text(json.dumps(pairs))
    asked = ["--datalist", str(root / "pairs.json"), "--output_dir", str(root / "lesions")]
    assert main(["lesions", *asked, "--makes", "discs", "faint", "--most", "3", "--seed", "3"]) == 0
    rules = {"ours": unequal, "maximum": lambda pair: pair.max(0), "coloured": coloured}
    methods = []
    for name, rule in rules.items():
        fuse(root / "lesions", root / name, rule)
        methods += ["--method", f"{name}={root / name}"]
    asked = ["--lesions", str(root / "lesions"), "--output_dir", str(root / "report"), "--metrics", "Qabf"]
    assert main(["evaluate", *asked, *methods]) == 0
    return root


def test_the_commands_figures_are_the_reference_judges(judge, tmp_path):
    """The same pictures and, of each kind, the same recovery, share lost and observers, in grey and in colour."""
    pairs = heads(tmp_path / "pairs")
    groups = [{**pair, "group": pair["pair"].split("-")[0]} for pair in pairs]
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    judge.make(tmp_path / "groups.json", tmp_path / "theirs", per=4, most=24, seed=3)
    write_lesion_pairs(pairs, tmp_path / "ours", ["discs"], seed=3, most=4, progress=False)
    pictures = [path.name for path in sorted((tmp_path / "theirs").glob("*.png"))]
    assert pictures == [path.name for path in sorted((tmp_path / "ours").glob("*.png"))]
    for name in pictures:
        ours, theirs = (np.asarray(Image.open(tmp_path / folder / name)) for folder in ("ours", "theirs"))
        assert np.array_equal(ours, theirs), name

    tables = {}
    for form, rule in (("grey", unequal), ("colour", coloured)):
        fuse(tmp_path / "ours", tmp_path / form, rule)
        judge.score(tmp_path / "theirs", str(tmp_path / form))
        tables[form] = json.loads((tmp_path / form / "lesions.json").read_text())
    methods = [f"--method={form}={tmp_path / form}" for form in tables]
    asked = ["--lesions", str(tmp_path / "ours"), "--output_dir", str(tmp_path / "report"), "--metrics", "MSE"]
    assert main(["evaluate", *asked, *methods]) == 0
    rows = rows_of(tmp_path / "report" / "lesion_kinds.csv")
    assert len(rows) == 2 * len(LESION_KINDS) * 2
    for row in rows:
        expected = tables[row["method"]][f"{row['pair'].split('-')[0]}: {row['kind']}"]
        assert int(row["lesions"]) == expected["lesions"] > 10
        assert float(row["recovery"]) == pytest.approx(expected["recovery"], abs=1e-6)
        assert float(row["lost"]) == pytest.approx(expected["lost"], abs=1e-12)
        seen = {"grey": "area_grey", "colour": "area_cielab"}[row["method"]]
        assert float(row[seen]) == pytest.approx(expected["visible"], abs=1e-3)
        assert float(row["area_side_by_side"]) == pytest.approx(expected["side by side"], abs=1e-3)
        assert (row["area_cielab"] == "") == (row["method"] == "grey")


def test_every_make_has_its_pairs_and_its_truth(judged):
    pairs, cases = read_lesion_pairs(judged / "lesions")
    assert len(pairs) == len(cases) == 2 * COUNT * (1 + 2 * len(LESION_KINDS))
    assert {pair["subject"] for pair in pairs} == {f"s{number}" for number in range(COUNT)}
    assert {(case.kind, case.make) for case in cases} == {
        ("none", ""), *((kind, make) for kind in LESION_KINDS for make in ("discs", "faint")),
    }  # fmt: skip
    by_name = {pair["name"]: pair for pair in pairs}
    for case in cases:
        for index, key in enumerate(("anatomy", "overlay")):
            images = [np.asarray(Image.open(by_name[name][key])).astype(int) for name in (case.name, case.clean)]
            changes = (images[0] - images[1]) * case.signs[index]
            for lesion in case.lesions:
                shown = changes[lesion.row, lesion.column] / 255
                assert (shown > 0.2 * lesion.amplitude) == bool(case.signs[index])
    places = {}
    for case in cases:
        if case.lesions:
            places.setdefault(case.clean, set()).add(tuple((one.row, one.column) for one in case.lesions))
    assert all(len(of) == 1 for of in places.values()), "all kinds and makes have the same places"


def test_the_same_seed_gives_the_same_pairs_in_any_order(judged, tmp_path):
    pairs = json.loads((judged / "pairs.json").read_text())
    for name, given, seed in (("one", pairs, 3), ("turned", pairs[::-1], 3), ("other", pairs, 4)):
        write_lesion_pairs(given, tmp_path / name, ["discs", "faint"], seed, most=3, progress=False)
    files = {name: {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in
             ("one", "turned", "other")}  # fmt: skip
    assert files["one"] == files["turned"] != files["other"]
    assert files["one"] == {path.name: path.read_bytes() for path in (judged / "lesions").glob("*.png")}


def test_tables_of_lesions_kinds_and_curves(judged):
    rows = rows_of(judged / "report" / "lesions.csv")
    assert list(rows[0]) == [
        *("case", "subject", "pair", "method", "make", "kind", "source", "sign_anatomy", "sign_overlay"),
        *("row", "column", "radius", "contrast", "form", "recovery", "lost"),
    ]
    kinds = rows_of(judged / "report" / "lesion_kinds.csv")
    assert len(kinds) == 2 * 2 * len(LESION_KINDS) * 3
    for kind in kinds:
        key = ("pair", "make", "kind", "method")
        own = [row for row in rows if [row[name] for name in key] == [kind[name] for name in key]]
        assert len(own) == int(kind["lesions"])
        assert len({row["subject"] for row in own}) == int(kind["subjects"]) == COUNT
        assert float(kind["lost"]) == pytest.approx(np.mean([float(row["lost"]) for row in own]))
        assert float(kind["recovery"]) == pytest.approx(np.median([float(row["recovery"]) for row in own]))
        assert float(kind["lost_low"]) <= float(kind["lost"]) <= float(kind["lost_high"])
    points = rows_of(judged / "report" / "psychometric.csv")
    for point in points:
        column = "contrast" if point["axis"] == "contrast" else "radius"
        own = [
            row
            for row in rows
            if (row["pair"], row["method"], row["source"]) == (point["pair"], point["method"], point["source"])
            and float(row[column]) == float(point["value"])
            and (point["axis"] == "contrast" or row["contrast"] == "0.16")
            and (point["sign"] == "either" or row["kind"].endswith(point["sign"]))
        ]
        assert int(point["lesions"]) == len(own)
        assert float(point["kept"]) == pytest.approx(1 - np.mean([float(row["lost"]) for row in own]))
    axes = {(point["axis"], float(point["value"])) for point in points}
    assert axes == {("contrast", 0.07), ("contrast", 0.16), ("radius", 4.0), ("radius", 7.0)}
    # a pointwise maximum loses what is dark and not what it shows
    maximum = {row["kind"]: float(row["lost"]) for row in kinds if
               (row["method"], row["make"], row["pair"]) == ("maximum", "discs", "CT-MRI")}  # fmt: skip
    assert maximum["overlay dark"] > 0.5 > maximum["both bright"]


def test_the_page_has_curves_the_worst_and_tables(judged):
    page = (judged / "report" / "report.html").read_text(encoding="utf-8")
    words = ["<h2>Lesions</h2>", "Psychometric curves", "The worst of ours", "The worst of maximum", "Lesions lost, %"]
    words += ["Lesions lost, against ours", "Other makes of lesions", "What can still be seen", "Area, CIELAB"]
    for word in words:
        assert word in page, word
    assert page.count("<img ") == 2 + 1 + 3
    for name in ("psychometric.png", "worst_lesions_1.png", "worst_lesions_2.png", "worst_lesions_3.png"):
        image = np.asarray(Image.open(judged / "report" / name).convert("L"))
        assert image.std() > 10, f"{name}: shows nothing"
    assert str(judged) not in page


def test_the_worst_are_the_worst(judged):
    rows = [row for row in rows_of(judged / "report" / "lesions.csv") if row["method"] == "maximum"]
    page = (judged / "report" / "report.html").read_text(encoding="utf-8")
    alternative = page.partition("the fused image without and with it: ")[2]
    ours, maximum = (part.partition(".")[0] for part in page.split("the fused image without and with it: ")[1:3])
    assert alternative
    assert ours != maximum
    told = maximum.split("; ")
    in_order = sorted(
        (row for row in rows if row["make"] == "discs" and row["kind"] != "anatomy dark, overlay bright"),
        key=lambda row: float(row["recovery"]),
    )
    assert len(told) == 10
    least = float(in_order[9]["recovery"])
    for one in told:
        case, _, kind = one.partition(", ")
        own = [float(row["recovery"]) for row in in_order if (row["case"], row["kind"]) == (case, kind)]
        assert min(own) <= least + 1e-12


def test_a_missing_image_is_told_and_the_rest_judged(judged, tmp_path):
    names = {case.name for case in read_lesion_pairs(judged / "lesions")[1]} - {"CT0-overlay-bright", "PET1-none"}
    fuse(judged / "lesions", tmp_path / "few", unequal, names)
    clean = [pair for pair in read_lesion_pairs(judged / "lesions")[0] if pair["name"].endswith("-none")]
    methods = {"ours": judged / "ours", "few": tmp_path / "few"}
    given = {"metrics": ["MSE"], "progress": False, "lesions": judged / "lesions"}
    with refused(Reason.SEVERAL, "2 images"):
        evaluate_methods(clean, methods, tmp_path / "out", **given)
    failures = json.loads((tmp_path / "out" / "summary.json").read_text())["failures"]
    assert {(one["case"], one["method"]) for one in failures} == {("CT0-overlay-bright", "few"), ("PET1-none", "few")}
    counts = {method: sum(row["method"] == method for row in rows_of(tmp_path / "out" / "lesions.csv")) for method in
              methods}  # fmt: skip
    assert 0 < counts["few"] < counts["ours"]


def test_few_subjects_have_no_observer(tmp_path):
    pairs = heads(tmp_path / "pairs", count=1, groups=("CT",))
    write_lesion_pairs(pairs, tmp_path / "lesions", ["discs"], progress=False)
    fuse(tmp_path / "lesions", tmp_path / "mean", lambda pair: pair.mean(0))
    clean, _ = read_lesion_pairs(tmp_path / "lesions")
    given = {"metrics": ["MSE"], "progress": False, "lesions": tmp_path / "lesions"}
    evaluate_methods(clean[:1], {"mean": tmp_path / "mean"}, tmp_path / "out", **given)
    for row in rows_of(tmp_path / "out" / "lesion_kinds.csv"):
        assert row["area_grey"] == row["lost_low"] == ""
        if row["source"] != "both":
            assert float(row["recovery"]) == pytest.approx(0.5, abs=0.02)
            assert float(row["lost"]) == 0


def test_most_pairs_of_each_kind_are_spread(tmp_path):
    pairs = heads(tmp_path / "pairs", count=4)
    write_lesion_pairs(pairs, tmp_path / "lesions", ["discs"], pairs_of_kind=2, progress=False)
    clean = [case.clean for case in read_lesion_pairs(tmp_path / "lesions")[1] if case.kind == "none"]
    assert clean == ["CT0-none", "CT2-none", "PET0-none", "PET2-none"]


def test_what_cannot_be_used_is_refused(tmp_path):
    pairs = heads(tmp_path / "pairs", count=1, groups=("PET",))
    with pytest.raises(ValueError, match=r"'blobs'.*discs"):
        write_lesion_pairs(pairs, tmp_path / "out", ["blobs"])
    with pytest.raises(ValueError, match="1 or more"):
        write_lesion_pairs(pairs, tmp_path / "out", pairs_of_kind=0)
    unknown = [{**pairs[0], "overlay_modality": "MR", "name": "mr"}]
    with refused(Reason.SEVERAL, "1 pair", error=ValueError):
        write_lesion_pairs([*pairs, *unknown], tmp_path / "out", ["discs"], progress=False)
    assert (tmp_path / "out" / "lesions.json").is_file(), "the others are written"
    black = save(tmp_path / "black.png", np.eye(64))
    with pytest.raises(ValueError, match="has a place"):
        write_lesion_pairs([{**pairs[0], "anatomy": black, "overlay": black}], tmp_path / "no", progress=False)
    for content, word in ((None, "fusion-nets lesions"), ("{}", "cases"), ("[", "lesions")):
        folder = tmp_path / f"broken {word}"
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / "lesions.json").write_text(content)
        with pytest.raises(ValueError, match=word):
            read_lesion_pairs(folder)


def test_a_prepared_pair_becomes_slices_with_lesions():
    pair = {"name": "a", "image": torch.from_numpy(head_pair(0, True, 96)).float(), "overlay_modality": "CT"}
    made = InsertLesions(most=1)({**pair, "text": torch.ones(2, 3, 4)})
    told = json.loads(made["lesions"])
    assert made["image"].shape == (2, 96, 96, 1 + len(LESION_KINDS))
    assert made["text"].shape == (1 + len(LESION_KINDS), 2, 3, 4)
    assert [one["kind"] for one in told] == ["none", *LESION_KINDS]
    assert made["group"] == "CT-MRI"
    # without a place there is nothing to follow
    black = InsertLesions()({**pair, "image": torch.zeros(2, 64, 64)})
    assert (black["image"].shape, black["lesions"]) == ((2, 64, 64, 1), "[]")
    with refused(Reason.SHAPE, "a: a volume"):
        InsertLesions()({**pair, "image": torch.zeros(2, 64, 64, 3)})
    with refused(Reason.INCOMPLETE, "overlay_modality", "missing"):
        InsertLesions()({"name": "a", "image": pair["image"]})
