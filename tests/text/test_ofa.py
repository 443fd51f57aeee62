"""OFA as a network: positions, masks, decoding, training, whole checkpoints."""

import json

import pytest
import torch
from ofa_checkpoints import TINY, tiny_checkpoint, tiny_network
from transformers import AutoModelForImageTextToText, DynamicCache, EncoderDecoderCache
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from fusion_nets.text.ofa import OFAConfig, OFAForConditionalGeneration
from fusion_nets.text.ofa.positions import patch_buckets, patch_positions, token_buckets

PROMPTS = torch.tensor([[0, 40, 41, 42, 43, 44, 2], [0, 50, 51, 2, 1, 1, 1], [0, 60, 61, 62, 63, 2, 1]])
LENGTHS = [7, 4, 6]
ANSWERS = torch.tensor([[0, 9, 30, 31, 7], [0, 80, 81, 9, 9], [0, 12, 13, 12, 14]])
CACHES = {"cache", "past_key_values"}
BEAMS = {"num_beams": 5, "no_repeat_ngram_size": 3, "min_new_tokens": 10, "max_new_tokens": 20}


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("ofa") / "tiny")


# positions


@pytest.mark.parametrize(("size", "longest"), [(256, 1024), (8, 160), (32, 100)])
def test_token_buckets_are_those_of_deberta(size, longest):
    order = torch.arange(longest)
    distance = order[:, None] - order[None, :]
    buckets = token_buckets(order, order, size, longest)
    expected = make_log_bucket_position(distance, size, longest).long() + size - 1
    assert torch.equal(buckets, expected)
    assert buckets.min() == 0
    assert buckets.max() == 2 * size - 2
    assert torch.equal(token_buckets(order[3:5], order[:9], size, longest), expected[3:5, :9])


def test_patches_in_their_grid():
    assert patch_positions(2, 3, 42, torch.device("cpu")).tolist() == [1, 2, 3, 43, 44, 45]
    buckets = patch_buckets(2, 3, 42, torch.device("cpu"))
    assert buckets.shape == (6, 6)
    middle = 41 * 83 + 41
    assert buckets.diagonal().tolist() == [middle] * 6
    assert buckets[4, 0] == middle + 83 + 1  # a row below and a column to the right
    assert buckets[0, 5] == middle - 83 - 2


@torch.no_grad()
def test_order_of_tokens_and_of_patches_matters(network, images):
    states = network.encoder(PROMPTS[:1], pixel_values=images[:1]).last_hidden_state
    other = network.encoder(PROMPTS[:1, [0, 2, 1, 3, 4, 5, 6]], pixel_values=images[:1]).last_hidden_state
    assert (states[:, -7] - other[:, -7]).abs().max() > 1e-3
    # an image of one colour: every inner patch sees the same, and is told apart by its place alone
    plain = network.encoder(PROMPTS[:1], pixel_values=torch.zeros(1, 3, 96, 96)).last_hidden_state
    assert (plain[0, 14] - plain[0, 21]).abs().max() > 1e-3


# masks


@torch.no_grad()
@pytest.mark.parametrize("with_images", [True, False])
def test_padding_changes_nothing(network, images, with_images):
    pixels = images if with_images else None
    batch = network(input_ids=PROMPTS, pixel_values=pixels, decoder_input_ids=ANSWERS).logits
    mask = (PROMPTS != 1).long()
    told = network(input_ids=PROMPTS, attention_mask=mask, pixel_values=pixels, decoder_input_ids=ANSWERS).logits
    assert torch.equal(batch, told)
    for i, length in enumerate(LENGTHS):
        one = network(
            input_ids=PROMPTS[i : i + 1, :length],
            pixel_values=None if pixels is None else pixels[i : i + 1],
            decoder_input_ids=ANSWERS[i : i + 1],
        ).logits
        torch.testing.assert_close(batch[i : i + 1], one, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_token_sees_none_behind_it(network, images):
    inputs = {"input_ids": PROMPTS, "pixel_values": images}
    whole = network(**inputs, decoder_input_ids=ANSWERS).logits
    torch.testing.assert_close(
        network(**inputs, decoder_input_ids=ANSWERS[:, :3]).logits, whole[:, :3], atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_padding_of_the_answer_can_be_masked(network, images):
    inputs = {"input_ids": PROMPTS, "pixel_values": images}
    padded = torch.cat([ANSWERS[:, :3], torch.full((3, 1), 1), ANSWERS[:, 3:]], dim=1)
    mask = torch.ones_like(padded)
    mask[:, 3] = 0
    other = torch.where(mask == 0, 70, padded)
    first, second = (
        network(**inputs, decoder_input_ids=ids, decoder_attention_mask=mask).logits[:, 4:] for ids in (padded, other)
    )
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    seen = network(**inputs, decoder_input_ids=padded).logits[:, 4:]
    assert (first - seen).abs().max() > 1e-3


# decoding


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@torch.no_grad()
def test_a_cache_changes_nothing(network, images, name):
    """By the name it has since transformers 5.24, and by the one before."""
    answers = torch.randint(4, 200, (3, 30), generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": PROMPTS, "pixel_values": images}
    whole = network(**inputs, decoder_input_ids=answers, use_cache=False)
    assert CACHES.isdisjoint(whole.keys())
    memory = network.encoder(**inputs)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    steps = []
    for start, stop in ((0, 1), (1, 2), (2, 7), *((i, i + 1) for i in range(7, 30))):
        step = network(
            encoder_outputs=memory,
            decoder_input_ids=answers[:, start:stop],
            **{name: cache},
        )
        steps.append(step.logits)
        assert [step[given] for given in CACHES & step.keys()] == [cache]
    assert cache.get_seq_length() == 30
    torch.testing.assert_close(torch.cat(steps, dim=1), whole.logits, atol=1e-5, rtol=0)


def test_beams_with_and_without_cache(network, images):
    how = {**BEAMS, "output_scores": True, "return_dict_in_generate": True}
    cached, plain = (
        network.generate(input_ids=PROMPTS, pixel_values=images, use_cache=use_cache, **how)
        for use_cache in (True, False)
    )
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(cached.sequences_scores, plain.sequences_scores, atol=1e-5, rtol=0)
    for tokens in cached.sequences.tolist():
        threes = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        assert len(set(threes)) == len(threes)
        assert tokens[0] == 0
        assert 2 not in tokens[:11]
    assert cached.sequences.shape == (3, 21)
    assert len({tuple(row) for row in cached.sequences.tolist()}) == 3


@pytest.mark.parametrize("is_told", [True, False])
def test_a_batch_answers_as_one_by_one(network, images, is_told):
    """Even where the mask is left to be found by the padding token."""
    how = {**BEAMS, "output_scores": True, "return_dict_in_generate": True}
    mask = {"attention_mask": (PROMPTS != 1).long()} if is_told else {}
    batch = network.generate(input_ids=PROMPTS, pixel_values=images, **mask, **how)
    for i, length in enumerate(LENGTHS):
        one = network.generate(input_ids=PROMPTS[i : i + 1, :length], pixel_values=images[i : i + 1], **how)
        assert batch.sequences[i].tolist() == one.sequences[0].tolist()
        torch.testing.assert_close(batch.sequences_scores[i], one.sequences_scores[0], atol=1e-5, rtol=0)


def test_five_beams_are_better_than_one(network, images):
    def score(tokens):
        logits = network(input_ids=PROMPTS, pixel_values=images, decoder_input_ids=tokens[:, :-1]).logits
        return logits.log_softmax(-1).gather(2, tokens[:, 1:, None]).sum()

    how = {"min_new_tokens": 6, "max_new_tokens": 6, "no_repeat_ngram_size": 0}
    with torch.no_grad():
        greedy, beams = (
            score(network.generate(input_ids=PROMPTS, pixel_values=images, num_beams=number, **how))
            for number in (1, 5)
        )
    assert beams > greedy


def test_half_precision(images):
    network = tiny_network().to(torch.bfloat16)
    tokens = network.generate(input_ids=PROMPTS, pixel_values=images.bfloat16(), **BEAMS)
    assert tokens.shape == (3, 21)


# training


def test_loss(network, images):
    labels = torch.tensor([[9, 30, 31, 2], [80, 81, 2, -100], [12, 2, -100, -100]])
    moved = torch.tensor([[0, 9, 30, 31], [0, 80, 81, 2], [0, 12, 2, 1]])
    inputs = {"input_ids": PROMPTS, "pixel_values": images}
    assert torch.equal(network.prepare_decoder_input_ids_from_labels(labels), moved)
    with torch.no_grad():
        outputs = network(**inputs, labels=labels)
        likelihood = network(**inputs, decoder_input_ids=moved).logits.log_softmax(-1)
        expected = -likelihood.gather(2, labels.clamp(min=0)[:, :, None])[..., 0][labels != -100].mean()
        torch.testing.assert_close(outputs.loss, expected)
        assert CACHES.isdisjoint(outputs.keys())
        smoothed = tiny_network(label_smoothing=0.2)(**inputs, labels=labels).loss
        uniform = -likelihood.mean(-1)[labels != -100].mean()
        torch.testing.assert_close(smoothed, 0.8 * expected + 0.2 * uniform)


def gradients(network, images, labels=ANSWERS, **how):
    network.zero_grad()
    network(input_ids=PROMPTS, pixel_values=images, labels=labels, **how).loss.backward()
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.requires_grad}


def frozen_norms(network):
    network.train()
    network.encoder.embed_images.eval()
    return network


@pytest.mark.parametrize("use_cache", [False, True])
def test_gradient_checkpointing_changes_nothing(images, use_cache):
    network = frozen_norms(tiny_network())
    expected = gradients(network, images)
    network.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in [*network.encoder.layers, *network.decoder.layers])
    found = gradients(network, images, use_cache=use_cache)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4)


def test_everything_that_learns_has_a_gradient(images):
    network = frozen_norms(tiny_network())
    found = gradients(network, images)
    assert all(value.abs().max() > 0 for value in found.values())
    still = {name.split(".")[1] for name, value in network.named_parameters() if not value.requires_grad}
    assert still == {"embed_image_positions", "image_pos_ln", "code_layernorm_embedding", "image_rel_pos_table_list"}


@pytest.mark.parametrize("setting", ["dropout", "attention_dropout", "activation_dropout"])
def test_dropout_only_as_configured(images, setting):
    inputs = {"input_ids": PROMPTS, "pixel_values": images, "decoder_input_ids": ANSWERS}
    with torch.no_grad():
        plain = tiny_network()(**inputs).logits
        assert torch.equal(frozen_norms(tiny_network())(**inputs).logits, plain)
        network = tiny_network(**{setting: 0.3})
        assert torch.equal(network(**inputs).logits, plain)
        assert (frozen_norms(network)(**inputs).logits - plain).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_drop_path_grows_with_depth(images, part):
    network = tiny_network(**{f"{part}_drop_path_rate": 0.4})
    rates = [layer.drop_path.drop_prob for layer in getattr(network, part).layers]
    assert rates == pytest.approx([0, 0.4] if part == "encoder" else [0, 0.2, 0.4])
    other = network.decoder if part == "encoder" else network.encoder
    assert all(layer.drop_path.drop_prob == 0 for layer in other.layers)


def test_it_learns(images):
    torch.manual_seed(0)
    small = OFAConfig(**{**TINY, "encoder_layers": 1, "decoder_layers": 1})
    network = frozen_norms(OFAForConditionalGeneration(small))
    network.encoder.embed_images.requires_grad_(False)
    optimiser = torch.optim.AdamW((value for value in network.parameters() if value.requires_grad), lr=1e-2)
    labels = torch.cat([ANSWERS[:, 1:], torch.full((3, 1), 2)], dim=1)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = network(input_ids=PROMPTS[:1].expand(3, -1), pixel_values=images[:, :, :16, :16], labels=labels).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(float(TINY["vocab_size"])).log().item(), rel=0.05)
    assert losses[-1] < 0.1 * losses[0]


# checkpoints and errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 64}, r"decoder\.\S+ is \(\d*.?\d*,? ?32\S*\) instead of .*, and \d+ more"),
        ({"vocab_size": 59457}, r"embed_tokens\.weight is \(9466, 32\) instead of \(59457, 32\)"),
        ({"encoder_layers": 1}, r"encoder\.image_rel_pos_table_list\.1\.weight has no place"),
        ({"decoder_layers": 5}, r"decoder\.image_rel_pos_table_list\.3\.weight is missing"),
        ({"resnet_type": "resnet101"}, r"encoder\.embed_images\.layer3\.10\.bn1\.bias is missing"),
    ],
)
def test_a_checkpoint_of_another_size_is_refused(checkpoint, tmp_path, changes, words):
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    (tmp_path / "pytorch_model.bin").symlink_to(checkpoint / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"config.json .*{words}"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(checkpoint, tmp_path):
    (tmp_path / "config.json").symlink_to(checkpoint / "config.json")
    tensors = torch.load(checkpoint / "pytorch_model.bin")
    del tensors["decoder.layers.2.cross_attn.c_attn"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"decoder\.layers\.2\.cross_attn\.c_attn is missing"):
        AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_what_a_checkpoint_leaves_open(checkpoint, tmp_path):
    network = OFAForConditionalGeneration.from_pretrained(checkpoint)
    wanted = {
        "num_beams": 5,
        "no_repeat_ngram_size": 3,
        "min_new_tokens": 16,
        "max_new_tokens": 128,
        "do_sample": False,
    }
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    assert {name: getattr(network.generation_config, name) for name in wanted} == wanted
    assert {name: getattr(network.generation_config, name) for name in tokens} == tokens
    network.generation_config.num_beams = 2
    network.generation_config.no_repeat_ngram_size = 0
    network.save_pretrained(tmp_path)
    again = OFAForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert (again.num_beams, again.no_repeat_ngram_size, again.max_new_tokens) == (2, 0, 128)
    assert json.loads((tmp_path / "config.json").read_text())["normformer"] is True


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"resnet_type": "resnet18"}, "resnet_type is 'resnet18'"),
        ({"d_model": 30}, "d_model is 30"),
    ],
)
def test_malformed_configurations(how, words):
    with pytest.raises(ValueError, match=words):
        OFAConfig(**how)


def test_an_argument_that_is_not_known_is_not_ignored(network):
    with pytest.raises(TypeError, match="memories"):
        network(input_ids=PROMPTS, decoder_input_ids=ANSWERS, memories=None)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"pixel_values": torch.zeros(3, 3, 112, 96)}, r"\(3, 3, 112, 96\)"),
        ({"pixel_values": torch.zeros(3, 1, 48, 48)}, r"\(3, 1, 48, 48\)"),
        ({"input_ids": torch.ones(3, 161, dtype=torch.long)}, "161 .* 160"),
        ({"decoder_input_ids": torch.ones(3, 161, dtype=torch.long)}, "161 .* 160"),
        ({"decoder_input_ids": None}, "decoder_input_ids"),
        ({"input_ids": None}, "input_ids"),
    ],
)
def test_malformed_inputs(network, how, words):
    with pytest.raises(ValueError, match=words):
        network(**{"input_ids": PROMPTS, "decoder_input_ids": ANSWERS, **how})
