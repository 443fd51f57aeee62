"""Objects are told apart by what they are made of, in this process and in another."""

import functools
import itertools
import operator
import os
import re
import subprocess
import sys
import threading
from enum import Enum
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambda, Lambdad, RandGaussianNoised, RandLambda
from torch import nn

from fusion_nets.networks import DMFNet
from fusion_nets.text import TextEncoder
from fusion_nets.transforms import SaveFusedd
from fusion_nets.workflows import SlicewiseInferer, digests
from fusion_nets.workflows.digests import digest

FACTOR = 2
TINY = {"width": 8, "norm_groups": 4, "head_width": 4, "steps": [10]}


def multiplied(factor):
    return lambda image: image * factor


def nested(factor):
    return lambda image: [pixel * 2 + eval("0") for pixel in (lambda rows: rows * len(str(factor)))(image)]


def by_default(factor):
    return eval(f"lambda image, factor={factor}: image * factor")


def by_keyword(factor):
    def change(image, *, factor=factor):
        return image * factor

    return change


def by_global(factor):
    return eval("lambda image: image * factor", {"factor": factor})


def by_own_function(factor):
    change = multiplied(factor)
    return lambda image: change(image)


def wrapped(factor):
    def wrap(function):
        @functools.wraps(function)
        def change(image):
            return function(image) * factor

        return change

    return wrap(multiplied)


class Slots:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def change(self, image):
        return image * self.factor


class Tone(Enum):
    BRIGHT = 1
    DARK = 2


def module(factor):
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, factor)
    nn.init.zeros_(network.bias)
    return network


def with_attribute(factor):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    network.factor = factor
    return network


def diffusion(**options):
    torch.manual_seed(0)
    return DMFNet(**{**TINY, **options})


def local_class(factor):
    class Local:
        def __call__(self, image):
            return image * factor

    return Local


KINDS = {
    "scalar": float,
    "string": str,
    "bytes": lambda factor: bytes([factor]),
    "complex": complex,
    "path": lambda factor: SimpleNamespace(folder=os.path.join("a", str(factor))),
    "array": lambda factor: np.full(3, factor),
    "number of an array": np.float32,
    "array of objects": lambda factor: np.array([{"a": factor}, None], dtype=object),
    "tensor": lambda factor: torch.full((2, 3), factor, dtype=torch.bfloat16),
    "tensor without a side": lambda factor: torch.tensor(factor),
    "weights": module,
    "attribute of a network": with_attribute,
    "closure": multiplied,
    "nested functions": lambda factor: nested(10**factor),
    "default": by_default,
    "default by keyword": by_keyword,
    "global": by_global,
    "function of a function": by_own_function,
    "wrapped": wrapped,
    "code": lambda factor: eval(f"lambda image: image * {factor}"),
    "partial": lambda factor: functools.partial(operator.mul, factor),
    "keyword of a partial": lambda factor: functools.partial(round, ndigits=factor),
    "getter": operator.itemgetter,
    "method": lambda factor: Slots(factor).change,
    "slots": Slots,
    "class": local_class,
    "enumeration": Tone,
    "pattern": lambda factor: re.compile("a" * factor),
    "type": lambda factor: (int, float)[factor - 2] if factor > 1 else str,
    "dtype": lambda factor: (torch.int8, torch.int16)[factor - 1],
    "range": range,
    "slice": lambda factor: slice(factor),
    "set": lambda factor: {"a", factor},
    "proxy": lambda factor: MappingProxyType({"a": factor}),
    "generator": lambda factor: np.random.default_rng(factor),
    "transform": lambda factor: Lambdad("image", multiplied(factor)),
    "random transform": lambda factor: Compose([RandLambda(func=multiplied(factor), prob=0.5), Lambda(abs)]),
    "argument of a random transform": lambda factor: RandGaussianNoised("image", std=factor),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_object(kind):
    """What differs is told apart, and what is made again in the same way is not."""
    one, again, other = (digest(KINDS[kind](factor)) for factor in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize(
    "option",
    [
        {"seed": 1},
        {"steps": [20]},
        {"schedule_steps": 1000},
        {"beta_start": 2e-6},
        {"beta_end": 2e-2},
        {"residual": True},
        {"dropout": 0.1},
    ],
    ids=lambda option: next(iter(option)),
)
def test_options_that_are_no_weights(option):
    plain = diffusion()
    assert digest(plain) == digest(diffusion())
    assert digest(plain) != digest(diffusion(**option))


def test_a_network_in_use_is_the_same():
    network = diffusion()
    before = digest(network)
    network.eval().to(memory_format=torch.channels_last)
    network.register_forward_hook(lambda *_: None)
    network(torch.rand(1, 2, 32, 32))
    assert digest(network) == before
    nn.init.constant_(next(network.fusion.parameters()), 0.5)
    assert digest(network) != before


def test_what_is_no_setting():
    assert digest({"a": {1, 2}}) == digest({"a": {2, 1}})
    assert digest(["a", (1, 2)]) == digest(("a", [1, 2]))
    assert len({digest(value) for value in ([1, 2], [[1], [2]], {1: 2}, [1, 2.0], [1, "2"], [True, 2])}) == 6
    assert digest(SimpleNamespace(device="cpu")) == digest(SimpleNamespace(device="cuda:1"))
    assert digest(SaveFusedd(output_dir="a")) == digest(SaveFusedd(output_dir="b"))
    assert digest(SaveFusedd(output_format="png")) != digest(SaveFusedd(output_format="nrrd"))
    assert digest(SlicewiseInferer(4, progress=True)) == digest(SlicewiseInferer())
    assert digest(SlicewiseInferer(amp=True)) != digest(SlicewiseInferer())
    assert digest(SimpleNamespace(configuration={"sha256": "1"})) != digest(
        SimpleNamespace(configuration={"sha256": 2})
    )
    assert digest(SimpleNamespace(lock=threading.Lock())) == digest(SimpleNamespace(lock=threading.Lock()))


def test_what_is_worked_out_once_and_kept():
    class Describer:
        def __init__(self):
            self.seed = 1

        @functools.cached_property
        def model(self):
            return object()

    describer = Describer()
    before = digest(describer)
    assert describer.model
    assert digest(describer) == before


def test_a_text_encoder_is_its_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = TextEncoder(tmp_path, cache_dir="a", device="cpu")
    first._memory["text"] = {}
    assert digest(first) == digest(TextEncoder(str(tmp_path), cache_dir="b", device="cuda"))
    before = digest(first)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert digest(TextEncoder(tmp_path)) != before
    assert digest(TextEncoder("no/model", "1")) != digest(TextEncoder("no/model", "2"))


def test_what_cannot_be_looked_into_is_never_the_same(monkeypatch, caplog):
    endless = itertools.chain([1])
    held = SimpleNamespace(rows=(one for one in endless))
    before = digest(held)
    assert "what a builtins.generator does cannot be compared" in caplog.text
    monkeypatch.setattr(digests, "_UNLIKE", "of another process")
    assert digest(held) != before


def test_objects_that_hold_each_other():
    one, other = SimpleNamespace(window=1), SimpleNamespace(window=2)
    one.other, other.other = other, one
    assert digest(one) != digest(other)
    other.window, before = 3, digest(one)
    assert digest(one) != before


PROGRAM = """
import functools, numpy, torch
from monai.transforms import Compose, Lambdad, LoadImaged
from fusion_nets.networks import SMFusion
from fusion_nets.workflows.digests import digest
import own
torch.manual_seed(0)
network = SMFusion(widths=(8, 8), blocks=(1, 1), heads=(1, 2), refinement_blocks=1, text_width=4)
factor = 2
change = lambda image: (lambda rows: rows * factor)(image)
parts = [LoadImaged("image"), Lambdad("image", change), Lambdad("image", own.double), own.Change()]
print(digest([Compose(parts), network, {"b", "a", ("c", 1)}, functools.partial(own.double, 1)]))
"""
OWN = "def double(image):\n    return image * {factor}\nclass Change:\n    pass\n"


@pytest.mark.slow
def test_in_another_process_and_when_a_users_own_file_changes(tmp_path):
    def told(factor):
        (tmp_path / "own.py").write_text(OWN.format(factor=factor))
        words = [sys.executable, "-B", "-c", PROGRAM]
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return subprocess.run(
            words, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
        ).stdout

    assert told(2) == told(2) != told(3)


def test_the_files_of_an_image(tmp_path):
    series = tmp_path / "series"
    (series / "inner").mkdir(parents=True)
    for path in (series / "a", series / "inner" / "b", tmp_path / "x.mhd", tmp_path / "x.raw", tmp_path / "y.raw"):
        path.write_text("1")
    assert [file[0] for file in digests.files_of(series)] == ["series/a", "series/inner/b"]
    assert [file[0] for file in digests.files_of(tmp_path / "x.mhd")] == ["x.mhd", "x.raw"]
    assert digests.files_of(tmp_path / "absent.png") == []


def test_files_that_are_as_long_as_they_were(tmp_path):
    (tmp_path / "series" / "inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    files = {"a.png": b"12", "series/1.dcm": b"123", "series/inner/2.dcm": b"1"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    written = digests.sizes(tmp_path, ["a.png", "series"])
    assert written == {name: len(content) for name, content in files.items()}
    assert digests.are_whole(tmp_path, written)
    for name, content in files.items():
        for shorter in (content[:-1], b""):
            (tmp_path / name).write_bytes(shorter)
            assert not digests.are_whole(tmp_path, written)
        (tmp_path / name).unlink()
        assert not digests.are_whole(tmp_path, written)
        (tmp_path / name).write_bytes(content + b"more")
        assert digests.are_whole(tmp_path, written)
    for nothing in ("absent.png", "empty"):
        assert digests.sizes(tmp_path, [nothing]) == {nothing: 0}
        assert not digests.are_whole(tmp_path, {nothing: 0})
