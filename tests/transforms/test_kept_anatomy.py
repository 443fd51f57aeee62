import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage

from fusion_nets import cli
from fusion_nets.slabs import LARGE
from fusion_nets.transforms import KeepAnatomy, KeepAnatomyd, kept_anatomy
from fusion_nets.workflows import fuse_pair


def random_images(*size, count=3):
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 1.5), (0.5, 3.0)])
def test_it_is_what_it_says(spacing):
    fused, anatomy, overlay = random_images(50, 61)
    kept = KeepAnatomy(0.3)(fused, anatomy, overlay, spacing)

    def blurred(image):
        return ndimage.gaussian_filter(image[0].double().numpy(), [6 / of for of in spacing], mode="nearest")

    a, o, near = anatomy[0].numpy(), overlay[0].numpy(), blurred(overlay)
    shown = np.minimum(np.maximum(a, o) / 0.06, 1)
    expected = fused[0].numpy() + 0.3 * near * shown * (a - blurred(anatomy) - o + near)
    np.testing.assert_allclose(kept[0], expected.clip(0, 1), atol=2e-3)
    assert np.abs(kept - fused).max() > 0.05


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lesion_of_the_anatomy_gains_and_one_of_the_overlay_yields(sign):
    anatomy, overlay = torch.full((2, 1, 96, 96), 0.5)
    fused, where = torch.full((1, 96, 96), 0.5), (slice(None), slice(46, 50), slice(46, 50))
    lesion = torch.zeros_like(fused)
    lesion[where] = 0.1 * sign
    keep = KeepAnatomy(0.4)
    gained = (keep(fused, anatomy + lesion, overlay) - fused)[where].mean() / (0.1 * sign)
    yielded = (keep(fused, anatomy, overlay + lesion) - fused)[where].mean() / (0.1 * sign)
    assert 0.17 < gained < 0.2  # .4 under a grey of .5, less what blurs away
    assert -0.21 < yielded < -0.17
    torch.testing.assert_close(keep(fused, anatomy + lesion, overlay + lesion), fused)


def test_where_no_overlay_is_and_in_the_air_nothing_changes():
    fused, anatomy, overlay = random_images(64, 64)
    assert torch.equal(KeepAnatomy(1)(fused, anatomy, torch.zeros_like(overlay)), fused)
    assert torch.equal(KeepAnatomy(0)(fused, anatomy, overlay), fused)
    anatomy[:, :, 32:] = overlay[:, :, 32:] = fused[:, :, 32:] = 0
    kept = KeepAnatomy(1)(fused, anatomy, overlay)
    assert (kept[:, :, 32:] == 0).all()
    assert not torch.equal(kept, fused)


def test_beyond_the_border_of_an_overlay_nothing_changes():
    """There the overlay is the anatomy, see FadeAtBorder."""
    fused, anatomy, overlay = random_images(64, 96)
    overlay[:, :, 40:] = anatomy[:, :, 40:]
    kept = KeepAnatomy(1)(fused, anatomy, overlay)
    torch.testing.assert_close(kept[:, :, 66:], fused[:, :, 66:], atol=1e-6, rtol=0)
    assert (kept - fused)[:, :, :40].abs().mean() > 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_range_type_and_metadata_stay(dtype):
    fused, anatomy, overlay = random_images(20, 21, 3)
    kept = KeepAnatomy(0.9)(MetaTensor(fused.to(dtype), meta={"spacing": 2}), anatomy.to(dtype), MetaTensor(overlay))
    assert kept.dtype == dtype
    assert kept.meta["spacing"] == 2
    assert 0 <= kept.min() <= kept.max() <= 1


def test_large_volumes_are_kept_as_their_slices_are():
    images = random_images(256, 256, LARGE // (256 * 256))
    whole = KeepAnatomy(0.4)(*images)
    torch.testing.assert_close(whole[..., 5], KeepAnatomy(0.4)(*(image[..., 5] for image in images)))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2, 1)])
def test_small_and_narrow_images(size):
    assert KeepAnatomy(0.4)(*random_images(*size)).isfinite().all()


def test_a_header_of_tiny_pixels_asks_no_more_than_the_image_has(monkeypatch):
    asked, window = [], kept_anatomy.gaussian_1d
    monkeypatch.setattr(kept_anatomy, "gaussian_1d", lambda sigma: asked.append(sigma.item()) or window(sigma))
    assert KeepAnatomy(0.4)(*random_images(20, 30, 2), (1e-6, 1e-3)).isfinite().all()
    assert asked == [20, 30]


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), "0.5", True, None])
def test_only_shares_are_accepted(share):
    with pytest.raises(ValueError, match=r"keep_anatomy is .*; a share from 0 to 1"):
        KeepAnatomy(share)


def sources(*modalities):
    image = torch.rand(1 + len(modalities), 26, 27, generator=torch.Generator().manual_seed(0))
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    overlays = {f"overlay{k or ''}": MetaTensor(image[:1], affine, {"modality": of}) for k, of in enumerate(modalities)}
    return {"pred": torch.full((1, 26, 27), 0.5), "image": image, "name": "case", **overlays}


def test_of_several_overlays_it_is_under_each_pet(caplog):
    data, image = sources("CT", "PT", "PT"), sources("CT", "PT", "PT")["image"]
    keep, expected = KeepAnatomy(0.3), data["pred"]
    for k in (2, 3):
        expected = keep(expected, image[:1], image[k : k + 1], (2.0, 3.0))
    kept = KeepAnatomyd("pred", 0.3, overlay_keys=["overlay", "overlay1", "overlay2"])(data)
    assert torch.equal(kept["pred"], expected)
    assert not torch.equal(expected, data["pred"])
    assert torch.equal(kept["image"], image)
    assert not caplog.records


@pytest.mark.parametrize("modalities", [("CT",), (None,), ("NM", "MR")])
def test_no_pet_is_warned_of(modalities, caplog):
    with caplog.at_level(logging.WARNING):
        data = sources(*modalities)
        kept = KeepAnatomyd("pred", 0.5, overlay_keys=["overlay", "overlay1"])(data)
    assert torch.equal(kept["pred"], data["pred"])
    assert "case: keep_anatomy changes nothing: no overlay is known to be a PET" in caplog.text


@pytest.fixture
def head(tmp_path):
    """An MRI with a small dark lesion under an even, bright PET."""
    rows, columns = np.mgrid[-40:40, -40:40]
    inside = np.hypot(rows, columns) < 33
    lesion = np.hypot(rows, columns) < 4
    images = {"pet": np.where(inside, 180, 0), "mri": np.where(inside, np.where(lesion, 60, 110), 0)}
    for name, image in images.items():
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{name}.png")
        nib.save(nib.Nifti1Image(image.astype(np.float32)[..., None], np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path, lesion, inside


@pytest.mark.parametrize("method", ["dmfnet", "smfusion"])
def test_a_lesion_under_a_pet_is_clearer_and_the_record_repeats_it(head, method):
    folder, lesion, inside = head
    paths = folder / "mri.nii.gz", folder / "pet.nii.gz"

    def fused(name, **options):
        how = {"overlay_modality": "PT", "overlay_window": [0, 255], "register": "none", "name": "x"}
        fuse_pair(
            *paths, folder / name, method=method, overlay_palette="none", anatomy_window=[0, 255], **how, **options
        )
        record = json.loads((folder / name / "x_fused.json").read_text())
        image = nib.load(folder / name / "x_fused.nii.gz").get_fdata().reshape(80, 80)
        return image, image[np.hypot(*np.mgrid[-40:40, -40:40]) < 10][0] - image[lesion].mean(), record

    plain, contrast, record = fused("plain")
    assert "keep_anatomy" not in record
    more, clearer, record = fused("more", keep_anatomy=0.4)
    assert record["keep_anatomy"] == 0.4
    assert clearer > contrast + 0.2 * (110 - 60) / 255
    assert np.array_equal(more[~inside], plain[~inside])
    again, _, record = fused("again", settings=folder / "more" / "x_fused.json")
    assert np.array_equal(again, more)
    assert record["keep_anatomy"] == 0.4


def test_the_command_keeps_the_anatomy(head, capsys):
    folder, lesion, _ = head
    command = ["fuse", "--anatomy", str(folder / "mri.png"), "--overlay", str(folder / "pet.png"), "--instant"]
    command += ["--overlay_modality", "PT", "--overlay_palette", "none", "--format", "png"]
    written = []
    for share in ("0", "0.5"):
        out = folder / share
        assert cli.main([*command, "--output_dir", str(out), "--keep_anatomy", share]) == 0
        written.append(np.asarray(Image.open(out / "mri_fused.png").convert("L"))[lesion].mean())
    assert written[1] < written[0] - 2
    assert cli.main([*command, "--output_dir", str(folder / "out"), "--keep_anatomy", "1.5"]) == 2
    assert "keep_anatomy is 1.5; a share from 0 to 1 is accepted" in capsys.readouterr().err
