"""Good requests to the app, over HTTP."""

import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
import requests
from asking import fused, infer, left_behind

from fusion_nets.clinical import read_image
from fusion_nets.workflows import fuse_pair


def image_of(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return read_image(path)


def test_models_show_their_parameters(app_server):
    models = requests.get(f"{app_server.url}/info/", timeout=30).json()["models"]
    assert set(models) == {"dmfnet", "smfusion"}
    config = models["dmfnet"]["config"]
    assert config["registration"] == ["auto", "none", "rigid", "affine", "deformable"]
    assert config["result_extension"][0] == ".nii.gz"
    assert "hot_iron" in config["overlay_palette"]
    assert "describe" not in config
    assert models["smfusion"]["config"]["describe"] is False
    assert "UNet" in models["dmfnet"]["description"]


@pytest.mark.parametrize(
    ("model", "overlay", "extension"),
    [("dmfnet", "head_pet", ".nii.gz"), ("smfusion", "", ".nrrd"), ("dmfnet", None, ".mha")],
)
def test_the_fused_image_lies_on_the_anatomys_grid(app_server, studies, tmp_path, model, overlay, extension):
    asked = {"result_extension": extension} | ({} if overlay is None else {"overlay": overlay})
    told, name, content = fused(app_server, "head_mri", asked, model)
    assert name.endswith(extension)
    image, anatomy = image_of(tmp_path, name, content), read_image(studies / "head_mri.nii.gz")
    assert image.shape == (3, *anatomy.shape[1:])  # in colour, because the overlay is a PET
    np.testing.assert_allclose(image.affine, anatomy.affine, atol=1e-4)
    assert told["model"] == model
    assert {key: source["id"] for key, source in told["sources"].items()} == {
        "anatomy": "head_mri",
        "overlay": "head_pet",
    }


def test_three_images_become_one(app_server, studies, tmp_path):
    asked = {"overlay": ["three_ct", "three_pet"], "overlay_modality": ["CT", "PT"], "registration": "none"}
    told, name, content = fused(app_server, "three_mri", asked)
    image, anatomy = image_of(tmp_path, name, content), read_image(studies / "three_mri.nii.gz")
    assert image.shape == (3, *anatomy.shape[1:])
    assert {key: source["id"] for key, source in told["sources"].items()} == {
        "anatomy": "three_mri",
        "overlay": "three_ct",
        "overlay2": "three_pet",
    }
    assert [told["sources"][key]["colour"] for key in ("overlay", "overlay2")] == ["grey", "ember"]
    overlays = [studies / f"three_{name}.nii.gz" for name in ("ct", "pet")]
    how = {"overlay_modality": ["CT", "PT"], "register": "none", "name": "three_mri", "output_format": "nifti"}
    fuse_pair(studies / "three_mri.nii.gz", overlays, tmp_path / "own", **how)
    assert content == (tmp_path / "own" / "three_mri_fused.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"overlay": []}, "overlay: is a list"),
        ({"overlay": ["three_ct"] * 4}, "overlay: 4 ids are given; 1 to 3"),
        ({"overlay": ["three_ct", "three_mri"]}, "is the anatomy itself"),
        ({"overlay": ["three_ct", "three_pet"], "overlay_palette": ["hot"] * 3}, "overlay_palette: has 3 values for 2"),
        ({"overlay": ["three_ct", "three_pet"], "overlay_modality": ["MR", "PT"]}, "overlay_modality"),
        ({"overlay": "three_ct", "registration": ["none", "rigid"]}, "registration"),
    ],
)
def test_three_images_that_are_refused(app_server, asked, words):
    answer = infer(app_server, "three_mri", asked)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_the_image_alone_is_answered_when_asked(app_server):
    _, _, content = fused(app_server, "head_mri")
    answer = infer(app_server, "head_mri", output="image")
    assert answer.content == content
    assert re.fullmatch(r'attachment; filename="dmfnet_\w+\.nii\.gz"', answer.headers["Content-Disposition"])


@pytest.mark.parametrize("model", ["dmfnet", "smfusion"])
def test_it_is_what_the_bundle_makes(app_server, studies, tmp_path, model):
    asked = {"overlay_palette": "none", "anatomy_window": "0 900", "overlay_window": [0, 8]}
    told, name, content = fused(app_server, "head_mri", asked, model)
    own = {"overlay_palette": "none", "anatomy_window": [0, 900], "overlay_window": [0, 8]}
    fuse_pair(
        studies / "head_mri.nii.gz",
        studies / "head_pet.nii.gz",
        tmp_path,
        method=model,
        evaluate=True,
        name="own",
        **own,
    )
    assert content == (tmp_path / "own_fused.nii.gz").read_bytes()
    assert image_of(tmp_path, name, content).shape[0] == 1  # grey, as asked
    record = json.loads((tmp_path / "own_fused.json").read_text())
    assert told["settings"] == {key: value for key, value in record.items() if key != "record"}
    measured = dict(line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
    assert told["metrics"] == {name: pytest.approx(float(measured[name])) for name in ("MI", "SSIM", "Qabf", "VIF")}


def test_json_tells_how_it_was_made(app_server):
    told = infer(app_server, "other_mri").json()
    anatomy, overlay = (told["sources"][key] for key in ("anatomy", "overlay"))
    assert anatomy["display"]["window"] == "percentiles"
    assert overlay["modality"] == "CT"  # by its name
    shows = "unknown: its header does not say it, and it is no larger than a head"
    assert overlay["display"] == {"window": "brain", "range": [0, 80], "units": "stored", "shows": shows}
    assert told["registration"]["reason"] == "both lie on one grid"
    assert told["made_by"]["method"] == "DM-FNet"
    assert set(told["metrics"]) == {"MI", "SSIM", "Qabf", "VIF"}
    assert told["warnings"] == []


def test_texts_come_back(app_server):
    """Whether they change the image is for the network to say: what they name must be there."""
    text = fused(app_server, "head_mri", {"anatomy_text": "A dark mass.", "overlay_text": "A hot lesion."}, "smfusion")
    described = fused(app_server, "head_mri", {"describe": "true"}, "smfusion")
    assert text[0]["description"]["anatomy_text"] == "A dark mass."
    assert text[0]["description"]["anatomy_text"] != described[0]["description"]["anatomy_text"]


def test_what_viewers_add_is_taken(app_server):
    config = requests.get(f"{app_server.url}/info/", timeout=30).json()["models"]["dmfnet"]["config"]
    slicer = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    ohif = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
    _, name, _ = fused(app_server, "head_mri", {**slicer, **ohif, "client_id": "user-xyz"})
    assert name.endswith(".nrrd")


def test_pictures_are_fused_as_well(app_server, tmp_path):
    told, name, content = fused(app_server, "picture_mri", {"result_extension": ".nii.gz"})
    assert image_of(tmp_path, name, content).shape[1:] == (48, 64)
    assert told["sources"]["overlay"]["id"] == "picture_ct"


def test_a_result_is_saved_as_a_label_when_asked(app_server, studies):
    assert not (studies / "labels" / "mine").exists()
    told, _, content = fused(app_server, "head_mri", {"save_label": True, "label_tag": "mine"})
    assert told["saved"] == {"label": "head_mri", "tag": "mine", "file": "head_mri.nii.gz"}
    answer = requests.get(f"{app_server.url}/datastore/label", params={"label": "head_mri", "tag": "mine"}, timeout=30)
    assert answer.content == content
    assert nib.Nifti1Image.from_bytes(gzip.decompress(content)).shape == (48, 60, 2)
    assert "saved" not in infer(app_server, "head_mri").json()


def test_sources_on_the_grid_are_saved_beside_the_result(app_server, studies, tmp_path):
    asked = {"save_label": True, "label_tag": "kept", "save": "overlay, anatomy"}
    told = infer(app_server, "head_mri", asked).json()
    assert {key: one["tag"] for key, one in told["saved"]["on_grid"].items()} == {
        "overlay": "kept_overlay",
        "anatomy": "kept_anatomy",
    }
    sources = [studies / f"head_{name}.nii.gz" for name in ("mri", "pet")]
    own = {"overlay_modality": "PT", "anatomy_modality": "MR"}
    fuse_pair(*sources, tmp_path, name="own", save=["overlay", "anatomy"], **own)
    for key in ("overlay", "anatomy"):
        query = {"label": "head_mri", "tag": f"kept_{key}"}
        answer = requests.get(f"{app_server.url}/datastore/label", params=query, timeout=30)
        assert answer.content == (tmp_path / f"own_{key}_on_grid.nii.gz").read_bytes()
    batch = {"label_tag": "kept", "save": ["anatomy", "overlay"], "images": ["head_mri"]}
    url = f"{app_server.url}/batch/infer/dmfnet?run_sync=true"
    assert requests.post(url, json=batch, timeout=300).json()["head_mri"]["status"] == "was done"
    (studies / "labels" / "kept_overlay" / "head_mri.nii.gz").unlink()
    assert requests.post(url, json=batch, timeout=300).json()["head_mri"]["status"] == "fused"
    assert (studies / "labels" / "kept_overlay" / "head_mri.nii.gz").is_file()


def test_all_overlays_on_the_grid_are_saved_beside_the_result(app_server, studies):
    asked = {"overlay": ["three_ct", "three_pet"], "overlay_modality": ["CT", "PT"], "registration": "none"}
    asked |= {"save_label": True, "label_tag": "all", "save": "overlay"}
    told = infer(app_server, "three_mri", asked).json()
    assert list(told["saved"]["on_grid"]) == ["overlay", "overlay2"]
    kept = [studies / "labels" / f"all_{key}" / "three_mri.nii.gz" for key in ("overlay", "overlay2")]
    assert kept[0].read_bytes() != kept[1].read_bytes()


@pytest.fixture(scope="module")
def lesions(app_server, studies, tmp_path_factory):
    """A label of the MRI under the tag "lesions", sent as viewers do: two blocks of it; the overlay is a PET."""
    mri = nib.load(studies / "head_mri.nii.gz")
    labels = np.zeros(mri.shape, dtype=np.uint8)
    labels[20:24, 28:32], labels[28:32, 36:40] = 1, 2
    path = tmp_path_factory.mktemp("lesions") / "outlined.nii.gz"
    nib.save(nib.Nifti1Image(labels, mri.affine), path)
    send_label(app_server, "head_mri", "lesions", path)
    return path


def send_label(server, image, tag, path):
    with open(path, "rb") as file:
        answer = requests.put(
            f"{server.url}/datastore/label",
            params={"image": image, "tag": tag},
            data={"params": "{}"},
            files={"label": (path.name, file)},
            timeout=60,
        )
    assert answer.ok, answer.text


def test_lesions_that_are_outlined_are_told_of(app_server, studies, lesions, tmp_path):
    told = infer(app_server, "head_mri", {"regions": "lesions"}).json()
    files = (studies / f"head_{name}.nii.gz" for name in ("mri", "pet"))
    fuse_pair(*files, tmp_path, regions=lesions, name="own", overlay_modality="PT", anatomy_modality="MR")
    own = json.loads((tmp_path / "own_fused.json").read_text())["record"]["regions"]
    assert told["regions"] == own
    assert [row["region"] for row in own["regions"]] == [1, 2]
    assert told["warnings"] == own["warnings"]
    assert infer(app_server, "head_mri").json()["regions"] == {}


def test_what_outlines_no_lesions_is_refused_by_its_tag(app_server, studies, lesions):
    send_label(app_server, "head_mri", "no_labels", studies / "head_pet.nii.gz")
    answer = infer(app_server, "head_mri", {"regions": "no_labels"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("regions no_labels: values from")
    assert str(studies) not in answer.text
    assert infer(app_server, "other_mri", {"regions": "lesions"}).status_code == 404


def test_nothing_stays_behind_and_no_text_is_logged(app_server):
    fused(app_server, "head_mri", {"anatomy_text": "Jane Roe, born 1970."}, "smfusion")
    assert left_behind(app_server) == []
    assert "Jane" not in app_server.log.read_text()
