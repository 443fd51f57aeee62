"""What each command of `fusion-nets` does with its parsed arguments.

A command imports what it needs itself, so that `--help` and errors of options answer at once, prints what it wrote, and
raises `ValueError`, `OSError` or `ModuleNotFoundError` for what the user can mend.
"""

from .arrival import receive
from .checks import check_options
from .of_images import convert, fuse, montage, view
from .quality import DESCRIBERS, describe, evaluate, lesions
from .sets import import_weights, sample, simulate, slices

__all__ = [
    "DESCRIBERS",
    "check_options",
    "convert",
    "describe",
    "evaluate",
    "fuse",
    "import_weights",
    "lesions",
    "montage",
    "receive",
    "sample",
    "simulate",
    "slices",
    "view",
]
