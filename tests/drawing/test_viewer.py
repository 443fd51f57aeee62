"""The viewer's page as a file: what it holds, what it allows, what it says."""

import base64
import hashlib
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from drawing.viewed import ANATOMY_AFFINE, RECORD, SIZE, held, write_case
from monai.data import MetaTensor
from scipy import ndimage

from fusion_nets import cli
from fusion_nets.clinical import ImageError, read_image, write_image
from fusion_nets.drawing import pages_in, view, viewer_html, write_viewer
from fusion_nets.simulation import write_sample_study
from fusion_nets.transforms import SaveFused
from fusion_nets.workflows import write_page

HOSTILE = "</script><script>hacked=1</script><b>\u2028$name"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    return folder, *write_case(folder)


def test_values_are_those_of_the_files(case):
    folder, anatomy, overlay, fused = case
    told, volumes = held(viewer_html(anatomy, overlay, fused, RECORD, name="case"))
    stored = nib.load(folder / "secret_anatomy.nii.gz").get_fdata()
    assert told["size"] == list(SIZE)
    # the file runs to the right, to the back and to the head; the page to the left, to the back and to the feet
    np.testing.assert_array_equal(volumes["anatomy"], stored[::-1, :, ::-1])
    np.testing.assert_allclose(np.array(told["affine"]) @ [39, 0, 19, 1], ANATOMY_AFFINE @ [0, 0, 0, 1])
    assert told["spacing"] == [2.0, 1.5, 3.0]
    there = nib.load(folder / "secret_overlay.nii.gz")
    place = nib.affines.apply_affine(
        np.linalg.inv(there.affine) @ np.array(told["affine"]), np.indices(SIZE).transpose(1, 2, 3, 0)
    )
    expected = ndimage.map_coordinates(there.get_fdata(), np.moveaxis(place, -1, 0), order=1, mode="nearest")
    inside = ((place > 0) & (place < np.array(there.shape) - 1)).all(-1)
    step = told["images"]["overlay"]["slope"]
    assert inside.mean() > 0.8
    np.testing.assert_allclose(volumes["overlay"][inside], expected[inside], atol=step)
    colours = np.moveaxis(fused.numpy(), 0, -1)[::-1, :, ::-1]
    np.testing.assert_allclose(volumes["fused"], colours * 255, atol=0.51)


def test_the_records_registration_window_and_palette_are_taken(case):
    _, anatomy, overlay, fused = case
    moved = np.eye(4)
    moved[0, 3] = 8.0  # the anatomy's place plus 8 mm is the overlay's
    plain = held(viewer_html(anatomy, overlay, fused, RECORD))[1]["overlay"]
    told, volumes = held(viewer_html(anatomy, overlay, fused, {**RECORD, "transform": moved.tolist()}))
    np.testing.assert_allclose(volumes["overlay"][8:30], plain[4:26], atol=2e-3)  # 4 voxels further left
    first = told["images"]["overlay"]
    assert (first["low"], first["high"], first["palette"], first["units"]) == (0, 8, "hot", "SUV")
    assert {"brain", "bone", "soft tissue"} <= {one["name"] for one in told["images"]["anatomy"]["windows"]}
    assert ["Method", "DM-FNet"] in told["chosen"]
    assert told["projection"]  # of uptake alone: that of a CT is the skull's shadow
    assert not held(viewer_html(anatomy, anatomy, fused, RECORD))[0]["projection"]
    assert told["warnings"] == RECORD["record"]["regions"]["warnings"]


@pytest.mark.parametrize("transform", ["deformable.tfm", [[1, 0], [0, 1]], np.full((4, 4), np.nan).tolist()])
def test_another_transform_is_refused(case, transform):
    with pytest.raises(ValueError, match=r"no \(4, 4\) matrix; one of a rigid or affine"):
        viewer_html(*case[1:], {"transform": transform})


def test_strings_are_data(case):
    page = viewer_html(
        *case[1:], {"record": {"method": HOSTILE, "registration": {"reason": HOSTILE}}}, HOSTILE, [HOSTILE]
    )
    plain = viewer_html(*case[1:])
    for tag in ("<script", "</script", "<b>", "<img"):
        assert page.count(tag) == plain.count(tag)
    assert "&lt;/script&gt;" in re.search("<title>(.*?)</title>", page)[1]
    assert held(page)[0]["warnings"] == [HOSTILE]
    viewer_html(*case[1:], name="\ud800", warnings=["\ud800"]).encode()  # a half character is shown as a mark


def test_the_policy_allows_what_is_in_the_page_and_no_request(case):
    page = viewer_html(*case[1:])
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    for tag, kind in (("<style>", "style"), ("<script>", "script")):
        text = page.rpartition(tag)[2].partition(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert re.findall(r"(?:https?|src|href)[=:]", page.partition("<script")[0]) == []


def test_no_file_is_named(case):
    assert "secret" not in viewer_html(*case[1:], RECORD, "case")


def test_a_large_volume_is_reduced_and_the_page_says_so(case):
    _, anatomy, overlay, fused = case
    told, volumes = held(viewer_html(anatomy, overlay, fused, most_voxels=6000))
    assert told["size"] == [20, 15, 20]  # the finest axes first
    assert np.prod(told["size"]) <= 6000
    assert "Reduced from 40 \u00d7 44 \u00d7 20 to 20 \u00d7 15 \u00d7 20 voxels" in told["stored"]
    stored = nib.load(case[0] / "secret_anatomy.nii.gz").get_fdata()[::-1, :, ::-1]
    step = told["images"]["anatomy"]["slope"]
    np.testing.assert_allclose(volumes["anatomy"][3, 4, 5], stored[6:8, 12:15, 5].mean(), atol=step)
    centre = nib.affines.apply_affine(ANATOMY_AFFINE, [39 - 6.5, 13, 19 - 5])
    np.testing.assert_allclose(nib.affines.apply_affine(np.array(told["affine"]), [3, 4, 5]), centre)


def test_a_picture_keeps_rows_and_columns(tmp_path):
    path = write_image(tmp_path / "a.png", torch.arange(35.0).reshape(1, 5, 7) / 35)
    picture = read_image(path)
    told, volumes = held(viewer_html(picture, picture, picture / 255))
    assert (told["size"], told["affine"], told["voxels"]) == ([7, 5, 1], None, "pixel")
    np.testing.assert_array_equal(volumes["anatomy"][..., 0].T, picture[0])
    assert told["counted"] == [[1, False], [0, False]]  # row, column


def test_an_image_of_one_value_is_shown(case):
    _, anatomy, overlay, fused = case
    told, volumes = held(viewer_html(anatomy * 0 + 0.3, overlay, fused))
    np.testing.assert_allclose(volumes["anatomy"], 0.3, rtol=1e-6)
    assert told["images"]["anatomy"]["high"] > told["images"]["anatomy"]["low"]


def test_what_does_not_fit_is_refused(case, tmp_path):
    _, anatomy, overlay, fused = case
    with pytest.raises(ImageError, match="differs from"):
        viewer_html(anatomy, overlay, fused[:, :20])
    with pytest.raises(ValueError, match="grey image"):
        viewer_html(fused, overlay, fused)
    with pytest.raises(ValueError, match=r"\.html is accepted"):
        write_viewer(tmp_path / "a.htm", anatomy, overlay, fused)


def test_html_is_a_form_of_the_result(case):
    folder, anatomy, overlay, fused = case
    at = {"anatomy": anatomy, "overlay": overlay}
    sources = {key: MetaTensor((image - image.min()) * 0, meta=image.meta) for key, image in at.items()}
    saved = SaveFused(folder / "out", ["html", "nifti"])(fused, "case", sources, json.dumps(RECORD))
    assert saved == ["case_fused.html", "case_fused.nii.gz", "case_fused.json"]
    _, volumes = held((folder / "out/case_fused.html").read_text(encoding="utf-8"))
    assert volumes["anatomy"].min() == -1000  # the sources' own values, not those scaled for display
    with pytest.raises(ImageError, match=r"no html: case: its sources are not there.*written are case_fused\.nii\.gz"):
        SaveFused(folder / "other", ["html", "nifti"])(fused, "case")


def test_series_that_may_not_belong_together_are_warned_of(tmp_path):
    study = write_sample_study(tmp_path, spacing=4, form="dicom")
    anatomy, overlay = (read_image(study[key]) for key in ("mri", "ct"))
    fused = MetaTensor(torch.zeros(anatomy.shape), affine=anatomy.affine)
    for mode, warned in (("none", 1), ("rigid", 0)):
        record = {"record": {"registration": {"mode": mode}}}
        SaveFused(tmp_path, "html")(fused, mode, {"anatomy": anatomy, "overlay": overlay}, json.dumps(record))
        told, _ = held((tmp_path / f"{mode}_fused.html").read_text(encoding="utf-8"))
        assert [words[:35] for words in told["warnings"]] == ["FrameOfReferenceUID of anatomy and "] * warned
        assert (told["images"]["overlay"]["units"], told["images"]["overlay"]["title"]) == ("HU", "Overlay, CT")


def test_the_page_of_a_study_fused_before(case, tmp_path, capsys):
    folder, _, _, fused = case
    write_image(tmp_path / "case_fused.nii.gz", fused)
    (tmp_path / "case_fused.json").write_text(json.dumps(RECORD))
    sources = [str(folder / f"secret_{key}.nii.gz") for key in ("anatomy", "overlay")]
    assert cli.main(["view", str(tmp_path), "--no_browser"]) == 2
    assert "no page; `fuse --format html` writes NAME_fused.html there" in capsys.readouterr().err
    assert cli.main(["view", str(tmp_path), "--anatomy", sources[0], "--no_browser"]) == 2
    assert "go together" in capsys.readouterr().err
    given = ["--anatomy", sources[0], "--overlay", sources[1], "--no_browser"]
    assert cli.main(["view", str(tmp_path), *given]) == 0
    page = tmp_path / "case_fused.html"
    assert capsys.readouterr().out.strip() == str(page)
    told, volumes = held(page.read_text(encoding="utf-8"))
    assert told["images"]["anatomy"]["title"] == "Anatomy, CT"
    assert volumes["anatomy"].max() == 500
    assert 200 < volumes["fused"].max() <= 255
    assert cli.main(["view", str(page), "--no_browser"]) == 0
    record = {**RECORD, "record": {**RECORD["record"], "anatomy": {"modality": "CT", "sha256": "0" * 64}}}
    (tmp_path / "case_fused.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="is not the anatomy that 'case' was fused of"):
        write_page(tmp_path, *sources)


def test_a_browser_opens_the_first(case, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for name in ("b", "a"):
        write_viewer(tmp_path / f"{name}_fused.html", *case[1:])
    assert cli.main(["view", str(tmp_path)]) == 0
    assert opened == [(tmp_path / "a_fused.html").as_uri()]
    assert [path.name for path in pages_in(tmp_path, "b")] == ["b_fused.html"]
    with pytest.raises(ValueError, match="2 pages, such as a_fused"):
        view(tmp_path)


def test_a_notebook_shows_it_in_a_frame_that_reaches_nothing(case, tmp_path):
    path = write_viewer(tmp_path / "case_fused.html", *case[1:], name=HOSTILE)
    frame = view(path)._repr_html_()
    assert 'sandbox="allow-scripts"' in frame
    assert frame.count("<") == 2  # of the frame alone: the page in it is an attribute
    with pytest.raises(ValueError, match="no page"):
        view(tmp_path / "none")
