"""Transforms as MONAI has them: an array transform, its dictionary twin, and the twin's other names."""

import inspect

import pytest
from monai.transforms import MapTransform, Transform

from fusion_nets import transforms

CLASSES = {name: one for name, one in vars(transforms).items() if inspect.isclass(one) and issubclass(one, Transform)}
TWINS = sorted(name for name in CLASSES if f"{name}d" in CLASSES)
OF_DICTIONARIES = sorted(
    {
        one.__name__
        for one in CLASSES.values()
        if issubclass(one, MapTransform) or "keys" in inspect.signature(one).parameters
    }
)


@pytest.mark.parametrize("name", OF_DICTIONARIES)
def test_a_dictionary_transform_has_its_twin_and_its_names(name):
    assert name.endswith("d")
    array = name[:-1]
    assert {array, name, f"{array}D", f"{array}Dict"} <= set(transforms.__all__)
    assert CLASSES[f"{array}D"] is CLASSES[f"{array}Dict"] is CLASSES[name]
    assert not issubclass(CLASSES[array], MapTransform)
    assert CLASSES[name].backend == CLASSES[array].backend
    assert f":class:`{array}`" in CLASSES[name].__doc__


def test_every_transform_has_a_twin():
    assert len(TWINS) == 26
    assert [f"{name}d" for name in TWINS] == OF_DICTIONARIES
    assert {one.__name__ for one in CLASSES.values()} == {*TWINS, *OF_DICTIONARIES}
    assert set(CLASSES) <= set(transforms.__all__)


@pytest.mark.parametrize("name", TWINS)
def test_twins_take_the_same_arguments(name):
    """But for keys, and what stands under other keys."""
    array, dictionary = (set(inspect.signature(CLASSES[one]).parameters) for one in (name, f"{name}d"))
    assert array <= dictionary
