"""Both bundles in MONAI Label's own app for bundles, copied unchanged: a two-channel NIfTI in, the fused one out."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
import requests
from judges import affine_of
from label_server import ROOT, monailabel

from fusion_nets.workflows import fuse_pair

METHODS = ("dmfnet", "smfusion")
GRID = affine_of((1.5, 2.0, 4.0), degrees=(12, -5, 20))


def luminances(study, slices):
    """MRI and PET of the sample study in [0, 1], (H, W, D, 2)."""
    values = [nib.load(study[name]).get_fdata(dtype=np.float32)[..., slices] for name in ("mri", "pet")]
    return np.stack([np.clip(each / np.percentile(each, 99.5), 0, 1) for each in values], axis=-1)


@pytest.fixture(scope="module")
def images(sample_study, tmp_path_factory):
    """Two-channel images by name, in a folder that MONAI Label serves."""
    folder = tmp_path_factory.mktemp("studies")
    made = {"volume": luminances(sample_study, slice(20, 24)), "slice": luminances(sample_study, slice(22, 23))}
    others = {
        "vectors": made["slice"][..., None, :],
        "measured": made["slice"] * 1000,
        "single": made["slice"][..., :1],
    }
    for name, values in (made | others).items():
        nib.save(nib.Nifti1Image(values, GRID), folder / f"{name}.nii.gz")
    return folder, made


@pytest.fixture(scope="module")
def server(label_server, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("monaibundle")
    download = [*monailabel(), "apps", "--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run(download, check=True, capture_output=True)
    for method in METHODS:
        shutil.copytree(ROOT / "bundles" / method, folder / "monaibundle" / "model" / method)
    conf = {"models": ",".join(METHODS), "zoo_source": "local", "skip_trainers": "true", "sam2": "false"}
    server = label_server(folder / "monaibundle", images[0], conf)
    yield server
    server.stop()


def ask(server, method, image):
    return requests.post(f"{server.url}/infer/{method}?image={image}&output=image", timeout=300)


def test_serves_both_bundles(server):
    assert set(requests.get(f"{server.url}/info/").json()["models"]) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["volume", "slice"])
def test_is_what_the_bundle_makes_of_the_same_two_images(server, images, tmp_path, method, kind):
    sources = images[1][kind]
    answer = ask(server, method, kind)
    assert answer.status_code == 200, server.log_tail()
    (tmp_path / "answer.nii.gz").write_bytes(answer.content)
    fused = nib.load(tmp_path / "answer.nii.gz")
    np.testing.assert_allclose(fused.affine, GRID, atol=1e-4)
    for number, name in enumerate(("anatomy", "overlay")):
        nib.save(nib.Nifti1Image(sources[..., number], GRID), tmp_path / f"{name}.nii.gz")
    as_they_are = {"anatomy_window": (0, 1), "overlay_window": (0, 1), "overlay_palette": "none", "register": "none"}
    pair = tmp_path / "anatomy.nii.gz", tmp_path / "overlay.nii.gz"
    fuse_pair(*pair, tmp_path / "out", method, name="pair", **as_they_are)
    expected = nib.load(tmp_path / "out" / "pair_fused.nii.gz").get_fdata()
    assert fused.shape == sources.shape[:-1]
    np.testing.assert_allclose(fused.get_fdata(), expected.reshape(fused.shape), atol=1e-5)
    assert min(np.abs(fused.get_fdata() - sources[..., n]).mean() for n in (0, 1)) > 0.01


def test_channels_may_be_vectors_as_itk_writes_them(server):
    as_channels, as_vectors = (ask(server, "smfusion", image) for image in ("slice", "vectors"))
    assert as_vectors.status_code == 200, server.log_tail()
    assert as_vectors.content == as_channels.content


@pytest.mark.parametrize(
    ("image", "reason"), [("measured", "accepted are luminances from 0"), ("single", "two channels are accepted")]
)
def test_refuses_what_is_no_two_luminances_and_goes_on(server, image, reason):
    assert ask(server, "dmfnet", image).status_code == 500
    assert ask(server, "smfusion", "slice").status_code == 200
    assert reason in server.log.read_text()
