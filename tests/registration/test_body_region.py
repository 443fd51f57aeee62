"""A head is told from a body by its header, then by its size; what is neither is not guessed at."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.registration import body_region


def image(shape=(40, 40, 40), spacing=5.0, **meta):
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    values = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, meta={**meta, "affine": affine})


def trunk(across, shape=(80, 80, 40), spacing=5.0, turned=False):
    """A CT of a cylinder of so many mm, a table below it, feet to head along the last axis (or the first)."""
    x, y = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * spacing for n in shape[:2]), indexing="ij")
    plane = np.where(np.hypot(x, y) < across / 2, 40.0, -1000.0)
    plane[20:60, 77] = 100.0
    values = np.repeat(plane[..., None], shape[2], axis=2).astype(np.float32)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    if turned:
        values, affine = np.moveaxis(values, 2, 0), affine[:, [2, 0, 1, 3]]
    return MetaTensor(torch.from_numpy(values.copy())[None], meta={"affine": torch.from_numpy(affine), "units": "HU"})


@pytest.mark.parametrize(
    ("part", "shows"),
    [
        ("HEAD", "head"),
        ("Brain", "head"),
        ("CHEST", "body"),
        ("Abdomen Pelvis", "body"),
        ("HEAD-NECK", "body"),
        ("WHOLEBODY", "unknown"),  # of which the head alone may have been read
        ("PROTOCOL 1", "unknown"),
        ("", "unknown"),
    ],
)
def test_header_says_it(part, shows):
    found = body_region(image(body_part=part))
    assert found.shows == shows
    assert ("BodyPartExamined" in found.because) == (shows != "unknown")


def test_header_comes_before_size():
    assert body_region(image((40, 40, 80), body_part="HEAD")).shows == "head"


def test_what_is_longer_than_a_head_is_a_body():
    assert body_region(image((40, 40, 60))).shows == "unknown"  # 295 mm
    found = body_region(image((40, 40, 62), body_part="WHOLEBODY"))
    assert str(found) == "body: 305 mm from feet to head"


@pytest.mark.parametrize("turned", [False, True])
def test_ct_that_is_wider_than_a_head_is_a_body(turned):
    assert body_region(trunk(300, turned=turned)).shows == "body"
    assert body_region(trunk(200, turned=turned)).shows == "unknown"
    area = float(body_region(trunk(300, turned=turned)).because.split()[0])
    assert area == pytest.approx(np.pi * 15**2, rel=0.03)


def test_size_that_was_guessed_says_nothing():
    assert body_region(image((40, 40, 80), placed=False)).shows == "unknown"
    assert body_region(image()[..., 0]).shows == "unknown"


def test_what_was_known_before_stays():
    assert body_region(image((40, 40, 80), body_region="head: BodyPartExamined is HEAD")).shows == "head"
