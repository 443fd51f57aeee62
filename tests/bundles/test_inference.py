import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from fusion_nets.transforms import luminance

from .conftest import EVERY, SMFUSION, blobs, causes, picture


@EVERY
def test_a_datalist_of_pictures(bundle, tiny_weights, dataset_dir, tmp_path):
    pairs = [
        {"anatomy": "CT-MRI/MRI/3.png", "overlay": "CT-MRI/CT/3.png", "name": "grey"},
        {"anatomy": "PET-MRI/MRI/3.png", "overlay": "PET-MRI/PET/3.png"},
    ]
    (dataset_dir / "pairs.json").write_text(json.dumps(pairs))
    bundle.fuse(tiny_weights, tmp_path, datalist=str(dataset_dir / "pairs.json"))
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["3_fused.png", "grey_fused.png"]
    grey, colour = (Image.open(tmp_path / name) for name in ("grey_fused.png", "3_fused.png"))
    assert (grey.mode, colour.mode) == ("L", "RGB")

    sources = [picture(dataset_dir / pairs[0][key]) for key in ("anatomy", "overlay")]
    wanted = (bundle.expected(tiny_weights, *sources) * 255).round()
    np.testing.assert_allclose(np.asarray(grey), wanted.numpy(), atol=1)

    anatomy = picture(dataset_dir / pairs[1]["anatomy"])
    pet = picture(dataset_dir / pairs[1]["overlay"]).movedim(-1, 0)
    wanted = bundle.expected(tiny_weights, anatomy, luminance(pet)[0])
    fused = picture(tmp_path / "3_fused.png").movedim(-1, 0)
    np.testing.assert_allclose(luminance(fused)[0].numpy(), wanted.numpy(), atol=1.01 / 255)


@EVERY
def test_a_single_pair_as_nifti(bundle, tiny_weights, dataset_dir, tmp_path):
    source = dataset_dir / "SPECT-MRI"
    bundle.fuse(
        tiny_weights,
        tmp_path,
        anatomy=str(source / "MRI" / "0.png"),
        overlay=str(source / "SPECT" / "0.png"),
        output_format=".nii.gz",
    )
    image = nib.load(tmp_path / "0_fused.nii.gz")
    assert image.get_data_dtype().names == ("R", "G", "B")
    assert nib.aff2axcodes(image.affine)[:2] == ("P", "L")


@EVERY
def test_a_volume_slice_by_slice_on_the_grid_of_the_anatomy(bundle, tiny_weights, tmp_path):
    rng = np.random.default_rng(1)
    affine = np.array([[-0.9, 0.1, 0, 80], [0.1, 0.9, 0, -70], [0, 0, 3.0, -20], [0, 0, 0, 1]])
    slices = {key: np.stack([blobs(rng, 40, 48) for _ in range(4)], axis=-1).astype(np.int16) for key in ("mri", "pet")}
    for name, volume in slices.items():
        nib.save(nib.Nifti1Image(volume * 7, affine), tmp_path / f"{name}.nii.gz")
    out = tmp_path / "out"
    bundle.fuse(
        tiny_weights,
        out,
        anatomy=str(tmp_path / "mri.nii.gz"),
        overlay=str(tmp_path / "pet.nii.gz"),
        anatomy_window=[0, 1785],
        overlay_window=[0, 1785],
    )
    fused = nib.load(out / "mri_fused.nii.gz")
    np.testing.assert_allclose(fused.affine, affine, atol=1e-6)
    assert fused.shape == (40, 48, 4)
    for index in range(4):
        pair = [torch.from_numpy(slices[key][..., index] / 255).float() for key in ("mri", "pet")]
        wanted = bundle.expected(tiny_weights, *pair)
        np.testing.assert_allclose(fused.dataobj[..., index], wanted.numpy(), atol=1e-5)


@EVERY
def test_bad_pairs_are_named_and_the_rest_is_fused(bundle, tiny_weights, dataset_dir, tmp_path, caplog):
    good = {"anatomy": str(dataset_dir / "CT-MRI/MRI/0.png"), "overlay": str(dataset_dir / "CT-MRI/CT/0.png")}
    small, broken, colour = (tmp_path / name for name in ("small.png", "broken.png", "colour.png"))
    Image.fromarray(blobs(np.random.default_rng(0), 48, 64)).save(small)
    broken.write_bytes((dataset_dir / "CT-MRI/MRI/0.png").read_bytes()[:200])
    Image.fromarray(blobs(np.random.default_rng(0), 64, 64, 3)).save(colour)
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full((64, 64, 3), 7, np.int16), np.eye(4)), flat)
    nan = tmp_path / "nan.nii.gz"
    values = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    values[3, 3, 1] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), nan)
    pairs = [
        {**good, "overlay": str(tmp_path / "missing.png"), "name": "a"},
        {**good, "name": "first"},
        {**good, "overlay": str(small), "name": "b"},
        {**good, "anatomy": str(broken), "name": "c"},
        {**good, "anatomy": str(colour), "name": "d"},
        {**good, "anatomy": str(flat), "name": "e"},
        {**good, "anatomy": str(nan), "name": "f"},
        {**good, "name": "last"},
    ]
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        bundle.fuse(tiny_weights, out, datalist=pairs)
    assert "6 of 8 pairs could not be fused" in str(end.value)
    assert sorted(path.name for path in out.glob("[!.]*")) == ["first_fused.png", "last_fused.png"]
    for name, reason in {
        "missing.png": "no such file",
        "small.png": "differs from",
        "broken.png": "not a readable picture",
        "colour.png": "a grey image is accepted",
        "flat.nii.gz": "every pixel has the value 7",
        "nan.nii.gz": "holds NaN in 1 voxels within the image",
    }.items():
        lines = [
            record.getMessage()
            for record in caplog.records
            if record.levelname == "ERROR" and name in record.getMessage()
        ]
        assert len(lines) == 1, name
        assert reason in lines[0]


@EVERY
@pytest.mark.parametrize(
    ("output_format", "reason"),
    [
        (".tif", "is a volume, which cannot become a picture"),
        ("dicom", "is no DICOM series"),
    ],
)
def test_what_cannot_be_written_as_asked_is_passed_over(
    bundle, tiny_weights, dataset_dir, tmp_path, caplog, output_format, reason
):
    volume = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((64, 64, 3), dtype=np.float32), np.eye(4)), volume)
    out = tmp_path / "out"
    pair = {"anatomy": str(volume), "overlay": str(volume)}
    with pytest.raises(SystemExit, match="1 of 1"):
        bundle.fuse(tiny_weights, out, datalist=[pair], output_format=output_format)
    assert not out.exists()
    assert f"volume.nii.gz: {reason}" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "at least one"),
        ("{", "not JSON"),
        ('[{"anatomy": "a.png", "overlai": "b.png"}]', "unknown key 'overlai'"),
    ],
)
@EVERY
def test_bad_datalists_end_the_command(bundle, tiny_weights, tmp_path, content, reason):
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(RuntimeError) as end:
        bundle.fuse(tiny_weights, tmp_path / "out", datalist=str(tmp_path / "pairs.json"))
    assert reason in causes(end.value)
    assert not (tmp_path / "out").exists()


@EVERY
def test_evaluation_saves_what_the_metrics_say(bundle, tiny_weights, text_encoder, dataset_dir, tmp_path):
    bundle.fuse(
        tiny_weights,
        tmp_path,
        configs=("inference.json", "evaluate.json"),
        dataset_dir=str(dataset_dir),
        section="test",
        **({"text_encoder_model": text_encoder} if bundle is SMFUSION else {}),
    )
    with (tmp_path / "metrics.csv").open() as file:
        summary = {name: float(value) for name, value in csv.reader(file)}
    with (tmp_path / "SSIM_raw.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(summary) == {"MI", "SSIM", "Qabf", "VIF", "slices"}
    assert summary["slices"] == 1
    assert [row["filename"] for row in rows] == ["CT-MRI_3", "PET-MRI_3", "SPECT-MRI_3"]
    assert summary["SSIM"] == pytest.approx(np.mean([float(row["mean"]) for row in rows]), abs=1e-5)
    assert 0.5 < summary["SSIM"] < 2
    assert (tmp_path / "CT-MRI_3_fused.png").is_file()


@EVERY
def test_what_is_said_of_a_single_pair_holds_with_evaluation(bundle, tiny_weights, text_encoder, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("mri", "grey"):
        Image.fromarray(blobs(rng, 64, 64)).save(tmp_path / f"{name}.png")
    bundle.fuse(
        tiny_weights,
        tmp_path,
        configs=("inference.json", "evaluate.json"),
        anatomy=str(tmp_path / "mri.png"),
        overlay=str(tmp_path / "grey.png"),
        overlay_modality="PT",
        **({"text_encoder_model": text_encoder} if bundle is SMFUSION else {}),
    )
    assert Image.open(tmp_path / "mri_fused.png").mode == "RGB", "a grey PET is coloured"
