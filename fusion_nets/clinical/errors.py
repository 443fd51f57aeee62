"""What is said when an image cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes

from fusion_nets.names import shown
from fusion_nets.resources import available_addresses, available_memory, available_room
from fusion_nets.slabs import LARGE, scratch_folder

__all__ = [
    "ImageError",
    "Pixels",
    "Reason",
    "check_affine",
    "check_pointer",
    "check_voxels",
    "check_window",
    "unreadable",
]

VALUE = 4
"""Bytes of a voxel, as float32."""

COPIES = 12
"""As many as there may be of a volume at once, of which a large one takes room on the disk: sources, the pair and the
colours that are kept beside it, the result and what is written of it."""


class Pixels(NamedTuple):
    """What a reader of one form makes of a file.

    Attributes:
        array: (1 | 3, H, W[, D]).
        affine: voxels to RAS in mm, (4, 4).
        white: the value that means white; None of values that are measured.
        is_placed: whether the file says where the image lies, so that the affine is more than a guess.
    """

    array: np.ndarray
    affine: np.ndarray
    white: int | None = None
    is_placed: bool = True


class Reason(Enum):
    """Why an image cannot be used, for programs; the message of the error says it for people."""

    MISSING = "missing"
    """It is not there, or cannot be opened."""
    KIND = "kind"
    """A kind of file, object or pixels that is not read."""
    DAMAGED = "damaged"
    """It is not whole, or what it says of itself is not so."""
    INCOMPLETE = "incomplete"
    """Slices are missing, or what it must say of itself."""
    NO_PIXELS = "no pixels"
    """DICOM without an image."""
    AMBIGUOUS = "ambiguous"
    """Several, where one is meant."""
    MIXED = "mixed"
    """Its slices do not belong together."""
    GEOMETRY = "geometry"
    """Its voxels do not lie on a regular grid."""
    GRID = "grid"
    """It does not lie on the grid of another."""
    SHAPE = "shape"
    """Other axes or channels than can be used here."""
    TOO_LARGE = "too large"
    TOO_SMALL = "too small"
    NOT_FINITE = "not finite"
    """NaN or infinity."""
    EMPTY = "empty"
    """It shows nothing: every value is the same, or those that count are."""
    VALUES = "values"
    """Other values than grey levels or colours have."""
    UNITS = "units"
    """The display range asked for is of other units."""
    TEXT = "text"
    """It has no text, or not as many as slices."""
    OUTPUT = "output"
    """It cannot become what is asked for."""
    REGISTRATION = "registration"
    """It cannot be registered, or lay better before."""
    MEMORY = "memory"
    """There is not enough memory for it."""
    SEVERAL = "several"
    """Some of many cannot be used, each for a reason that was told."""


class ImageError(ValueError):
    """An image that cannot be used.

    Args:
        reason: why, of a short list that stays as it is from version to version.
        message: names the file, the reason and what would be accepted; its words may change.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)  # which is what pickle makes it of again
        self.reason = reason

    def __str__(self) -> str:
        """The message, with an escape sequence for each half character that a name of a file may have."""
        return shown(self.args[1])


def check_voxels(where: object, shape: tuple[int, ...], held: int = 0) -> None:
    """Refuse a size for which there is no memory, or no room on the disk where large volumes lie, before it is taken.

    Args:
        where: what the message starts with.
        shape: of the voxels, colours included.
        held: bytes per voxel that have to be held in memory beside the float32 that is made of it.

    Raises:
        ImageError: for more voxels than there is memory or room for, see :mod:`fusion_nets.resources`.
    """
    count = 1
    for length in shape:
        count *= int(length)  # not in numpy's integers, which overflow
    in_file = count * VALUE * COPIES if count >= LARGE else 0
    in_memory = count * (held + VALUE) if held or not in_file else 0
    for needed, there, where_to, instead in (
        (in_memory, available_memory(), "of memory", "a smaller part, NIfTI or DICOM, or a machine with more"),
        (in_file, available_room(), f"in {scratch_folder()}", "a smaller part, or another folder by TMPDIR"),
        (in_file, available_addresses(), "of address space (ulimit -v)", "a smaller part, or a higher limit"),
    ):
        if needed > there or min(shape) < 0:
            raise ImageError(
                Reason.TOO_LARGE,
                f"{where}: shape {shape} takes {needed / 2**30:.1f} GiB {where_to}, {there / 2**30:.1f} are there; "
                f"{instead} is accepted",
            )


def check_affine(where: object, affine: np.ndarray) -> np.ndarray:
    """The affine (4, 4), if it says where voxels lie.

    Raises:
        ImageError: if it cannot be inverted, nearly, or is not finite.
    """
    if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * voxel_sizes(affine).prod() > 0:
        return affine
    raise ImageError(
        Reason.GEOMETRY, f"{where}: its affine does not say where the voxels lie; one that can be inverted is accepted"
    )


def check_window(window: Sequence[float], where: str = "window") -> tuple[float, float]:
    """The values that become black and white, if they are two numbers in order.

    Args:
        window: (low, high).
        where: what the message starts with.

    Raises:
        ValueError: for others, NaN or infinity, and a low that is not below high.
    """
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        low = high = float("nan")
    if low < high and np.isfinite([low, high]).all():
        return low, high
    raise ValueError(f"{where} is {window}; (low, high), two finite numbers with low < high, is accepted")


def check_pointer(where: object, start: bytes) -> None:
    """Refuse a file that only says where its content is.

    Raises:
        ImageError: for a pointer of git-annex or Git LFS.
    """
    if start.startswith((b"/annex/objects/", b"version https://git-lfs.")):
        raise ImageError(
            Reason.MISSING,
            f"{where}: is a pointer of git-annex or Git LFS; its content is accepted, which `git annex get` or "
            "`git lfs pull` fetches",
        )


def unreadable(where: object, kind: str, accepted: str, error: Exception) -> ImageError:
    """What to raise when a library stumbles over a file.

    Args:
        where: what the message starts with.
        kind: of file that it was taken for.
        accepted: what would be.
        error: what the library raised.
    """
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ImageError(Reason.DAMAGED, f"{where}: not a readable {kind} ({reason}); {accepted} is accepted")
