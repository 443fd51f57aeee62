import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RandAffine, RandScaleIntensity

from fusion_nets.text import MeasuredText
from fusion_nets.transforms import RandRedescribe, RandRedescribed, TakeSource, TakeSourced


def disc(radius=20.0, level=0.5):
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    values = level * ((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < radius**2)
    return MetaTensor(values[None], affine=torch.diag(torch.tensor([-1.0, -1, 1, 1])), meta={"modality": "MR"})


@pytest.mark.parametrize("role", ["anatomy", "overlay"])
def test_a_source_becomes_image_and_text(role):
    item = {role: disc(), f"{role}_text": "a disc", f"{role}_modality": "NM", "name": "x"}
    taken = TakeSourced()(item)
    assert set(taken) == {"image", "text"}
    assert taken["text"] == "a disc"
    assert taken["image"].meta["modality"] == "NM"
    unknown = {role: MetaTensor(torch.rand(1, 4, 4)), f"{role}_text": "a disc"}
    assert "modality" not in TakeSourced()(unknown)["image"].meta


def test_the_text_is_that_of_the_changed_image():
    changes = [
        RandAffine(prob=1.0, scale_range=[(0.4, 0.5), (0.4, 0.5)], padding_mode="zeros"),
        RandScaleIntensity(factors=(3.0, 3.0), prob=1.0),
    ]
    change = RandRedescribed("image", MeasuredText(), changes)
    change.set_random_state(0)
    image = disc()
    (before,) = MeasuredText()([image])
    data = change({"image": image, "text": before})
    assert data["image"].shape == image.shape
    assert torch.equal(data["image"].affine, image.affine)
    assert data["image"].meta["modality"] == "MR"
    assert data["image"].max() == 1, "three times 0.5 is clamped"
    assert data["text"] == MeasuredText()([data["image"]])[0] != before
    extent = {text: MeasuredText().findings(one)[0].size for text, one in (("b", image), ("a", data["image"]))}
    assert extent["a"] < 0.6 * extent["b"]
    assert torch.equal(image, disc()), "the image that came in stays"


def test_seeded_and_now_and_then():
    def run(seed):
        change = RandRedescribed("image", MeasuredText(), [RandAffine(prob=1.0, rotate_range=0.5)], prob=0.5)
        change.set_random_state(seed)
        return [change({"image": disc(radius=18 + i), "text": "old"}) for i in range(12)]

    first, again, other = run(1), run(1), run(2)
    texts = [data["text"] for data in first]
    assert 0 < texts.count("old") < 12
    assert texts == [data["text"] for data in again] != [data["text"] for data in other]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))


def test_twins_do_the_same():
    taken = TakeSource()(disc(), "a disc", "NM")
    assert taken["text"] == "a disc"
    assert taken["image"].meta["modality"] == "NM"

    def change():
        return {"describer": MeasuredText(), "transforms": [RandAffine(prob=1.0, rotate_range=0.5)], "prob": 0.5}

    array, dictionary = RandRedescribe(**change()), RandRedescribed("image", **change())
    array.set_random_state(3)
    dictionary.set_random_state(3)
    texts = []
    for i in range(6):
        image, text = array(disc(radius=18 + i))
        data = dictionary({"image": disc(radius=18 + i), "text": None})
        assert torch.equal(image, data["image"])
        assert text == data["text"]
        texts.append(text)
    assert 0 < texts.count(None) < 6


def test_missing_keys():
    change = RandRedescribed("image", MeasuredText(), [])
    with pytest.raises(KeyError):
        change({"text": "a"})
    assert RandRedescribed("image", MeasuredText(), [], allow_missing_keys=True)({"text": "a"}) == {"text": "a"}
