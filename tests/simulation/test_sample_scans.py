import json

import numpy as np
import pytest
from nibabel.affines import apply_affine

from fusion_nets.simulation import write_sample_study
from fusion_nets.simulation.sample_scans import ACTIVITY_PER_SUV, HEAD_IN_PET_CT, SCANS, pose, scan

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def files(dicom_study):
    return dicom_study


def volume(folder):
    """Values (columns, rows, slices) and their affine in DICOM's own coordinates (LPS)."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    values = np.stack([s.pixel_array.T * s.get("RescaleSlope", 1) + s.get("RescaleIntercept", 0) for s in slices], -1)
    first, second = slices[:2]
    affine = np.eye(4)
    row, column = np.reshape(first.ImageOrientationPatient, (2, 3)).astype(float)
    affine[:3, 0], affine[:3, 1] = row * first.PixelSpacing[1], column * first.PixelSpacing[0]
    affine[:3, 2] = np.subtract(second.ImagePositionPatient, first.ImagePositionPatient)
    affine[:3, 3] = first.ImagePositionPatient
    return values, affine, slices


def test_three_series_of_one_study(files):
    assert {key: path.name for key, path in files.items()} == {
        **{name: name for name in SCANS},
        "study": "study.json",
        "pairs": "pairs.json",
    }
    headers = {name: pydicom.dcmread(next(files[name].iterdir())) for name in SCANS}
    assert [header.Modality for header in headers.values()] == ["MR", "PT", "CT"]
    assert len({header.StudyInstanceUID for header in headers.values()}) == 1
    assert len({header.SeriesInstanceUID for header in headers.values()}) == 3
    frames = [header.FrameOfReferenceUID for header in headers.values()]
    assert frames[1] == frames[2] != frames[0]
    said = json.loads(files["study"].read_text())
    assert set(said["files"]) == set(SCANS)
    np.testing.assert_allclose(said["head_in_pet_ct"], HEAD_IN_PET_CT)
    assert json.loads(files["pairs"].read_text())[0] == {"anatomy": "mri", "overlay": "pet", "name": "mri_pet"}


def test_hot_lesion_lies_where_the_head_lies(files):
    lesion = next(x for x in json.loads(files["study"].read_text())["lesions"] if x["name"] == "hot")
    in_scanner = apply_affine(HEAD_IN_PET_CT, lesion["centre_mm"]) * [-1, -1, 1]
    values, affine, _ = volume(files["pet"])
    grid = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
    near = np.linalg.norm(apply_affine(affine, grid) - in_scanner, axis=-1) < 25
    weights = np.where(near, values, 0) ** 8  # the peak
    found = (apply_affine(affine, grid) * weights[..., None]).sum((0, 1, 2)) / weights.sum()
    assert np.linalg.norm(found - in_scanner) < 4  # half a voxel
    assert 5 < values.max() / ACTIVITY_PER_SUV < 13


def test_grids_are_the_scanners_own(files):
    mri, pet, ct = (volume(files[name]) for name in SCANS)
    assert np.linalg.norm(mri[1][:3, :3], axis=0) == pytest.approx([4, 4, 8])
    assert np.linalg.norm(pet[1][:3, :3], axis=0) == pytest.approx([8, 8, 8])
    assert abs(np.asarray(mri[2][0].ImageOrientationPatient) % 1).max() > 0.1  # oblique
    np.testing.assert_allclose(np.abs(ct[2][0].ImageOrientationPatient), [1, 0, 0, 0, 1, 0], atol=1e-9)
    assert len({s.RescaleSlope for s in pet[2]}) > 5
    assert ct[0].min() < -900
    assert (ct[0] == np.rint(ct[0])).all()


def test_same_seed_same_bytes(files, tmp_path):
    again = write_sample_study(tmp_path, spacing=4, form="dicom")
    for name in SCANS:
        assert [p.read_bytes() for p in sorted(again[name].iterdir())] == [
            p.read_bytes() for p in sorted(files[name].iterdir())
        ]


def test_a_scan_averages_over_its_voxels():
    stripes = np.zeros((40, 40, 40))
    stripes[:, :, ::2] = 1000  # as fine as the model, half as fine as a slice
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -40
    sampled = scan(stripes, affine, SCANS["mri"], 2.0)[0].numpy()
    inside = sampled[35:70, 40:75, 14:16]
    assert inside.mean() == pytest.approx(500, abs=25)
    assert inside.std() < 250  # 500 without averaging


def test_pose_turns_then_moves():
    np.testing.assert_allclose(apply_affine(pose((0, 0, 90), (1, 2, 3)), [1, 0, 0]), [1, 3, 3], atol=1e-12)


def test_unknown_form(tmp_path):
    with pytest.raises(ValueError, match="form is 'nrrd'"):
        write_sample_study(tmp_path, form="nrrd")
