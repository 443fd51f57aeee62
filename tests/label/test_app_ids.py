"""A batch over given ids, and how far it is, over HTTP."""

import json
import os
import time

import pytest
import requests
from asking import SLICES, few_slices
from PIL import Image

LIMIT = 240
MANY = [f"{'long' * 22}{number:05}_mri" for number in range(990)]
"""Ids of pictures, nearly as many as a batch takes."""


@pytest.fixture(scope="module")
def datastore(sample_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    names = ("a_mri", "a_ct", "b_mri", "b_pet", "c_ct", "c_pet", "d_mri", "e_mri", "e_ct", "e_pet", "g_mri")
    for name in names:
        few_slices(sample_study[name.split("_")[1]], folder / f"{name}.nii.gz", SLICES["head"])
    (folder / "g_pet.nii.gz").write_bytes(b"garbage")
    Image.linear_gradient("L").resize((64, 48)).save(folder / f"{MANY[0]}.png")
    for name in MANY[1:]:
        os.link(folder / f"{MANY[0]}.png", folder / f"{name}.png")
    outside = tmp_path_factory.mktemp("outside") / "secret.nii.gz"
    few_slices(sample_study["mri"], outside, SLICES["head"])
    (folder / "link_mri.nii.gz").symlink_to(outside)
    return folder


@pytest.fixture(scope="module")
def server(label_server, datastore):
    import label_server as real

    server = label_server(real.ROOT / "bundles" / "monailabel", datastore, {"models": "dmfnet"})
    yield server
    server.stop()


def begin(server, run_sync=True, **params):
    return requests.post(f"{server.url}/batch/infer/dmfnet", params={"run_sync": run_sync}, json=params, timeout=LIMIT)


def status(server, **query):
    return requests.get(f"{server.url}/batch/infer", params=query, timeout=60).json()


def statuses(answer):
    assert answer.status_code == 200, answer.text
    return {id: (one["status"], one.get("overlay")) for id, one in answer.json().items()}


def test_only_the_pairs_of_the_ids_are_fused(server, datastore):
    """By the id of either image; two ids of one study are a pair, of three images, too."""
    answer = begin(server, images=["b_pet", "e_pet", "e_mri", "b_mri"])
    assert statuses(answer) == {"b_mri": ("fused", "b_pet"), "e_mri": ("fused", "e_pet")}
    saved = {path.name for path in (datastore / "labels" / "dmfnet").glob("*.nii.gz")}
    assert saved == {"b_mri.nii.gz", "e_mri.nii.gz"}
    assert statuses(begin(server, images=["c_ct", "c_ct", "e_mri", "e_pet"])) == {
        "c_ct": ("fused", "c_pet"),
        "e_mri": ("was done", "e_pet"),
    }


def test_how_far_it_is_is_told_in_numbers_and_reasons(server):
    begun = begin(server, run_sync=False, images=["a_mri", "d_mri", "e_ct", "g_mri", "c_pet"], registration="none")
    assert begun.status_code == 200, begun.text
    seen = []
    until = time.monotonic() + LIMIT
    while (now := status(server))["status"] not in ("DONE", "ERROR", "STOPPED"):
        assert time.monotonic() < until, now
        if "progress" in now and now["progress"] not in seen:
            seen.append(now["progress"])
        time.sleep(0.1)
    assert now["status"] == "DONE"
    assert [one["done"] for one in seen] == sorted(one["done"] for one in seen)
    assert seen[0]["total"] == 3
    assert seen[0]["done"] < 3  # not only at the end
    assert {key: now["progress"][key] for key in ("total", "done", "fused", "was_done", "failed", "skipped")} == {
        "total": 3, "done": 3, "fused": 2, "was_done": 0, "failed": 3, "skipped": 0,
    }  # fmt: skip
    reasons = now["progress"]["reasons"]
    assert reasons["d_mri"] == "alone in its study"
    assert "its study holds 3 images" in reasons["e_ct"]
    assert reasons["g_mri"].startswith("overlay g_pet: not a readable NIfTI image")
    assert set(reasons) == {"d_mri", "e_ct", "g_mri"}
    assert status(server, all=True)[-1]["progress"] == now["progress"]


@pytest.mark.parametrize(
    ("images", "code", "reason"),
    [
        ("a_mri", 422, "a list of one or more ids"),
        ([], 422, "a list of one or more ids"),
        (None, 422, "a list of one or more ids"),
        ([1], 422, "a list of one or more ids"),
        (["a_mri", ["b_mri"]], 422, "a list of one or more ids"),
        ({"a_mri": 1}, 422, "a list of one or more ids"),
        ([f"nobody{number}" for number in range(10_000)], 422, "10000 ids have more than 100000 characters"),
        (["a_mri", "nobody"], 404, "no image 'nobody' in the datastore"),
        (["../outside/secret"], 404, "the id of one is accepted"),
        (["/etc/passwd"], 404, "the id of one is accepted"),
        (["link_mri"], 404, "the id of one is accepted"),
        (["a_mri.nii.gz"], 404, "the id of one is accepted"),
        (["a_mri\x00"], 404, "the id of one is accepted"),
        (["$__import__('os').system('touch mark')"], 404, "the id of one is accepted"),
        (["*"], 404, "the id of one is accepted"),
    ],
)
def test_what_is_no_id_is_refused_before_anything_is_done(server, datastore, images, code, reason):
    before = sorted((datastore / "labels").rglob("*"))
    answer = begin(server, run_sync=False, images=images)
    assert (answer.status_code, reason in answer.json()["detail"]) == (code, True), answer.text
    assert sorted((datastore / "labels").rglob("*")) == before
    assert not list(server.home.rglob("mark"))


def test_a_list_as_long_as_is_accepted_gets_to_the_batch(server):
    """It is an argument of the process that does it."""
    assert 95_000 < len(json.dumps(MANY)) < 100_000
    begun = begin(server, run_sync=False, images=MANY)
    assert begun.status_code == 200, begun.text
    until = time.monotonic() + LIMIT
    while (now := status(server))["status"] not in ("DONE", "ERROR"):
        assert time.monotonic() < until, now
        time.sleep(0.2)
    assert now["status"] == "DONE"
    assert now["progress"]["failed"] == len(MANY)
    assert set(now["progress"]["reasons"].values()) == {"alone in its study"}
