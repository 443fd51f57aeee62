"""Elastix in a process of its own, which :mod:`fusion_nets.elastix_process` starts and speaks with.

A script that needs NumPy and ITK alone. It reads requests, each a line of JSON and the values of three images, and
answers each with a line of JSON: the parameter maps of the transforms that were found, or what went wrong.

Of ITK it loads what elastix uses. The modules that wrap elastix name a third of ITK and, where it is installed, torch;
to load all that takes twenty seconds of a processor, this part two.
"""

import os
import sys

if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
    sys.path.pop(0)  # this folder, whose names are not meant to be found

import importlib.abc
import importlib.machinery
import json
import math
import subprocess
from collections.abc import Sequence
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

_USED = ("ITKPyBase", "ITKCommonBase", "ITKCommon", "ITKBridgeNumPy")
_WHOLE = "whole"


class _Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for what elastix' own name and no request uses: other parts of ITK, torch and xarray."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        is_part = package == "itk" and name.startswith("ITK") and name.endswith("Python")
        is_unused = package in ("torch", "xarray") or (is_part and name.removesuffix("Python") not in _USED)
        return importlib.machinery.ModuleSpec(fullname, self) if is_unused else None

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


def load_used() -> None:
    """Load the part of ITK that a request uses, now rather than then.

    Raises:
        Exception: any, where ITK is not as it was when its parts were named here.
    """
    sys.meta_path.insert(0, _Unused())
    from itk.support.base import ITKModuleInfo

    all_of = ITKModuleInfo.get_module_dependencies
    ITKModuleInfo.get_module_dependencies = lambda info: [name for name in all_of(info) if name in _USED]
    load_whole()


def load_whole() -> None:
    """Load ITK as it loads itself, and try what a request needs of it."""
    import itk

    image, mask = (itk.image_from_array(np.zeros((2, 2, 2), kind)) for kind in (np.float32, np.uint8))
    itk.matrix_from_array(np.eye(3))
    itk.ParameterObject.New()
    itk.ElastixRegistrationMethod.New(image, image).SetFixedMask(mask)


def image_of(
    stream: BinaryIO,
    size: list[int],
    kind: str,
    spacing: list[float],
    origin: list[float],
    direction: list[list[float]],
) -> Any:
    """An ITK image of the values that come next, (Z, Y, X)."""
    import itk

    values = stream.read(math.prod(size) * np.dtype(kind).itemsize)
    image = itk.image_from_array(np.frombuffer(values, kind).reshape(size))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(itk.matrix_from_array(np.array(direction)))
    return image


def registered(images: list[Any], maps: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """The parameter maps of the transforms that elastix finds; images are the fixed one, the moving one and a mask."""
    import itk

    parameters = itk.ParameterObject.New()
    for values in maps:
        parameters.AddParameterMap(values)
    method = itk.ElastixRegistrationMethod.New(images[0], images[1])
    method.SetParameterObject(parameters)
    method.SetFixedMask(images[2])
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(1)  # sums over threads would depend on how many there are
    method.Update()
    found = method.GetTransformParameterObject()
    return [
        {key: list(values) for key, values in found.GetParameterMap(step).items()}
        for step in range(found.GetNumberOfParameterMaps())
    ]


def main() -> None:
    """Answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what ITK prints is no answer
    if sys.argv[1:] == [_WHOLE]:
        load_whole()
    else:
        try:
            load_used()
        except Exception:  # another ITK: whole, in a process in which nothing of it is empty
            sys.exit(subprocess.call([sys.executable, __file__, _WHOLE], stdout=answers))
    requests = sys.stdin.buffer
    while line := requests.readline():
        asked = json.loads(line)
        images = [image_of(requests, **placed) for placed in asked["images"]]
        try:
            answer: dict[str, Any] = {"maps": registered(images, asked["maps"])}
        except Exception as error:
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
