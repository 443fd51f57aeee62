import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from fusion_nets.transforms import RandInsertLesions, RandInsertLesionsd


@pytest.fixture
def pair():
    rows, columns = np.mgrid[:160, :160]
    head = (np.hypot(rows - 80, columns - 80) < 70).astype(np.float32)
    texture = np.random.default_rng(0).uniform(-0.03, 0.03, (2, 160, 160))
    return torch.from_numpy((head * (np.array([0.4, 0.5])[:, None, None] + texture)).astype(np.float32))


def test_the_map_is_where_the_pair_changes(pair):
    lesion_image, lesion_map = RandInsertLesions().set_random_state(seed=1)(pair)
    changed = (lesion_image != pair).any(0)
    assert torch.equal(changed, lesion_map[0] > 0)
    assert lesion_map.unique().tolist() == [0, 1, 2, 3]
    assert lesion_image.dtype == torch.float32
    assert lesion_map.dtype == torch.uint8
    assert 0 <= lesion_image.min() <= lesion_image.max() <= 1


def test_every_kind_of_sign_is_drawn(pair):
    insert, signs = RandInsertLesions().set_random_state(seed=0), set()
    for _ in range(40):
        lesion_image, lesion_map = insert(pair)
        for label in lesion_map.unique()[1:]:
            change = (lesion_image - pair)[:, lesion_map[0] == label].sum(1)
            signs.add(tuple(int(s) if abs(c) > 0.5 else 0 for s, c in zip(change.sign(), change, strict=True)))
    assert signs >= {(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)}


def test_the_same_seed_the_same_lesions_in_both_twins(pair):
    item = {"image": MetaTensor(pair), "pair": "PET-MRI"}
    one = RandInsertLesionsd("image").set_random_state(seed=5)(item)
    image, lesion_map = RandInsertLesions().set_random_state(seed=5)(pair)
    assert torch.equal(one["lesion_image"], image)
    assert torch.equal(one["lesion_map"], lesion_map)
    assert one["image"] is item["image"]


def test_bone_of_a_ct_has_none(pair):
    rows, columns = np.mgrid[:160, :160]
    bone = torch.from_numpy((np.abs(np.hypot(rows - 80, columns - 80) - 66) < 5).astype(np.float32))
    pair[1] = torch.maximum(pair[1], bone)
    insert = RandInsertLesionsd("image", radii=(2.0, 3.0)).set_random_state(seed=0)
    for _ in range(10):
        item = insert({"image": pair, "pair": "CT-MRI"})
        assert item["lesion_map"].any()
        assert not item["lesion_map"][0, bone == 1].any()


def test_no_place_no_lesion():
    item = RandInsertLesionsd("image").set_random_state(seed=0)({"image": torch.zeros(2, 32, 32)})
    assert torch.equal(item["lesion_image"], item["image"])
    assert not item["lesion_map"].any()


@pytest.mark.parametrize(
    ("wrong", "name"), [({"most": 0}, "most"), ({"radii": (5, 2)}, "radii"), ({"amplitudes": (0.1, 2)}, "amplitudes")]
)
def test_limits_are_checked(wrong, name):
    with pytest.raises(ValueError, match=name):
        RandInsertLesions(**wrong)


def test_a_pair_is_two_flat_images():
    with pytest.raises(ValueError, match="2 or more"):
        RandInsertLesions()(torch.rand(1, 64, 64))
