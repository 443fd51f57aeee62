import json
import os
import shutil

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from fusion_nets.text import GeneratedText

PICTURE_AFFINE = torch.tensor([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
WORDS = (
    "bright dark region left right front back large small head bone uptake of the in a scan describe mri pet medical"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]", "<image>"]
NEW = 9
GENERATION = {
    "min_new_tokens": NEW,
    "max_new_tokens": NEW,
    "suppress_tokens": list(range(len(SPECIAL))),
}
"""Every new token is a word, so that a text has as many words as there are new tokens."""
VOCABULARY = {token: index for index, token in enumerate([*SPECIAL, *WORDS.split()])}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def word_tokenizer(**special):
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]", **special
    )


def save_blip(folder):
    """Captioner: a prompt is continued, and generate cuts its last token."""
    tokens = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**TOWER, **tokens, "vocab_size": len(VOCABULARY), "encoder_hidden_size": 16, "initializer_range": 1.0}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=8, initializer_range=1.0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), BertTokenizer(vocab=VOCABULARY)).save_pretrained(folder)


def save_encoder_decoder(folder):
    """Vision encoder and GPT-2: no processor, a tokenizer without a token for padding."""
    vision = ViTConfig(**TOWER, image_size=32, patch_size=8, initializer_range=0.5)
    tokens = {"bos_token_id": 5, "eos_token_id": 6, "decoder_start_token_id": 5}
    text = GPT2Config(vocab_size=len(VOCABULARY), n_embd=16, n_layer=2, n_head=2, initializer_range=0.7)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text, **tokens)
    VisionEncoderDecoderModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)


def save_llava(folder):
    """Chat model whose images take more or fewer tokens by their shape."""
    vision = CLIPVisionConfig(**TOWER, image_size=16, patch_size=8, projection_dim=8)
    text = LlamaConfig(
        **TOWER, vocab_size=len(VOCABULARY), initializer_range=0.5, bos_token_id=5, eos_token_id=6, pad_token_id=0
    )
    places = [[16, 32], [32, 16], [32, 32]]
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=VOCABULARY["<image>"],
        image_grid_pinpoints=places,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=places
        ),
        word_tokenizer(pad_token="[PAD]", additional_special_tokens=["<image>"]),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "[BOS] {% for message in messages %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
            "{% endfor %}{% endfor %}{% if add_generation_prompt %}describe{% endif %}"
        ),
    ).save_pretrained(folder)


KINDS = {"blip": save_blip, "encoder_decoder": save_encoder_decoder, "llava": save_llava}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Small models with random weights, saved with all that belongs to them."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, save in KINDS.items():
        torch.manual_seed(3)
        save(root / name)
    return root


def image(*shape, seed=0, affine=PICTURE_AFFINE, **meta):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=affine, meta={"filename_or_obj": f"{seed}.png", **meta})


IMAGES = [
    image(1, 20, 20, seed=1, modality="MR"),
    image(3, 20, 44, seed=2, modality="PT"),
    image(1, 44, 20, seed=3, modality="MR"),
    image(1, 32, 20, seed=4),
    image(3, 20, 20, seed=5, modality="PT"),
]


def generated(folder, **how):
    return GeneratedText(folder, **{"prompt": "a {modality} scan of the", "generation": GENERATION, **how})


@pytest.fixture(scope="session")
def expected(checkpoints):
    return {kind: generated(checkpoints / kind)(IMAGES) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_gets_its_own_new_words(expected, kind):
    texts = expected[kind]
    assert [len(text.split()) for text in texts] == [NEW] * len(IMAGES)
    assert len(set(texts)) > 2
    assert set(" ".join(texts).split()) <= set(WORDS.split())


@pytest.mark.parametrize("kind", KINDS)
def test_texts_do_not_depend_on_the_batch(checkpoints, expected, kind):
    assert generated(checkpoints / kind, batch_size=2)(IMAGES) == expected[kind]
    describer = generated(checkpoints / kind, batch_size=8)
    assert describer(IMAGES[::-1]) == expected[kind][::-1]
    assert describer(IMAGES) == expected[kind]


def test_images_of_other_shapes_are_padded_on_the_left(checkpoints):
    describer = generated(checkpoints / "llava")
    pictures = [Image.new("RGB", size) for size in ((20, 20), (44, 20))]
    mask = describer._checkpoint.inputs(pictures, "scan")["attention_mask"]
    short, long = sorted(mask, key=lambda row: int(row.sum()))
    assert short.sum() < long.sum() == mask.shape[1]
    assert short[0] == 0
    assert short[-1] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_modality_matter(checkpoints, expected, kind):
    others = [MetaTensor(one.as_tensor(), affine=one.affine, meta={"modality": "CT"}) for one in IMAGES]
    assert generated(checkpoints / kind)(others) != expected[kind]
    same = generated(checkpoints / kind, prompt="a MRI scan of the")(IMAGES)
    assert [same[0], same[2]] == [expected[kind][0], expected[kind][2]]


@pytest.mark.parametrize("kind", ["blip", "encoder_decoder"])
def test_captioners_need_no_prompt(checkpoints, kind):
    texts = generated(checkpoints / kind, prompt=None)(IMAGES[:2])
    assert [len(text.split()) for text in texts] == [NEW] * 2


def test_what_blip_is_asked(checkpoints, expected):
    """As the documentation of transformers has it: the processor's tokens, and the text that follows the prompt."""
    folder = checkpoints / "blip"
    network = BlipForConditionalGeneration.from_pretrained(folder)
    processor = BlipProcessor.from_pretrained(folder)
    for one, text in zip(IMAGES, expected["blip"], strict=True):
        prompt = f"a {({'MR': 'MRI', 'PT': 'PET'}).get(one.meta.get('modality'), 'medical')} scan of the"
        array = (one.expand(3, -1, -1).movedim(0, -1) * 255).round().numpy().astype(np.uint8)
        inputs = processor(images=Image.fromarray(array), text=prompt, return_tensors="pt")
        tokens = network.generate(**inputs, **GENERATION, do_sample=False, num_beams=1)
        assert processor.decode(tokens[0, 1:], skip_special_tokens=True) == f"{prompt.lower()} {text}"


def test_defaults_end_where_the_model_ends(checkpoints):
    texts = generated(checkpoints / "encoder_decoder", generation={"max_new_tokens": 40})(IMAGES)
    assert all(len(text.split()) <= 40 for text in texts)
    batch = generated(checkpoints / "encoder_decoder", generation={"max_new_tokens": 40}, batch_size=5)(IMAGES)
    assert batch == texts


def test_sampling_from_a_seed(checkpoints, expected):
    sampling = {**GENERATION, "do_sample": True, "temperature": 2.0}
    state = torch.get_rng_state()
    first, other = (generated(checkpoints / "blip", generation=sampling, seed=seed)(IMAGES) for seed in (1, 2))
    assert generated(checkpoints / "blip", generation=sampling, seed=1, batch_size=5)(IMAGES[1:]) == first[1:]
    assert len({tuple(texts) for texts in (first, other, expected["blip"])}) == 3
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="seed"):
        generated(checkpoints / "blip", generation=sampling)


def test_beams_and_half_precision(checkpoints):
    texts = generated(checkpoints / "llava", generation={**GENERATION, "num_beams": 3}, dtype="bfloat16")(IMAGES[:2])
    assert [len(text.split()) for text in texts] == [NEW] * 2


# what the model sees


def seen(checkpoints, monkeypatch, *images):
    describer = generated(checkpoints / "blip")
    pictures = []
    monkeypatch.setattr(describer, "_generate", lambda batch, prompt: pictures.extend(batch) or ["text"] * len(batch))
    describer(images)
    return [np.asarray(picture) for picture in pictures]


def test_pictures_are_seen_as_they_are(checkpoints, monkeypatch):
    colour, grey = image(3, 6, 5), image(1, 6, 5)
    seen_colour, seen_grey = seen(checkpoints, monkeypatch, colour, grey)
    np.testing.assert_array_equal(seen_colour, (colour * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0))
    assert seen_grey.shape == (6, 5, 3)
    np.testing.assert_array_equal(seen_grey[..., 2], (grey[0] * 255).round().numpy().astype(np.uint8))


@pytest.mark.parametrize("direction", [1, -1])
def test_volumes_are_seen_in_radiological_display(checkpoints, monkeypatch, direction):
    """The brightest voxel lies right and in front, so that it is seen on the left and above."""
    volume = torch.zeros(1, 6, 5, 4)
    volume[0, 5 if direction > 0 else 0, 4 if direction > 0 else 0, 2] = 1
    affine = torch.diag(torch.tensor([direction, 2.0 * direction, 3, 1]))
    (picture,) = seen(checkpoints, monkeypatch, MetaTensor(volume, affine=affine))
    assert picture.shape == (5, 6, 3)
    assert picture.max() == picture[0, 0, 0] == 255


def test_sagittal_slices_stand_upright(checkpoints, monkeypatch):
    """Slices along the last axis go from right to left; rows go forward, columns up."""
    affine = torch.tensor([[0.0, 0, -1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    volume = torch.zeros(1, 6, 5, 4)
    volume[0, 5, 4, 1] = 1  # in front and above
    (picture,) = seen(checkpoints, monkeypatch, MetaTensor(volume, affine=affine))
    assert picture.shape == (5, 6, 3)
    assert picture[0, 0, 0] == 255


# configuration and errors


def test_configuration_names_no_place(checkpoints, tmp_path):
    shutil.copytree(checkpoints / "blip", tmp_path / "other" / "blip")
    first, second = (GeneratedText(root / "blip").configuration for root in (checkpoints, tmp_path / "other"))
    assert first == second
    assert str(tmp_path) not in json.dumps(first)
    assert first["model"] == "blip"
    assert first["generation"] == {"max_new_tokens": 256, "do_sample": False, "num_beams": 1}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        changed = tmp_path / name / "blip"
        shutil.copytree(checkpoints / "blip", changed)
        (changed / name).write_bytes((changed / name).read_bytes() + b" ")
        assert GeneratedText(changed).configuration["sha256"] != first["sha256"]


def test_configuration_of_a_hub_checkpoint():
    how = {"prompt": "Describe", "dtype": "bfloat16", "generation": {"num_beams": 2}}
    configuration = GeneratedText("some/model", COMMIT, batch_size=7, **how).configuration
    assert configuration["model"] == "some/model"
    assert configuration["revision"] == COMMIT
    assert configuration["sha256"] is None
    assert configuration["generation"]["num_beams"] == 2
    assert configuration == GeneratedText("some/model", COMMIT, batch_size=1, **how).configuration


def test_checkpoint_that_is_not_there():
    describer = GeneratedText("some/model", COMMIT)
    with pytest.raises(FileNotFoundError, match=f"`hf download some/model --revision {COMMIT}`"):
        describer(IMAGES[:1])


@pytest.mark.parametrize(("kind", "name"), [("blip", "model.safetensors"), ("encoder_decoder", "tokenizer.json")])
def test_folder_that_lacks_something(checkpoints, tmp_path, kind, name):
    shutil.copytree(checkpoints / kind, tmp_path / kind)
    (tmp_path / kind / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=rf"{kind}: .*\(.*{name.split('.')[0]}"):
        GeneratedText(tmp_path / kind)(IMAGES[:1])


def test_model_that_makes_no_text(tmp_path):
    ViTConfig(**TOWER).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="vit"):
        GeneratedText(tmp_path)(IMAGES[:1])


def test_code_that_comes_with_a_checkpoint_is_not_run(checkpoints, tmp_path):
    folder = tmp_path / "blip"
    shutil.copytree(checkpoints / "blip", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        GeneratedText(folder)(IMAGES[:1])
    assert os.listdir(tmp_path) == ["blip"]


def test_chat_models_need_a_prompt(checkpoints):
    with pytest.raises(ValueError, match=r"llava.* prompt"):
        GeneratedText(checkpoints / "llava")(IMAGES[:1])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"model": "some/model"}, "some/model.*None"),
        ({"model": "some/model", "revision": "main"}, "some/model.*'main'"),
        ({"model": "some/model", "revision": COMMIT[:8]}, f"'{COMMIT[:8]}'"),
        ({"model": "/no/such/folder", "revision": COMMIT}, "/no/such/folder"),
        ({"model": "../folder", "revision": COMMIT}, r"\.\./folder"),
        ({"revision": COMMIT}, "revision"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_malformed_arguments(tmp_path, how, words):
    with pytest.raises(ValueError, match=words):
        GeneratedText(**{"model": tmp_path, **how})
