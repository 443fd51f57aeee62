import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cosine_similarity, normalize
from transformers import (
    AutoImageProcessor,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from fusion_nets.losses import SemanticLoss
from fusion_nets.text import PretrainedCritic, TextEncoder

VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", "bright", "dark", "region"])}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE = 32


def save_clip(folder, whole_processor):
    """As transformers 5 saves a processor, or as most checkpoints on the hub have it."""
    torch.manual_seed(0)
    tokens = {"vocab_size": len(VOCABULARY), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**TOWER, **tokens, "max_position_embeddings": 12, "initializer_range": 0.5}
    vision = {**TOWER, "image_size": SIZE, "patch_size": 8, "initializer_range": 0.5}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[EOS]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **names)
    size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    images = CLIPImageProcessor(**size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    for part in [CLIPProcessor(images, tokenizer)] if whole_processor else [images, tokenizer]:
        part.save_pretrained(folder)


@pytest.fixture(scope="module", params=["processor_config.json", "preprocessor_config.json"])
def clip(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder, request.param == "processor_config.json")
    assert (folder / request.param).is_file()
    return folder


def grey(*shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (values * 255).round() / 255


@torch.no_grad()
def test_features_are_those_of_the_models_own_processor(clip):
    image = grey(3, 1, SIZE, SIZE)
    pictures = [Image.fromarray((one[0] * 255).numpy().round().astype(np.uint8)).convert("RGB") for one in image]
    pixels = AutoImageProcessor.from_pretrained(clip)(pictures, return_tensors="pt")["pixel_values"]
    expected = CLIPModel.from_pretrained(clip).eval().get_image_features(pixel_values=pixels).pooler_output
    critic = PretrainedCritic(clip)
    torch.testing.assert_close(critic.image_features(image), normalize(expected), atol=1e-4, rtol=0)
    assert (normalize(expected).diff(dim=0)).abs().max() > 0.01


@pytest.mark.parametrize("size", [(SIZE, SIZE), (20, 50), (64, 65)])
def test_images_of_any_size_and_gradients(clip, size):
    critic = PretrainedCritic(clip)
    image = grey(2, 1, *size).requires_grad_()
    features = critic.image_features(image)
    assert features.shape == (2, 12)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features[:, 0].sum().backward()
    assert image.grad.isfinite().all()
    assert (image.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert all(parameter.grad is None for parameter in critic.parameters())


@torch.no_grad()
def test_a_larger_image_looks_like_the_same_one(clip):
    critic = PretrainedCritic(clip)
    small = torch.nn.functional.interpolate(grey(1, 1, 4, 4), SIZE, mode="bilinear")
    large = torch.nn.functional.interpolate(small, 2 * SIZE, mode="bilinear")
    assert cosine_similarity(critic.image_features(small), critic.image_features(large)).item() > 0.98


def test_critic_of_the_semantic_loss(clip):
    vector = TextEncoder(clip)(["bright region [EOS]", "dark region [EOS]", "", "dark [EOS]"]).vector
    critic = PretrainedCritic(clip)
    torch.testing.assert_close(critic.text_features(3 * vector), vector)
    # the critic is random: its opinion is made to favour what is said
    image = grey(2, 2, 40, 40)
    own = critic.image_features(image.flatten(0, 1)[:, None]).reshape(2, 2, 12)
    said = torch.where(vector.reshape(2, 2, 12).any(2, keepdim=True), vector.reshape(2, 2, 12) + 2 * own, 0.0)
    loss = SemanticLoss(critic).train()
    pred = grey(2, 1, 40, 40).requires_grad_()
    value = loss(pred, image, said)
    value.backward()
    weights = cosine_similarity(own, said, dim=2).clamp_min(0)
    cosines = cosine_similarity(critic.image_features(pred)[:, None], said, dim=2)
    assert weights[1, 0] == 0
    assert (weights.flatten()[[0, 1, 3]] > 0.5).all()
    torch.testing.assert_close(value, (weights * (1 - cosines)).sum(1).mean())
    assert pred.grad.any()
    assert not critic.model.training


def test_frozen_and_in_evaluation_mode(clip):
    critic = PretrainedCritic(clip).train()
    assert not any(module.training for module in critic.modules())
    assert not any(parameter.requires_grad for parameter in critic.parameters())


# errors


def test_model_that_sees_no_images(tmp_path):
    config = BertConfig(**TOWER, vocab_size=8, max_position_embeddings=8)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="bert"):
        PretrainedCritic(tmp_path)


def test_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        PretrainedCritic(tmp_path)
    with pytest.raises(ValueError, match=r"some/model: .*revision"):
        PretrainedCritic("some/model")
    with pytest.raises(FileNotFoundError, match="`hf download some/model --revision 0123`"):
        PretrainedCritic("some/model", "0123")
