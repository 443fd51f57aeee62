import pytest
import torch
from ignite.engine import Engine

from evaluation.functional import rouge_l
from fusion_nets.text.ofa import LearningDescriber
from fusion_nets.workflows import BestDescriber, CaptionBatch, GeneratingInferer, TextScore, warmup_cosine

TEXTS = ["Axial MR. Bright.", "Axial CT. Dark region on the left."]
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "resnet_type": "resnet14", "image_size": 32}


@pytest.fixture(scope="module")
def describer():
    torch.manual_seed(0)
    describer = LearningDescriber(None, SIZES, TEXTS, 280, {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": 1})
    describer.network.eval()
    return describer


@pytest.fixture
def batch():
    return {"image": torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), "text": TEXTS}


def test_labels_are_the_pieces_of_the_text_and_padding_does_not_count(describer, batch):
    tokenizer = describer.processor.tokenizer
    asked, labels, nothing, inputs = CaptionBatch(tokenizer)(batch)
    assert nothing == ()
    assert tokenizer.batch_decode(asked, skip_special_tokens=True) == [" what does the image describe?"] * 2
    assert labels[0, -1] == -100
    wanted = [f" {text}</s>" for text in TEXTS]
    assert [tokenizer.decode(one[one != -100]) for one in labels] == wanted
    loss = describer.network(asked, **inputs).loss
    # the loss is that of the wanted pieces alone
    logits = describer.network(asked, **inputs).logits.log_softmax(-1)
    counted = labels != -100
    expected = -logits[counted].gather(1, labels[counted][:, None]).mean()
    assert torch.allclose(loss, expected, atol=1e-5)


def test_generating(describer, batch):
    tokenizer = describer.processor.tokenizer
    asked, texts, _, inputs = CaptionBatch(tokenizer, " what?", generating=True)(batch)
    assert texts == TEXTS
    assert tokenizer.decode(asked[0], skip_special_tokens=True) == " what?"
    with torch.no_grad():
        tokens = describer.network.generate(asked, **inputs)
        assert GeneratingInferer(tokenizer)(asked, describer.network, **inputs) == [
            text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]


def test_a_score_is_the_mean_over_all_texts():
    metric = TextScore(rouge_l)
    engine = Engine(lambda _, output: output)
    metric.attach(engine, "rouge_l")
    first = {"pred": ["a b", "c"], "label": ["a b", "d"]}
    state = engine.run([first, {"pred": ["a"], "label": ["a b"]}])
    assert state.metrics["rouge_l"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    nothing = TextScore(lambda made, wanted: float("nan"))
    nothing.attach(engine, "nothing")
    assert engine.run([first]).metrics["nothing"] == 0


def test_the_best_folder_is_replaced_by_a_better_one_alone(describer, tmp_path):
    best = BestDescriber(tmp_path / "best", describer, "rouge_l")
    engine = Engine(lambda *_: None)
    weights = tmp_path / "best" / "model.safetensors"

    def note(value):
        engine.state.metrics = {"rouge_l": value}
        best(engine)
        return weights.read_bytes()

    first = note(0.5)
    with torch.no_grad():
        describer.network.encoder.image_proj.bias.add_(1)
    assert note(0.4) == first
    (weights.parent / ".partial-killed").mkdir()
    assert note(0.6) != first
    assert not list(weights.parent.glob(".*"))


def test_the_learning_rate_rises_and_falls():
    shares = [warmup_cosine(step, 10, 100) for step in range(101)]
    assert shares[:9] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert shares.index(max(shares)) == 9
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert shares[50] == pytest.approx(0.5)
    assert shares[100] == warmup_cosine(150, 10, 100) == 0
