import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandGaussianNoised, RandLambdad
from scipy import ndimage
from torch.utils.data import DataLoader

from fusion_nets.simulation import (
    KINDS,
    MODALITIES,
    SimulatedPairs,
    SimulatedSources,
    simulate_pair,
    simulate_sources,
)
from fusion_nets.simulation.simulated_lesions import _offset
from fusion_nets.transforms import RandInsertLesionsd

pytest.importorskip("nilearn")


@pytest.fixture(scope="module")
def pairs():
    """Some of every modality, heads and shapes."""
    return [simulate_pair([1, i], MODALITIES[i % 3], 128, is_head=i % 2 == 0) for i in range(60)]


def test_the_same_seed_gives_the_same_pair_and_another_another():
    first, again, other = (simulate_pair([7, i], "PT", 96) for i in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.lesion_image, again.lesion_image)
    assert first.truth() == again.truth()
    assert not np.array_equal(first.image, other.image)


def test_images_are_in_the_display_range(pairs):
    for pair in pairs:
        for images in (pair.image, pair.lesion_image):
            assert images.shape == (2, 128, 128)
            assert images.dtype == np.float32
            assert images.min() >= 0
            assert images.max() <= 1
        assert all((image > 0.1).mean() > 0.01 for image in pair.image)


def test_the_map_is_where_the_images_differ(pairs):
    changed = 0
    for pair in pairs:
        differs = (pair.image != pair.lesion_image).any(0)
        assert np.array_equal(differs, pair.lesion_map > 0)
        assert sorted(set(pair.lesion_map.ravel()) - {0}) == [lesion.label for lesion in pair.lesions]
        changed += differs.any()
    assert changed >= 55


def test_contrast_is_what_the_images_say(pairs):
    kept = 0
    for pair in pairs:
        difference = pair.lesion_image - pair.image
        for lesion in pair.lesions:
            here = pair.lesion_map == lesion.label
            for source in (0, 1):
                if lesion.wanted[source] == 0:
                    assert not difference[source][here].any()
                    assert lesion.contrast[source] == 0
                elif abs(lesion.contrast[source]) > 0.02:
                    assert np.sign(difference[source][here].sum()) == np.sign(lesion.contrast[source])
                    kept += np.sign(lesion.contrast[source]) == lesion.wanted[source]
    assert kept > 60


def test_most_lesions_show_the_sign_that_was_wanted(pairs):
    shown = [
        wanted * contrast
        for pair in pairs
        for lesion in pair.lesions
        for wanted, contrast in zip(lesion.wanted, lesion.contrast, strict=True)
        if wanted
    ]
    assert np.mean(np.array(shown) > 0) > 0.9  # a display may saturate, and colour maps fall
    assert max(shown) < 0.45


def test_lesions_are_of_the_sizes_asked_for():
    sizes = [
        lesion.size
        for i in range(12)
        for lesion in simulate_pair([2, i], "CT", 160, lesion_sizes=(8, 12), spacing=(1, 1), is_head=False).lesions
    ]
    assert len(sizes) > 15
    assert min(sizes) >= 8
    assert max(sizes) <= 12


def test_area_follows_size():
    sizes, areas = [], []
    for i in range(24):
        pair = simulate_pair([3, i], "CT", 160, is_head=False, spacing=(1, 1), contrasts=(0.3, 0.3))
        for lesion in pair.lesions:
            sizes.append(lesion.size)
            areas.append((pair.lesion_map == lesion.label).sum())
    assert np.corrcoef(np.square(sizes), areas)[0, 1] > 0.8


def test_contrasts_are_of_the_heights_asked_for():
    for heights, least, most in (((0.05, 0.06), 0.0, 0.08), ((0.3, 0.32), 0.1, 0.4)):
        contrasts = [
            np.abs(lesion.contrast).max()
            for i in range(10)
            for lesion in simulate_pair([4, i], "CT", 128, is_head=False, contrasts=heights, distractors=0).lesions
        ]
        assert least < np.median(contrasts) < most


def test_sides_of_upright_heads_are_the_patients():
    sides = 0
    for i in range(30):
        pair = simulate_pair([5, i], "CT", 192, is_head=True, upright=1.0, spacing=(1.2, 1.2), lesions=4)
        if pair.plane in ("axial", "coronal"):
            columns = np.flatnonzero((pair.image[1] > 0.15).any(0))
            middle = columns.mean()
            for lesion in pair.lesions:
                if abs(lesion.centre[1] - middle) > 25:
                    assert lesion.side == ("right" if lesion.centre[1] < middle else "left")
                    sides += 1
    assert sides > 15


def test_turned_heads_have_no_plane():
    planes = {simulate_pair([6, i], "CT", 64, is_head=True, upright=0.0).plane for i in range(5)}
    assert planes == {""}


def test_only_the_kinds_asked_for():
    lesions = [
        lesion
        for i in range(8)
        for lesion in simulate_pair([8, i], "CT", 160, is_head=True, kinds=["haemorrhage"]).lesions
    ]
    assert {lesion.kind for lesion in lesions} == {"haemorrhage"}
    assert {lesion.wanted[1] for lesion in lesions} <= {0, 1}  # never dark in the CT


def test_every_kind_occurs():
    found = {
        lesion.kind
        for i in range(150)
        for lesion in simulate_pair([9, i], MODALITIES[i % 3], 128, is_head=True, lesions=4).lesions
    }
    assert found == set(KINDS)


def test_bone_is_white_in_a_ct_of_the_brain():
    """Between air and brain, along every ray from the middle of an axial slice, there is bone."""
    judged = 0
    for i in range(40):
        pair = simulate_pair([10, i], "CT", 224, is_head=True, upright=1.0, spacing=(1.05, 1.05), lesions=0)
        image = pair.image[1]
        if pair.plane != "axial" or pair.sequences[1] != "brain":
            continue
        y, x = (int(np.mean(axis)) for axis in np.nonzero(image > 0.95))
        rays = [image[y, :x], image[y, x:], image[:y, x], image[y:, x]]
        judged += 1
        assert np.mean([ray.max() > 0.95 for ray in rays]) >= 0.75
    assert judged > 5


def test_wrong_arguments_say_what_is_accepted():
    with pytest.raises(ValueError, match="32 pixels or more"):
        simulate_pair(0, size=16)
    with pytest.raises(ValueError, match="accepted are CT, PT, NM"):
        simulate_pair(0, "MR")
    with pytest.raises(ValueError, match="accepted are one or more of blob"):
        simulate_pair(0, kinds=["cyst"])
    with pytest.raises(ValueError, match="rising"):
        simulate_pair(0, contrasts=(0.3, 0.1))


def test_rows_and_columns_may_differ():
    pair = simulate_pair(3, "NM", (64, 96))
    assert pair.image.shape == (2, 64, 96)
    assert pair.lesion_map.shape == (64, 96)


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_the_same_in_any_number_of_workers(workers):
    data = SimulatedPairs(seed=3, length=9, size=64, truth=True)
    alone = list(DataLoader(data, batch_size=3))
    shared = list(DataLoader(data, batch_size=3, num_workers=workers))
    for ours, theirs in zip(alone, shared, strict=True):
        for key in ("image", "lesion_image", "lesion_map", "contrast", "modality"):
            assert torch.equal(ours[key], theirs[key])
        assert ours["truth"] == theirs["truth"]
        assert ours["pair"] == ["CT-MRI", "PET-MRI", "SPECT-MRI"]


def test_items_hold_what_they_say():
    data = SimulatedPairs(seed=1, length=4, size=64, modalities=["NM"], lesions=2, truth=True, distractors=0)
    assert len(data) == 4
    item = data[3]
    assert item["image"].shape == item["lesion_image"].shape == (2, 64, 64)
    assert item["image"].dtype == torch.float32
    assert item["lesion_map"].shape == (1, 64, 64)
    assert item["contrast"].shape == (2, 2)
    assert item["modality"] == 2
    truth = json.loads(item["truth"])
    for lesion in truth["lesions"]:
        assert item["contrast"][lesion["label"] - 1].tolist() == pytest.approx(lesion["contrast"])
    with pytest.raises(IndexError, match="0 to 3"):
        data[4]


def test_share_of_shapes():
    for share, expected in ((0.0, {True}), (1.0, {False})):
        data = SimulatedPairs(seed=1, length=4, size=48, shapes_share=share, truth=True)
        assert {json.loads(data[i]["truth"])["is_head"] for i in range(4)} == expected


def test_the_transform_comes_last():
    data = SimulatedPairs(seed=1, length=2, size=48, shapes_share=1.0, transform=lambda item: sorted(item))
    assert data[0] == ["contrast", "image", "lesion_image", "lesion_map", "modality", "pair"]


def test_what_a_transform_draws_is_the_items_own():
    """In any order and at every time: validation is on the same pairs, and a run that went on sees what it would."""

    def made():
        draw = Compose([RandGaussianNoised("image", prob=1.0), RandLambdad("lesion_map", torch.zeros_like, prob=0.5)])
        return SimulatedPairs(seed=1, length=6, size=48, shapes_share=1.0, transform=draw)

    data, again = made(), made()
    forth = [data[index] for index in range(6)]
    back = [again[index] for index in reversed(range(6))][::-1]
    for one, other, plain in zip(forth, back, SimulatedPairs(seed=1, length=6, size=48, shapes_share=1.0), strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["lesion_map"], other["lesion_map"])
        assert torch.equal(one["lesion_image"], plain["lesion_image"]), "the pair is what it is without a transform"
    noises = [one["image"] - one["lesion_image"] for one in forth]
    assert not torch.equal(noises[0], noises[1])


def test_a_bundle_names_it():
    from monai.bundle import ConfigParser

    config = {
        "data": {
            "_target_": "fusion_nets.simulation.SimulatedPairs",
            "seed": 2,
            "length": 3,
            "size": 64,
            "shapes_share": 1.0,
            "truth": True,
            "transform": {"_target_": "fusion_nets.text.WriteTruthd"},
        }
    }
    item = ConfigParser(config).get_parsed_content("data")[0]
    assert item["anatomy_text"].startswith("MRI.")
    assert item["overlay_text"].startswith("CT.")


def test_the_overlay_lies_beside_the_anatomy_by_what_is_asked():
    """Every part of a seed's pair but the overlay's place is the same."""
    options = {"lesions": 0, "distractors": 0, "is_head": True}
    moved = 0
    for seed in range(6, 12):
        still, near, far = (simulate_pair(seed, "CT", 96, misregistration=most, **options) for most in (0, 2, 6))
        assert np.array_equal(still.image[0], near.image[0])
        apart = [np.abs(pair.image[1] - still.image[1]).mean() for pair in (near, far)]
        assert apart[1] >= apart[0]
        moved += apart[1] > 1.5 * apart[0] > 0
    assert moved > 1


def test_a_lesion_lies_where_a_turned_overlay_has_its_place():
    spot = np.zeros((101, 121))
    spot[30, 90] = 1
    turned = ndimage.rotate(ndimage.gaussian_filter(spot, 1.5), 7.0, reshape=False, order=1)
    found = ndimage.center_of_mass(ndimage.shift(turned, (3, -2), order=1))
    offset = _offset((30, 90), spot.shape, (3, -2), 7.0)
    assert np.allclose((30 + offset[0], 90 + offset[1]), found, atol=0.02)
    pair = simulate_pair(5, "CT", 96, is_head=True, rotation=10.0)
    assert not np.array_equal(pair.image, simulate_pair(5, "CT", 96, is_head=True).image)


def test_several_sources_show_the_same_slice():
    shared = []
    for seed in range(8):
        image = simulate_sources(seed, ("CT", "PT", "NM"), 96, is_head=True, upright=1.0, misregistration=0.0)
        assert image.shape == (4, 96, 96)
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
        uptake, head = image[2] > 0.3, ndimage.binary_fill_holes(image[1] > 0.1)
        shared.append((uptake & head).sum() / uptake.sum())
    assert np.median(shared) > 0.9, "uptake lies in the head that the CT shows"
    with pytest.raises(ValueError, match="MR"):
        simulate_sources(0, ("CT", "MR"))


def test_sets_are_the_same_in_any_process_and_say_what_they_are_of():
    sets = SimulatedSources(3, 4, 64, ("CT", "PT"), transform=RandInsertLesionsd("image"))
    again = list(DataLoader(sets, batch_size=None, num_workers=2))
    for item, other in zip((sets[i] for i in range(4)), again, strict=True):
        assert item["pair"] == "CT-PET-MRI"
        assert torch.equal(item["lesion_image"], other["lesion_image"])
        changed = (item["lesion_image"] != item["image"]).flatten(1)
        for label in range(1, int(item["lesion_map"].max()) + 1):
            here = changed[:, (item["lesion_map"] == label).flatten()]
            assert here.any(1).sum() == 1, "a lesion of several sources is in one"
    with pytest.raises(IndexError):
        sets[4]
