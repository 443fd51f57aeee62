import json
import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from refusals import refused

from fusion_nets.cli import main
from fusion_nets.clinical import Reason, read_image
from fusion_nets.datalists import aanlib_pairs, balanced_weights
from fusion_nets.workflows import slice_pairs

MODALITIES = {"anatomy_modality": "MR", "overlay_modality": "PT"}


def volume(path, seed, size=(44, 42, 6)):
    """A bright cylinder, brighter to the patient's left, that ends two slices below the top."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in size[:2]), indexing="ij")
    values = ((x**2 + y**2 < 0.6) * (60 + 30 * x))[..., None] * np.linspace(0.6, 1, size[2]) + rng.random(size)
    values[..., -2:] = 0
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([-2, 2, 3, 1.0])), path)
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    return [
        {
            "name": f"study_{i}",
            "anatomy": volume(tmp_path / f"mri{i}.nii", i),
            "overlay": volume(tmp_path / f"pet{i}.nii", 10 + i, (20, 22, 6)),
            **MODALITIES,
        }
        for i in range(2)
    ]


def test_a_folder_that_training_reads(pairs, tmp_path):
    folder = tmp_path / "set"
    assert slice_pairs(pairs[:1], folder, register="none") == folder / "splits.json"
    slice_pairs(pairs[1:], folder, "val", register="none")
    names = [f"study_0_{k:04d}.png" for k in range(1, 5)]
    splits = json.loads((folder / "splits.json").read_text())
    assert splits == {"PET-MRI": {"train": names, "val": [name.replace("y_0", "y_1") for name in names]}}
    for section in ("train", "val"):
        listed = aanlib_pairs(folder, section)
        assert [(pair["pair"], pair["anatomy_modality"], pair["overlay_modality"]) for pair in listed] == [
            ("PET-MRI", "MR", "PT")
        ] * 4
        assert balanced_weights(listed) == [0.25] * 4
        for pair in listed:
            anatomy, overlay = (read_image(pair[key]) for key in ("anatomy", "overlay"))
            assert anatomy.shape == overlay.shape == (1, 42, 44)


def test_slices_are_what_inference_shows_the_network(pairs, tmp_path):
    slice_pairs(pairs[:1], tmp_path / "set", windows={"anatomy": (10, 90)}, register="none")
    source = nib.load(pairs[0]["anatomy"]).get_fdata()
    wanted = np.rint(((source[..., 2] - 10) / 80).clip(0, 1) * 255)
    written = np.asarray(Image.open(tmp_path / "set" / "PET-MRI" / "MRI" / "study_0_0003.png")).astype(float)
    # x runs to the left, y to the front: rows from the front, the patient's right on the left
    np.testing.assert_allclose(written, wanted[:, ::-1].T, atol=1)


def test_started_again_it_goes_on(pairs, tmp_path):
    folder = tmp_path / "set"
    missing = {**pairs[1], "overlay": str(tmp_path / "none.nii")}
    with refused(Reason.SEVERAL, "1 of 2"):
        slice_pairs([pairs[0], missing], folder, register="none")
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*.png")}
    slice_pairs(pairs, folder, register="none")
    assert len(json.loads((folder / "splits.json").read_text())["PET-MRI"]["train"]) == 8
    assert {path: path.stat().st_mtime_ns for path in done} == done
    whole = tmp_path / "whole"
    slice_pairs(pairs, whole, register="none")
    for path in filter(Path.is_file, whole.rglob("*")):
        assert path.read_bytes() == (folder / path.relative_to(whole)).read_bytes()


def slices_of(folder, name="study_0"):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.glob(f"*/*/{name}_*.png"))}


def noted(folder, kind="PET-MRI"):
    return json.loads((folder / "splits.json").read_text())[kind]["train"]


@pytest.mark.parametrize(
    "option",
    [
        {"windows": {"anatomy": (10, 70)}},
        {"windows": {"overlay": (0, 90)}},
        {"register": "rigid"},
        {"windows": {"anatomy": (55, 90)}},
    ],
    ids=["window", "window of the overlay", "register", "fewer slices"],
)
def test_other_settings_replace_the_slices(pairs, tmp_path, option):
    folder, alone = tmp_path / "set", tmp_path / "alone"
    slice_pairs(pairs, folder, register="none")
    first = slices_of(folder)
    slice_pairs(pairs[:1], folder, **{"register": "none", **option})
    slice_pairs(pairs[:1], alone, **{"register": "none", **option})
    assert first != slices_of(folder) == slices_of(alone)
    assert noted(folder) == [*noted(alone), *(name for name in noted(folder) if name.startswith("study_1"))]
    slice_pairs(pairs, folder, register="none")
    assert slices_of(folder) == first


def change_source(pairs, folder):
    volume(Path(pairs[0]["overlay"]), 20, (20, 22, 6))


def empty(pairs, folder):
    (folder / "PET-MRI" / "PET" / "study_0_0002.png").write_bytes(b"")


def shorten(pairs, folder):
    path = folder / "PET-MRI" / "MRI" / "study_0_0001.png"
    path.write_bytes(path.read_bytes()[:-1])


def lose(pairs, folder):
    (folder / "PET-MRI" / "MRI" / "study_0_0003.png").unlink()


def forget(pairs, folder):
    """As of version 0.2, which kept no record."""
    (folder / ".slices" / "study_0.json").unlink()


def damage(pairs, folder):
    (folder / ".slices" / "study_0.json").write_text("[1]")


@pytest.mark.parametrize("change", [change_source, empty, shorten, lose, forget, damage])
def test_what_is_not_whole_or_changed_is_sliced_again(pairs, tmp_path, change):
    folder, alone = tmp_path / "set", tmp_path / "alone"
    slice_pairs(pairs, folder, register="none")
    others = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/study_1_*.png")}
    change(pairs, folder)
    slice_pairs(pairs, folder, register="none")
    slice_pairs(pairs, alone, register="none")
    assert slices_of(folder) == slices_of(alone)
    assert noted(folder) == noted(alone)
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_a_name_as_two_kinds_is_two_pairs(pairs, tmp_path):
    ct = [{**pairs[0], "overlay": volume(tmp_path / "ct.nii", 30), "overlay_modality": "CT"}]
    for _ in range(2):
        slice_pairs(pairs[:1], tmp_path / "set", register="none")
        slice_pairs(ct, tmp_path / "set", register="none")
    names = [f"study_0_{k:04d}.png" for k in range(1, 5)]
    assert {kind: noted(tmp_path / "set", kind) for kind in ("PET-MRI", "CT-MRI")} == {
        "PET-MRI": names,
        "CT-MRI": names,
    }
    assert len(slices_of(tmp_path / "set")) == 16
    with pytest.raises(ValueError, match="'study_0' is in section 'train'"):
        slice_pairs(ct, tmp_path / "set", "val", register="none")


def test_what_is_trained_on_is_not_judged_by(pairs, tmp_path):
    slice_pairs(pairs[:1], tmp_path / "set", register="none")
    with pytest.raises(ValueError, match=r"splits\.json: 'study_0'.* 'train'"):
        slice_pairs(pairs, tmp_path / "set", "val", register="none")


def test_pictures_and_kinds_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    pair = {"name": "case", "pair": "T2-T1"}
    for key in ("anatomy", "overlay"):
        Image.fromarray(rng.integers(0, 256, (43, 48), dtype=np.uint8)).save(tmp_path / f"{key}.png")
        pair[key] = str(tmp_path / f"{key}.png")
    slice_pairs([pair], tmp_path / "set")
    (listed,) = aanlib_pairs(tmp_path / "set", "train")
    assert listed["anatomy"].endswith("T2-T1/T1/case_0001.png")
    assert np.array_equal(Image.open(listed["overlay"]), Image.open(pair["overlay"]))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"overlay_modality": "US"},
            r"pet0\.nii: its modality is not known; overlay_modality in the datalist tells it",
        ),
        ({"anatomy": "small"}, r"small\.nii: size \(40, 42, 6\); slices of 41 x 41 or more are accepted"),
        ({"overlay": "above"}, "study_0: has no slice in which both images show something"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named(pairs, tmp_path, caplog, changed, reason):
    if "anatomy" in changed:
        changed = {"anatomy": volume(tmp_path / "small.nii", 3, (40, 42, 6))}
    if "overlay" in changed:
        values = np.zeros((44, 42, 6), np.float32)
        values[10:20, 10:20, 5] = 1  # where the anatomy has nothing
        nib.save(nib.Nifti1Image(values, np.diag([-2, 2, 3, 1.0])), tmp_path / "above.nii")
        changed = {"overlay": str(tmp_path / "above.nii")}
    with caplog.at_level(logging.ERROR), refused(Reason.SEVERAL, "1 of 1"):
        slice_pairs([{**pairs[0], **changed}], tmp_path / "set", register="none")
    assert any(re.search(reason, record.message) for record in caplog.records)
    assert not (tmp_path / "set" / "splits.json").exists()


@pytest.mark.parametrize("kind", ["PET", "MRI-MRI", "../PET-MRI", "-MRI", "A-B-C"])
def test_a_kind_names_two_folders(pairs, tmp_path, caplog, kind):
    with refused(Reason.SEVERAL, "1 of 1"):
        slice_pairs([{**pairs[0], "pair": kind}], tmp_path / "set", register="none")
    assert "study_0: not sliced: " in caplog.text
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("bad", [{"name": "../x"}, {"name": "a\0b"}, {"name": 250 * "n"}, {"pair": "A-B/../../C"}])
def test_a_name_that_no_file_can_have_fails_its_own_pair(pairs, tmp_path, caplog, bad):
    with refused(Reason.SEVERAL, "1 of 2"):
        slice_pairs([{**pairs[0], **bad}, pairs[1]], tmp_path / "set", register="none")
    assert "not sliced: the name " in caplog.text
    kinds = json.loads((tmp_path / "set" / "splits.json").read_text())
    assert {name[:7] for kind in kinds.values() for names in kind.values() for name in names} == {"study_1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mri0.nii", "mri1.nii", "pet0.nii", "pet1.nii", "set"]


@pytest.mark.parametrize("by_link", [False, True])
def test_no_source_is_written_over(tmp_path, by_link):
    """A pair of the set, sliced once more into it."""
    folders = {key: tmp_path / "set" / "CT-MRI" / name for key, name in (("anatomy", "MRI"), ("overlay", "CT"))}
    for number, folder in enumerate(folders.values()):
        folder.mkdir(parents=True)
        picture = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "a_0001.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    pair = {key: str(folder / "a_0001.png") for key, folder in folders.items()}
    before = {path: path.read_bytes() for path in map(Path, pair.values())}
    if by_link:
        pair = {key: path.replace(str(tmp_path / "set"), str(tmp_path / "link")) for key, path in pair.items()}
    with refused(Reason.SEVERAL, "1 of 1"):
        slice_pairs([{**pair, "name": "a", "pair": "CT-MRI"}], tmp_path / "set", register="none")
    assert {path: path.read_bytes() for path in before} == before


def test_command(pairs, tmp_path, capsys):
    (tmp_path / "pairs.json").write_text(json.dumps(pairs[:1]))
    arguments = ["slices", "--datalist", str(tmp_path / "pairs.json"), "--dataset_dir", str(tmp_path / "set")]
    assert main([*arguments, "--register", "none", "--overlay_window", "0", "80"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set' / 'splits.json'}\n"
    assert main([*arguments, "--section", "val"]) == 2
    assert "'study_0' is in section 'train'" in capsys.readouterr().err
