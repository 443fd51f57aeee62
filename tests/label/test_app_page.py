"""The viewer's page of a result, over HTTP."""

import json

import pytest
import requests
from asking import infer, left_behind
from requests_toolbelt import MultipartDecoder

from fusion_nets.workflows import fuse_pair


def page_of(server, image="head_mri", tag="paged"):
    return requests.get(f"{server.url}/page", params={"image": image, "tag": tag}, timeout=60)


@pytest.fixture(scope="module")
def own(studies, tmp_path_factory):
    """As the bundle makes it."""
    folder = tmp_path_factory.mktemp("own")
    sources = (studies / f"head_{name}.nii.gz" for name in ("mri", "pet"))
    known = {"anatomy_modality": "MR", "overlay_modality": "PT", "evaluate": True}
    fuse_pair(*sources, folder, name="head_mri", output_format="html", **known)
    return (folder / "head_mri_fused.html").read_bytes()


def is_alone(answer):
    """Whether a browser keeps it from what else is at the server's address."""
    return answer.headers["Content-Security-Policy"] == "sandbox allow-scripts" and answer.ok


def test_it_is_answered_when_asked(app_server, own):
    answer = infer(app_server, "head_mri", output="page")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert is_alone(answer)
    assert answer.content == own
    parts = MultipartDecoder.from_response(infer(app_server, "head_mri", {"page": "true"}, output=None)).parts
    assert [b'name="page"' in part.headers[b"Content-Disposition"] for part in parts] == [False, False, True]
    assert parts[2].content == own
    assert "page" not in infer(app_server, "head_mri", {"page": True}).json()
    assert len(MultipartDecoder.from_response(infer(app_server, "head_mri", output="all")).parts) == 2
    assert left_behind(app_server) == []


def test_it_is_saved_beside_the_result(app_server, studies, own):
    assert page_of(app_server).status_code == 404
    told = infer(app_server, "head_mri", {"page": True, "save_label": True, "label_tag": "paged"}).json()
    assert told["saved"]["page"] == "/page?image=head_mri&tag=paged"
    answer = requests.get(app_server.url + told["saved"]["page"], timeout=60)
    assert is_alone(answer)
    assert answer.content == own
    label = requests.get(f"{app_server.url}/datastore/label?label=head_mri&tag=paged", timeout=60)
    assert label.content.startswith(b"\x1f\x8b")  # the volume is there as it was

    labels = studies / "labels" / "paged"
    (labels / "head_mri.html").write_text("<script>anything</script>")  # a label that somebody sent
    assert page_of(app_server).status_code == 404
    (labels / "head_mri.html").write_bytes(own)
    assert page_of(app_server).ok
    infer(app_server, "head_mri", {"save_label": True, "label_tag": "paged"})
    assert page_of(app_server).status_code == 404  # of another result


def test_of_several_overlays_there_is_one_page(app_server, studies, tmp_path):
    asked = {"overlay": ["three_ct", "three_pet"], "overlay_modality": ["CT", "PT"], "registration": "none"}
    overlays = [studies / f"three_{name}.nii.gz" for name in ("ct", "pet")]
    known = {"anatomy_modality": "MR", "overlay_modality": ["CT", "PT"], "register": "none", "evaluate": True}
    fuse_pair(studies / "three_mri.nii.gz", overlays, tmp_path, name="three_mri", output_format="html", **known)
    own = (tmp_path / "three_mri_fused.html").read_bytes()
    assert b'id="data-overlay2"' in own
    answer = infer(app_server, "three_mri", asked, output="page")
    assert is_alone(answer)
    assert answer.content == own
    told = infer(app_server, "three_mri", {**asked, "page": True, "save_label": True, "label_tag": "several"}).json()
    assert requests.get(app_server.url + told["saved"]["page"], timeout=60).content == own


@pytest.mark.parametrize(
    ("image", "tag", "code"),
    [
        ("head_mri", "../labels/paged", 422),
        ("head_mri", "", 422),
        ("head_mri", "other", 404),
        ("../head_mri", "paged", 404),
        ("link_pet", "paged", 404),
        ("nobody", "paged", 404),
        ("head_mri\x00", "paged", 404),
    ],
)
def test_there_is_no_other(app_server, image, tag, code):
    answer = page_of(app_server, image, tag)
    assert answer.status_code == code
    assert answer.json()["detail"]


def test_a_batch_makes_those_that_are_missing(app_server, own):
    def batch(**params):
        asked = {"images": ["head_mri"], "label_tag": "batched", **params}
        answer = requests.post(f"{app_server.url}/batch/infer/dmfnet?run_sync=true", json=asked, timeout=240)
        assert answer.ok, answer.text
        return answer.json()["head_mri"]["status"]

    assert batch() == "fused"
    assert page_of(app_server, tag="batched").status_code == 404
    assert batch(page=True) == "fused"
    assert page_of(app_server, tag="batched").content == own
    assert [batch(page=True), batch()] == ["was done"] * 2
    assert json.loads(requests.get(f"{app_server.url}/datastore/?output=all", timeout=60).text)["objects"]
