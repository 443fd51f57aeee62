import itertools
import math
import random
from dataclasses import dataclass

import pytest
import torch

from evaluation import finding_precision, finding_recall, rouge_l, text_similarity


@dataclass(frozen=True)
class Statement:
    """A finding of its own class: any object with these attributes will do."""

    kind: str = "bright region"
    side: str = "left"
    size: float | None = 4.0
    unit: str = "%"
    place: str = ""
    intensity: float | None = None


DARK = Statement("dark region", "midline", 2.0)
BONE = Statement("bone", "both", None, "")


def test_share_of_the_source():
    source = [Statement(), Statement(side="right"), DARK, BONE]
    assert finding_recall(source, source) == 1
    assert finding_recall([DARK, BONE, Statement()], source) == 0.75
    assert finding_recall([BONE], source) == 0.25
    assert finding_recall([Statement("tumour")], source) == 0


def test_inventions_cost_precision_and_not_recall():
    source = [Statement(), DARK]
    fused = [*source, BONE, Statement("tumour")]
    assert finding_recall(fused, source) == 1
    assert finding_precision(fused, source) == 0.5
    assert finding_precision([DARK], source) == 1
    assert finding_recall([DARK], source) == 0.5


def test_nothing_to_keep_or_nothing_said():
    assert math.isnan(finding_recall([DARK], []))
    assert math.isnan(finding_recall([], []))
    assert finding_recall([], [DARK]) == 0
    assert math.isnan(finding_precision([], [DARK]))
    assert finding_precision([DARK], []) == 0


@pytest.mark.parametrize(
    ("other", "matches"),
    [
        ({"side": "right"}, False),
        ({"side": "both"}, False),
        ({"side": ""}, False),
        ({"kind": "dark region"}, False),
        ({"unit": "mm"}, False),
        ({"size": None}, False),
        ({"size": None, "unit": ""}, False),
        ({"place": "anterior"}, True),
        ({"intensity": 80.0}, True),
        ({"size": 3.0}, True),  # a quarter of the larger one
        ({"size": 2.99}, False),
        ({"size": 16 / 3}, True),
        ({"size": 5.34}, False),
    ],
)
def test_what_makes_a_match(other, matches):
    a, b = Statement(), Statement(**other)
    assert finding_recall([b], [a]) == finding_recall([a], [b]) == finding_precision([a], [b]) == matches


@pytest.mark.parametrize(
    ("a", "b", "matches"), [(0.1, 0.6, True), (0.1, 0.61, False), (0, 0.5, True), (0.6, 1.1, True)]
)
def test_small_sizes(a, b, matches):
    assert finding_recall([Statement(size=a)], [Statement(size=b)]) == matches


def test_tolerances_can_be_set():
    fused, source = [Statement(size=8)], [Statement(size=10)]
    assert finding_recall(fused, source, size_tolerance=0.2) == 1
    assert finding_recall(fused, source, size_tolerance=0.19) == 0
    assert finding_recall(fused, source, 0, 2) == finding_precision(fused, source, 0, 2) == 1
    assert finding_recall(fused, source, 0, 1.9) == finding_precision(fused, source, 0, 1.9) == 0
    assert finding_recall(source, source, 0, 0) == 1


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["size_tolerance", "size_floor"])
def test_tolerances_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number, 0 or more"):
        finding_recall([], [], **{name: value})


def test_what_is_said_twice_must_be_found_twice():
    assert finding_recall([DARK], [DARK, DARK]) == 0.5
    assert finding_precision([DARK, DARK, DARK], [DARK, DARK]) == pytest.approx(2 / 3)
    assert finding_recall([DARK, DARK], [DARK, DARK]) == 1


def test_as_many_as_possible_match():
    """10 fits 8 and 12, 7 fits 8 only: taking the first that fits would leave one without a match."""
    source = [Statement(size=10), Statement(size=7)]
    for fused in itertools.permutations([Statement(size=8), Statement(size=12)]):
        assert finding_recall(fused, source) == finding_precision(fused, source) == 1


def test_best_of_all_assignments():
    generator = random.Random(0)
    for _ in range(50):
        source, fused = (
            [
                Statement(side=generator.choice("lr"), size=generator.uniform(2, 8))
                for _ in range(generator.randint(1, 5))
            ]
            for _ in range(2)
        )
        short, long = sorted((source, fused), key=len)
        best = max(
            sum(
                a.side == b.side and min(a.size, b.size) >= 0.75 * max(a.size, b.size)
                for a, b in zip(short, order, strict=True)
            )
            for order in itertools.permutations(long, len(short))
        )
        assert finding_recall(fused, source, size_floor=0) == pytest.approx(best / len(source))


def test_rouge_of_known_texts():
    # the example of the paper's section 3.1, and its second candidate
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)
    # 3 common words of 4 and of 6: precision 3/4, recall 1/2
    assert rouge_l("a b c x", "a y b z c w") == pytest.approx(0.6)
    assert rouge_l("Left, bright!", "left bright") == 1
    assert rouge_l("12.5 %", "12.7 %") == 0.5


@pytest.mark.parametrize(("fused", "source"), [("", ""), ("", "bright"), ("bright", ""), ("...", "bright")])
def test_rouge_without_words(fused, source):
    assert rouge_l(fused, source) == 0


def test_rouge_against_torchmetrics():
    from torchmetrics.functional.text import rouge_score

    generator = random.Random(1)
    words = ["Bright", "dark", "region", "left", "right,", "12.5 %", "4 mm.", "\n", "T2-weighted", "µ", "of"]
    texts = [" ".join(generator.choices(words, k=generator.randint(0, 30))) for _ in range(60)]
    for fused, source in itertools.pairwise(texts):
        expected = rouge_score(fused, source, rouge_keys="rougeL")["rougeL_fmeasure"].item()
        assert rouge_l(fused, source) == pytest.approx(expected, abs=1e-6)


def test_similarity_is_the_cosine():
    fused = torch.tensor([[1.0, 0], [1, 0], [2, 0], [1, 1], [0, 0]])
    source = torch.tensor([[3.0, 0], [0, 1], [-1, 0], [1, 0], [1, 0]])
    torch.testing.assert_close(text_similarity(fused, source), torch.tensor([1, 0, -1, 0.5**0.5, 0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_similarity_in_any_precision(dtype):
    fused, source = torch.randn(2, 6, 384, generator=torch.Generator().manual_seed(0)).to(dtype)
    value = text_similarity(fused, source)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(value.double(), torch.cosine_similarity(fused.double(), source.double()))


@pytest.mark.parametrize(
    ("first", "second"), [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))]
)
def test_similarity_of_wrong_shapes(first, second):
    with pytest.raises(ValueError, match=r"expected two \(B, D\) of one shape"):
        text_similarity(torch.ones(first), torch.ones(second))
