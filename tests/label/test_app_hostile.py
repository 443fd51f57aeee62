"""Strings that would be code for MONAI's parser, sent to a real server: they are data, and nothing runs."""

import pytest
import requests
from asking import fused, infer, left_behind

TEXTS = (
    "$__import__('pathlib').Path('{mark}').touch()",
    "$import pathlib",
    "$(",
    "@network_def",
    "@nothing",
    "%output_dir",
    "%{mark}.json#a",
    "a#b::c",
    "{{modality}} %s ${{HOME}}",
    "'; touch {mark} #",
    "__import__('os').system('touch {mark}')",
)


@pytest.fixture
def mark(app_server):
    """A file that whatever runs would make on the server."""
    path = app_server.home / "mark"
    yield path
    assert not path.exists()
    assert requests.get(f"{app_server.url}/info/", timeout=30).ok
    assert left_behind(app_server) == []


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_data(app_server, mark, text):
    """They are described as they are, in the answer, too."""
    text = text.format(mark=mark)
    told, _, _ = fused(app_server, "head_mri", {"anatomy_text": text, "overlay_text": text}, "smfusion")
    assert told["description"]["anatomy_text"] == told["description"]["overlay_text"] == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "name",
    ["overlay", "registration", "overlay_palette", "anatomy_window", "anatomy_modality", "regions", "describe",
     "result_extension", "save_label", "label_tag", "device"],
)  # fmt: skip
def test_other_parameters_are_refused(app_server, mark, name, text):
    answer = infer(app_server, "head_mri", {"save_label": True, name: text.format(mark=mark)}, "smfusion")
    assert answer.status_code in (404, 422), answer.text


@pytest.mark.parametrize("text", [TEXTS[0], "@network_def", "%output_dir"])
def test_names_and_values_of_other_kinds(app_server, mark, text):
    text = text.format(mark=mark)
    component = {"_target_": "os.system", "command": f"touch {mark}"}
    for params in ({text: "x"}, {"network_def": component}, {"anatomy_text": component}, {"overlay": component},
                   {"overlay_palette": [text]}, {"run": [text]}, {"bundle_root": text}):  # fmt: skip
        answer = infer(app_server, "head_mri", params, "smfusion")
        assert answer.status_code == 422, answer.text
    assert infer(app_server, text, {"overlay": "head_pet"}).status_code == 404
    assert infer(app_server, "head_mri", {}, requests.utils.quote(text, safe="")).status_code == 404
    told = infer(app_server, "head_mri", {"anatomy_txt": "x"}, "smfusion").json()["detail"]
    assert told.startswith("unknown parameter 'anatomy_txt', perhaps 'anatomy_text'; accepted are ")
    batch = requests.post(f"{app_server.url}/batch/infer/smfusion", json={"overlay_palette": text}, timeout=30)
    assert batch.status_code == 422


def test_a_text_for_each_slice_is_data(app_server, mark):
    text = TEXTS[0].format(mark=mark)
    answer = infer(app_server, "head_mri", {"anatomy_text": [text, "@", "%"], "overlay_text": text}, "smfusion")
    assert answer.status_code == 422  # of two slices
    assert "text" in answer.json()["detail"]


def test_a_text_that_is_no_unicode_is_refused(app_server, mark):
    answer = infer(app_server, "head_mri", r'{"anatomy_text": "\ud800", "overlay_text": "A mass."}', "smfusion")
    assert answer.status_code == 422
    assert "'anatomy_text'" in answer.json()["detail"]
