"""A picture of a fusion: anatomy, overlays and fused image one below the other, slice by slice."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from fusion_nets.clinical.errors import check_window
from fusion_nets.clinical.quantities import MEASURED
from fusion_nets.files import whole_file
from fusion_nets.slabs import release

from .marks import AXIAL, CORONAL, SAGITTAL, Plane, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_montage"]

Window = tuple[float, float]

PANEL_HEIGHT = 2.4
"""Height of one slice in inches."""

LINE_HEIGHT, CHARACTERS_PER_INCH = 0.17, 14
"""Of the notes below the images, in inches and for letters of 9 points."""

DISPLAY_AXES = ("L", "A", "S")
"""Where the axes of a volume are made to point; a plane says how they lie on the picture."""

LEGEND_HEIGHT = 0.4
"""In inches, of the bars of colours below the images and the words on them."""

WINDOW_HEIGHT = 0.2
"""In inches, of the words on the windows beside the images."""

ROWS_AND_COLUMNS = np.array([[1, -1], [0, 1], [2, 1]])
"""How the axes of a 2-D image come to lie likewise: rows run down, columns to the right."""


class _Image(NamedTuple):
    """Values (X, Y, Z), with three colours (X, Y, Z, 3); the affine, `None` where it is unknown; the units."""

    values: np.ndarray
    affine: np.ndarray | None
    units: str = ""


class _Layout(NamedTuple):
    """How slices are drawn: the plane, `None` of what has no place in a patient, and a pixel's size in mm."""

    plane: Plane | None
    width: float
    height: float


def write_montage(
    path: str | os.PathLike[str],
    anatomy: Any,
    overlay: Any,
    fused: Any,
    names: Sequence[str] = ("Anatomy", "Overlay", "Fused"),
    slices: int = 5,
    title: str | None = None,
    windows: Sequence[Window | None] | None = None,
    overlay_cmap: str = "gray",
    notes: Sequence[str] = (),
    dpi: int = 150,
    window_words: Sequence[str | None] | None = None,
    legend: Sequence[tuple[str, np.ndarray | None]] = (),
) -> Path:
    """Draw the images one below the other as a PNG: evenly spaced axial slices, radiological display.

    Patient right is on the left of the picture and anterior is up, whatever the order of the voxels: the affine
    decides; a single slice that is coronal or sagittal stays so. Letters tell the sides, a bar the scale, and words
    beside a row its window. An overlay or a fused image on another grid is interpolated onto the anatomy's. A 2-D image
    is shown as it is, without sides and scale, which it does not have.

    Args:
        path: the PNG to write; a file of this name is replaced.
        anatomy: the structural image: MetaTensor, tensor or array (1 | 3, H, W[, D]) or (H, W), nibabel image, or a
            pair (array, affine). A volume without an affine has voxels of 1 mm along the axes RAS. 2-D: rows, then
            columns.
        overlay: the image that was brought onto it, likewise; without an affine it lies on the anatomy's grid; or a
            list of several, a row each.
        fused: the result, likewise; or a list of several, a row each.
        names: what the rows are called.
        slices: how many slices to show at most; they divide the part of the anatomy that is not background evenly.
        title: heading; by default made of `names`.
        windows: (low, high) values shown black and white, per row. `None` shows 8 bit images and values within [0, 1]
            as they are, and any other image from its minimum to the 99.9th percentile of what is brighter. `None` for
            all of them shows every row in that way.
        overlay_cmap: matplotlib colour map for an overlay of one channel.
        notes: paragraphs to write below the images, such as what is said of them.
        dpi: dots per inch; one slice is 2.4 inches high.
        window_words: what is said of the window of each row; by default black and white, and the units of what is
            measured, where a window was given, or taken of the image's values.
        legend: colours to be told below the images: words, and (N, 3) colours in [0, 1] from low to high, or None.

    Returns:
        The file written.

    Raises:
        ValueError: `path` does not end in .png, or an image is not 2-D or 3-D with one or three channels, is not
            finite, or does not fit the anatomy.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} must end in .png")
    overlays = overlay if isinstance(overlay, list) else [overlay]
    given = [anatomy, *overlays, *(fused if isinstance(fused, list) else [fused])]
    windows = [None] * len(given) if windows is None else windows
    if not len(names) == len(windows) == len(given):
        raise ValueError(
            f"{len(given)} images need as many names and windows, got {len(names)} and {len(windows)} of them"
        )
    if slices < 1:
        raise ValueError(f"slices is {slices}; it must be 1 or more")

    images = [_read(image, name) for image, name in zip(given, names, strict=True)]
    grid = images[0]
    flat = grid.affine is None and grid.values.shape[2] == 1
    affine = np.eye(4) if grid.affine is None else grid.affine
    turn = ROWS_AND_COLUMNS if flat else ornt_transform(io_orientation(affine), axcodes2ornt(DISPLAY_AXES))
    on_grid = [_onto(grid, image, name) for image, name in zip(images, names, strict=True)]
    ranges = [_display_range(*one) for one in zip(on_grid, windows, names, strict=True)]
    words = _words(images, ranges, windows) if window_words is None else window_words
    affine = affine @ inv_ornt_aff(turn, grid.values.shape[:3])
    turned = [apply_orientation(values, turn) for values in on_grid]
    plane = AXIAL if flat else _plane(turned[0].shape)
    rows = [plane.lay(values) for values in turned]
    size = voxel_sizes(affine)
    layout = _Layout(None if flat else plane, float(size[plane.right]), float(size[plane.up]))

    def drawn(row: int, k: int) -> np.ndarray:
        low, high = ranges[row]
        return np.clip((rows[row][:, :, k].astype(np.float32) - low) / (high - low), 0, 1)

    def shown(k: int) -> Any:
        bright = drawn(0, k) > 0.05
        release()
        return bright.any(axis=-1) if bright.ndim == 3 else bright

    chosen = _slices_with_content(np.array([shown(k).sum() for k in range(rows[0].shape[2])]), slices)
    frame = (slice(None),) * 2 if flat else _frame(np.stack([shown(k) for k in chosen], axis=-1))
    captions = [None if flat else _caption(affine, turned[0].shape, plane.through, k) for k in chosen]
    figure = _draw(
        [[drawn(row, k)[frame] for k in chosen] for row in range(len(rows))],
        names=names,
        captions=captions,
        title=f"{', '.join(names[: len(overlays)])} and {names[len(overlays)]}, fused" if title is None else title,
        layout=layout,
        cmaps=["gray", *[overlay_cmap] * len(overlays), *["gray"] * (len(given) - 1 - len(overlays))],
        windows=words,
        notes=notes,
        legend=legend,
    )
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return path


def _plane(shape: Sequence[int]) -> Plane:
    """Axial, or that of a single slice."""
    return next((plane for plane in (CORONAL, SAGITTAL) if shape[plane.through] == 1 < shape[AXIAL.through]), AXIAL)


def _caption(affine: np.ndarray, shape: Sequence[int], through: int, k: int) -> str:
    index = [(n - 1) / 2 for n in shape[:3]]
    index[through] = k
    return f"{'xyz'[through]} = {apply_affine(affine, index)[through]:+.0f} mm"


def _words(images: Sequence[_Image], ranges: Sequence[Window], given: Sequence[Window | None]) -> list[str | None]:
    """Of the windows of rows that are not shown as they are."""
    return [
        None
        if window is None and (low, high) in ((0, 1), (0, 255))
        else f"{low:.4g} to {high:.4g} {image.units}".strip()
        for image, (low, high), window in zip(images, ranges, given, strict=True)
    ]


def _read(image: Any, name: str) -> _Image:
    """The image with its channels last and its affine, if that says something about a patient."""
    affine, units = None, str(getattr(image, "meta", {}).get("units"))
    if isinstance(image, tuple):
        image, affine = image
    shape = tuple(image.shape)
    if isinstance(image, nib.spatialimages.SpatialImage):
        values, affine = np.asanyarray(image.dataobj), image.affine
        if values.dtype.names:  # NIfTI's RGB24 and RGBA32
            values = np.stack([values[channel] for channel in values.dtype.names[:3]], axis=-1)
        values = values.reshape(shape[0], shape[1], -1, *(n for n in values.shape[3:] if n > 1))
        fits = values.ndim == 3 or values.shape[3:] == (3,)
    else:
        affine = getattr(image, "affine", None) if affine is None else affine
        values = _to_numpy(image)
        values = values[None] if values.ndim == 2 else values
        if values.ndim == 3:  # the affine that MONAI gives to a picture is none of a patient's
            values, affine = values[..., None], None
        fits = values.ndim == 4 and values.shape[0] in (1, 3)
        values = np.moveaxis(values, 0, -1)
        values = values[..., 0] if values.shape[-1] == 1 else values
    if not fits or not values.size:
        raise ValueError(f"{name} has shape {shape}; a 2-D or 3-D image of one or three channels is accepted")
    if not all(np.isfinite(values[:, :, k]).all() for k in range(values.shape[2])):
        raise ValueError(f"{name} holds NaN or infinity")
    affine = None if affine is None else np.asarray(affine, dtype=np.float64)
    return _Image(values, affine, units if units in MEASURED else "")


def _to_numpy(image: Any) -> np.ndarray:
    if hasattr(image, "detach"):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    return np.asarray(image)


def _onto(grid: _Image, image: _Image, name: str) -> np.ndarray:
    """The image's values on the grid: interpolated linearly where the grids differ, its minimum outside of it."""
    shape = grid.values.shape[:3]
    same_shape = image.values.shape[:3] == shape
    if image.affine is None or grid.affine is None:
        if not same_shape:
            there, here = (" x ".join(map(str, size)) for size in (shape, image.values.shape[:3]))
            raise ValueError(
                f"{name} has {here} voxels, the anatomy {there}; without an affine on both, they must agree"
            )
        return image.values
    if same_shape and np.allclose(image.affine, grid.affine, atol=1e-3):
        return image.values
    from scipy import ndimage

    channels = image.values.reshape(*image.values.shape[:3], -1).astype(np.float32)
    between, outside = np.linalg.inv(image.affine) @ grid.affine, float(image.values.min())
    moved = [
        ndimage.affine_transform(channel, between, output_shape=shape, order=1, cval=outside)
        for channel in np.moveaxis(channels, -1, 0)
    ]
    return np.stack(moved, axis=-1).reshape(*shape, *image.values.shape[3:])


def _display_range(values: np.ndarray, window: Window | None, name: str) -> Window:
    """The values that become black and white."""
    if window is None:
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1 and values.dtype != np.uint8:
            window = (0, 1)
        elif values.dtype == np.uint8 or values.ndim == 4:
            window = (0, 255)
        else:
            above = values[values > low]
            window = (low, float(np.percentile(above, 99.9)) if above.size else low + 1)
    return check_window(window, f"the window of {name}")


def _slices_with_content(area: np.ndarray, count: int) -> list[int]:
    """Evenly spaced slices, `count` or as many as there are, of the stretch where a fair part of the image is shown."""
    wanted = np.flatnonzero(area >= 0.2 * area.max())
    first, last = wanted[0], wanted[-1] + 1
    return sorted({int(k) for k in first + (np.arange(count) + 0.5) * (last - first) / count})


def _frame(shown: np.ndarray) -> tuple[slice, ...]:
    """The part of the plane in which some slice shows something, and a margin of a twentieth."""
    frame = []
    for axis in (0, 1):
        filled = np.flatnonzero(shown.any(axis=(1 - axis, 2)))
        if not filled.size:
            return (slice(None),) * 2
        margin = 1 + (filled[-1] - filled[0]) // 20
        frame.append(slice(max(filled[0] - margin, 0), filled[-1] + 1 + margin))
    return tuple(frame)


def _draw(
    rows: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    captions: Sequence[str | None],
    title: str,
    layout: _Layout,
    cmaps: Sequence[str],
    windows: Sequence[str | None],
    notes: Sequence[str],
    legend: Sequence[tuple[str, np.ndarray | None]],
) -> Figure:
    """Rows of slices, the first axis to the right and the second upwards."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    nx, ny = rows[0][0].shape[:2]
    aspect, beside = layout.height / layout.width, WINDOW_HEIGHT if any(windows) else 0.0
    left, right, top, bottom, gap = 0.4, 0.1, 0.55, 0.4 if any(captions) else 0.1, 0.06
    left += beside
    panel = PANEL_HEIGHT * nx / (ny * aspect)
    width = max(left + len(captions) * (panel + gap) + right, 5.0)
    lines = [line for note in notes for line in textwrap.wrap(note, int(width * CHARACTERS_PER_INCH))]
    bottom += (len(lines) + 1) * LINE_HEIGHT if lines else 0
    bottom += LEGEND_HEIGHT if legend else 0
    height = top + len(rows) * (PANEL_HEIGHT + gap) + bottom

    figure = Figure(figsize=(width, height), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(captions), squeeze=False)
    figure.subplots_adjust(
        left / width,
        bottom / height,
        1 - right / width,
        1 - top / height,
        wspace=gap / panel,
        hspace=gap / PANEL_HEIGHT,
    )
    words: Any = {"color": "white", "parse_math": False}  # users' words, in which a dollar is a dollar
    for row, name, window, cmap, line in zip(rows, names, windows, cmaps, axes, strict=True):
        for values, panel_axes in zip(row, line, strict=True):
            _draw_slice(panel_axes, values, aspect, cmap, layout.plane)
        line[0].set_ylabel(_drawable(name), fontsize=13, labelpad=4 + 72 * beside, **words)
        if window:
            at: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
            line[0].annotate(_drawable(window), (0, 0.5), (-5, 0), rotation=90, fontsize=8, **at, **words)
        if layout.plane:
            _draw_scale(line[-1], layout.width * nx)
    for caption, panel_axes in zip(captions, axes[-1], strict=True):
        panel_axes.set_xlabel(caption or "", fontsize=11, **words)
    for number, line in enumerate(reversed(lines)):
        place = left / width, (number + 0.7) * LINE_HEIGHT / height
        figure.text(*place, _drawable(line), fontsize=9, va="center", **words)
    below = (len(lines) + 1) * LINE_HEIGHT if lines else 0.1
    for number, (name, colours) in enumerate(legend):
        start, each = (
            (left + number * (width - left - right) / len(legend)) / width,
            (width - left) / len(legend) / width,
        )
        if colours is not None:
            bar = figure.add_axes((start, (below + 0.2) / height, 0.9 * each, 0.1 / height))
            bar.imshow(colours[None], aspect="auto")
            bar.set_axis_off()
        figure.text(start, (below + 0.08) / height, _drawable(name), fontsize=9, va="center", **words)
    middle = 0.5, 1 - 0.5 * top / height
    figure.text(*middle, _drawable(title), fontsize=15, ha="center", va="center", **words)
    return figure


def _drawable(text: str) -> str:
    """With a mark for each half character (lone surrogate), which no font has."""
    return text.encode(errors="replace").decode()


def _draw_slice(axes: Axes, values: np.ndarray, aspect: float, cmap: str, plane: Plane | None) -> None:
    axes.imshow(
        values.swapaxes(0, 1), origin="lower", aspect=aspect, cmap=cmap, vmin=0, vmax=1, interpolation="nearest"
    )
    axes.set(xticks=[], yticks=[], facecolor="black")
    axes.spines[:].set_visible(False)
    if plane:
        across, along = ((0.01, "left"), (0.99, "right")), ((0.99, "top"), (0.01, "bottom"))
        ends = [*((x, 0.5, ha, "center") for x, ha in across), *((0.5, y, "center", va) for y, va in along)]
        for side, (x, y, ha, va) in zip(plane.sides, ends, strict=True):
            axes.text(x, y, side, color="0.8", fontsize=9, ha=ha, va=va, transform=axes.transAxes, **_outlined())


def _draw_scale(axes: Axes, width: float) -> None:
    """At the lower right of a slice that is so many mm wide."""
    length, name = scale_of(width)
    ends = 0.97 - length / width, 0.97
    axes.plot(ends, (0.025, 0.025), color="white", linewidth=2, transform=axes.transAxes, **_outlined())
    place: Any = {"ha": "center", "va": "bottom", "transform": axes.transAxes}
    axes.text(sum(ends) / 2, 0.04, name, color="white", fontsize=8, **place, **_outlined())


def _outlined() -> Any:
    """So that it is read on black and on white."""
    from matplotlib.patheffects import withStroke

    return {"path_effects": [withStroke(linewidth=2, foreground="black")]}
