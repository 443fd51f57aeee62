"""What OFA is given: tokens and pictures."""

import json

import numpy as np
import pytest
import torch
from ofa_checkpoints import PIECES, TINY, tiny_checkpoint, write_vocabulary
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, BartTokenizer

from fusion_nets.text.ofa import OFAImageProcessor, OFAProcessor, OFATokenizer

PROMPT = " what does the image describe?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("ofa") / "tiny")


@pytest.fixture(scope="module")
def processor(checkpoint):
    return AutoProcessor.from_pretrained(checkpoint)


def picture(width, height, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


# tokens


def test_the_vocabulary_of_bart_and_what_is_added(tmp_path):
    write_vocabulary(tmp_path, 50265)
    tokenizer = OFATokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 59457
    added = ("<mask>", "<code_0>", "<code_8191>", "<bin_0>", "<bin_999>")
    assert tokenizer.convert_tokens_to_ids(added) == [50264, 50265, 58456, 58457, 59456]
    special = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3)


def test_texts_are_cut_as_bart_cuts_them(checkpoint, processor):
    bart = BartTokenizer.from_pretrained(checkpoint)
    texts = [PROMPT, "what", " what what", "the right", "Größe 12,5 %\n", " <mask> the"]
    for text in texts:
        ids = processor.tokenizer(text)["input_ids"]
        assert ids == bart(text)["input_ids"]
        assert (ids[0], ids[-1]) == (0, 2)
        assert processor.tokenizer.decode(ids[1:-1], clean_up_tokenization_spaces=False) == text
    words = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(" what the")["input_ids"])
    assert words == ["<s>", "Ġwhat", "Ġthe", "</s>"]


def test_added_pieces_are_one_token_each(processor):
    text = " the<bin_12><bin_999> right <code_7>"
    ids = processor.tokenizer(text)["input_ids"]
    assert [token for token in ids if token >= PIECES] == [PIECES + 8192 + 12, PIECES + 8192 + 999, PIECES + 7]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_auto_tokenizer(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert type(tokenizer) is OFATokenizer
    assert len(tokenizer) == TINY["vocab_size"]


# pictures


def test_pixels(processor):
    values = np.asarray(picture(48, 48))
    pixels = processor(images=[Image.fromarray(values)], return_tensors="pt")["pixel_values"]
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), values / 127.5 - 1, atol=1e-6)
    assert -1 <= pixels.min() < -0.9 < 0.9 < pixels.max() <= 1


def test_grey_pictures_have_three_like_channels(processor):
    pixels = processor(images=picture(30, 20, "L"), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 48, 48)
    assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_bicubic_to_the_square_of_the_configuration(processor):
    one = picture(70, 31)
    pixels = processor(images=[one], return_tensors="pt")["pixel_values"][0]
    wanted = np.asarray(one.resize((48, 48), Image.Resampling.BICUBIC)) / 127.5 - 1
    np.testing.assert_allclose(pixels.permute(1, 2, 0), wanted, atol=1e-6)


@pytest.mark.parametrize("size", [256, 384, 480])
def test_sizes_of_checkpoints(tmp_path, size):
    write_vocabulary(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ofa", "image_size": size}))
    assert AutoProcessor.from_pretrained(tmp_path)(images=picture(20, 20))["pixel_values"].shape == (1, 3, size, size)


def test_arrays_and_tensors_are_pictures_too(processor):
    one = picture(40, 40)
    array = np.asarray(one)
    expected = processor(images=one)["pixel_values"]
    for other in (array, array.transpose(2, 0, 1), torch.from_numpy(array.copy())):
        np.testing.assert_array_equal(processor(images=[other])["pixel_values"], expected)


# both


def test_every_picture_is_asked_what_it_describes(processor):
    inputs = processor(images=[picture(20, 20), picture(9, 30)], return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    assert inputs["pixel_values"].shape == (2, 3, 48, 48)
    assert inputs["input_ids"].tolist() == [processor.tokenizer(PROMPT)["input_ids"]] * 2


def test_prompts_of_one_batch_are_padded_behind(processor):
    inputs = processor(images=[picture(20, 20)] * 2, text=[" the", " what the right"], return_tensors="pt")
    assert inputs["input_ids"][0].tolist()[-2:] == [1, 1]
    assert torch.equal(inputs["attention_mask"], (inputs["input_ids"] != 1).long())


def test_text_alone(processor):
    assert set(processor(text=" the")) == {"input_ids", "attention_mask"}


def test_saved_and_loaded(processor, tmp_path):
    OFAProcessor(OFAImageProcessor(32), processor.tokenizer).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ofa", "vocab_size": TINY["vocab_size"]}))
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is OFAProcessor
    assert AutoImageProcessor.from_pretrained(tmp_path).size == {"height": 32, "width": 32}
    assert again.image_processor.size == {"height": 32, "width": 32}
    text = " what the right <bin_3>"
    assert again.tokenizer(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    assert len(again.tokenizer) == TINY["vocab_size"]


@pytest.mark.parametrize(
    ("how", "words"),
    [({}, "images .* text"), ({"images": [picture(9, 9)] * 2, "text": ["a"]}, "1 prompts for 2 pictures")],
)
def test_malformed_inputs(processor, how, words):
    with pytest.raises(ValueError, match=words):
        processor(**how)


def test_a_vocabulary_that_is_too_large(checkpoint, tmp_path):
    write_vocabulary(tmp_path, PIECES + 1)
    (tmp_path / "config.json").symlink_to(checkpoint / "config.json")
    with pytest.raises(ValueError, match=rf"vocab.json .* {PIECES + 9193} .* {PIECES + 9192}"):
        AutoProcessor.from_pretrained(tmp_path)
