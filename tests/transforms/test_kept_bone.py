import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from fusion_nets import cli
from fusion_nets.slabs import LARGE
from fusion_nets.transforms import KeepBone, KeepBoned
from fusion_nets.workflows import fuse_pair


def levels(*values):
    return torch.tensor(values, dtype=torch.float32)[None, None]


def test_what_is_darker_than_bone_is_drawn_to_it_and_nothing_else():
    ct, fused = levels(0.0, 0.5, 0.85, 0.9, 0.95, 1.0, 1.0), levels(0.3, 0.1, 0.2, 0.4, 0.35, 0.6, 1.0)
    torch.testing.assert_close(KeepBone(0.5)(fused, ct), levels(0.3, 0.1, 0.2, 0.525, 0.65, 0.8, 1.0))
    torch.testing.assert_close(KeepBone(1)(fused, ct), levels(0.3, 0.1, 0.2, 0.65, 0.95, 1.0, 1.0))
    assert torch.equal(KeepBone(0)(fused, ct), fused)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_range_type_and_metadata_stay(dtype):
    fused, ct = torch.rand(2, 1, 20, 21, 3, generator=torch.Generator().manual_seed(0))
    kept = KeepBone(0.7)(MetaTensor(fused.to(dtype), meta={"spacing": 2}), ct)
    assert kept.dtype == dtype
    assert kept.meta["spacing"] == 2
    assert 0 <= kept.min() <= kept.max() <= 1
    assert (kept.float() - fused >= -1e-3).all()


def test_large_volumes_are_kept_as_their_slices_are():
    depth = LARGE // (256 * 256)
    fused, ct = torch.rand(2, 1, 256, 256, depth, generator=torch.Generator().manual_seed(0))
    whole = KeepBone(0.4)(fused, ct)
    assert torch.equal(whole[..., 5], KeepBone(0.4)(fused[..., 5], ct[..., 5]))


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), "0.5", True, None])
def test_only_shares_are_accepted(share):
    with pytest.raises(ValueError, match=r"keep_bone is .*; a share from 0 to 1"):
        KeepBone(share)


def sources(*modalities):
    image = torch.rand(1 + len(modalities), 6, 7, generator=torch.Generator().manual_seed(0))
    overlays = {f"overlay{k or ''}": MetaTensor(image[:1], meta={"modality": of}) for k, of in enumerate(modalities)}
    return {"pred": torch.zeros(1, 6, 7), "image": image, "name": "case", **overlays}


def test_of_several_overlays_each_ct_is_kept(caplog):
    keep = KeepBoned("pred", 1.0, overlay_keys=["overlay", "overlay1", "overlay2"])
    data = sources("PT", "CT", "CT")
    expected = KeepBone(1.0)(KeepBone(1.0)(data["pred"], data["image"][2:3]), data["image"][3:])
    assert torch.equal(keep(data)["pred"], expected)
    assert expected.any()
    assert not caplog.records


@pytest.mark.parametrize("modalities", [("PT",), (None,), ("NM", "MR")])
def test_no_ct_is_warned_of(modalities, caplog):
    with caplog.at_level(logging.WARNING):
        data = sources(*modalities)
        kept = KeepBoned("pred", 0.5, overlay_keys=["overlay", "overlay1"])(data)
    assert torch.equal(kept["pred"], data["pred"])
    assert "case: keep_bone changes nothing: no overlay is known to be a CT" in caplog.text


@pytest.fixture
def head(tmp_path):
    """An MRI whose marrow is dark, and a CT whose bone is white."""
    rows, columns = np.mgrid[-40:40, -40:40]
    distance = np.hypot(rows, columns)
    bone = (distance > 25) & (distance < 33)
    ct = np.where(bone, 255, np.where(distance < 25, 90, 0))
    mri = np.where(bone & (distance > 28) & (distance < 30), 180, np.where(distance < 25, 120, 0))
    for name, image in (("ct", ct), ("mri", mri)):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{name}.png")
        nib.save(nib.Nifti1Image(image.astype(np.float32)[..., None], np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path, bone


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_bone_of_a_pair_is_kept_and_the_record_repeats_it(head, method):
    folder, bone = head
    paths = folder / "mri.nii.gz", folder / "ct.nii.gz"

    def fused(name, **options):
        how = {"overlay_modality": "CT", "overlay_window": [0, 255], "register": "none", "name": "x"}
        fuse_pair(*paths, folder / name, method=method, **how, **options)
        record = json.loads((folder / name / "x_fused.json").read_text())
        return nib.load(folder / name / "x_fused.nii.gz").get_fdata().reshape(80, 80), record

    plain, record = fused("plain")
    assert "keep_bone" not in record
    half, record = fused("half", keep_bone=0.5)
    assert record["keep_bone"] == 0.5
    white = plain.max()
    assert plain[bone].min() < 0.95 * white
    np.testing.assert_allclose(white - half[bone], (white - plain[bone]) / 2, atol=0.01 * white)
    assert np.array_equal(half[~bone], plain[~bone])
    again, record = fused("again", settings=folder / "half" / "x_fused.json")
    assert np.array_equal(again, half)
    assert record["keep_bone"] == 0.5


def test_the_command_keeps_bone(head, capsys):
    folder, bone = head
    command = ["fuse", "--anatomy", str(folder / "mri.png"), "--overlay", str(folder / "ct.png")]
    command += ["--overlay_modality", "CT", "--output_dir", str(folder / "out"), "--format", "png", "--instant"]
    assert cli.main([*command, "--keep_bone", "1"]) == 0
    written = np.asarray(Image.open(folder / "out" / "mri_fused.png").convert("L"))
    assert (written[bone] == 255).all()
    assert cli.main([*command, "--keep_bone", "1.5"]) == 2
    assert "keep_bone is 1.5; a share from 0 to 1 is accepted" in capsys.readouterr().err
