"""Where a disk is full nothing is half written, in any form, and one line says so."""

import csv
import json

import numpy as np
import pytest
import torch
from full_disks import DISKS, page
from monai.data import MetaTensor
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from safetensors.torch import save

from fusion_nets import cli
from fusion_nets.clinical import ImageError, read_image, write_image, write_slices
from fusion_nets.clinical.dicom.new_series import new_instance, store_values, write_instances
from fusion_nets.drawing import write_checkerboard, write_montage
from fusion_nets.files import WriteError, whole_file
from fusion_nets.registration import Registration, write_transform
from fusion_nets.transforms import SaveFused
from fusion_nets.workflows import BestCheckpoint

NOISE = torch.rand(1, 64, 60, 20, generator=torch.Generator().manual_seed(0))  # which cannot be compressed away


def written_with(writer):
    def write(path):
        with whole_file(path) as partial:
            writer(partial)

    return write


def table(path):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(NOISE[0, :, :, 0].tolist())


def as_dicom(folder):
    instances = [new_instance(SecondaryCaptureImageStorage, generate_uid()) for _ in range(3)]
    for instance, plane in zip(instances, NOISE[0].unbind(-1), strict=False):
        store_values(instance, plane.numpy() * 1000, 1, 0, signed=False)
    write_instances(folder, instances)


IMAGE = MetaTensor(NOISE, affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))
PICTURE = torch.rand(3, 90, 100, generator=torch.Generator().manual_seed(0))
LAYER = torch.nn.Linear(100, 100)
WRITERS = {
    "a.nii": lambda path: write_image(path, IMAGE),
    "a.nii.gz": lambda path: write_image(path, IMAGE),
    "a.nrrd": lambda path: write_image(path, IMAGE),
    "a.mha": lambda path: write_image(path, IMAGE),
    "a.png": lambda path: write_image(path, PICTURE),
    "a.tif": lambda path: write_image(path, PICTURE),
    "a.bmp": lambda path: write_image(path, PICTURE),
    "a.tfm": lambda path: write_transform(path, Registration(np.eye(4), "rigid", "rigid", 1.0, 1.0, "")),
    "dicom": as_dicom,
    "slices": lambda path: write_slices(path, IMAGE),
    "checkerboard.png": lambda path: write_checkerboard(path, IMAGE, IMAGE),
    "montage.png": lambda path: write_montage(path, IMAGE, IMAGE, [IMAGE]),
    "best.pt": lambda path: BestCheckpoint(path, LAYER, "loss").write(),
    "a.json": written_with(lambda path: path.write_text(json.dumps(NOISE.tolist()))),
    "a.csv": written_with(table),
    "a.npy": written_with(lambda path: np.save(path, NOISE.numpy())),
    "a.safetensors": written_with(lambda path: path.write_bytes(save({"a": NOISE}))),
}


def size_of(path):
    return max(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", WRITERS)
def test_no_form_is_half_written(tmp_path, name, disk, share):
    (tmp_path / "room").mkdir()
    write = WRITERS[name]
    write(tmp_path / "room" / name)
    room = int(size_of(tmp_path / "room" / name) * share)
    if disk == "full disk" and room < page:
        room = 0  # a file that is smaller than a page fits, or not at all
    (tmp_path / "disk").mkdir()
    with DISKS[disk](tmp_path / "disk", room) as number:
        with pytest.raises(WriteError) as refused:
            write(tmp_path / "disk" / name)
        left = [path.name for path in (tmp_path / "disk").iterdir() if path.name != "full"]
    assert left == []
    assert refused.value.errno == number
    assert refused.value.is_full
    assert str(refused.value).startswith(f"{tmp_path / 'disk' / name}: not written (")


def sources_of(study):
    return {key: read_image(study[name]) for key, name in (("anatomy", "mri"), ("overlay", "pet"))}


def saved(study, folder, formats=("dicom", "nifti", "mha", "png")):
    sources = sources_of(study)
    fused = MetaTensor(sources["anatomy"].as_tensor() / sources["anatomy"].max(), affine=sources["anatomy"].affine)
    record = {"record": {"anatomy": {"modality": "MR"}, "overlay": {"modality": "PT"}}}
    data = {"anatomy": fused, "overlay": fused}
    return SaveFused(folder, list(formats))(fused, "case", data, json.dumps(record))


def test_form_that_cannot_be_written_does_not_lose_the_others(dicom_study, tmp_path):
    """DICOM lacks what it needs here; asked for first, it is tried last."""
    with pytest.raises(ImageError, match=r"case: no dicom: .+; written are case_fused\.nii\.gz, ") as e:
        saved(dicom_study, tmp_path)
    names = ["case_fused.json", "case_fused.mha", "case_fused.nii.gz", "case_fused_slices", "case_montage.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all(name in str(e.value) for name in names)


@pytest.mark.parametrize(
    ("error", "told", "fails", "form", "lost"),
    [
        (RuntimeError, ".*of a library.*", "write_image", "nii.gz", {"case_fused.nii.gz", "case_fused.mha"}),
        (OSError, "of a library", "write_slices", "png", {"case_fused_slices"}),
        (MemoryError, "the memory is not enough.*accepted", "write_montage", "png", {"case_montage.png"}),
    ],
)
def test_whatever_is_wrong_with_it(dicom_study, tmp_path, monkeypatch, error, told, fails, form, lost):
    def fail(*_, **__):
        raise error("of a library")

    monkeypatch.setattr(f"fusion_nets.transforms.saving.{fails}", fail)
    with pytest.raises(ImageError, match=f"case: no {form}: {told}; written are ") as raised:
        saved(dicom_study, tmp_path, ["nifti", "mha", "png"])
    assert isinstance(raised.value.__cause__, error)
    names = {"case_fused.json", "case_fused.mha", "case_fused.nii.gz", "case_fused_slices", "case_montage.png"}
    assert {path.name for path in tmp_path.iterdir()} == names - lost


@pytest.mark.parametrize("disk", DISKS)
def test_one_line_of_the_program(dicom_study, tmp_path, capsys, disk):
    out = tmp_path / "out"
    out.mkdir()
    asked = ["fuse", "--anatomy", dicom_study["mri"], "--overlay", dicom_study["pet"], "--output_dir", out]
    asked += ["--method", "smfusion", "--name", "case", "--register", "none", "--format", "dicom,nifti,nrrd,png"]
    with DISKS[disk](out, 6 * page):
        code = cli.main(list(map(str, asked)))
        names = {path.name for path in out.iterdir()}
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert code == 2
    assert line.startswith("fusion-nets fuse: ")
    assert "no nii.gz: " in line
    assert "not written (" in line
    assert "a folder with more room is accepted" in line
    assert not any("partial" in name for name in names)
    assert "case_fused.nii.gz" not in names
    assert "Traceback" not in line
