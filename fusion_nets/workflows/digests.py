"""What determines a result, as a digest; and whether a result is still as whole as it was written."""

from __future__ import annotations

import copyreg
import hashlib
import json
import logging
import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from glob import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeAlias
from weakref import ReferenceType

import numpy as np
import torch

import evaluation
import fusion_nets
from fusion_nets.clinical.bids_pet import told_of

__all__ = ["are_whole", "digest", "files_of", "library_digest", "sizes"]

_WITHOUT_EFFECT = ("R", "_is_clean", "cache_dir", "device", "output_dir", "progress", "sw_batch_size")
"""Attributes that say where and how something is done, or what was done before, not what comes out."""

_COMPUTE = ("torch", "monai", "numpy", "scipy", "itk-elastix")
"""Packages whose other versions give other figures."""

_HEADERS = (".mhd", ".nhdr")
"""Of images whose values lie in another file."""

_NO_RESULT = ("_thread", "threading")
"""Modules of what has no value: locks."""

_OF_ANY_MODULE = frozenset(vars(torch.nn.Module())) - {"_parameters", "_buffers", "_modules"}
"""What torch keeps in every module: hooks, and whether it is trained."""

_Inside: TypeAlias = "Callable[[Iterable[Any]], list[Any]]"

_UNLIKE = uuid.uuid4().hex
"""Stands for what cannot be looked into: in another process it is another, so that it is never taken for the same."""


def digest(value: Any) -> str:
    """A digest of objects by what they are made of, the same in every process where the same would come out.

    Objects are taken apart as ``pickle`` does it, with their classes, and these with the source files of their modules.
    Functions without a name of their own are their code, what they enclose, their defaults and the globals that they
    name. Arrays, tensors and the weights of networks are their bytes. What tells by ``configuration`` what it does, as
    describers and text encoders do, is that. Left out is what says only where and how something is done: devices,
    folders to write to, progress bars, how many slices go through a network together.

    Examples:
        >>> from functools import partial
        >>> digest(partial(round, ndigits=1)) == digest(partial(round, ndigits=1)) != digest(partial(round, ndigits=2))
        True
    """
    return _hash(_plain(value, {}))


def files_of(path: Path) -> list[Any]:
    """Name, size and time of change of an image's files, and what sidecars say of a PET by BIDS.

    The content of images would have to be read of every case at every start.
    """
    if os.path.isdir(path):  # unlike Path.is_dir it takes any name
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix.lower() in _HEADERS:
        files = sorted(path.parent.glob(f"{escape(path.stem)}.*")) if os.path.isfile(path) else []
    else:
        files = [path] if os.path.isfile(path) else []
    looks = [(str(file.relative_to(path.parent)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [*looks, *told_of(path)]


@cache
def library_digest() -> str:
    """A digest of the sources of this library, and of the versions of what it computes with."""
    rooms = [Path(room) for package in (evaluation, fusion_nets) for room in package.__path__]
    sources = [file.read_text(encoding="utf-8") for room in rooms for file in sorted(room.rglob("*.py"))]
    return _hash([sources, [_version(name) for name in _COMPUTE]])


def sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes of files in a folder, by their names; of folders in it, those of all files they hold. 0 where none is."""
    found = {}
    for name in names:
        path = folder / name
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        told = {file.relative_to(folder).as_posix(): _size(file) for file in sorted(files)}
        found.update(told or {name: 0})
    return found


def are_whole(folder: Path, written: Mapping[str, int]) -> bool:
    """Whether all files are there that :func:`sizes` told of, none of them empty or shorter than it was."""
    return all(0 < size <= _size(folder / name) for name, size in written.items())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]  # what follows says for which device it was built
    except PackageNotFoundError:
        return ""


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """A value as it is, if JSON has it, else a digest; what is met inside itself is told by where it was met first."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if id(value) not in seen:
        seen[id(value)] = value, f"what was met as number {len(seen)}"
        seen[id(value)] = value, _hash(_parts(value, seen))
    return seen[id(value)][1]


def _parts(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    def inside(values: Iterable[Any]) -> list[Any]:
        return [_plain(one, seen) for one in values]

    if type(value) in (list, tuple):
        return ["list", *inside(value)]
    if type(value) in (dict, MappingProxyType):
        return ["dict", *([_plain(name, seen), _plain(one, seen)] for name, one in value.items())]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(map(json.dumps, inside(value)))]
    if isinstance(value, (bytes, bytearray, complex, range, slice, type(...))):
        return [type(value).__name__, repr(value)]
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().as_subclass(torch.Tensor).reshape(-1).contiguous()
        return ["tensor", str(value.dtype), list(value.shape), _bytes(flat.view(torch.uint8).numpy())]
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        held = inside(array.flat) if array.dtype.hasobject else _bytes(np.ascontiguousarray(array))
        return ["array", str(array.dtype), list(array.shape), held]
    if isinstance(value, ReferenceType):
        return ["reference", *inside([value()])]
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    if isinstance(value, CodeType):
        calls = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        return ["code", value.co_code.hex(), *calls, *map(inside, (value.co_names, value.co_varnames, value.co_consts))]
    if isinstance(value, (type, FunctionType)):
        return _named(value, inside)
    if hasattr(value, "configuration"):
        return ["object", *inside([type(value), value.configuration])]
    if isinstance(value, torch.nn.Module):
        made_of = {name: one for name, one in vars(value).items() if name not in _OF_ANY_MODULE}
        return ["object", *inside([type(value), _with_effect(value, made_of)])]
    return _taken_apart(value, inside)


def _named(value: Any, inside: _Inside) -> list[Any]:
    """A class or function: by its name and the file it comes from, or else by its code."""
    name, source = f"{value.__module__}.{value.__qualname__}", _source(value.__module__)
    if source and _found(value) is value:
        return ["name", name, source]
    if isinstance(value, type):
        does = {key: one for key, one in vars(value).items() if isinstance(one, FunctionType)}
        return ["class", name, *inside([does])]
    named = {key: value.__globals__[key] for key in sorted(_names(value.__code__)) if key in value.__globals__}
    enclosed = [_content(cell) for cell in value.__closure__ or ()]
    return ["function", *inside([value.__code__, value.__defaults__, value.__kwdefaults__, enclosed, named])]


def _taken_apart(value: Any, inside: _Inside) -> list[Any]:
    """Any other object, as ``pickle`` would take it apart."""
    if type(value).__module__ in _NO_RESULT:
        return [type(value).__name__]
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)
    except (TypeError, AttributeError, NotImplementedError, RuntimeError, ValueError, pickle.PickleError):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        logging.getLogger(__name__).warning("what a %s does cannot be compared: all is done again another time", kind)
        return [kind, _UNLIKE]
    if isinstance(reduced, str):
        return ["name", f"{getattr(value, '__module__', None)}.{reduced}"]
    made_by, arguments, state, items, entries = (*reduced, None, None, None)[:5]
    held = [made_by, arguments, _with_effect(value, state), list(items or ()), list(map(list, entries or ()))]
    return ["object", *inside([type(value), *held])]


def _found(value: Any) -> Any:
    """What its module has by its name: of what was made inside a function, or wrapped, it is not itself."""
    found: Any = sys.modules.get(value.__module__)
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def _with_effect(value: Any, state: Any) -> Any:
    """The state of an object, in no order, without what has no effect and what it will work out again."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # of a class with slots
        return [_with_effect(value, part) for part in state]
    if not isinstance(state, dict):
        return state
    return {
        name: state[name]
        for name in sorted(state, key=str)
        if name not in _WITHOUT_EFFECT and not isinstance(getattr(type(value), str(name), None), cached_property)
    }


def _names(code: CodeType) -> set[str]:
    """Those that a function uses, itself or in functions inside it."""
    return set(code.co_names).union(*(_names(const) for const in code.co_consts if isinstance(const, CodeType)))


def _content(cell: Any) -> Sequence[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not filled yet
        return []


@cache
def _source(module: str | None) -> str:
    """A digest of the file that a module was written in; none of what is no Python, or was typed in."""
    file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    if not file.endswith(".py") or not os.path.isfile(file):
        return ""
    return _bytes(Path(file).read_bytes())


def _bytes(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()
