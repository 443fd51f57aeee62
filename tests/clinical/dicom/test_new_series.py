"""Originals: a volume as a series of its own."""

import numpy as np
import pytest
from judges import CT, MR, PT, affine_of, dciodvfy_errors, image_of, series_of, study, written

from fusion_nets.clinical.dicom import new_series, pick_series, read_series


@pytest.mark.parametrize("modality", [MR, CT, PT])
def test_dciodvfy_finds_no_error(tmp_path, modality):
    written(tmp_path, series_of(modality)[0])
    assert dciodvfy_errors(tmp_path / "IM0002.dcm") == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("modality", ["OT", "NM"])
def test_anything_else_is_a_secondary_capture_with_geometry(tmp_path, modality, channels):
    levels = np.random.default_rng(0).integers(0, 256, (channels, 8, 7, 5)).astype(np.float32)
    image = image_of(levels, affine_of((1.5, 1.5, 4), (5, 0, 10)), **({"white": 255} if channels == 3 else {}))
    written(tmp_path, new_series(image, modality, study()))
    assert dciodvfy_errors(tmp_path / "IM0002.dcm") == []
    back = read_series(pick_series(tmp_path))
    np.testing.assert_array_equal(back, levels)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-6)


def test_pet_in_suv(tmp_path):
    values = np.random.default_rng(0).random((1, 6, 6, 4), dtype=np.float32) * 12
    image = image_of(values, affine_of((4, 4, 4)), units="SUV")
    written(tmp_path, new_series(image, PT, study()))
    assert dciodvfy_errors(tmp_path / "IM0001.dcm") == []
    back = read_series(pick_series(tmp_path))
    assert back.meta["units"] == "SUV"
    np.testing.assert_allclose(back, values, atol=12 / 32767)
