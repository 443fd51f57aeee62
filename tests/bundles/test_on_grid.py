"""`save` of both bundles, as `python -m monai.bundle run` takes it."""

import json

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from fusion_nets.clinical import read_image, write_values

from .conftest import EVERY, blobs


@EVERY
def test_the_overlay_is_written_in_its_own_units(bundle, tiny_weights, tmp_path):
    rng = np.random.default_rng(0)
    fine, coarse = np.diag([2.0, 2, 3, 1]), np.diag([3.0, 3, 3, 1])
    for name, affine, units, modality in (("mri", fine, "stored", "MR"), ("ct", coarse, "HU", "CT")):
        values = np.stack([blobs(rng, 48, 48) for _ in range(4)], axis=-1).astype(np.float32)[None]
        image = MetaTensor(torch.from_numpy(values * 4.5 - 1000 * (units == "HU")), affine=torch.from_numpy(affine))
        image.meta |= {"units": units, "modality": modality}
        write_values(tmp_path / f"{name}.nii.gz", image)
    files = {"anatomy": str(tmp_path / "mri.nii.gz"), "overlay": str(tmp_path / "ct.nii.gz")}
    how = {"register": "none", "save": ["overlay", "anatomy"], "device": torch.device("cpu")}
    bundle.fuse(tiny_weights, tmp_path / "out", **files, **how)
    mri, ct = read_image(files["anatomy"]), read_image(files["overlay"])
    overlay = read_image(tmp_path / "out" / "mri_overlay_on_grid.nii.gz")
    assert (overlay.meta["units"], overlay.shape) == ("HU", mri.shape)
    np.testing.assert_array_equal(overlay.affine, mri.affine)
    assert overlay[0, 0, 0, 0] == ct[0, 0, 0, 0]
    assert float(overlay.max()) > 0.8 * float(ct.max())
    assert torch.equal(read_image(tmp_path / "out" / "mri_anatomy_on_grid.nii.gz").as_tensor(), mri.as_tensor())
    record = json.loads((tmp_path / "out" / "mri_fused.json").read_text())["record"]
    assert record["overlay"]["on_grid"] == {"files": ["mri_overlay_on_grid.nii.gz"], "outside": -1000.0}
    done = json.loads((tmp_path / "out" / ".cases" / "mri.json").read_text())
    assert {"mri_overlay_on_grid.nii.gz", "mri_anatomy_on_grid.nii.gz"} <= set(done["files"])
    assert nib.load(tmp_path / "out" / "mri_fused.nii.gz").shape == mri.shape[1:]
