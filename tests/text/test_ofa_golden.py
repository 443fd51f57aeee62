"""BiomedGPT's network against values of its authors' program."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from ofa_checkpoints import write_checkpoint
from PIL import Image
from safetensors import safe_open
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from fusion_nets.text.ofa import OFAConfig, OFAForConditionalGeneration, OFAImageProcessor

MEDIUM = {
    "d_model": 512,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "resnet_type": "resnet101",
}
BASE = {
    **MEDIUM,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}


@pytest.fixture(scope="module")
def folder(shared):
    if not (shared / "reference" / "ofa").is_dir():
        pytest.skip("needs reference/ofa in the shared reference folder")
    return shared / "reference"


@pytest.fixture(scope="module")
def golden(folder):
    with np.load(folder / "ofa" / "golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def layout(folder):
    return json.loads((folder / "ofa" / "layout_small.json").read_text())


@pytest.fixture(scope="module")
def checkpoint(folder, layout, tmp_path_factory):
    """The small size with deterministic weights, as its authors' program would have saved it."""
    spec = importlib.util.spec_from_file_location("make_weights", folder / "dmfnet" / "make_weights.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    return write_checkpoint(tmp_path_factory.mktemp("ofa") / "small", layout["config"], make.weights(layout["layout"]))


@pytest.fixture(scope="module")
def network(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def pixels(shared):
    path = shared / "data" / "aanlib" / "PET-MRI" / "PET" / "25033.png"
    if not path.is_file():
        pytest.skip("needs data/aanlib in the shared reference folder")
    picture = Image.open(path)
    assert picture.size == (256, 256)
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return OFAImageProcessor(256)([picture, mirrored], return_tensors="pt")["pixel_values"]


@torch.no_grad()
def test_encoder_states(network, golden, pixels):
    states = network.encoder(golden["input_ids"], pixel_values=pixels).last_hidden_state
    expected = golden["encoder_states_every_16th"]
    assert expected.std() > 0.5
    torch.testing.assert_close(states[:, ::16], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_with_images(network, golden, pixels):
    outputs = network(input_ids=golden["input_ids"], pixel_values=pixels, decoder_input_ids=golden["decoder_input_ids"])
    expected = golden["logits_every_97th"]
    assert expected.std() > 0.5
    torch.testing.assert_close(outputs.logits[..., ::97], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_without_an_image(network, golden):
    outputs = network(input_ids=golden["input_ids"][:1], decoder_input_ids=golden["decoder_input_ids"][:1])
    expected = golden["logits_text_only_every_97th"]
    torch.testing.assert_close(outputs.logits[..., ::97], expected, atol=1e-4, rtol=0)


def test_greedy_decoding(network, golden, pixels):
    count = golden["greedy"].shape[1] - 1
    how = {"num_beams": 1, "no_repeat_ngram_size": 0, "min_new_tokens": 0, "max_new_tokens": count}
    tokens = network.generate(input_ids=golden["input_ids"][:1], pixel_values=pixels[:1], **how)
    assert torch.equal(tokens, golden["greedy"])


def test_every_tensor_of_the_layout_is_there(network, layout):
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    tied = dict.fromkeys(layout["tied_to_encoder.embed_tokens.weight"], layout["layout"]["encoder.embed_tokens.weight"])
    computed = {name: shape for name, shape in layout["computed_buffers"].items() if "num_batches_tracked" in name}
    assert shapes == {**layout["layout"], **tied, **computed}


@pytest.mark.parametrize(("sizes", "millions"), [({}, 33.49), (MEDIUM, 92.89), (BASE, 182.24)])
def test_published_sizes(sizes, millions):
    with torch.device("meta"):
        network = OFAForConditionalGeneration(OFAConfig(**sizes))
    network.tie_weights()
    assert round(network.num_parameters() / 1e6, 2) == millions


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSeq2SeqLM])
def test_auto_classes_take_the_folder(checkpoint, network, auto):
    other = auto.from_pretrained(checkpoint)
    assert type(other) is OFAForConditionalGeneration
    assert torch.equal(other.decoder.output_projection.weight, network.encoder.embed_tokens.weight)


def test_safetensors_out_and_in(network, tmp_path):
    network.save_pretrained(tmp_path)
    assert not (tmp_path / "pytorch_model.bin").exists()
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert (
        len({"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"} & names)
        == 1
    )
    back = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert back.decoder.output_projection.weight is back.encoder.embed_tokens.weight
    expected = network.state_dict()
    assert back.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in back.state_dict().items())
