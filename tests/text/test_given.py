import torch
from monai.data import MetaTensor
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.text import GivenText


class Naming:
    """Tells the name of the file, and remembers how often it was asked."""

    configuration = {"kind": "naming"}

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return [f"file {image.meta['filename_or_obj']}" for image in images]


def image(name, **meta):
    return MetaTensor(torch.rand(1, 4, 4), meta={"filename_or_obj": name, **meta})


def test_text_that_came_with_the_image():
    texts = GivenText()([image("a.png", text="T1."), image("b.png", text="FDG.")])
    assert texts == ["T1.", "FDG."]
    assert GivenText()([]) == []


def test_image_without_a_text():
    for meta in ({}, {"text": ""}, {"text": None}):
        with refused(Reason.TEXT, "b.png", '"anatomy_text"'):
            GivenText()([image("a.png", text="T1."), image("b.png", **meta)])


def test_another_describer_is_asked_for_the_others():
    naming = Naming()
    images = [image("a.png"), image("b.png", text="FDG."), image("c.png", text="")]
    assert GivenText(naming)(images) == ["file a.png", "FDG.", "file c.png"]
    assert naming.calls == 1
    assert GivenText(naming)(images[1:2]) == ["FDG."]
    assert naming.calls == 1


def test_configuration():
    assert GivenText().configuration == {"kind": "given", "otherwise": None}
    assert GivenText(Naming()).configuration == {"kind": "given", "otherwise": {"kind": "naming"}}
