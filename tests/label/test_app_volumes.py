"""Images of several volumes, and images that hardly show one place, over HTTP."""

import nibabel as nib
import numpy as np
import pytest
from asking import SLICES, few_slices, infer

from fusion_nets.clinical import read_image


@pytest.fixture(scope="module")
def server(label_server, sample_study, tmp_path_factory):
    """Of an MRI and a PET of two volumes each, and of an MRI with a PET that lies mostly elsewhere."""
    import label_server as real

    folder = tmp_path_factory.mktemp("volumes")
    for name in ("mri", "pet"):
        few_slices(sample_study[name], folder / f"far_{name}.nii.gz", SLICES["head"])
        one = nib.load(folder / f"far_{name}.nii.gz")
        values = one.get_fdata(dtype=np.float32)
        nib.save(nib.Nifti1Image(np.stack([values, values[::-1]], -1), one.affine), folder / f"two_{name}.nii.gz")
        nib.save(nib.Nifti1Image(values, one.affine), folder / f"one_{name}.nii.gz")
    pet = nib.load(folder / "far_pet.nii.gz")
    moved = pet.affine.copy()
    moved[0, 3] += 150
    nib.save(nib.Nifti1Image(pet.get_fdata(dtype=np.float32), moved), folder / "far_pet.nii.gz")
    return label_server(real.ROOT / "bundles" / "monailabel", folder, {"models": "dmfnet"})


def image_of(answer, path):
    assert answer.status_code == 200, answer.text
    path.write_bytes(answer.content)
    return read_image(path)


def test_a_volume_of_several_is_chosen(server, tmp_path):
    answer = infer(server, "two_mri")
    assert answer.status_code == 422
    assert "anatomy_volume" in answer.text or "volume" in answer.text
    wanted = image_of(infer(server, "one_mri", {"registration": "none"}, output="image"), tmp_path / "a.nii.gz")
    for which in ("1", 1):
        asked = {"registration": "none", "anatomy_volume": which, "overlay_volume": which}
        fused = image_of(infer(server, "two_mri", asked, output="image"), tmp_path / "b.nii.gz")
        assert np.array_equal(fused, wanted)
    other = image_of(infer(server, "two_mri", {**asked, "overlay_volume": "2"}, output="image"), tmp_path / "b.nii.gz")
    assert not np.array_equal(other, wanted)


def test_how_much_must_overlap(server, tmp_path):
    asked = {"registration": "none"}
    answer = infer(server, "far_mri", asked)
    assert answer.status_code == 422
    assert "least_overlap" in answer.json()["detail"]
    assert infer(server, "far_mri", {**asked, "least_overlap": "0"}).status_code == 200
