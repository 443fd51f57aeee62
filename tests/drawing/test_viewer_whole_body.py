"""The page of a whole-body PET/CT of 512 slices: bounded, and open in Chromium."""

import base64
import io

import numpy as np
import pytest
import torch
from drawing.browser import INSTALL, chromium, is_installed, opened
from drawing.viewed import held
from monai.data import MetaTensor
from PIL import Image

from fusion_nets.drawing import write_viewer
from fusion_nets.drawing.viewer import MOST_VOXELS

SIZE = (136, 136, 512)
SPACING = (3.8, 3.8, 3.5)
FOCUS = np.array([88, 60, 300])
"""Of the uptake, as a voxel of the CT."""


def volume(values, affine, **meta):
    return MetaTensor(torch.from_numpy(values.astype(np.float32))[None], affine=torch.from_numpy(affine), meta=meta)


@pytest.fixture(scope="module")
def images():
    """A body of noise, which packs badly, with a focus of uptake; the PET on a grid of half as many voxels."""
    generator = np.random.default_rng(0)
    affine = np.diag([*SPACING, 1.0])

    def inside(x, y):
        return ((x - 0.5) / 0.4) ** 2 + ((y - 0.5) / 0.25) ** 2 < 1

    x, y, z = np.ogrid[tuple(slice(0, 1, n * 1j) for n in SIZE)]
    ct = np.where(inside(x, y) & (z >= 0), 40, -1000) + generator.normal(0, 20, SIZE).round()
    half = tuple(n // 2 for n in SIZE)
    x, y, _ = np.ogrid[tuple(slice(0, 1, n * 1j) for n in half)]
    pet = inside(x, y)[..., 0][..., None] * generator.gamma(4, 0.25, half)
    near = sum(
        ((np.arange(n) - middle / 2) * 2 * mm / 12).reshape([-1 if axis == k else 1 for k in range(3)]) ** 2
        for axis, (n, middle, mm) in enumerate(zip(half, FOCUS, SPACING, strict=True))
    )
    pet += 15 * np.exp(-near)
    grey = ((ct + 160) / 400).clip(0, 1)
    fused = MetaTensor(torch.from_numpy(np.stack([grey, grey * 0.6, grey * 0.3])).float(), affine=affine)
    other = affine @ np.diag([2.0, 2, 2, 1])
    return volume(ct, affine, units="HU", modality="CT"), volume(pet, other, units="SUV", modality="PT"), fused


@pytest.fixture(scope="module")
def page(images, tmp_path_factory):
    return write_viewer(tmp_path_factory.mktemp("body") / "body_fused.html", *images, name="body")


def test_it_is_bounded_and_says_what_was_reduced(page):
    told, volumes = held(page.read_text(encoding="utf-8"))
    assert np.prod(told["size"]) <= MOST_VOXELS
    assert "Reduced from 136 \u00d7 136 \u00d7 512 to " in told["stored"]
    assert page.stat().st_size < 22e6
    assert told["projection"]
    hottest = np.array(np.unravel_index(volumes["overlay"].argmax(), told["size"]))
    place = np.array(told["affine"]) @ [*hottest, 1]
    np.testing.assert_allclose(place[:3], FOCUS * SPACING, atol=2 * max(SPACING))


def test_it_opens_and_shows_the_uptake(page):
    if not is_installed():
        pytest.skip(INSTALL)
    with chromium(page.parent) as browser:
        opened(browser, page, 240)
        for canvas in browser.find_elements("css selector", "canvas[data-plane]"):
            assert pixels(browser, canvas).std() > 10
            assert canvas.size["height"] <= 0.83 * browser.execute_script("return window.innerHeight")
        projected = pixels(browser, browser.find_element("id", "mip"))
        assert projected.shape[0] > 2 * projected[:, projected.min(axis=(0, 2)) < 200].shape[1]  # a body is long
        assert projected.min() < 40  # the focus is dark
        assert browser.find_element("id", "trouble").text == ""
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def pixels(browser, canvas):
    url = browser.execute_script("return arguments[0].toDataURL()", canvas)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"), dtype=float)
