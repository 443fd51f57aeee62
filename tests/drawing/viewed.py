"""A small case as the viewer's page takes it, of files on disk; and what a page holds."""

import base64
import gzip
import json
import re

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from fusion_nets.clinical import read_image

ANATOMY_AFFINE = np.array([[2.0, 0, 0, -41], [0, -1.5, 0, 33], [0, 0, 3.0, -20], [0, 0, 0, 1]])
OVERLAY_AFFINE = np.array([[0, 0, -4.0, 52], [4.0, 0, 0, -48], [0, 4.0, 0, -30], [0, 0, 0, 1]])
SIZE = (40, 44, 20)
RECORD = {
    "anatomy_window": [-100.0, 200.0],
    "overlay_window": [0, 8.0],
    "overlay_palette": "hot",
    "record": {
        "method": "DM-FNet",
        "fusion_nets": "0.3",
        "anatomy": {"modality": "CT", "display": {"window": "given", "range": [-100.0, 200.0], "units": "HU"}},
        "overlay": {"modality": "PT", "display": {"window": "uptake", "range": [0, 8.0], "units": "SUV"}},
        "regions": {"warnings": ["region 3: lost </script><img src=x onerror=hacked=1>"]},
    },
}


def write_case(folder):
    """Anatomy in HU with a bright corner at the patient's right, front and top; overlay in SUV on another grid."""
    generator = np.random.default_rng(0)
    place = nib.affines.apply_affine(ANATOMY_AFFINE, np.indices(SIZE).transpose(1, 2, 3, 0))
    inside = (np.square(place / (34, 28, 26)).sum(-1) < 1).astype(np.float64)
    anatomy = -1000 + inside * (1030 + generator.integers(-30, 30, SIZE))
    anatomy[(place[..., 0] > 30) & (place[..., 1] > 25) & (place[..., 2] > 30)] = 500
    nib.save(nib.Nifti1Image(anatomy.astype(np.int16), ANATOMY_AFFINE), folder / "secret_anatomy.nii.gz")
    size = (24, 20, 26)
    there = nib.affines.apply_affine(OVERLAY_AFFINE, np.indices(size).transpose(1, 2, 3, 0))
    overlay = 7.5 * np.exp(-np.square((there - (12, 4, 8)) / 9).sum(-1)) + 0.5 * generator.random(size)
    nib.save(nib.Nifti1Image(overlay.astype(np.float32), OVERLAY_AFFINE), folder / "secret_overlay.nii.gz")
    return read_case(folder)


def read_case(folder):
    anatomy = read_image(folder / "secret_anatomy.nii.gz", modality="CT")
    overlay = read_image(folder / "secret_overlay.nii.gz", modality="PT")
    anatomy.meta["units"], overlay.meta["units"] = "HU", "SUV"
    grey = ((anatomy + 100) / 300).clamp(0, 1)
    fused = MetaTensor(torch.cat([grey, grey * 0.5, grey * 0.2]), affine=anatomy.affine)
    return anatomy, overlay, fused


def held(page):
    """What a page tells its script, and the volumes in it: (x, y, z[, 3]) from right, front and top."""
    case = json.loads(re.search(r'id="case">(.*?)</script>', page, re.DOTALL)[1])
    volumes = {}
    for key, told in case["images"].items():
        packed = re.search(rf'id="data-{key}">(.*?)</script>', page, re.DOTALL)[1]
        raw = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.dtype(told["type"]).newbyteorder("<"))
        shape = (*case["size"][::-1], *([3] if told["channels"] == 3 else []))
        volumes[key] = np.moveaxis(raw.reshape(shape), (0, 1, 2), (2, 1, 0)) * told["slope"] + told["intercept"]
    return case, volumes
