"""Elastix in a process of its own, which :mod:`fusion_nets.elastix_process` starts and speaks with.

A script that needs NumPy and ITK alone. It reads requests, each a line of JSON and the values of three images, and
answers each with a line of JSON: the parameter maps of the transforms that were found, or what went wrong.
"""

import os
import sys

if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
    sys.path.pop(0)  # this folder, whose names are not meant to be found

import json
import math
from typing import Any, BinaryIO

import numpy as np


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
    import itk

    itk.ElastixRegistrationMethod  # noqa: B018  loads now what a request would wait for
    itk.ParameterObject  # noqa: B018
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
