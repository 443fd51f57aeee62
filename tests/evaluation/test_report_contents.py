import base64
import csv
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evaluation.report import (
    Comparison,
    Example,
    Failure,
    Picture,
    Score,
    boxplots,
    cases_csv,
    montage,
    report_html,
    summary_json,
    summary_markdown,
    zoom_region,
)

HOSTILE = "<img src=x onerror=alert(1)>|*a*"


@pytest.fixture(scope="module")
def comparison():
    generator = np.random.default_rng(0)
    scores = [
        Score(f"{group}_{i}", method, {"Qabf": place + generator.random(), "MSE": 100 * generator.random()}, group)
        for place, method in enumerate(("ours", HOSTILE))
        for group in ("CT-MRI", "PET-MRI")
        for i in range(6)
    ]
    scores[3] = scores[3]._replace(values={"Qabf": math.nan, "MSE": 1.0})
    return Comparison(["ours", HOSTILE], {"Qabf": True, "MSE": False}, scores, [Failure("c9", "ours", "no image & so")])


def test_a_row_of_csv_for_each_case_and_method_in_full_precision(comparison):
    rows = list(csv.DictReader(io.StringIO(cases_csv(comparison))))
    assert [(row["case"], row["method"]) for row in rows] == [(s.case, s.method) for s in comparison.scores]
    assert float(rows[0]["Qabf"]) == comparison.scores[0].values["Qabf"]
    assert rows[3]["Qabf"] == ""
    assert rows[0]["pair"] == "CT-MRI"
    assert rows[0]["subject"] == rows[0]["case"]


def test_json_tells_means_tests_and_failures(comparison):
    told = json.loads(summary_json(comparison), parse_constant=pytest.fail)
    assert told["baseline"] == "ours"
    assert told["metrics"] == {"Qabf": {"better": "higher"}, "MSE": {"better": "lower"}}
    assert told["all"]["ours"]["Qabf"]["mean"] == comparison.summary("ours", "Qabf").mean
    assert told["groups"]["CT-MRI"]["ours"]["Qabf"]["n"] == 5
    assert [test["metric"] for test in told["tests"]] == ["Qabf", "MSE"]
    assert told["failures"] == [{"case": "c9", "method": "ours", "reason": "no image & so"}]


def test_json_has_null_for_what_has_no_value():
    alone = Comparison(["A"], {"VIF": True}, [Score("c", "A", {"VIF": 0.5})])
    assert json.loads(summary_json(alone))["all"]["A"]["VIF"] == {
        "n": 1,
        "subjects": 1,
        "mean": 0.5,
        **dict.fromkeys(["sd", "low", "high"]),
    }


def test_markdown_has_the_best_in_bold_and_arrows(comparison):
    text = summary_markdown(comparison)
    assert "| Qabf ↑ | MSE ↓ |" in text
    row = next(line for line in text.splitlines() if line.startswith("| \\<img"))
    n, mean, deviation, subjects, (low, high) = comparison.summary(HOSTILE, "Qabf")
    assert f"| {n} | {subjects} | **{mean:.4f}** ± {deviation:.4f} ({low:.4f} to {high:.4f}) |" in row
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| \\<img")}
    assert columns == {6, 8}  # of the means, and of the tests: no name made cells of its own


def test_zoom_is_where_methods_differ_most():
    base = np.zeros((60, 80))
    other = base.copy()
    other[30:45, 50:70] = 1
    rows, columns = zoom_region([base, other])
    assert (rows.stop - rows.start, columns.stop - columns.start) == (15, 20)
    assert (rows.start, columns.start) == (30, 50)


def test_zoom_of_one_method_is_where_it_has_edges():
    image = np.zeros((60, 60, 3))
    image[40:50:2, 10:20:2] = 1
    rows, columns = zoom_region([image])
    assert rows.start <= 41
    assert rows.stop >= 48
    assert columns.start <= 11
    assert columns.stop >= 18


def test_montage_shows_every_image_whole_and_magnified():
    flat = [np.full((32, 32), value) for value in (0.2, 0.4)]
    red = np.zeros((32, 32, 3))
    red[..., 0] = 1
    picture = Image.open(io.BytesIO(montage([Example("a", flat, [red, None])], ["one", "two"])))
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    panel = 300 * 300
    assert (pixels == (255, 0, 0)).all(1).sum() == pytest.approx(1.75 * panel, rel=0.1)
    for level in (51, 102):
        assert (pixels == level).all(1).sum() == pytest.approx(1.75 * panel, rel=0.1)


def test_montage_refuses_another_number_of_images():
    with pytest.raises(ValueError, match="two sources and 2 fused"):
        montage([Example("a", [np.zeros((8, 8))] * 2, [np.zeros((8, 8))])], ["one", "two"])


def test_figures_are_the_same_bytes_each_time_and_leave_settings_alone(comparison):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.rcParams["font.size"] = 23
    first = boxplots(comparison)
    assert matplotlib.rcParams["font.size"] == 23
    matplotlib.rcdefaults()
    assert boxplots(comparison) == first
    assert boxplots(comparison, dark=True) != first
    light, dark = (np.asarray(Image.open(io.BytesIO(boxplots(comparison, d))).convert("L")) for d in (False, True))
    assert light.mean() > 200 > 60 > dark.mean()


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of style and script."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.raw, self._open = [], {}, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open in ("style", "script"):
            self.raw[self._open] = data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_subjects_are_told_in_every_table(comparison):
    """Three subjects with two cases of each pair."""
    scores = [score._replace(subject=f"s{int(score.case[-1]) % 3}") for score in comparison.scores]
    of_three = Comparison(comparison.methods, comparison.metrics, scores)
    assert of_three.subjects == ["s0", "s1", "s2"]
    rows = list(csv.DictReader(io.StringIO(cases_csv(of_three))))
    assert [row["subject"] for row in rows] == [score.subject for score in scores]
    told = json.loads(summary_json(of_three))
    assert (told["cases"], told["subjects"]) == (12, 3)
    qabf = told["groups"]["CT-MRI"][HOSTILE]["Qabf"]
    assert (qabf["n"], qabf["subjects"]) == (6, 3)
    assert qabf["low"] < qabf["mean"] < qabf["high"]
    assert {test["subjects"] for test in told["tests"]} == {3}
    assert "| n | subjects |" in summary_markdown(of_three)
    html = report_html(of_three)
    assert "<dt>Subjects</dt><dd>3</dd>" in html
    assert "over 3 subjects" in html
    assert f"<small>{told['all'][HOSTILE]['Qabf']['low']:.4f} to<br>" in html
    assert html.count(">s1</td>") == 8


@pytest.fixture(scope="module")
def page(comparison):
    picture = Picture(b"light", b"dark", 'A "title"', "caption", "alternative")
    return Page(report_html(comparison, [picture], ["a note"]))


def test_page_loads_nothing_and_allows_what_it_holds(page):
    policy = next(meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?:", page.raw["style"] + page.raw["script"])


def test_names_stay_text(comparison, page):
    assert len(page.of("img")) == 1
    assert HOSTILE not in report_html(comparison)
    assert any(attributes.get("title") == HOSTILE for attributes in page.of("th"))


def test_page_is_told_to_screen_readers(page):
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.of("th"))
    assert page.of("img")[0]["alt"] == "alternative"
    assert page.of("html")[0]["lang"] == "en"
    names = {attributes["id"] for attributes in page.of("caption")}
    regions = [attributes for attributes in page.of("div") if attributes.get("role") == "region"]
    assert all(region.get("aria-labelledby") in names or region.get("aria-label") for region in regions)


def test_same_comparison_same_bytes(comparison):
    assert report_html(comparison) == report_html(comparison)
