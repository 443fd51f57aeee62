"""Whatever users write in settings, datalists, names and texts: it is used as it stands or refused, and nothing else.

A few examples in the suite; `make fuzz` tries thousands, others in every run.
"""

import builtins
import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from PIL import Image

from evaluation import report
from fusion_nets.clinical import ImageError
from fusion_nets.datalists import load_pairs, with_texts
from fusion_nets.drawing import write_montage
from fusion_nets.files import whole_file
from fusion_nets.names import check_name, entries_read, is_result
from fusion_nets.text import GivenText
from fusion_nets.workflows import describe_pairs, fuse_pair, kept_network
from fusion_nets.workflows.matching import FusedImages
from fusion_nets.workflows.settings import repeated_settings
from fusion_nets.workflows.user_values import set_values

EXAMPLES = int(os.environ.get("FUZZ", "0"))


def tried(share=1.0):
    """So many examples of what `make fuzz` asks for, or a few that are always the same."""
    return settings(
        max_examples=int(EXAMPLES * share) or max(3, int(30 * share)),
        derandomize=not EXAMPLES,
        phases=[Phase.generate, *[Phase.shrink] * bool(EXAMPLES)],
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


PAYLOADS = (
    "$__import__('builtins').__dict__.__setitem__('pwned', 1)",
    "$import antigravity",
    "__import__('builtins').__dict__.__setitem__('pwned', 1)",
    "@network_def",
    "@",
    "%output_dir",
    "%inference.json#network",
    "@##a",
    "a#b::c",
    "{0.__class__}",
    "%s%n",
    "$x_{$",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=1+1",
    "../x",
    "/etc/passwd",
    "a\0b",
    "..",
    "",
    "_target_",
    "é\u0301漢🧠\u202e",
    "\ud800",
    "\udcff",
    "\r\n\t\x1b[31m",
    "n" * 300,
)
anything = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
words = st.one_of(
    st.sampled_from(PAYLOADS),
    anything,
    st.builds("".join, st.tuples(st.sampled_from(("$", "@", "%", "#", "::", "../", "a")), anything)),
)
numbers = st.one_of(st.integers(-(10**20), 10**20), st.floats(), st.booleans(), st.none())
values = st.recursive(
    st.one_of(words, numbers),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def nothing_runs():
    yield
    assert not hasattr(builtins, "pwned")


def keyed(names, otherwise=values):
    """Objects with some of these entries, each a text or any other value, and perhaps one of another name."""
    entries = {name: st.one_of(words, otherwise) for name in names}
    return st.builds(
        lambda known, more: {**more, **known},
        st.fixed_dictionaries({}, optional=entries),
        st.one_of(st.just({}), st.just({}), st.dictionaries(words, values, max_size=1)),
    )


PAIR_KEYS = (
    "anatomy",
    "overlay",
    "name",
    "pair",
    "subject",
    "anatomy_text",
    "overlay_text",
    "overlay_modality",
    "regions",
)


def is_unicode(text):
    return not re.search("[\ud800-\udfff]", text)


def made(call):
    """What a call gives, or None where it refuses, in words for the user."""
    try:
        return call()
    except (ValueError, OSError) as error:
        told = str(error)
    assert told
    return None


@tried()
@given(st.one_of(st.lists(keyed(PAIR_KEYS), max_size=3), values, keyed(("pairs",))))
def test_datalists(tmp_path, content):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(content))
    pairs = made(lambda: load_pairs(path))
    if pairs is None:
        return
    given_pairs = content["pairs"] if isinstance(content, dict) else content
    for pair, entry in zip(pairs, given_pairs, strict=True):
        for key, value in entry.items():
            if key not in ("anatomy", "overlay", "regions", "name"):
                assert pair[key] == value
    assert with_texts(pairs, None) == pairs


SETTINGS = ("anatomy_window", "overlay_window", "overlay_palette", "register", "transform")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two pictures."""
    folder = tmp_path_factory.mktemp("sources")
    for number, name in enumerate(("mri", "ct")):
        values = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{name}.png")
    return folder / "mri.png", folder / "ct.png"


@tried()
@given(keyed((*SETTINGS, "record"), values | keyed(("anatomy", "overlay"), keyed(("sha256", "units", "modality")))))
def test_settings(tmp_path, sources, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    pair = {"anatomy": str(sources[0]), "overlay": str(sources[1])}
    taken = made(lambda: repeated_settings(tmp_path / "a.json", pair, {}))
    if taken is None:
        return
    assert set(taken) <= set(SETTINGS)
    assert "transform" not in taken  # of which no digest was guessed


@tried()
@given(st.dictionaries(st.sampled_from(("register", "transform", "output_dir", "weights", "overlay")), values), values)
def test_configurations(entries, more):
    parser = ConfigParser(
        {**dict.fromkeys(entries, "its own"), "all": {name: f"@{name}" for name in entries}, "more": 0}
    )
    set_values(parser, {**entries, "more": more})
    parsed = parser.get_parsed_content("all")
    assert json.dumps(parsed) == json.dumps(entries)  # in which NaN is itself
    assert json.dumps(parser.get_parsed_content("more")) == json.dumps(more)


RESULTS = ("_fused.nii.gz", "_dicom", "_registration.tfm", "_description.json", "_fused_slices")


@tried()
@given(words, words)
def test_names(tmp_path_factory, name, other):
    folder = tmp_path_factory.mktemp("a", numbered=True)
    if made(lambda: [check_name(name, folder / "out")]) is None:
        return
    for behind in RESULTS:
        with whole_file(folder / "out" / f"{name}{behind}") as partial:
            partial.write_text("x")
        assert is_result(name, f"{name}{behind}")
        assert other == name or not is_result(other, f"{name}{behind}")
    assert len(list((folder / "out").iterdir())) == len(RESULTS)
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert len(entries_read(folder / "out", [folder / "out" / f"{name}_dicom"])) == 1


@tried(0.2)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=3))
def test_finding_fused_images(tmp_path, pairs):
    told = [{"name": name, "anatomy": anatomy, "pair": kind} for name, anatomy, kind in pairs]
    images = FusedImages(tmp_path, told)
    for pair in told:
        with pytest.raises(ImageError):
            images.find(pair)


@pytest.fixture(scope="module")
def network():
    """Of SMFusion, loaded once."""
    return {"method": "smfusion", **kept_network("smfusion")}


@tried(0.25)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": words,
            "anatomy_text": st.one_of(words, st.lists(words, max_size=2)),
            "overlay_text": words,
            "overlay_modality": words,
            "anatomy_series_uid": words,
            "overlay_palette": st.one_of(st.just("hot"), words),
            "anatomy_window": st.one_of(words, st.lists(numbers, max_size=3)),
            "transform": values,
            "describe_per": words,
            "settings": keyed((*SETTINGS, "record")),
        },
    )
)
def test_fusing(tmp_path_factory, sources, network, options):
    """Through the whole program."""
    folder = tmp_path_factory.mktemp("a", numbered=True)
    if "settings" in options:
        (folder / "a.json").write_text(json.dumps(options["settings"]))
        options = {**options, "settings": folder / "a.json"}
    written = made(lambda: fuse_pair(*sources, folder / "out", **options, **network)) or []
    assert {path.name for path in folder.iterdir()} <= {"a.json", "out"}
    assert [path for path in written if path.parent != folder / "out"] == []


@tried(0.2)
@given(words, words, words)
def test_describing(tmp_path_factory, sources, name, first, second):
    """Texts that are given come out as they went in."""
    folder = tmp_path_factory.mktemp("a", numbered=True)
    pair = {"anatomy": str(sources[0]), "overlay": str(sources[1]), "name": name or "a"}
    pair |= {"anatomy_text": first, "overlay_text": second}
    output = made(lambda: describe_pairs([pair], GivenText(), folder / "texts.json", progress=False))
    if output is None:
        assert not (first and second and is_unicode(name + first + second))  # an empty text is none
        return
    (described,) = load_pairs(output)
    assert (described["name"], described["anatomy_text"], described["overlay_text"]) == (name or "a", first, second)


@tried(0.05)
@given(st.lists(words, min_size=3, max_size=3), words)
def test_montages(tmp_path, names, note):
    image = torch.rand(1, 20, 20)
    assert write_montage(tmp_path / "a.png", image, image, image, names=names, notes=[note]).is_file()


@tried(0.05)
@given(st.lists(words.filter(is_unicode), min_size=2, max_size=2, unique=True), words.filter(is_unicode))
def test_reports(methods, case):
    """Which are pages for a browser, tables for a spreadsheet, and figures."""
    scores = [report.Score(case, method, {"SSIM": 0.5 + 0.1 * i}, case, 1, case) for i, method in enumerate(methods)]
    comparison = report.Comparison(methods, {"SSIM": True}, scores, [])
    page = report.report_html(comparison, [], [case])
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    page.encode("utf-8")
    rows = list(csv.reader(io.StringIO(report.cases_csv(comparison), newline="")))
    assert len(rows) == 3
    assert json.loads(report.summary_json(comparison))
    assert report.boxplots(comparison, False)


def test_thousands_are_tried_where_they_are_asked_for():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    assert f"tests/{Path(__file__).name}" in makefile
