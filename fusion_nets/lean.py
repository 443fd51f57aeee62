"""MONAI, in a command of this library's, without the libraries for what no command does: nearly half the time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lean_monai"]

UNUSED = frozenset(["matplotlib", "pandas", "scipy.signal", "skimage", "sklearn", "tensorboard", "transformers"])
"""What MONAI's modules import for themselves where it is installed, and do without where it is not."""


class _Unused:
    """A finder of modules that finds none of these for MONAI while it is imported; later, and for others, all."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        spec = getattr(sys.modules.get("monai"), "__spec__", None)
        if name in UNUSED and getattr(spec, "_initializing", False):
            raise ModuleNotFoundError(f"No module named {name!r}: MONAI was imported without", name=name)


@contextmanager
def lean_monai() -> Iterator[None]:
    """Where MONAI is imported here for the first time, it is so without those libraries, as if they were missing."""
    sys.meta_path.insert(0, _Unused)
    try:
        yield
    finally:
        sys.meta_path.remove(_Unused)
