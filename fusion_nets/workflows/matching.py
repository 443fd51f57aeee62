"""Find the fused image of a pair in a method's folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_nets.clinical import INPUT_SUFFIXES, RASTER_SUFFIXES, ImageError, Reason

__all__ = ["ENDINGS", "FusedImages"]

ENDINGS = tuple(sorted(INPUT_SUFFIXES, key=lambda ending: (ending in RASTER_SUFFIXES, ending in (".jpg", ".jpeg"))))
"""Of fused images; where one image lies there in several forms, the first of these is taken, as the most exact."""


class FusedImages:
    """The fused images of one method, by the pairs they belong to.

    The fused image of a pair is called ``{name}_fused`` or ``{name}``, with any of :data:`ENDINGS`, in the folder or
    in its subfolder named by "pair" (as AANLIB's "CT-MRI"); or so called after the file of its anatomy, as most
    programs name their results, if no other pair's anatomy has this name there. A folder of that name is a DICOM
    series. Of pairs ``a`` and ``a_fused``, the file ``a_fused`` is the first one's where there is also an
    ``a_fused_fused``, the second one's where there is also an ``a``, and else neither's.

    Args:
        folder: where they lie.
        pairs: as :func:`fusion_nets.datalists.load_pairs` gives them.

    Raises:
        ValueError: if there is no such folder.
    """

    def __init__(self, folder: str | Path, pairs: Sequence[Mapping[str, Any]]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: no such folder; one with fused images is accepted")
        self._stems = Counter(_stem(pair["anatomy"]) for pair in pairs)
        self._stems_of_pair = Counter((pair.get("pair"), _stem(pair["anatomy"])) for pair in pairs)
        self._called: dict[str, set[str]] = {}
        for pair in pairs:
            for called in (pair["name"], _stem(pair["anatomy"])):
                self._called.setdefault(called, set()).add(pair["name"])
        self._listed: dict[Path, dict[str, Path]] = {}

    def find(self, pair: Mapping[str, Any]) -> Path:
        """The fused image of a pair.

        Raises:
            ImageError: if there is none.
        """
        names, stem = [pair["name"]], _stem(pair["anatomy"])
        kind = pair.get("pair")
        within = self.folder / kind if kind and Path(kind).name == kind else None
        places = [(self.folder, names if self._stems[stem] > 1 else [*names, stem])]
        if within is not None:
            places += [(within, names if self._stems_of_pair[pair["pair"], stem] > 1 else [*names, stem])]
        for place, called in places:
            listed = self._list(place)
            for name in called:
                for wanted in (f"{name}_fused", name):
                    if wanted in listed and self._is_of(name, wanted, listed):
                        return listed[wanted]
        raise ImageError(
            Reason.MISSING,
            f"{self.folder}: no image of this pair; accepted is {pair['name']}_fused or {pair['name']}, ending in "
            f"{', '.join(ENDINGS)}",
        )

    def _is_of(self, name: str, file: str, listed: Mapping[str, Path]) -> bool:
        """Whether a file is that of the pair called so, where it could also be another's."""
        base = file.removesuffix("_fused")
        owners = [self._called.get(called, set()) for called in (base, file)]
        if base == file or not all(owners) or owners[0] == owners[1]:
            return True
        if f"{file}_fused" in listed and self._is_of(file, f"{file}_fused", listed):
            return name == base
        return name == file and base in listed

    def _list(self, folder: Path) -> dict[str, Path]:
        """The images of a folder by name without ending, of each its most exact form."""
        if folder not in self._listed:
            found: dict[str, tuple[int, Path]] = {}
            for path in sorted(folder.iterdir()) if os.path.isdir(folder) else ():
                ranks = [rank for rank, ending in enumerate(ENDINGS) if path.name.lower().endswith(ending)]
                if not (ranks or path.is_dir()):
                    continue
                rank, name = (len(ENDINGS), path.name) if path.is_dir() else (ranks[0], _stem(path.name))
                if name not in found or rank < found[name][0]:
                    found[name] = rank, path
            self._listed[folder] = {name: path for name, (_, path) in found.items()}
        return self._listed[folder]


def _stem(path: str) -> str:
    name = Path(path).name
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]
