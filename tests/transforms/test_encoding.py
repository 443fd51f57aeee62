import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from refusals import refused

from fusion_nets.clinical import Reason
from fusion_nets.text import EncodedText, MeasuredText, parse_findings
from fusion_nets.transforms import (
    EncodeText,
    EncodeTextd,
    RandForgetText,
    RandForgetTextd,
    RandMirror,
    RandMirrord,
    swap_sides,
)
from fusion_nets.workflows import PairStream

KEYS = ["anatomy_text", "overlay_text"]
PICTURE_AFFINE = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


class LetterEncoder:
    """A letter is a state (its number, 1); the vector is their sum. Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        length = max(len(text) for text in texts)
        states, mask = torch.zeros(len(texts), length, 2), torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(texts):
            for place, letter in enumerate(text):
                states[row, place] = torch.tensor([ord(letter) - 96, 1])
                mask[row, place] = True
        return EncodedText(states, mask, states.sum(1))


@pytest.fixture
def encoder():
    return LetterEncoder()


def words(states, mask):
    """Back to text."""
    return "".join(chr(int(state[0]) + 96) for state in states[mask])


def test_one_text_a_source(encoder):
    states, mask, vector = EncodeText(encoder)(["abc", "b"])
    assert states.shape == (2, 3, 2)
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert vector.tolist() == [[6, 3], [2, 1]]


def test_texts_per_slice(encoder):
    states, mask, vector = EncodeText(encoder)(["ab", ["x", "yyy", ""]])
    assert states.shape == (3, 2, 3, 2)
    assert mask.shape == (3, 2, 3)
    assert vector.shape == (3, 2, 2)
    read = [[words(*row) for row in zip(*of_slice, strict=True)] for of_slice in zip(states, mask, strict=True)]
    assert read == [["ab", "x"], ["ab", "yyy"], ["ab", ""]]
    assert EncodeText(encoder)([["a"], "b"])[0].shape == (1, 2, 1, 2)


def test_lists_that_do_not_belong_together(encoder):
    with pytest.raises(ValueError, match="2 and 3 slices"):
        EncodeText(encoder)([["a", "b"], ["a", "b", "c"]])


def test_dictionary_twin(encoder):
    data = {"anatomy_text": "ab", "overlay_text": "c", "pair": "x"}
    encoded = EncodeTextd(KEYS, encoder)(data)
    assert set(encoded) == {*data, "text", "text_mask", "text_vector"}
    assert set(data) == {*KEYS, "pair"}
    for part, expected in zip(("text", "text_mask", "text_vector"), EncodeText(encoder)(["ab", "c"]), strict=True):
        assert torch.equal(encoded[part], expected)
    assert "said_mask" in EncodeTextd(KEYS, encoder, name="said")(data)
    assert EncodeTextd("anatomy_text", encoder)(data)["text"].shape == (1, 2, 2)


@pytest.mark.parametrize("absent", [{}, {"overlay_text": ""}, {"overlay_text": None}])
def test_a_source_without_text_is_empty(encoder, absent):
    encoded = EncodeTextd(KEYS, encoder)({"anatomy_text": "ab", **absent})
    assert encoded["text_mask"].tolist() == [[True, True], [False, False]]
    assert encoded["text_vector"][1].tolist() == [0, 0]


@pytest.mark.parametrize("texts", [{}, {"anatomy_text": "", "overlay_text": " "}, {"overlay_text": ["", ""]}])
def test_without_any_text_no_encoder_is_needed(encoder, texts):
    data = {**texts, "image": torch.zeros(2, 8, 8, 2)}
    assert set(EncodeTextd(KEYS, encoder, slices_of="image")(data)) == set(data)
    assert encoder.asked == []


def of_image(encoder, shape, **texts):
    return EncodeTextd(KEYS, encoder, slices_of="image")({"name": "case", "image": torch.zeros(shape), **texts})


def test_the_image_says_how_many_sources_there_are(encoder):
    keys = (*KEYS, "overlay2_text", "overlay3_text")
    data = {"name": "case", "image": torch.zeros(3, 8, 8), "anatomy_text": "ab", "overlay2_text": "c"}
    encoded = EncodeTextd(keys, encoder, slices_of="image")(data)
    assert encoded["text"].shape[0] == 3
    assert [words(*row) for row in zip(encoded["text"], encoded["text_mask"], strict=True)] == ["ab", "", "c"]


def test_a_text_on_a_volume_holds_for_every_slice(encoder):
    encoded = of_image(encoder, (2, 8, 8, 3), anatomy_text="ab", overlay_text="c")
    assert encoded["text"].shape == (3, 2, 2, 2)
    assert encoded["text_mask"].shape == (3, 2, 2)
    assert encoded["text_vector"].shape == (3, 2, 2)
    assert [words(*row) for row in zip(encoded["text"][2], encoded["text_mask"][2], strict=True)] == ["ab", "c"]
    assert encoder.asked == ["ab", "c"]


def test_texts_per_slice_of_a_volume(encoder):
    encoded = of_image(encoder, (2, 8, 8, 3), anatomy_text="a", overlay_text=["x", "", "z"])
    read = [
        [words(*row) for row in zip(*of_slice, strict=True)]
        for of_slice in zip(encoded["text"], encoded["text_mask"], strict=True)
    ]
    assert read == [["a", "x"], ["a", ""], ["a", "z"]]


def test_a_picture_has_one_text_a_source(encoder):
    encoded = of_image(encoder, (2, 8, 8), anatomy_text="a", overlay_text="bc")
    assert torch.equal(encoded["text"], EncodeText(encoder)(["a", "bc"])[0])


WRONG = [
    ((2, 8, 8, 3), {"anatomy_text": "a", "overlay_text": ["x", "y"]}, "overlay_text"),
    ((2, 8, 8, 3), {"anatomy_text": ["x", "y", "z"], "overlay_text": ["x"]}, "overlay_text"),
    ((2, 8, 8), {"anatomy_text": ["x", "y"]}, "anatomy_text"),
    ((2, 8, 8), {"anatomy_text": ["x"]}, "anatomy_text"),
]


@pytest.mark.parametrize(("shape", "texts", "words"), WRONG)
def test_texts_on_other_slices_are_an_error_of_the_pair(encoder, shape, texts, words):
    with refused(Reason.TEXT, "case", words):
        of_image(encoder, shape, **texts)


def test_lists_of_different_lengths_are_an_error_of_the_pair(encoder):
    texts = {"anatomy_text": ["a", "b"], "overlay_text": ["a", "b", "c"]}
    with refused(Reason.TEXT, "case", "overlay_text"):
        EncodeTextd(KEYS, encoder)({"name": "case", **texts})


def test_a_stream_passes_over_a_pair_with_wrong_texts(encoder, caplog):
    pairs = [
        {"name": f"bad {number}", "image": torch.zeros(shape), **texts}
        for number, (shape, texts, _) in enumerate(WRONG)
    ]
    pairs.insert(1, {"name": "good", "image": torch.zeros(2, 8, 8, 2), "overlay_text": ["x", "y"]})
    stream = PairStream(pairs, Compose([EncodeTextd(KEYS, encoder, slices_of="image")]))
    assert [pair["name"] for pair in stream] == ["good"]
    assert len(stream.failures) == len(WRONG)
    assert {failure.reason for failure in stream.failures} == {Reason.TEXT}
    assert "bad 0: overlay_text" in str(stream.failures[0])


# forgetting


def masks(count=200):
    return {"text_mask": torch.tensor([[True, True, False], [True, False, False]]), "rest": count}


def test_forgetting_at_its_ends():
    for _ in range(20):
        assert torch.equal(RandForgetTextd(prob=0)(masks())["text_mask"], masks()["text_mask"])
        assert not RandForgetTextd(prob=1)(masks())["text_mask"].any()


def test_forgetting_one_text_in_ten():
    forget = RandForgetTextd(prob=0.1)
    forget.set_random_state(0)
    data = masks()
    kept = torch.stack([forget(data)["text_mask"] for _ in range(2000)])
    assert kept.dtype == torch.bool
    assert torch.equal(data["text_mask"], masks()["text_mask"])
    assert not kept[~masks()["text_mask"].expand_as(kept)].any()
    forgotten = ~kept.any(2)
    assert torch.equal(kept[~forgotten], masks()["text_mask"].expand_as(kept)[~forgotten])
    assert forgotten.float().mean(0).tolist() == pytest.approx([0.1, 0.1], abs=0.03)
    assert forgotten.all(1).float().mean().item() == pytest.approx(0.01, abs=0.01)


def test_forgetting_from_a_seed():
    def drawn(seed):
        forget = RandForgetTextd(prob=0.5)
        forget.set_random_state(seed)
        return torch.stack([forget(masks())["text_mask"] for _ in range(20)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_forgetting_what_is_not_there():
    assert RandForgetTextd(allow_missing_keys=True)({"pair": "x"}) == {"pair": "x"}
    with pytest.raises(KeyError, match="text_mask"):
        RandForgetTextd()({"pair": "x"})


# mirroring


def a_pair(**more):
    image = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    return {
        "image": MetaTensor(image, affine=PICTURE_AFFINE),
        "anatomy_text": "A bright region on the left.",
        "overlay_text": ["Left", "none", "from right to left"],
        **more,
    }


def test_image_and_texts_are_mirrored_together():
    mirrored = RandMirrord("image", KEYS, prob=1)(a_pair())
    assert torch.equal(mirrored["image"].as_tensor(), a_pair()["image"].as_tensor().flip(2))
    assert mirrored["anatomy_text"] == "A bright region on the right."
    assert mirrored["overlay_text"] == ["Right", "none", "from left to right"]
    twice = RandMirrord("image", KEYS, prob=1)(mirrored)
    assert torch.equal(twice["image"], a_pair()["image"])
    assert [twice[key] for key in KEYS] == [a_pair()[key] for key in KEYS]


def test_never_mirrored():
    data = RandMirrord("image", KEYS, prob=0)(a_pair())
    assert torch.equal(data["image"], a_pair()["image"])
    assert [data[key] for key in KEYS] == [a_pair()[key] for key in KEYS]


def test_mirroring_from_a_seed():
    def drawn(seed):
        mirror = RandMirrord("image", KEYS)
        mirror.set_random_state(seed)
        results = [mirror(a_pair()) for _ in range(40)]
        sides = ["the right" in result["anatomy_text"] for result in results]
        flips = [not torch.equal(result["image"], a_pair()["image"]) for result in results]
        assert sides == flips
        return sides

    assert drawn(0) == drawn(0) != drawn(1)
    assert 8 < sum(drawn(0)) < 32


def test_mirroring_without_texts():
    data = {"image": a_pair()["image"]}
    assert set(RandMirrord("image", KEYS, prob=1)(data)) == {"image"}
    assert RandMirrord("image", KEYS, prob=1)(a_pair(anatomy_text=""))["anatomy_text"] == ""
    with pytest.raises(KeyError):
        RandMirrord("picture", prob=1)(data)
    assert set(RandMirrord("picture", prob=1, allow_missing_keys=True)(data)) == {"image"}


def test_the_patient_is_mirrored_and_not_the_storage():
    """What measures an image in its own geometry says of the mirrored one what the mirrored text says."""
    rows, columns = np.mgrid[:64, :64]
    head = 0.4 * ((rows - 32) ** 2 + (columns - 32) ** 2 < 26**2)
    lesion = 0.6 * ((rows - 26) ** 2 + (columns - 44) ** 2 < 6**2)
    image = MetaTensor(
        torch.tensor(head + lesion, dtype=torch.float32)[None], affine=PICTURE_AFFINE, meta={"modality": "MR"}
    )
    (text,) = MeasuredText()([image])
    mirrored = RandMirrord("image", "text", prob=1)({"image": image, "text": text})
    assert torch.equal(mirrored["image"].affine, image.affine)

    def sides(text):
        return [(finding.kind, finding.side) for finding in parse_findings(text)]

    (measured,) = MeasuredText()([mirrored["image"]])
    assert ("bright region", "left") in sides(text)
    assert ("bright region", "right") in sides(measured)
    assert sides(measured) == sides(mirrored["text"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left and right, Left; RIGHT.", "right and left, Right; LEFT."),
        ("left-sided, right-to-left, (Right)", "right-sided, left-to-right, (Left)"),
        ("leftward shift, rightwards, the leftmost", "rightward shift, leftwards, the rightmost"),
        ("upright, brightest, cleft, leftover, rights", "upright, brightest, cleft, leftover, rights"),
        ("", ""),
    ],
)
def test_swap_sides(text, expected):
    assert swap_sides(text) == expected
    assert swap_sides(expected) == text


def test_twins_draw_the_same():
    forget, forget_d = RandForgetText(prob=0.5), RandForgetTextd(prob=0.5)
    mirror, mirror_d = RandMirror(), RandMirrord("image")
    for transform in (forget, forget_d, mirror, mirror_d):
        transform.set_random_state(7)
    image, mask, mirrored = torch.rand(1, 4, 5), torch.ones(2, 3, dtype=torch.bool), []
    for _ in range(10):
        assert torch.equal(forget(mask), forget_d({"text_mask": mask})["text_mask"])
        mirrored.append(mirror(image))
        assert torch.equal(mirrored[-1], mirror_d({"image": image})["image"])
    assert 0 < sum(torch.equal(one, image) for one in mirrored) < 10
