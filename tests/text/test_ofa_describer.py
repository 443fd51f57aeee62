"""BiomedGPT's network as a describer, from the folder to the datalist."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from ofa_checkpoints import tiny_checkpoint
from PIL import Image
from transformers import AutoModelForImageTextToText

from fusion_nets.cli import main
from fusion_nets.text import GeneratedText
from fusion_nets.text.ofa import OFAForConditionalGeneration, OFAProcessor

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROMPT = " what does the image describe?"
DEFAULTS = {
    "max_new_tokens": 128,
    "min_new_tokens": 16,
    "do_sample": False,
    "num_beams": 5,
    "no_repeat_ngram_size": 3,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("ofa") / "biomedgpt_tiny")


def image(seed, *shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    affine = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return MetaTensor(values, affine=affine, meta={"modality": "MR"})


SHORT = {"max_new_tokens": 24}
IMAGES = [image(1, 1, 40, 40), image(2, 3, 30, 52), image(3, 1, 48, 48)]


@pytest.fixture(scope="module")
def expected(checkpoint):
    return GeneratedText(checkpoint, generation=SHORT)(IMAGES)


def test_a_folder_is_asked_as_biomedgpt_is(checkpoint, expected):
    describer = GeneratedText(checkpoint)
    assert describer.configuration["prompt"] == PROMPT
    assert describer.configuration["generation"] == DEFAULTS
    assert describer.configuration["model"] == "biomedgpt_tiny"
    processor = OFAProcessor.from_pretrained(checkpoint)
    network = OFAForConditionalGeneration.from_pretrained(checkpoint)
    assert len(set(expected)) > 1
    for how, one, text in ((SHORT, IMAGES[0], expected[0]), ({}, IMAGES[1], describer(IMAGES[1:2])[0])):
        array = (one.as_tensor().expand(3, -1, -1).movedim(0, -1) * 255).round().to(torch.uint8).numpy()
        inputs = processor(images=Image.fromarray(array), text=PROMPT, return_tensors="pt")
        tokens = network.generate(**inputs, **how)[0]
        assert text == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert 17 <= len(tokens) <= 1 + how.get("max_new_tokens", 128)


def test_texts_do_not_depend_on_the_batch(checkpoint, expected):
    assert GeneratedText(checkpoint, generation=SHORT, batch_size=3)(IMAGES[::-1]) == expected[::-1]


def test_one_may_ask_otherwise(checkpoint, expected):
    describer = GeneratedText(checkpoint, prompt=" what the {modality}?", generation={**SHORT, "num_beams": 1})
    assert describer.configuration["generation"] == {**DEFAULTS, **SHORT, "num_beams": 1}
    assert describer.configuration["prompt"] == " what the {modality}?"
    assert describer(IMAGES[:1]) != expected[:1]


def test_a_folder_that_says_how_it_generates(checkpoint, tmp_path):
    """As one that was trained on other texts does, in which figures and phrases come again."""
    network = OFAForConditionalGeneration.from_pretrained(checkpoint)
    network.generation_config.update(num_beams=2, no_repeat_ngram_size=0, max_new_tokens=20, min_new_tokens=3)
    network.save_pretrained(tmp_path / "trained")
    OFAProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "trained")
    describer = GeneratedText(tmp_path / "trained")
    assert describer.configuration["generation"] == {
        "max_new_tokens": 20,
        "min_new_tokens": 3,
        "do_sample": False,
        "num_beams": 2,
        "no_repeat_ngram_size": 0,
    }
    assert len(describer(IMAGES[:2])) == 2


def test_a_folder_whose_parts_do_not_belong_together(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_layers": 4}))
    for name in ("pytorch_model.bin", "vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(checkpoint / name)
    with pytest.raises(ValueError, match=r"decoder\.\S+\.3\S* is missing"):
        GeneratedText(tmp_path)(IMAGES[:1])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vocab.json"])
def test_a_folder_that_lacks_a_file(checkpoint, tmp_path, name):
    for other in {"config.json", "pytorch_model.bin", "vocab.json", "merges.txt"} - {name}:
        (tmp_path / other).symlink_to(checkpoint / other)
    with pytest.raises((FileNotFoundError, ValueError), match=name.split(".")[0]):
        GeneratedText(tmp_path)(IMAGES[:1])


# licence


@pytest.mark.parametrize("name", ["PanaceaAI/BiomedGPT-Base-Pretrained", "someone/my-biomedgpt"])
def test_the_licence_is_to_be_accepted(name):
    words = "accept_research_licence=True"
    for refused in ({}, {"accept_research_licence": False}):
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            GeneratedText(name, COMMIT, **refused)
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            OFAForConditionalGeneration.from_pretrained(name, revision=COMMIT, **refused)
    describer = GeneratedText(name, COMMIT, accept_research_licence=True)
    assert describer.configuration["generation"] == DEFAULTS
    assert describer.configuration["prompt"] == PROMPT
    with pytest.raises(FileNotFoundError, match=f"{name}.*{COMMIT}"):
        describer(IMAGES[:1])


def test_by_its_name_on_the_hub(checkpoint, expected, tmp_path, monkeypatch):
    """What was got before lies in the cache; transformers' own classes ask for acceptance, too."""
    place = tmp_path / "models--PanaceaAI--BiomedGPT-Tiny" / "snapshots"
    place.mkdir(parents=True)
    (place / COMMIT).symlink_to(checkpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "PanaceaAI/BiomedGPT-Tiny"
    describer = GeneratedText(name, COMMIT, generation=SHORT, accept_research_licence=True)
    assert describer(IMAGES[:1]) == expected[:1]
    with pytest.raises(ValueError, match="accept_research_licence=True"):
        AutoModelForImageTextToText.from_pretrained(name, revision=COMMIT, local_files_only=True)
    accepted = {"revision": COMMIT, "local_files_only": True, "accept_research_licence": True}
    assert type(AutoModelForImageTextToText.from_pretrained(name, **accepted)) is OFAForConditionalGeneration


def test_a_folder_needs_no_acceptance(checkpoint, expected, tmp_path, monkeypatch):
    (tmp_path / "PanaceaAI").mkdir()
    (tmp_path / "PanaceaAI" / "BiomedGPT-Base").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    assert GeneratedText("PanaceaAI/BiomedGPT-Base", generation=SHORT)(IMAGES[:1]) == expected[:1]


def test_the_licence_on_the_command_line(tmp_path, capsys):
    pairs = tmp_path / "pairs.json"
    pairs.write_text('[{"anatomy": "a.png", "overlay": "b.png"}]')
    command = ["describe", "--datalist", str(pairs), "--output", str(tmp_path / "out.json"), "--describer", "generated"]
    command += ["--model", "PanaceaAI/BiomedGPT-Base-Pretrained", "--revision", COMMIT]
    assert main(command) == 2
    assert "--accept_research_licence" in capsys.readouterr().err


# from end to end


def test_describe_on_the_command_line(checkpoint, expected, tmp_path):
    entries = []
    for i in range(2):
        for name in ("mri", "pet"):
            values = np.random.default_rng(i).integers(0, 256, (40, 40), dtype=np.uint8)
            values[: 20 * (i + 1), :: 2 if name == "mri" else 5] = 0
            Image.fromarray(values).save(tmp_path / f"{name}{i}.png")
        entries.append({"anatomy": f"mri{i}.png", "overlay": f"pet{i}.png", "overlay_modality": "PT"})
    (tmp_path / "pairs.json").write_text(json.dumps(entries))
    command = ["describe", "--datalist", str(tmp_path / "pairs.json"), "--output", str(tmp_path / "text.json")]
    command += ["--describer", "generated", "--model", str(checkpoint), "--batch_size", "4", "--max_new_tokens", "24"]
    assert main(command) == 0
    written = json.loads((tmp_path / "text.json").read_text())
    describer = written["description"]["describer"]
    assert (describer["model"], describer["prompt"]) == ("biomedgpt_tiny", PROMPT)
    assert describer["generation"] == {**DEFAULTS, **SHORT}
    texts = [pair[f"{key}_text"] for pair in written["pairs"] for key in ("anatomy", "overlay")]
    assert all(texts)
    assert len(set(texts)) > 1
    first = (tmp_path / "text.json").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "text.json").read_bytes() == first
