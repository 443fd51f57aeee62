"""Siemens mosaics: all slices of a moment as tiles of one picture, which are taken apart here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion_nets.quiet import silence

from ..errors import ImageError, Reason

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["is_mosaic", "tile_of", "tiles"]

COUNT_OF_TILES = (0x0019, 0x100A)
CREATOR = "SIEMENS MR HEADER"


def is_mosaic(header: Dataset) -> bool:
    """Whether an instance is one, by its ImageType."""
    values = header.get("ImageType") or []
    return "MOSAIC" in ([values] if isinstance(values, str) else list(values))


def tiles(
    header: Dataset,
    where: str,
    position: np.ndarray | None,
    orientation: np.ndarray | None,
    spacing: np.ndarray | None,
    apart: float | None,
) -> list[Dataset]:
    """Where each slice lies, as the attributes of a frame: place, rows and columns.

    The image position is that of a picture of the mosaic's size around the first slice's centre; the slices follow each
    other along the normal of the private header (as nibabel's MosaicWrapper and dcm2niix have it).

    Args:
        header: of a mosaic.
        where: what messages start with.
        position: of the picture (LPS, mm).
        orientation: (2, 3), along a row and along a column.
        spacing: of rows and of columns.
        apart: distance of slices.

    Raises:
        ImageError: if it does not say how many tiles there are, how they lie, or how far apart.
    """
    from pydicom import Dataset

    csa = _private_header(header)
    count = _count(header, csa)
    side = math.ceil(math.sqrt(count)) if count else 0
    rows, columns = int(header.Rows), int(header.Columns)
    for name, value in (
        ("NumberOfImagesInMosaic", count),
        ("ImagePositionPatient", position),
        ("ImageOrientationPatient", orientation),
        ("PixelSpacing", spacing),
        ("SpacingBetweenSlices", apart),
    ):
        if value is None or (name in ("NumberOfImagesInMosaic", "SpacingBetweenSlices") and not value):
            raise ImageError(Reason.INCOMPLETE, f"{where}: is a mosaic without {name}; one that says it is accepted")
    if rows % side or columns % side:
        raise ImageError(
            Reason.DAMAGED,
            f"{where}: is a mosaic of {rows} x {columns} said to hold {count} images; one that {side} x {side} tiles "
            "divide is accepted",
        )
    assert position is not None
    assert orientation is not None
    assert spacing is not None
    assert apart is not None
    size = rows // side, columns // side
    margin = (columns - size[1]) / 2 * spacing[1] * orientation[0] + (rows - size[0]) / 2 * spacing[0] * orientation[1]
    step = _normal(csa, orientation, where) * abs(apart)
    groups = []
    for number in range(int(count or 0)):
        place = Dataset()
        place.ImagePositionPatient = (position + margin + number * step).tolist()
        place.ImageOrientationPatient = orientation.ravel().tolist()
        place.Rows, place.Columns = size
        groups.append(place)
    return groups


def tile_of(mosaic: np.ndarray, number: int, size: tuple[int, int]) -> np.ndarray:
    """One slice, (rows, columns, C), of the picture; tiles follow each other row by row."""
    across = mosaic.shape[1] // size[1]
    row, column = divmod(number, across)
    return mosaic[row * size[0] : (row + 1) * size[0], column * size[1] : (column + 1) * size[1]]


def _count(header: Dataset, csa: dict[str, Any] | None) -> int | None:
    try:
        value = header.private_block(COUNT_OF_TILES[0], CREATOR)[COUNT_OF_TILES[1] & 0xFF].value
        return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
    except (KeyError, TypeError, ValueError):
        pass
    items = csa["tags"].get("NumberOfImagesInMosaic", {}).get("items") if csa else None
    return int(items[0]) if items else None


def _normal(csa: dict[str, Any] | None, orientation: np.ndarray, where: str) -> np.ndarray:
    items = csa["tags"].get("SliceNormalVector", {}).get("items") if csa else None
    if not items or len(items) < 3:
        raise ImageError(
            Reason.INCOMPLETE,
            f"{where}: is a mosaic without SliceNormalVector in its private header (CSA), so that the order of its "
            "slices is not known; one that says it is accepted",
        )
    normal = np.cross(*orientation)
    along = float(normal @ np.array(items[:3], dtype=np.float64))
    if abs(along) < 0.99:
        raise ImageError(
            Reason.DAMAGED,
            f"{where}: SliceNormalVector and ImageOrientationPatient of the mosaic contradict each other; one where "
            "both tell the same planes is accepted",
        )
    return normal * np.sign(along)


def _private_header(header: Dataset) -> dict[str, Any] | None:
    """Siemens' own header of an image, read by nibabel; None where there is none."""
    with silence():  # that its reader is experimental
        from nibabel.nicom.csareader import get_csa_header

        try:
            read: dict[str, Any] | None = get_csa_header(header)
        except Exception:  # a damaged one makes it stumble in any way
            return None
    return read
