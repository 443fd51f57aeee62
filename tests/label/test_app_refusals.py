"""Requests that the app refuses, over HTTP: a 4xx with the reason, nothing read, and the server goes on."""

import pytest
import requests
from asking import infer, left_behind

OVERLAY = {"overlay": "head_pet"}


@pytest.fixture(autouse=True)
def serves_afterwards(app_server):
    yield
    assert requests.get(f"{app_server.url}/info/", timeout=30).ok
    assert left_behind(app_server) == []


@pytest.mark.parametrize(
    ("image", "params", "status", "reason"),
    [
        ("nobody", {}, 404, "no image 'nobody' in the datastore"),
        ("head_mri", {"overlay": "nobody"}, 404, "no image 'nobody' in the datastore"),
        ("head_mri", {"overlay": "head_mri"}, 422, "is the anatomy itself"),
        ("", OVERLAY, 422, "no image is named"),
        ("three_mri", {}, 422, "its study holds these: three_ct (CT), three_pet (PT)"),
        ("alone_mri", {}, 422, "its study holds none"),
        ("head_pet", {"overlay": "head_mri"}, 422, "anatomy head_pet (PT): an MR or CT is accepted"),
        ("head_mri", {"overlay": "other_mri"}, 422, "overlay other_mri (MR): with anatomy head_mri (MR), CT, PT, NM"),
        ("other_ct", {"overlay": "three_ct"}, 422, "with anatomy other_ct (CT), PT, NM is accepted"),
        ("broken_mri", {}, 422, "overlay broken_pet: not a readable NIfTI image"),
        ("head_mri", {"method": "x"}, 422, "unknown parameter 'method'; accepted are overlay, registration"),
        ("head_mri", {"describe": True}, 422, "unknown parameter 'describe'"),
        ("head_mri", {"image": "/etc/passwd"}, 422, "unknown parameter 'image'"),
        ("head_mri", {"model": "smfusion"}, 422, "unknown parameter 'model'"),
        ("head_mri", {"registration": "elastic"}, 422, "accepted are auto, none, rigid, affine"),
        ("head_mri", {"overlay_palette": 3}, 422, "accepted are auto, none, ember, hot"),
        ("head_mri", {"overlay_window": "9 1"}, 422, "low < high"),
        ("head_mri", {"overlay_window": "a b"}, 422, "LOW HIGH or a name"),
        ("head_mri", {"anatomy_window": [0, float("inf")]}, 422, "finite"),
        ("head_mri", {"anatomy_window": "lung"}, 422, "'lung'"),
        ("head_mri", {"anatomy_window": "brain"}, 422, "anatomy head_mri: is MR, and window 'brain' is for CT"),
        ("head_mri", {"least_overlap": "some"}, 422, "a share from 0 to 1"),
        ("head_mri", {"least_overlap": -0.1}, 422, "a share from 0 to 1"),
        ("head_mri", {"least_overlap": True}, 422, "a share from 0 to 1"),
        ("head_mri", {"anatomy_volume": [1]}, 422, "anatomy_volume: is a list; a text is accepted"),
        ("head_mri", {"overlay_volume": 2}, 422, "overlay head_pet"),
        ("head_mri", {"overlay_volume": "$x"}, 422, "overlay head_pet"),
        ("head_mri", {"overlay": ["head_pet"] * 4}, 422, "overlay: 4 ids are given; 1 to 3 are accepted"),
        ("head_mri", {"overlay": ["head_pet", ["head_pet"]]}, 422, "overlay: is a list; a text is accepted"),
        ("head_mri", {"result_extension": ".dcm"}, 422, "accepted are .nii.gz, .nrrd, .mha"),
        ("head_mri", {"save_label": "perhaps"}, 422, "true or false"),
        ("head_mri", {"save": "overlays"}, 422, "save: is 'overlays', perhaps 'overlay'; overlay, anatomy or both are"),
        (
            "head_mri",
            {"save": ["overlay", ["anatomy"]], "save_label": True},
            422,
            "overlay, anatomy or both are accepted",
        ),
        ("head_mri", {"save": {"overlay": True}, "save_label": True}, 422, "overlay, anatomy or both are accepted"),
        ("head_mri", {"save": "overlay"}, 422, "with save_label it is accepted"),
        ("head_mri", {"save_label": True, "label_tag": "../../tag"}, 422, "up to 64 letters"),
        ("head_mri", {"regions": "nothing"}, 404, "regions: 'head_mri' has no label under the tag 'nothing'"),
        ("head_mri", {"regions": "../head_pet"}, 422, "up to 64 letters"),
        ("head_mri", {"device": "tpu"}, 422, "accepted are cpu"),
        ("head_mri", {"device": [0]}, 422, "accepted are cpu"),
        ("head_mri", "{", 400, "params: not JSON"),
        ("head_mri", "[" * 100000, 400, "params: not JSON"),
        ("head_mri", "[1]", 400, "params: a list; a JSON object is accepted"),
        ("head_mri", "\udce4".encode("utf-8", "surrogateescape").decode("latin-1"), 400, "params: not JSON"),
    ],
)
def test_requests_that_cannot_be_fulfilled(app_server, image, params, status, reason):
    answer = infer(app_server, image, params)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    "name", ["{studies}/head_pet.nii.gz", "{studies}/head_pet", "../{folder}/head_pet", "./head_pet", "head_pet.nii.gz",
             "labels/final/head_pet", "link_pet", "datastore_v2", ".", "..", "/", "/etc/passwd", "head_pet\x00", "~"],
)  # fmt: skip
@pytest.mark.parametrize("role", ["image", "overlay"])
def test_only_ids_of_the_datastore_are_accepted(app_server, studies, name, role):
    name = name.format(studies=studies, folder=studies.name)
    answer = infer(app_server, name, OVERLAY) if role == "image" else infer(app_server, "head_mri", {"overlay": name})
    assert answer.status_code == 404
    assert "the id of one is accepted" in answer.json()["detail"]


def test_no_path_of_the_server_is_told(app_server, studies):
    assert str(studies) not in infer(app_server, "broken_mri").text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": b"\x00\xff garbage"}, 415),
        ({"json": {"overlay": "head_pet"}}, 415),
        ({"data": b"\x00\xff", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"data": b"\x00\xff", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"data": b"\x00\xff", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 422),
        ({"data": {"param": "{}"}}, 422),
        ({"files": {"params": ("a.json", b"{}")}}, 422),
        ({"files": {"file": ("a.nii.gz", b"x")}}, 422),
        ({"files": {"label": ("a.nii.gz", b"x")}}, 422),
        ({"params": {"image": "head_mri", "session_id": "x"}}, 422),
        ({"params": {"image": "head_mri", "output": "dicom_seg"}}, 422),
        ({"params": {"image": "head_mri", "output": "x"}}, 422),
    ],
)
def test_bodies_that_are_no_request(app_server, body, status):
    answer = requests.post(f"{app_server.url}/infer/dmfnet", **{"params": {"image": "head_mri"}, "timeout": 60, **body})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["/infer/other", "/batch/infer/other"])
def test_models_that_are_not_served(app_server, path):
    answer = requests.post(app_server.url + path, params={"image": "head_mri"}, timeout=30)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "no model 'other'; accepted are dmfnet, smfusion"


def test_there_are_no_whole_slide_images(app_server):
    assert requests.post(f"{app_server.url}/infer/wsi/dmfnet?image=head_mri", timeout=30).status_code == 422


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"overlay": "head_pet"}, "unknown parameter 'overlay'"),
        ({"registration": "x"}, "accepted are auto"),
        ({"label_tag": ".."}, "up to 64 letters"),
        ({"image": "head_mri"}, "unknown parameter 'image'"),
        ({"anatomy_text": "x"}, "unknown parameter 'anatomy_text'"),
        ({"max_batch_size": "x"}, "max_batch_size: is 'x'"),
        ({"max_batch_size": -1}, "max_batch_size: is -1"),
    ],
)
def test_batches_that_cannot_be_done(app_server, params, reason):
    answer = requests.post(f"{app_server.url}/batch/infer/dmfnet", json=params, timeout=30)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff"])
def test_batches_with_a_garbage_body(app_server, body):
    assert requests.post(f"{app_server.url}/batch/infer/dmfnet", data=body, timeout=30).status_code in (400, 415, 422)
    assert requests.get(f"{app_server.url}/batch/infer", timeout=30).status_code == 404  # none was begun


def test_a_server_with_unknown_models_does_not_start(label_server, app_server, studies):
    import label_server as real

    with pytest.raises(pytest.fail.Exception, match=r"no bundle 'vgg' in .*; accepted are dmfnet, smfusion"):
        label_server(real.ROOT / "bundles" / "monailabel", studies, {"models": "dmfnet,vgg"})


def test_a_server_with_an_unknown_engine_does_not_start(label_server, app_server, studies):
    import label_server as real

    with pytest.raises(pytest.fail.Exception, match="engine is 'fast'; accepted are auto, torch, openvino"):
        label_server(real.ROOT / "bundles" / "monailabel", studies, {"models": "dmfnet", "engine": "fast"})
