"""The examples in the docstrings, run: of every function there is one."""

import doctest
import importlib
import inspect

import pytest

import evaluation
from evaluation import observers, report

FUNCTIONS = {
    name: value
    for package in (evaluation, observers, report.subjects)
    for name in package.__all__
    if inspect.isfunction(value := getattr(package, name))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example(name):
    function = FUNCTIONS[name]
    module = importlib.import_module(function.__module__)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=vars(module).copy())
    assert example.examples
    # raises at the first line that gives something else
    doctest.DebugRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
