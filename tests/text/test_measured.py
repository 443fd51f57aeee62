import json
import time

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.clinical import read_image
from fusion_nets.datalists import aanlib_pairs
from fusion_nets.text import MeasuredText, parse_findings

PICTURE = np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Rows to posterior, columns to the patient's left."""
REGIONS = ("bright region", "central dark area", "dark region")


def picture(values, modality="MR", affine=PICTURE):
    values = torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32))
    meta = {"modality": modality} if modality else {}
    return MetaTensor(values[None] if values.ndim == 2 else values, affine=torch.as_tensor(affine), meta=meta)


def ball(shape, centre, radii):
    grid = np.indices(shape)
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1


def head(*spots, size=256):
    """An elliptic head of level 0.4 with spots (row, column, radius, level), in fractions of a picture of 256."""
    scale = size / 256
    values = 0.4 * ball((size, size), (size / 2, size / 2), (100 * scale, 80 * scale))
    for row, column, radius, level in spots:
        values[ball((size, size), (row * scale, column * scale), (radius * scale, radius * scale))] = level
    return values


LESION = (90, 170, 12, 0.8)


def regions(image):
    return [finding for finding in MeasuredText().findings(image) if finding.kind in REGIONS]


def kinds(image):
    return {finding.kind: finding for finding in MeasuredText().findings(image)}


@pytest.mark.parametrize(
    ("row", "column", "side", "place"),
    [
        (80, 170, "left", "anterior"),
        (80, 86, "right", "anterior"),
        (176, 170, "left", "posterior"),
        (128, 128, "midline", "central"),
    ],
)
@pytest.mark.parametrize(("level", "kind"), [(0.8, "bright region"), (0.1, "dark region")])
def test_a_lesion_is_found_where_it_is(row, column, side, place, level, kind):
    (found,) = regions(picture(head((row, column, 12, level))))
    if (side, kind) == ("midline", "dark region"):
        kind, place = "central dark area", ""
    assert (found.kind, found.side, found.place, found.unit) == (kind, side, place, "%")
    assert found.size == pytest.approx(100 * 12 * np.pi**0.5 / 256, rel=0.15)
    assert found.intensity == pytest.approx(100 * level, abs=12)


def test_two_lesions_are_two_regions_the_larger_first():
    found = regions(picture(head((90, 90, 9, 0.8), (150, 160, 14, 0.8))))
    assert [(f.side, f.place) for f in found] == [("left", "central"), ("right", "anterior")]
    assert found[0].size > found[1].size


def test_a_dimmer_image_keeps_its_findings():
    bright, dim = (regions(picture(head(LESION) * factor)) for factor in (1, 0.2))
    assert [(f.kind, f.side, f.place, f.size) for f in bright] == [(f.kind, f.side, f.place, f.size) for f in dim]
    assert dim[0].intensity == pytest.approx(bright[0].intensity / 5, abs=0.1)


def test_a_uniform_noisy_head_has_no_regions_but_its_noise():
    noise = np.random.default_rng(0).normal(0, 0.05, (256, 256))
    image = picture((head() + noise * (head() > 0)).clip(0, 1))
    assert regions(image) == []
    assert kinds(image)["noise level"].intensity == pytest.approx(5, abs=0.5)
    assert kinds(image)["asymmetry"].side == "both"
    assert kinds(image)["bright rim"].size == 0
    assert kinds(image)["head extent"].size == pytest.approx(100 * np.pi * 100 * 80 / 256**2, rel=0.1)


def test_the_skull_is_a_rim_and_no_region():
    values = head((128, 110, 10, 0.1), (128, 146, 10, 0.1))
    values[(values > 0) & ~ball(values.shape, (128, 128), (90, 70))] = 1
    found = kinds(picture(values, "CT"))
    assert found["bright rim"].size > 95
    assert found["bright extent"].size == pytest.approx(100 * np.pi * (8000 - 6300) / 256**2, rel=0.3)
    assert [(f.kind, f.side) for f in regions(picture(values, "CT"))] == [("central dark area", "both")]


def test_a_brighter_half_is_named():
    values = head()
    values[:, 128:] *= 1.2
    asymmetry = kinds(picture(values))["asymmetry"]
    assert asymmetry.side == "left"
    assert asymmetry.intensity == pytest.approx(20, abs=2)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flip_of_array_and_affine_together_changes_nothing(axis):
    flipped = PICTURE.copy()
    flipped[:, axis] *= -1
    flipped[:3, 3] = 255 * PICTURE[:3, axis]
    describe = MeasuredText()
    there, back = picture(head(LESION)), picture(np.flip(head(LESION), axis), affine=flipped)
    assert describe([there]) == describe([back])


def test_transposed_axes_change_nothing():
    describe = MeasuredText()
    turned = picture(head(LESION).T, affine=PICTURE[:, [1, 0, 2, 3]])
    assert describe([turned]) == describe([picture(head(LESION))])


def test_left_and_right_swap_with_the_affine():
    mirrored = PICTURE.copy()
    mirrored[:, 1] *= -1
    describe = MeasuredText()
    (left,), (right,) = describe([picture(head(LESION))]), describe([picture(head(LESION), affine=mirrored)])
    assert "Left anterior bright region" in left
    assert "Left half brighter" in left
    swapped = left.replace("Left", "Right")
    assert right == swapped


@pytest.mark.parametrize(
    ("columns", "plane", "place"),
    [
        (((0, 0, -1), (-1, 0, 0), (0, 1, 0)), "Coronal", ("left", "superior")),
        (((0, 0, -1), (0, -1, 0), (1, 0, 0)), "Sagittal", ("", "posterior superior")),
    ],
)
def test_other_planes(columns, plane, place):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    image = picture(head(LESION), affine=affine)
    assert MeasuredText()([image])[0].startswith(f"{plane} MR. ")
    (found,) = regions(image)
    assert (found.side, found.place) == place
    assert ("asymmetry" in kinds(image)) == (plane == "Coronal")


def test_a_volume_is_described_as_a_whole_in_mm():
    values = 0.4 * ball((64, 80, 48), (32, 40, 24), (28, 36, 22))
    values[ball(values.shape, (20, 60, 24), (6, 6, 4))] = 0.9
    image = picture(values[None], "fused", np.diag([2.0, 2, 3, 1]))
    assert MeasuredText()([image])[0].startswith("Volume, fused image. ")
    (found,) = regions(image)
    assert (found.side, found.place, found.unit) == ("left", "anterior", "mm")
    assert found.size == pytest.approx((4 / 3 * np.pi * 12**3) ** (1 / 3), rel=0.15)


def test_real_pixels_give_mm():
    (found,) = regions(picture(head(LESION), affine=PICTURE @ np.diag([0.5, 0.5, 1, 1])))
    assert found.unit == "mm"
    assert found.size == pytest.approx(12 * np.pi**0.5 / 2, rel=0.15)


def test_sizes_do_not_depend_on_the_number_of_pixels():
    small, large = (regions(picture(head(LESION, size=size))) for size in (128, 512))
    assert (small[0].side, small[0].place) == (large[0].side, large[0].place) == ("left", "anterior")
    assert small[0].size == pytest.approx(large[0].size, rel=0.1)


def test_three_equal_channels_are_as_grey():
    describe = MeasuredText()
    grey = head(LESION)
    assert describe([picture(np.stack([grey] * 3))]) == describe([picture(grey)])


@pytest.mark.parametrize(
    ("modality", "starts"),
    [
        ("CT", "Axial CT. "),
        ("PT", "Axial PET. "),
        ("NM", "Axial SPECT. "),
        ("fused", "Axial fused image. "),
        (None, "Axial image. "),
    ],
)
def test_the_modality_is_named_and_kinds_are_the_same(modality, starts):
    (text,) = MeasuredText()([picture(head(LESION), modality)])
    assert text.startswith(starts)
    assert regions(picture(head(LESION), modality))[0].kind == "bright region"


def test_a_head_may_touch_the_border():
    values = np.full((64, 64), 0.4)
    values[10:22, 40:52] = 0.9
    image = picture(values)
    assert kinds(image)["head extent"].size == 100
    assert [(f.side, f.place) for f in regions(image)] == [("left", "anterior")]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (1, 31, 17), (3, 64, 64), (1, 5, 6, 7)])
def test_an_image_without_content_is_described(level, shape):
    image = picture(np.full(shape, level))
    (text,) = MeasuredText()([image])
    assert f"Head extent, {100.0 if level else 0.0}% of the image." in text
    assert regions(image) == []
    assert parse_findings(text) == MeasuredText().findings(image)


@pytest.mark.parametrize("size", [2, 7, 16, 31])
def test_small_images(size):
    values = np.random.default_rng(size).random((size, size))
    (text,) = MeasuredText()([picture(values)])
    assert parse_findings(text) == MeasuredText().findings(picture(values))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(np.full((8, 8), np.nan)), "NaN"),
        (picture(np.full((8, 8), np.inf)), "infinity"),
        (picture(np.full((8, 8), 255.0)), "255 to 255"),
        (picture(np.full((8, 8), -0.5)), r"\[0, 1\]"),
        (picture(np.zeros((2, 8, 8))), "shape"),
        (picture(np.zeros((1, 0, 8))), "shape"),
        (picture(np.zeros((1, 8, 8)), affine=np.zeros((4, 4))), "affine"),
        (torch.zeros(1, 8, 8), "MetaTensor"),
    ],
)
def test_what_cannot_be_described_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        MeasuredText()([image])


def test_configuration_is_json_and_names_the_kind():
    configuration = MeasuredText().configuration
    assert json.loads(json.dumps(configuration)) == configuration
    assert configuration["kind"] == "measured"


def atlas(shared, pair, count):
    """A few of the atlas' training slices of a pair, both modalities."""
    folder = shared / "data" / "aanlib"
    if not folder.is_dir():
        pytest.skip("needs data/aanlib in the shared reference folder")
    items = aanlib_pairs(folder, "train", [pair])
    for index in np.linspace(0, len(items) - 1, count).astype(int):
        for key, modality in (("anatomy", "MR"), ("overlay", {"CT": "CT", "PET": "PT", "SPECT": "NM"}[pair[:-4]])):
            image = read_image(items[index][key])
            image = image / image.meta["white"]
            image.meta["modality"] = modality
            yield image


@pytest.mark.parametrize("pair", ["CT-MRI", "PET-MRI", "SPECT-MRI"])
def test_real_slices(shared, pair):
    describe = MeasuredText()
    images = list(atlas(shared, pair, 8))
    start = time.process_time()
    texts = describe(images)
    assert time.process_time() - start < 0.1 * len(images)  # it takes a fifth of that
    assert describe(images) == texts
    assert len(set(texts)) == len(texts)
    for image, text in zip(images, texts, strict=True):
        assert parse_findings(text) == describe.findings(image)
        assert len(text.split()) <= 120
        assert any(finding.kind in REGIONS for finding in describe.findings(image))
        if image.meta["modality"] == "CT":
            assert kinds(image)["bright rim"].size > 70


def test_the_left_temporal_lesion_of_a_real_slice(shared):
    folder = shared / "data" / "aanlib" / "CT-MRI" / "MRI"
    if not folder.is_dir():
        pytest.skip("needs data/aanlib in the shared reference folder")
    image = read_image(folder / "28008.png")  # the bright lesion is on the right of the picture
    image = image / image.meta["white"]
    largest = regions(image)[0]
    assert (largest.kind, largest.side) == ("bright region", "left")
    assert kinds(image)["asymmetry"].side == "left"
