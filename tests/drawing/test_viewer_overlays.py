"""One page of a case with several overlays: what it holds and says of each, and how large it may be."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from drawing.viewed import OVERLAY_AFFINE, RECORD, held, write_case
from monai.data import MetaTensor

from fusion_nets import cli
from fusion_nets.clinical import source_sha256, write_image
from fusion_nets.drawing import viewer_html, write_viewer
from fusion_nets.workflows import write_page

SECOND_AFFINE = OVERLAY_AFFINE + np.array([[0, 0, 0, 1.5], [0] * 4, [0] * 4, [0] * 4])
MOVED = np.eye(4)
MOVED[0, 3] = 8.0
SEVERAL = {
    "anatomy_window": [-100.0, 200.0],
    "overlay_window": [[0, 8.0], [10.0, 60.0]],
    "overlay_palette": ["hot", "cold"],
    "transform": [None, MOVED.tolist()],
    "register": ["none", "rigid"],
    "record": {
        "method": "DM-FNet",
        "anatomy": {"modality": "CT"},
        "overlay": {
            "modality": "PT",
            "display": {"window": "uptake", "range": [0, 8.0], "units": "SUV"},
            "registration": {"mode": "none"},
            "colour": "hot",
        },
        "overlay2": {
            "modality": "NM",
            "display": {"window": "given", "range": [10.0, 60.0], "units": "stored"},
            "registration": {"mode": "rigid", "reason": "failed: </script>"},
            "colour": "cold",
        },
    },
}


def write_second(folder):
    """A SPECT of whole numbers, on a grid of its own."""
    values = np.random.default_rng(1).integers(0, 80, (24, 20, 26))
    nib.save(nib.Nifti1Image(values.astype(np.int16), SECOND_AFFINE), folder / "secret_overlay2.nii.gz")
    image = MetaTensor(torch.from_numpy(values.astype(np.float32))[None], affine=torch.from_numpy(SECOND_AFFINE))
    image.meta |= {"modality": "NM", "units": "stored"}
    return image


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    anatomy, first, fused = write_case(folder)
    return folder, anatomy, [first, write_second(folder)], fused


def test_each_overlay_is_held_as_on_a_page_of_its_own(case):
    _, anatomy, overlays, fused = case
    told, volumes = held(viewer_html(anatomy, overlays, fused, SEVERAL, name="case"))
    assert list(volumes) == ["anatomy", "overlay", "overlay2", "fused"]
    alone = [
        {"overlay_window": [0, 8.0], "overlay_palette": "hot"},
        {"overlay_window": [10.0, 60.0], "overlay_palette": "cold", "transform": MOVED.tolist()},
    ]
    for key, overlay, record in zip(("overlay", "overlay2"), overlays, alone, strict=True):
        there, of_one = held(viewer_html(anatomy, overlay, fused, record))
        np.testing.assert_array_equal(volumes[key], of_one["overlay"])
        np.testing.assert_array_equal(volumes["anatomy"], of_one["anatomy"])
        for part in ("low", "high", "palette", "units"):
            assert told["images"][key][part] == there["images"]["overlay"][part], part
    titles = [told["images"][key]["title"] for key in ("anatomy", "overlay", "overlay2")]
    assert titles == ["Anatomy, CT", "Overlay 1, PET", "Overlay 2, SPECT"]
    assert told["mixed"] == "1 PET hot, 2 SPECT cold"
    assert told["projection"] == ["overlay", "overlay2"]
    assert {"hot", "cold"} <= set(told["palettes"])
    assert "green" not in told["palettes"]
    assert ["Window of overlay 2 (SPECT)", "10 to 60 stored (given)"] in told["chosen"]
    assert ["Palette of overlay 2 (SPECT)", "cold"] in told["chosen"]
    assert told["warnings"] == [
        "Not registered, overlay 2 (SPECT): failed: </script>",
        "Overlay 2 (SPECT) has no units: its values are as stored, no SUV.",
    ]


def test_one_overlay_has_nothing_to_choose(case):
    _, anatomy, overlays, fused = case
    for given in (overlays[0], overlays[:1]):
        page = viewer_html(anatomy, given, fused, RECORD)
        told, _ = held(page)
        assert told["images"]["overlay"]["title"] == "Overlay, PET"
        assert not any("choice" in image for image in told["images"].values())
        assert told["mixed"] == ""
    assert page == viewer_html(anatomy, overlays[0], fused, RECORD)


def test_the_size_of_a_page_is_bounded_however_many_overlays(case):
    """Of noise, which packs worst."""
    _, anatomy, _, _ = case
    generator = torch.Generator().manual_seed(0)
    noise = [MetaTensor(torch.rand(anatomy.shape, generator=generator), affine=anatomy.affine) for _ in range(4)]
    fused = MetaTensor(torch.rand((3, *anatomy.shape[1:]), generator=generator), affine=anatomy.affine)
    sizes = []
    for count in (1, 2, 3):
        page = viewer_html(noise[0], noise[1 : 1 + count], fused, most_voxels=10000)
        told, _ = held(page)
        assert np.prod(told["size"]) * (count + 2) <= 3 * 10000
        kept = " \u00d7 ".join(map(str, told["size"]))
        assert f"Reduced from 40 \u00d7 44 \u00d7 20 to {kept} voxels" in told["stored"]
        sizes.append(len(page))
    plain = len(viewer_html(noise[0], noise[1], fused, most_voxels=1))
    most = (10000 * 7) * 4 / 3  # 16 bits of each source and 24 of the fused image, in base64
    assert max(sizes) - plain < 1.05 * most


def test_other_numbers_are_refused(case):
    _, anatomy, overlays, fused = case
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"{count} overlays are given; 1 to 3 are accepted"):
            viewer_html(anatomy, (overlays * 2)[:count], fused)
    with pytest.raises(ValueError, match="the record is of 1 overlays, and 2 are given"):
        viewer_html(anatomy, overlays, fused, RECORD)
    with pytest.raises(ValueError, match="the record is of 2 overlays, and 1 are given"):
        viewer_html(anatomy, overlays[0], fused, SEVERAL)
    with pytest.raises(ValueError, match="transform has 3 values for 2 overlays"):
        viewer_html(anatomy, overlays, fused, transform=[None] * 3)


def test_strings_of_each_overlay_are_data(case):
    _, anatomy, overlays, fused = case
    record = json.loads(json.dumps(SEVERAL).replace('"cold"', '"</script><b>"'))
    page, plain = (viewer_html(anatomy, overlays, fused, one) for one in (record, {}))
    assert [page.count(tag) for tag in ("<script", "</script", "<b>")] == [
        plain.count(tag) for tag in ("<script", "</script", "<b>")
    ]
    assert held(page)[0]["images"]["overlay2"]["palette"] == "grey"
    assert held(page)[0]["mixed"] == "1 PET hot, 2 SPECT </script><b>"


@pytest.fixture
def fused_before(case, tmp_path):
    """A folder with the result of two overlays and no page, and the sources that it was fused of."""
    folder, _, _, fused = case
    write_image(tmp_path / "case_fused.nii.gz", fused)
    (tmp_path / "case_fused.json").write_text(json.dumps(SEVERAL))
    return tmp_path, [str(folder / f"secret_{key}.nii.gz") for key in ("anatomy", "overlay", "overlay2")]


def test_the_page_of_a_case_fused_before(fused_before, capsys):
    folder, (anatomy, first, second) = fused_before
    given = ["view", str(folder), "--no_browser", "--anatomy", anatomy, "--overlay", first]
    assert cli.main([*given, "--overlay", second]) == 0
    page = folder / "case_fused.html"
    assert capsys.readouterr().out.strip() == str(page)
    told, volumes = held(page.read_text(encoding="utf-8"))
    assert [told["images"][key]["title"] for key in ("overlay", "overlay2")] == ["Overlay 1, PET", "Overlay 2, SPECT"]
    assert volumes["overlay2"].max() > 8 >= volumes["overlay"].max()
    assert [path.name for path in folder.glob("*.html")] == ["case_fused.html"]


def test_what_was_not_fused_is_refused(fused_before, capsys):
    folder, (anatomy, first, second) = fused_before
    with pytest.raises(ValueError, match=r"'case' was fused of 2 overlays, and 1 given; as many are accepted"):
        write_page(folder, anatomy, first)
    with pytest.raises(ValueError, match=r"4 overlays are given; 1 to 3"):
        write_page(folder, anatomy, [first] * 4)
    given = ["view", str(folder), "--no_browser", "--anatomy", anatomy, *["--overlay", first] * 2]
    assert cli.main([*given, *["--overlay", second] * 2]) == 2
    assert "--overlay is given 4 times; up to 3 are accepted" in capsys.readouterr().err
    assert cli.main([*given, *["--overlay_modality", "PT"] * 3]) == 2
    assert "--overlay_modality has 3 values for 2 overlays" in capsys.readouterr().err
    record = json.loads(json.dumps(SEVERAL))
    record["record"]["overlay2"]["sha256"] = "0" * 64
    (folder / "case_fused.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"overlay2\.nii\.gz: is not the overlay2 that 'case' .*; that one"):
        write_page(folder, anatomy, [first, second])
    record["record"]["overlay2"]["sha256"] = source_sha256(first)
    record["record"]["overlay"]["sha256"] = source_sha256(second)
    (folder / "case_fused.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"overlay\.nii\.gz: is not the overlay that .*; as its overlay2 it is"):
        write_page(folder, anatomy, [first, second])
    assert not list(folder.glob("*.html"))


def test_a_file_of_several(case, tmp_path):
    _, *images = case
    written = write_viewer(tmp_path / "case_fused.html", *images, record=SEVERAL)
    assert written.read_text(encoding="utf-8") == viewer_html(*images, record=SEVERAL)
