import json
import random
import re
from collections import Counter

import pytest

from fusion_nets.datalists import (
    AANLIB_PAIRS,
    aanlib_pairs,
    balanced_weights,
    load_pairs,
    pairs_or_section,
    single_images,
    single_sources,
    texts_of,
    with_texts,
)

PAIR = {"anatomy": "a.png", "overlay": "b.png"}


def write(path, entries):
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
    return path


# what a user asks for


def test_paths_start_from_the_datalists_folder(tmp_path):
    entries = [
        {"anatomy": "mri/1.nii.gz", "overlay": "../pet/1.nii.gz", "name": "first"},
        {"anatomy": "/far/2.png", "overlay": "2b.png", "anatomy_text": "T1", "overlay_text": "FDG"},
    ]
    path = write(tmp_path / "pairs.json", entries)
    expected = [
        {
            "anatomy": f"{tmp_path}/mri/1.nii.gz",
            "overlay": f"{tmp_path}/../pet/1.nii.gz",
            "name": "first",
        },
        {
            "anatomy": "/far/2.png",
            "overlay": f"{tmp_path}/2b.png",
            "name": "2",
            "anatomy_text": "T1",
            "overlay_text": "FDG",
        },
    ]
    assert load_pairs(path) == load_pairs(str(path)) == expected


def test_pairs_given_as_they_are():
    entries = [{"anatomy": "mri/1.png", "overlay": "pet/1.png"}]
    assert load_pairs(entries) == [{"anatomy": "mri/1.png", "overlay": "pet/1.png", "name": "1"}]
    assert load_pairs(tuple(entries)) == load_pairs(entries)
    assert entries == [{"anatomy": "mri/1.png", "overlay": "pet/1.png"}]


def test_object_that_has_the_list(tmp_path):
    pairs = [
        {**PAIR, "anatomy_modality": "MR", "overlay_modality": "PT", "pair": "PET-MRI", "overlay_text": ["a", "", "b"]},
        {**PAIR, "name": "other"},
    ]
    path = write(tmp_path / "pairs.json", {"description": {"describer": {}}, "pairs": pairs})
    loaded = load_pairs(path)
    assert loaded == load_pairs(write(tmp_path / "plain.json", pairs))
    assert loaded[0] == {**pairs[0], "anatomy": f"{tmp_path}/a.png", "overlay": f"{tmp_path}/b.png", "name": "a"}
    assert load_pairs({"pairs": pairs}) == load_pairs(pairs)


def test_regions_start_from_the_datalists_folder(tmp_path):
    pairs = [{**PAIR, "regions": "seg/mask.nrrd"}, {**PAIR, "name": "none", "regions": ""}]
    marked, plain = load_pairs(write(tmp_path / "pairs.json", pairs))
    assert marked["regions"] == f"{tmp_path}/seg/mask.nrrd"
    assert "regions" not in plain
    assert load_pairs(anatomy="a.png", overlay="b.png", regions="mask.nrrd")[0]["regions"] == "mask.nrrd"


@pytest.mark.parametrize("nothing", [None, ""])
def test_single_pair(tmp_path, nothing):
    pair = load_pairs(nothing, anatomy=tmp_path / "a.png", overlay="b.png")
    assert pair == [{"anatomy": f"{tmp_path}/a.png", "overlay": "b.png", "name": "a"}]


def test_details_of_a_single_pair():
    details = {"overlay_modality": "PT", "anatomy_text": "T1.", "overlay_text": ["a", "b"], "anatomy_modality": None}
    known = {key: value for key, value in details.items() if value is not None}
    assert load_pairs(None, "a.png", "b.png", **details) == [{**PAIR, "name": "a", **known}]
    assert load_pairs(None, "a.png", "b.png", name="other")[0]["name"] == "other"
    assert load_pairs([PAIR], anatomy_text=None, overlay_modality=None) == [{**PAIR, "name": "a"}]


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"overlay_modality": 3}, "entry 1: 'overlay_modality'.* int"),
        ({"overlay_text": []}, "entry 1: 'overlay_text'"),
        ({"window": "brain"}, "entry 1: .*'window'"),
    ],
)
def test_malformed_details(details, words):
    with pytest.raises(ValueError, match=words):
        load_pairs(None, "a.png", "b.png", **details)


def test_details_do_not_go_with_a_datalist():
    with pytest.raises(ValueError, match="either"):
        load_pairs([PAIR], overlay_text="FDG.")


@pytest.mark.parametrize(
    ("anatomy", "name"),
    [
        ("x/case.png", "case"),
        ("case.nii.gz", "case"),
        ("CASE.NII.GZ", "CASE"),
        ("sub-01.ses-2.nii.gz", "sub-01.ses-2"),
        ("1.2.840.7.tif", "1.2.840.7"),
        ("a/mri.nrrd", "mri"),
    ],
)
def test_name_is_that_of_the_anatomys_file(anatomy, name):
    assert load_pairs([{**PAIR, "anatomy": anatomy}])[0]["name"] == name


@pytest.mark.parametrize("anatomy", ["DOE_JANE", "x/IM0001.dcm", "1.2.840.7", "folder.png", "a.unknown"])
def test_names_of_dicom_files_and_folders_are_not_passed_on(tmp_path, anatomy):
    (tmp_path / "folder.png").mkdir()
    datalist = [PAIR, {**PAIR, "anatomy": str(tmp_path / anatomy), "anatomy_series_uid": "0123abcd"}]
    pair = load_pairs(datalist)[1]
    assert pair["name"] == "pair2"
    assert pair["anatomy_series_uid"] == "0123abcd"


def test_byte_order_mark_of_windows_editors(tmp_path):
    path = write(tmp_path / "pairs.json", "\ufeff" + json.dumps([PAIR]))
    assert [pair["name"] for pair in load_pairs(path)] == ["a"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], ["anatomy"]),
        ({"anatomy": "a.png", "overlay": "b.png"}, ["anatomy"]),
        ("text", ["anatomy"]),
        (None, ["anatomy"]),
        (3, ["anatomy"]),
        ({"pairs": []}, ["anatomy"]),
        ({"pairs": {"a": PAIR}}, ["anatomy", '"pairs"']),
        ({"pair": [PAIR]}, ["anatomy", '"pairs"']),
        ({"pairs": [PAIR, {"anatomy": "c.png"}]}, ["entry 2", "'overlay'"]),
        ([PAIR, "b.png"], ["entry 2", "str"]),
        ([PAIR, ["a.png", "b.png"]], ["entry 2", "list"]),
        ([{**PAIR, "fused": "c.png"}], ["entry 1", "'fused'", "anatomy_text"]),
        ([{**PAIR, "overlya": "c.png"}], ["entry 1", "'overlya', perhaps 'overlay'"]),
        ([PAIR, {**PAIR, "name": "b", "anatomy_txt": "T1."}], ["entry 2", "'anatomy_txt', perhaps 'anatomy_text'"]),
        ([PAIR, {"anatomy": "c.png"}], ["entry 2", "'overlay'"]),
        ([{"overlay": "b.png"}], ["entry 1", "'anatomy'"]),
        ([{"anatomy": "", "overlay": "b.png"}], ["entry 1", "'anatomy'"]),
        ([{"anatomy": "a.png", "overlay": None}], ["entry 1", "'overlay'"]),
        ([{"anatomy": "a.png", "overlay": 3}], ["entry 1", "'overlay'"]),
        ([{"anatomy": ["a.png"], "overlay": "b.png"}], ["entry 1", "'anatomy'"]),
        ([{**PAIR, "name": 7}], ["entry 1", "'name'"]),
        ([{**PAIR, "overlay_text": None}], ["entry 1", "'overlay_text'"]),
        ([{**PAIR, "overlay_text": []}], ["entry 1", "'overlay_text'"]),
        ([{**PAIR, "overlay_text": ["a", 3]}], ["entry 1", "'overlay_text'"]),
        ([{**PAIR, "anatomy_modality": ["MR"]}], ["entry 1", "'anatomy_modality'"]),
        ([PAIR, {**PAIR, "overlay": "c.png"}], ["2 entries", "'a'"]),
        ([PAIR, {**PAIR, "anatomy": "c.png", "name": "a"}], ["2 entries", "'a'"]),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_malformed_list(tmp_path, entries, words, in_file):
    if not in_file and (entries is None or isinstance(entries, str)):
        return  # without a list, and the name of a file
    datalist = write(tmp_path / "pairs.json", json.dumps(entries)) if in_file else entries
    with pytest.raises(ValueError, match=r"pairs\.json" if in_file else "datalist") as refused:
        load_pairs(datalist)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "hostile", ["$1 + 1", "@pairs", "%pairs.json", "a#b::c", "..", "../x", "a/b", "a\x00b", 300 * "n", "\n"]
)
def test_strings_are_data(tmp_path, hostile):
    """Whatever they begin with; what writes files looks at names."""
    entry = {**PAIR, "name": hostile, "anatomy_text": hostile, "overlay_text": [hostile], "pair": hostile}
    (pair,) = load_pairs(write(tmp_path / "pairs.json", [entry]))
    assert {key: pair[key] for key in entry if key not in PAIR} == {key: entry[key] for key in entry if key not in PAIR}


# several overlays


def test_several_overlays_are_parted(tmp_path):
    entry = {
        "anatomy": "mri.nii",
        "overlay": ["ct.nii", "/far/pet.nii"],
        "overlay_modality": ["CT", "PET"],
        "overlay_volume": [None, 2],
        "overlay_text": ["bone", ["a", "b"]],
        "overlay_series_uid": "1.2",
    }
    (pair,) = load_pairs(write(tmp_path / "pairs.json", [entry]), most_overlays=3)
    expected = {
        "anatomy": f"{tmp_path}/mri.nii",
        "name": "mri",
        "overlay": f"{tmp_path}/ct.nii",
        "overlay_modality": "CT",
        "overlay_text": "bone",
        "overlay2": "/far/pet.nii",
        "overlay2_modality": "PT",
        "overlay2_volume": 2,
        "overlay2_text": ["a", "b"],
        "overlay_series_uid": "1.2",
        "overlay2_series_uid": "1.2",
    }
    assert pair == expected
    assert load_pairs([pair], most_overlays=2) == [pair], "what was parted may be given again"
    given = {"overlay": (tmp_path / "ct.nii", "pet.nii"), "overlay_modality": ["CT", "PT"]}
    (one,) = load_pairs(anatomy="mri.nii", most_overlays=3, **given)
    assert (one["overlay"], one["overlay2"], one["overlay2_modality"]) == (f"{tmp_path}/ct.nii", "pet.nii", "PT")


def test_a_list_of_one_overlay_is_one():
    entry = {"anatomy": "a.png", "overlay": ["b.png"], "overlay_modality": ["CT"], "overlay_text": [["x", "y"]]}
    assert load_pairs([entry]) == [{**PAIR, "name": "a", "overlay_modality": "CT", "overlay_text": ["x", "y"]}]


@pytest.mark.parametrize(
    ("changes", "most", "words"),
    [
        ({"overlay": ["b", "c"]}, 1, "entry 1: has 2 overlays; one is accepted here"),
        ({"overlay2": "c"}, 1, "entry 1: has 2 overlays"),
        ({"overlay": ["b", "c", "d"]}, 2, "has 3 overlays; 1 to 2"),
        ({"overlay": ["b", "c", "d", "e"]}, 3, "'overlay' is .*; 1 to 3 images"),
        ({"overlay": []}, 3, "'overlay' is .*; 1 to 3 images"),
        ({"overlay": ["b", ""]}, 3, "'overlay' is .*; 1 to 3 images"),
        ({"overlay": ["b", 3]}, 3, "'overlay2' must be a text, got int"),
        ({"overlay": ["b", "c"], "overlay_modality": ["CT", "PT", "PT"]}, 3, "'overlay_modality' has 3 values for 2"),
        ({"overlay_modality": ["CT", "PT"]}, 3, "'overlay_modality' must be a text, got list"),
        ({"overlay": ["b", "c"], "overlay2": "d"}, 3, "'overlay2' is given beside a list"),
        ({"overlay3": "d"}, 3, "'overlay3' is given, and not all overlays up to it"),
        ({"overlay2_modality": "PT"}, 3, "'overlay2_modality' is given, and not all"),
        ({"overlay": ["b", "c"], "overlay_modality": "XX"}, 3, "'overlay_modality'"),
    ],
)
def test_overlays_that_are_refused(changes, most, words):
    with pytest.raises(ValueError, match=words):
        load_pairs([{**PAIR, **changes}], most_overlays=most)


@pytest.mark.parametrize("content", ["", 5000 * "[", "anatomy,overlay\nDOE,JANE\n", '[{"anatomy": "a.png",', "[1, 2]]"])
def test_no_json(tmp_path, content):
    path = write(tmp_path / "pairs.json", content)
    with pytest.raises(ValueError, match=r"pairs\.json") as refused:
        load_pairs(path)
    assert "DOE" not in str(refused.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "pairs.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"pairs\.json"):
        load_pairs(tmp_path / "pairs.json")


def test_missing_datalist(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json"):
        load_pairs(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        load_pairs(tmp_path)


@pytest.mark.parametrize(
    "given", [{}, {"anatomy": "a.png"}, {"overlay": "b.png"}, {"datalist": "", "anatomy": "a.png"}]
)
def test_less_than_a_pair(given):
    with pytest.raises(ValueError, match="give a datalist"):
        load_pairs(**given)


@pytest.mark.parametrize(
    "given", [{"anatomy": "a.png", "overlay": "b.png"}, {"anatomy": "a.png"}, {"overlay": "b.png"}]
)
def test_datalist_and_a_pair(tmp_path, given):
    with pytest.raises(ValueError, match="either"):
        load_pairs(write(tmp_path / "pairs.json", [PAIR]), **given)
    with pytest.raises(ValueError, match="either"):
        load_pairs([PAIR], **given)


# texts of another datalist


def test_texts_go_by_name(tmp_path):
    texts = [
        {**PAIR, "name": "second", "anatomy_text": "T2.", "overlay_text": ["a", "b"]},
        {**PAIR, "name": "first", "anatomy_text": "T1.", "overlay_text": ""},
        {**PAIR, "name": "third"},
    ]
    path = write(tmp_path / "texts.json", {"pairs": texts})
    pairs = [{"name": "first", "overlay_text": "old", "pair": "x"}, {"name": "second", "anatomy": "c.png"}]
    assert with_texts(pairs, path) == [
        {"name": "first", "overlay_text": "old", "pair": "x", "anatomy_text": "T1."},
        {"name": "second", "anatomy": "c.png", "anatomy_text": "T2.", "overlay_text": ["a", "b"]},
    ]
    assert with_texts(pairs, texts) == with_texts(pairs, str(path))
    assert "anatomy_text" not in pairs[0]
    assert with_texts(pairs, None) == with_texts(pairs, "") == pairs
    with pytest.raises(ValueError, match="texts"):
        with_texts(pairs, None, required=True)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        with_texts(pairs, tmp_path / "none.json")
    for name in ("third", "fourth"):
        with pytest.raises(ValueError, match=rf"texts\.json: .*'{name}'"):
            with_texts([*pairs, {"name": name}], path)
    for nothing in (None, ""):
        with pytest.raises(ValueError, match="texts"):
            with_texts(pairs, nothing, required=True)
    assert with_texts(pairs, texts, required=True) == with_texts(pairs, texts)
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        with_texts(pairs, tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"datalist: .*'third'"):
        with_texts([{"name": "third"}], texts)


# AANLIB


@pytest.fixture
def aanlib(tmp_path):
    names = {"CT-MRI": ["1_001.png"], "PET-MRI": ["2_001.png", "2_002.png"], "SPECT-MRI": ["3_001.png"]}
    splits = {pair: {"train": of_pair, "val": [], "test": of_pair[:1]} for pair, of_pair in names.items()}
    write(tmp_path / "splits.json", splits)
    return tmp_path


def test_aanlib_pairs(aanlib):
    pairs = aanlib_pairs(aanlib, "train")
    assert [pair["name"] for pair in pairs] == [
        "CT-MRI_1_001",
        "PET-MRI_2_001",
        "PET-MRI_2_002",
        "SPECT-MRI_3_001",
    ]
    assert pairs[2] == {
        "anatomy": f"{aanlib}/PET-MRI/MRI/2_002.png",
        "overlay": f"{aanlib}/PET-MRI/PET/2_002.png",
        "name": "PET-MRI_2_002",
        "pair": "PET-MRI",
        "subject": "2",
        "anatomy_modality": "MR",
        "overlay_modality": "PT",
    }
    assert [pair["subject"] for pair in pairs] == ["1", "2", "2", "3"]
    assert [pair["overlay_modality"] for pair in pairs] == ["CT", "PT", "PT", "NM"]
    assert {pair["pair"] for pair in pairs} == set(AANLIB_PAIRS)


def test_whose_a_slice_is(tmp_path):
    """By the atlas's numbers, case and slice; a name without a slice's number is a subject of its own."""
    names = ["3008.png", "25016.png", "25017.png", "head_a_012.png", "007.png", "ours.png", "s12.png", "000012.png"]
    write(tmp_path / "splits.json", {"PET-MRI": {"test": names}})
    subjects = [pair["subject"] for pair in aanlib_pairs(tmp_path, "test")]
    assert subjects == ["3", "25", "25", "head_a", "007", "ours", "s12", "000012"]


def test_aanlib_pairs_of_some_modalities(aanlib):
    names = [pair["name"] for pair in aanlib_pairs(str(aanlib), "test", ("SPECT-MRI", "PET-MRI"))]
    assert names == ["SPECT-MRI_3_001", "PET-MRI_2_001"]
    assert aanlib_pairs(aanlib, "val") == []


def test_aanlib_pairs_of_several_sections(aanlib):
    assert aanlib_pairs(aanlib, ["train"]) == aanlib_pairs(aanlib, "train")
    assert aanlib_pairs(aanlib, ("val", "test", "train")) == aanlib_pairs(aanlib, "test") + aanlib_pairs(
        aanlib, "train"
    )


def test_folder_that_is_not_aanlib(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"splits\.json"):
        aanlib_pairs(tmp_path, "train")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"section": "tests"}, "'tests'.*train, val, test"),
        ({"section": ["train", "tests"]}, "'tests'.*train, val, test"),
        ({"pairs": ["MR-PET"]}, "'MR-PET'.*PET-MRI"),
    ],
)
def test_section_that_aanlib_has_not(aanlib, asked, words):
    with pytest.raises(ValueError, match=rf"splits\.json: .*{words}"):
        aanlib_pairs(aanlib, **{"section": "train", **asked})


def test_single_images(aanlib):
    pairs = aanlib_pairs(aanlib, "train", ("CT-MRI", "SPECT-MRI"))
    assert single_images(pairs) == [
        {"image": f"{aanlib}/CT-MRI/MRI/1_001.png", "pair": "CT-MRI"},
        {"image": f"{aanlib}/CT-MRI/CT/1_001.png", "pair": "CT-MRI"},
        {"image": f"{aanlib}/SPECT-MRI/MRI/3_001.png", "pair": "SPECT-MRI"},
        {"image": f"{aanlib}/SPECT-MRI/SPECT/3_001.png", "pair": "SPECT-MRI"},
    ]
    assert single_images(pairs, described=True) == []
    pair = {**pairs[0], "anatomy_text": "", "overlay_text": "CT."}
    assert single_images([pair], described=True) == [{"image": pair["overlay"], "pair": "CT-MRI", "text": "CT."}]


def test_single_images_take_their_own_text(aanlib):
    pairs = aanlib_pairs(aanlib, "train", ["PET-MRI"])
    pairs[0] |= {"anatomy_text": "MRI.", "overlay_text": "PET."}
    pairs[1] |= {"overlay_text": "only PET."}
    single = single_images(pairs)
    assert [one.get("text") for one in single] == ["MRI.", "PET.", None, "only PET."]
    assert [one["image"].split("/")[-2] for one in single] == ["MRI", "PET"] * 2
    assert "text" not in single[2]
    assert set(single[0]) == {"image", "pair", "text"}
    assert [one["text"] for one in single_images(pairs, described=True)] == ["MRI.", "PET.", "only PET."]


def test_balanced_weights():
    items = [{"pair": pair, "name": str(n)} for n, pair in enumerate(["a"] * 5 + ["b"] * 2 + ["c"])]
    weights = balanced_weights(items)
    assert weights == [1 / 5] * 5 + [1 / 2] * 2 + [1]
    assert balanced_weights(items, key="name") == [1] * 8
    drawn = Counter(item["pair"] for item in random.Random(0).choices(items, weights, k=3000))
    assert all(900 < count < 1100 for count in drawn.values())


def test_balanced_weights_with_emphasis():
    items = [{"pair": pair} for pair in "aaab"]
    assert balanced_weights(items, emphasis={"a": 2}) == pytest.approx([2 / 3] * 3 + [1])


# one source at a time, under its role


def test_sources_with_a_text_stand_alone():
    pairs = load_pairs(
        [
            {**PAIR, "name": "one", "anatomy_text": "MR", "anatomy_modality": "MR", "overlay_modality": "CT"},
            {**PAIR, "name": "two", "pair": "PET-MRI", "anatomy_text": "MR", "overlay_text": "PET"},
        ]
    )
    sources = single_sources(pairs)
    assert sources == [
        {"anatomy": "a.png", "anatomy_text": "MR", "anatomy_modality": "MR", "name": "one", "kind": "MR"},
        {"anatomy": "a.png", "anatomy_text": "MR", "name": "two", "pair": "PET-MRI", "kind": "anatomy"},
        {"overlay": "b.png", "overlay_text": "PET", "name": "two", "pair": "PET-MRI", "kind": "overlay"},
    ]
    assert texts_of(sources) == ["MR", "MR", "PET"]


def test_sources_without_one_text_each_are_refused():
    with pytest.raises(ValueError, match="text"):
        single_sources(load_pairs([PAIR]))
    with pytest.raises(ValueError, match="a: overlay_text"):
        single_sources(load_pairs([{**PAIR, "overlay_text": ["a", "b"]}]))


def test_pairs_or_a_section(aanlib):
    folder, no_folder = {"dataset_dir": aanlib, "section": "train"}, {"dataset_dir": None}
    nothing = {"datalist": None, "anatomy": "", "overlay": None, "overlay_modality": None}
    section = aanlib_pairs(aanlib, "train")
    assert pairs_or_section(**nothing, **folder) == section
    assert pairs_or_section(dataset_dir=aanlib) == aanlib_pairs(aanlib, "test")
    several = ["val", "test"]
    assert pairs_or_section(dataset_dir=aanlib, default_section=several) == aanlib_pairs(aanlib, several)
    texts = [{**PAIR, "name": pair["name"], "anatomy_text": "T1."} for pair in section]
    assert pairs_or_section(**nothing, **folder, texts=texts) == with_texts(section, texts)
    single = {**PAIR, "overlay_modality": "PT"}
    assert pairs_or_section(**single, **no_folder) == load_pairs(**single)
    assert pairs_or_section(**nothing, **folder, most_overlays=3) == section
    several = {**single, "overlay": ["b.png", "c.png"]}
    assert pairs_or_section(**several, **no_folder, most_overlays=2) == load_pairs(**several, most_overlays=2)
    assert pairs_or_section([PAIR], **no_folder) == load_pairs([PAIR])


@pytest.mark.parametrize("own", [{"datalist": [PAIR]}, PAIR, {"bids": [PAIR]}])
@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"dataset_dir": "set"}, "pairs are given, and dataset_dir as well; give one of both"),
        ({"section": "test"}, "pairs are given, and section as well; it is of dataset_dir"),
        ({"section": ["train", "val"]}, "pairs are given, and section as well; it is of dataset_dir"),
        ({"texts": "texts.json"}, "pairs are given, and texts as well; they are of a section of dataset_dir"),
    ],
)
def test_a_section_beside_one_s_own_pairs_is_not_left_aside(own, beside, reason):
    with pytest.raises(ValueError, match=reason):
        pairs_or_section(**own, **{"dataset_dir": None, **beside})


def test_neither_pairs_nor_a_section():
    with pytest.raises(ValueError, match="give a datalist, both an anatomy and an overlay, or dataset_dir"):
        pairs_or_section(dataset_dir=None, section="train")


@pytest.mark.parametrize("given", [{"overlay": "b.png"}, {"overlay_modality": "PT"}])
def test_less_than_a_pair_is_no_section(aanlib, given):
    with pytest.raises(ValueError, match="both an anatomy and an overlay"):
        pairs_or_section(**given, dataset_dir=aanlib, section="train")


def test_a_section_whose_texts_are_required(aanlib):
    with pytest.raises(ValueError, match="texts are needed"):
        pairs_or_section(dataset_dir=aanlib, section="train", texts_required=True)
