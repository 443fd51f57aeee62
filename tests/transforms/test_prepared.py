import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Lambdad
from refusals import refused

from fusion_nets.clinical import ImageError, Reason
from fusion_nets.transforms import CheckLuminances, CheckLuminancesd, WhereGiven, WhereGivend


def test_transforms_what_has_all_keys():
    add = WhereGivend(
        ("anatomy", "overlay"), [Lambdad("anatomy", lambda x: x + 1), Lambdad("overlay", lambda x: x * 2)]
    )
    assert add({"anatomy": 1, "overlay": 3, "name": "a"}) == {"anatomy": 2, "overlay": 6, "name": "a"}


@pytest.mark.parametrize("data", [{"image": 5}, {"anatomy": 1}, {}])
def test_leaves_others_as_they_are(data):
    assert WhereGivend(("anatomy", "overlay"), [Lambdad("anatomy", lambda x: x + 1)])(data) == data


def test_an_error_inside_keeps_its_cause():
    def refuse(_):
        raise ImageError(Reason.DAMAGED, "a reason")

    with pytest.raises(RuntimeError) as caught:
        WhereGivend("image", [refuse])({"image": 1})
    assert isinstance(caught.value.__cause__, ImageError)


@pytest.mark.parametrize("shape", [(2, 32, 40), (2, 40, 32, 1), (4, 32, 40)])
def test_two_luminances_pass_unchanged(shape):
    image = torch.rand(shape)
    assert torch.equal(CheckLuminancesd()({"image": image})["image"], image)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (torch.zeros(1, 32, 32), Reason.SHAPE),
        (torch.zeros(2, 32), Reason.SHAPE),
        (torch.zeros(2, 32, 31, 9), Reason.TOO_SMALL),
        (torch.full((2, 32, 32), 1.5), Reason.VALUES),
        (torch.full((2, 32, 32), -0.1), Reason.VALUES),
        (torch.full((2, 32, 32), torch.nan), Reason.VALUES),
    ],
)
def test_others_are_refused(image, reason):
    with refused(reason):
        CheckLuminancesd()({"image": image})


def test_twins():
    image = torch.rand(2, 32, 32)
    assert CheckLuminances()(image) is image
    with refused(Reason.SHAPE, "pair 3: "):
        CheckLuminances()(image[:1], "pair 3")
    with refused(Reason.SHAPE, "pred: "):
        CheckLuminancesd("pred")({"pred": image[:1]})
    assert WhereGiven([lambda x: x + 1, lambda x: x * 2])(3) == 8
    assert WhereGiven([lambda x: x + 1])(None) is None


def test_refusal_names_the_file():
    image = MetaTensor(torch.zeros(5, 32, 32), meta={"filename_or_obj": "there.nii.gz"})
    with refused(Reason.SHAPE, "there.nii.gz"):
        CheckLuminancesd()({"image": image})


def test_smaller_slices_where_the_network_takes_them_and_missing_keys():
    CheckLuminancesd(smallest=8)({"image": torch.zeros(2, 8, 8)})
    assert CheckLuminancesd(allow_missing_keys=True)({}) == {}
    with pytest.raises(KeyError):
        CheckLuminancesd()({})
