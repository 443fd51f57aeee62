import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.transforms import Describe, Described

AFFINE = nib.affines.from_matvec([[-0.9, 0.2, 0.1], [0.1, 1.4, -0.3], [0.1, 0.4, 2.9]], (12, -7, 33))


def image(*shape, **meta):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": "a.nii.gz", **meta})


class Telling:
    """Tells modality and mean, and remembers what it was asked."""

    configuration = {"kind": "telling"}

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        self.calls.append(list(images))
        return [f"{one.meta.get('modality')} {one.mean():.6f}" for one in images]


def test_a_text_per_image():
    picture = image(1, 9, 7, modality="MR")
    assert Describe(Telling())(picture) == f"MR {picture.mean():.6f}"
    assert Describe(Telling(), per="slice")(picture) == f"MR {picture.mean():.6f}"
    volume = image(3, 9, 7, 4)
    assert Describe(Telling())(volume) == f"None {volume.mean():.6f}"


def test_a_text_per_slice_which_knows_where_it_lies():
    volume, describer = image(1, 9, 7, 4, modality="PT"), Telling()
    texts = Describe(describer, per="slice")(volume)
    assert texts == [f"PT {volume[..., index].mean():.6f}" for index in range(4)]
    assert len(describer.calls) == 1
    for index, part in enumerate(describer.calls[0]):
        assert part.shape == (1, 9, 7)
        assert part.meta["filename_or_obj"] == "a.nii.gz"
        same = SpatialCrop(roi_start=(0, 0, index), roi_end=(9, 7, index + 1))(volume)
        np.testing.assert_allclose(part.affine, same.affine, atol=1e-6)
        assert torch.equal(part.as_tensor(), same.as_tensor()[..., 0])
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_several_images_in_one_call():
    describer = Telling()
    images = [image(1, 9, 7), image(1, 9, 7, 3), image(3, 5, 5)]
    texts = Describe(describer, per="slice").describe(images)
    assert texts == [Describe(Telling(), per="slice")(one) for one in images]
    assert [type(text) for text in texts] == [str, list, str]
    assert len(describer.calls) == 1


def test_silence_is_an_error_that_names_the_file():
    with refused(Reason.TEXT, "a.nii.gz"):
        Describe(lambda images: [""])(image(1, 9, 7))


def test_unknown_per():
    with pytest.raises(ValueError, match="per is 'volume'"):
        Describe(Telling(), per="volume")


# dictionary twin


def test_twin_writes_what_is_absent_or_empty():
    describer = Telling()
    data = {
        "anatomy": image(1, 9, 7),
        "overlay": image(3, 9, 7),
        "anatomy_modality": "MR",
        "overlay_modality": "NM",
        "overlay_text": "",
    }
    described = Described(["anatomy", "overlay"], describer)(data)
    assert described["anatomy_text"] == f"MR {data['anatomy'].mean():.6f}"
    assert described["overlay_text"] == f"NM {data['overlay'].mean():.6f}"
    assert len(describer.calls) == 1
    assert described["overlay"].meta["modality"] == "NM"
    assert "modality" not in data["overlay"].meta
    assert data["overlay_text"] == ""


def test_given_text_wins():
    describer = Telling()
    data = {
        "anatomy": image(1, 9, 7, 2),
        "overlay": image(1, 9, 7, 2),
        "anatomy_text": "T1.",
        "overlay_text": ["a", "b"],
    }
    described = Described(["anatomy", "overlay"], describer)(data)
    assert (described["anatomy_text"], described["overlay_text"]) == ("T1.", ["a", "b"])
    assert describer.calls == []


@pytest.mark.parametrize("shape", [(1, 9, 7, 3), (1, 9, 7)])
def test_given_texts_that_are_not_one_per_slice(shape):
    with refused(Reason.TEXT, "a.nii.gz", "overlay_text"):
        Described("overlay", Telling())({"overlay": image(*shape), "overlay_text": ["a", "b"]})


def test_missing_keys():
    with pytest.raises(KeyError):
        Described("anatomy", Telling())({})
    assert Described("anatomy", Telling(), allow_missing_keys=True)({}) == {}
