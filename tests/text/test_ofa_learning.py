import json

import pytest
import torch
from monai.data import MetaTensor
from ofa_checkpoints import tiny_checkpoint

from fusion_nets.text import GeneratedText, displayed
from fusion_nets.text.ofa import LearningDescriber, OFAProcessor, learn_tokenizer

TEXTS = ["Axial MR. Head extent, 50.4% of the image.", "Axial CT. Head extent, 42.3% of the image. Ünïcode."] * 3
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "resnet_type": "resnet14", "image_size": 32}


def test_pieces_stand_where_those_of_bart_do_and_give_texts_back():
    tokenizer = learn_tokenizer(TEXTS, 300)
    vocabulary = tokenizer.get_vocab()
    assert [vocabulary[piece] for piece in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert vocabulary["<mask>"] == len(tokenizer) - 1
    assert 261 < len(tokenizer) <= 300
    for text in (*TEXTS, "other words, 12 µm"):
        ids = tokenizer(f" {text}")["input_ids"]
        assert (ids[0], ids[-1]) == (0, 2)
        assert tokenizer.decode(ids, skip_special_tokens=True) == f" {text}"
    assert len(tokenizer(f" {TEXTS[0]}")["input_ids"]) < len(learn_tokenizer(TEXTS, 261)(f" {TEXTS[0]}")["input_ids"])


def test_learning_twice_gives_the_same_pieces():
    first, second = (learn_tokenizer(TEXTS, 300).get_vocab() for _ in range(2))
    assert first == second


def test_a_new_describer_is_written_in_the_layout_of_the_architecture(tmp_path):
    torch.manual_seed(0)
    new = LearningDescriber(None, {"dropout": 0.2}, TEXTS, 300, {"num_beams": 2, "no_repeat_ngram_size": 0}, SIZES)
    assert (new.network.config.dropout, new.network.config.d_model) == (0.2, SIZES["d_model"])
    new.save(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert vocabulary == new.processor.tokenizer.get_vocab()
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version")
    assert GeneratedText(tmp_path).generation["num_beams"] == 2
    assert GeneratedText(tmp_path).generation["no_repeat_ngram_size"] == 0

    again = LearningDescriber(tmp_path, {"dropout": 0.3})
    assert again.network.config.dropout == 0.3
    for name, value in new.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
    # vocab.json and merges.txt are the tokenizer, without the file that transformers writes beside them
    (tmp_path / "tokenizer.json").unlink()
    processor = OFAProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer(TEXTS[1])["input_ids"] == new.processor.tokenizer(TEXTS[1])["input_ids"]
    assert processor.image_processor.size == {"height": 32, "width": 32}


def test_a_checkpoint_keeps_its_tokenizer_and_sizes(tmp_path):
    folder = tiny_checkpoint(tmp_path / "authors")
    describer = LearningDescriber(folder, {"label_smoothing": 0.1}, TEXTS, sizes={"d_model": 8})
    assert describer.network.config.d_model == LearningDescriber(folder).network.config.d_model != 8
    assert describer.network.config.label_smoothing == 0.1
    assert len(describer.processor.tokenizer) == describer.network.config.vocab_size
    assert describer.network.generation_config.num_beams == 5


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"checkpoint": "none"}, FileNotFoundError, "none"),
        ({"config": SIZES, "texts": [" "]}, ValueError, "text"),
        ({"config": SIZES, "texts": TEXTS, "pieces": 100}, ValueError, "pieces is 100; 261"),
        ({"config": {**SIZES, "resnet_type": "vgg"}, "texts": TEXTS}, ValueError, "resnet_type is 'vgg'"),
    ],
)
def test_what_is_wrong_is_named(arguments, error, reason):
    with pytest.raises(error, match=reason):
        LearningDescriber(**arguments)


def test_pixels_are_those_that_the_describer_sees(tmp_path):
    describer = LearningDescriber(None, {}, TEXTS, 300, sizes=SIZES)
    describer.save(tmp_path)
    image = MetaTensor(torch.rand(1, 40, 30, generator=torch.Generator().manual_seed(0)))
    pixels = describer.pixels(image)
    size = describer.network.config.image_size
    assert pixels.shape == (3, size, size)
    processor = OFAProcessor.from_pretrained(tmp_path)
    assert torch.equal(pixels, processor(images=displayed(image), return_tensors="pt")["pixel_values"][0])
