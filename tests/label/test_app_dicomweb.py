"""The app over an archive's DICOMweb: Orthanc with the sample study."""

import json

import numpy as np
import pytest
import requests
from asking import fused, infer, left_behind
from pydicom import dcmread

from fusion_nets.clinical import read_image
from fusion_nets.clinical.dicom import pick_series, read_series


@pytest.fixture(scope="module")
def archive(orthanc, dicom_study):
    """Of the study, MRI and PET."""
    for name in ("mri", "pet"):
        orthanc.store(dicom_study[name])
    return orthanc


@pytest.fixture(scope="module")
def server(label_server, archive):
    import label_server as real

    server = label_server(real.ROOT / "bundles" / "monailabel", archive.dicomweb_url, {"models": "dmfnet"})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def uid(dicom_study):
    return {name: pick_series(dicom_study[name]).uid for name in ("mri", "pet", "ct")}


def in_archive(archive):
    """Descriptions and UIDs of its series, by modality."""
    found = json.loads(archive.get("/dicom-web/series?includefield=SeriesDescription")[1])
    return sorted(
        (one["00080060"]["Value"][0], one["0008103E"]["Value"][0], one["0020000E"]["Value"][0]) for one in found
    )


def test_a_series_is_fused_and_sent_back(server, archive, dicom_study, uid, tmp_path):
    originals = [dcmread(next(dicom_study[name].glob("*.dcm"))) for name in ("mri", "pet")]
    told, name, content = fused(server, uid["mri"], {"save_label": True})
    (tmp_path / name).write_bytes(content)
    image, anatomy = read_image(tmp_path / name), read_series(pick_series(dicom_study["mri"]))
    assert image.shape == (3, *anatomy.shape[1:])
    np.testing.assert_allclose(image.affine, anatomy.affine, atol=1e-3)
    assert told["sources"]["overlay"]["units"] == "SUV"
    assert told["registration"]["after"] > told["registration"]["before"]
    assert told["warnings"] == []

    there = in_archive(archive)
    assert ("MR", "Fused by DM-FNet", told["saved"]["series"]) in there
    assert [modality for modality, _, _ in there] == ["MR", "MR", "PR", "PT", "REG"]
    study = originals[0].StudyInstanceUID
    found = json.loads(archive.get(f"/dicom-web/studies/{study}/series")[1])
    assert told["saved"]["series"] in [one["0020000E"]["Value"][0] for one in found]
    for original in originals:
        assert archive.retrieve(original) == original

    count = archive.instances()
    again, _, same = fused(server, uid["mri"], {"save_label": True})
    assert same == content
    assert again["saved"] == told["saved"]
    batch = requests.post(f"{server.url}/batch/infer/dmfnet?run_sync=true", timeout=300)
    assert batch.json() == {uid["mri"]: {"status": "was done", "overlay": uid["pet"]}}
    named = requests.post(f"{server.url}/batch/infer/dmfnet?run_sync=true", json={"images": [uid["pet"]]}, timeout=300)
    assert named.json() == batch.json()
    for uids in (["1.2.3"], ["*"], [uid["mri"], "2.25.*"]):
        refused = requests.post(f"{server.url}/batch/infer/dmfnet", json={"images": uids}, timeout=60)
        assert refused.status_code == 404, refused.text
    assert archive.instances() == count
    assert left_behind(server) == []


def test_sources_on_the_grid_are_sent_back_and_are_no_sources(server, archive, uid):
    asked = {"save_label": True, "save": ["anatomy", "overlay"]}
    told, _, _ = fused(server, uid["mri"], asked)
    there = {one: (modality, name) for modality, name, one in in_archive(archive)}
    assert there[told["saved"]["series"]] == ("MR", "Fused by DM-FNet")
    kept = {key: there[one] for key, one in told["saved"]["on_grid"].items()}
    assert {key: modality for key, (modality, _) in kept.items()} == {"overlay": "PT", "anatomy": "MR"}
    assert all(" on the grid of " in name for _, name in kept.values())
    assert infer(server, told["saved"]["on_grid"]["anatomy"]).status_code == 404
    count = archive.instances()
    again, _, _ = fused(server, uid["mri"], asked)  # the only other image is the PET still
    assert again["saved"] == told["saved"]
    assert archive.instances() == count


def test_what_is_no_pair_is_refused(server, archive, dicom_study, uid):
    fused_uid = next((one for _, name, one in in_archive(archive) if name.startswith("Fused by")), "2.25.1")
    assert infer(server, fused_uid).status_code == 404
    for image in ("1.2.3", "../mri", uid["ct"], f"{uid['mri']}/..", "*", "", "2.25.*"):
        answer = infer(server, image)
        assert answer.status_code == (404 if image else 422), answer.text
    answer = infer(server, uid["pet"], {"overlay": uid["mri"]})
    assert (answer.status_code, "an MR or CT is accepted" in answer.text) == (422, True)
    archive.store(dicom_study["ct"])
    answer = infer(server, uid["mri"])
    assert answer.status_code == 422
    assert all(f"{uid[name]} ({modality})" in answer.text for name, modality in (("pet", "PT"), ("ct", "CT")))
    answer = infer(server, uid["ct"], {"overlay": uid["mri"]})
    assert (answer.status_code, "PT, NM is accepted" in answer.text) == (422, True)
    assert requests.get(f"{server.url}/info/", timeout=30).ok


def test_log_and_answer_name_no_patient(server, uid, dicom_study):
    header = pick_series(dicom_study["mri"]).datasets[0]
    told = infer(server, uid["mri"], {"overlay": uid["ct"], "registration": "none"})
    assert told.ok
    for text in (told.text, server.log.read_text()):
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
            assert str(header[keyword].value) not in text
