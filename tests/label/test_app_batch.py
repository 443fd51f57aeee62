"""A datastore's pairs fused in one go, over HTTP, by a server that is killed on the way."""

import json
import signal
import time

import pytest
import requests
from asking import SLICES, few_slices

LIMIT = 240
PAIRS = {"a_mri": "a_ct", "b_mri": "b_pet", "c_ct": "c_pet"}


@pytest.fixture(scope="module")
def datastore(sample_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    for name in ("a_mri", "a_ct", "b_mri", "b_pet", "c_ct", "c_pet", "d_mri", "e_mri", "e_ct", "e_pet", "g_mri"):
        few_slices(sample_study[name.split("_")[1]], folder / f"{name}.nii.gz", SLICES["head"])
    few_slices(sample_study["mri"], folder / "f_first.nii.gz", SLICES["head"])
    few_slices(sample_study["pet"], folder / "f_second.nii.gz", SLICES["head"])
    (folder / "g_pet.nii.gz").write_bytes(b"garbage")
    return folder


def begin(server, run_sync=False, **params):
    answer = requests.post(
        f"{server.url}/batch/infer/dmfnet", params={"run_sync": run_sync}, json=params, timeout=LIMIT
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def status(server):
    return requests.get(f"{server.url}/batch/infer", timeout=60).json()


def result_of(server):
    """What the batch says at its end, by image; and all that its status showed."""
    until = time.monotonic() + LIMIT
    while (now := status(server))["status"] not in ("DONE", "ERROR", "STOPPED"):
        assert time.monotonic() < until, now
        time.sleep(0.3)
    lines = list(now["details"])
    assert now["status"] == "DONE", "\n".join(lines)
    return json.loads(lines[-1].partition("Result: ")[2]), lines


def labels(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "labels" / "dmfnet").iterdir())}


def test_a_batch_goes_on_where_its_server_was_killed(label_server, datastore, sample_study):
    import label_server as real

    app = real.ROOT / "bundles" / "monailabel"
    server = label_server(app, datastore, {"models": "dmfnet"})
    begin(server)
    first = datastore / "labels" / "dmfnet" / "a_mri.json"
    until = time.monotonic() + LIMIT
    while not first.exists():
        assert time.monotonic() < until, status(server)
        time.sleep(0.02)
    server.stop(signal.SIGKILL)
    done = labels(datastore)
    assert "c_ct.json" not in done

    server = label_server(app, datastore, {"models": "dmfnet"})
    begin(server)
    result, lines = result_of(server)
    assert result["a_mri"] == {"status": "was done", "overlay": "a_ct"}
    for anatomy, overlay in list(PAIRS.items())[1:]:
        assert result[anatomy]["overlay"] == overlay
    assert result["c_ct"]["status"] == "fused"
    assert result["d_mri"] == {"status": "skipped", "reason": "alone in its study"}
    assert {result[f"e_{name}"]["status"] for name in ("mri", "ct", "pet")} == {"skipped"}
    assert "holds 3 images" in result["e_mri"]["reason"]
    assert "modality" in result["f_first"]["reason"]
    assert result["g_mri"]["status"] == "failed"
    assert "overlay g_pet: not a readable NIfTI image" in result["g_mri"]["reason"]
    assert any("3 of 4: fused c_ct" in line for line in lines)

    after = labels(datastore)
    assert {name: after[name] for name in ("a_mri.json", "a_mri.nii.gz")} == {
        name: done[name] for name in ("a_mri.json", "a_mri.nii.gz")
    }
    assert {name for name in after if not name.startswith(".")} == {
        f"{name}{end}" for name in PAIRS for end in (".json", ".nii.gz")
    }

    result = begin(server, run_sync=True, registration="none")  # another result
    assert [result[name]["status"] for name in PAIRS] == ["fused"] * 3

    (datastore / "labels" / "dmfnet" / "a_mri.nii.gz").write_bytes(b"")  # the disk was full
    few_slices(sample_study["mri"], datastore / "b_mri.nii.gz", SLICES["other"])  # now it is another image
    few_slices(sample_study["pet"], datastore / "b_pet.nii.gz", SLICES["other"])
    for name in ("mri", "ct"):
        few_slices(sample_study[name], datastore / f"new_{name}.nii.gz", SLICES["other"])
    until = time.monotonic() + LIMIT
    while "new_ct" not in requests.get(f"{server.url}/datastore/?output=all", timeout=60).text:
        assert time.monotonic() < until  # MONAI Label sees files when it is told of them
        time.sleep(0.1)
    result = begin(server, run_sync=True, registration="none")
    assert {name: result[name]["status"] for name in (*PAIRS, "new_mri")} == {
        "a_mri": "fused",
        "b_mri": "fused",
        "c_ct": "was done",
        "new_mri": "fused",
    }
    server.stop()
