"""The examples in the docstrings, run: of every array transform, of `read_image` and of `fuse_pair` there is one."""

import doctest
import importlib
import inspect

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from fusion_nets import transforms
from fusion_nets.clinical import read_image
from fusion_nets.workflows import fuse_pair

ARRAY = [
    value
    for name in transforms.__all__
    if inspect.isclass(value := getattr(transforms, name))
    and issubclass(value, Transform)
    and value.__name__.removesuffix("d") not in set(transforms.__all__) - {value.__name__}  # no dictionary twin
]
WITH_EXAMPLES = {value.__name__: value for value in (*ARRAY, read_image, fuse_pair)}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_example(name):
    value = WITH_EXAMPLES[name]
    known = {"torch": torch, "MetaTensor": MetaTensor, **vars(importlib.import_module(value.__module__))}
    (example,) = doctest.DocTestFinder(recurse=False).find(value, name, globs=known)
    assert example.examples
    # raises at the first line that gives something else
    doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
