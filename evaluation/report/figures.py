"""A comparison as figures: box plots, and the images side by side."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from evaluation.report.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FRAME", "Example", "boxplots", "figure_of", "montage", "png_of", "short", "zoom_region"]

# M. Okabe, K. Ito, Color universal design (2008): told apart by the colour-blind, too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Of methods, in their order."""
FRAME = "#FFB000"
"""Of what is pointed at."""
_DPI = 200
_SETTINGS = threading.RLock()
"""Of matplotlib, which are the whole process's."""
_LONGEST = 26


class Example(NamedTuple):
    """A case to look at.

    Attributes:
        title: its name, which may have several lines.
        sources: anatomy and overlay, (H, W) or (H, W, 3) in [0, 1], the first row on top.
        fused: of every method, the same; None where a method has none.
        aspect: how many times as high as wide a pixel is.
    """

    title: str
    sources: Sequence[np.ndarray]
    fused: Sequence[np.ndarray | None]
    aspect: float = 1.0


def boxplots(comparison: Comparison, dark: bool = False) -> bytes:
    """A panel for each metric, a box for each method: quartiles, whiskers to 1.5 times their distance, every case.

    Args:
        comparison: what to draw.
        dark: for a dark page.

    Returns:
        A PNG.
    """
    metrics, methods = list(comparison.metrics), list(comparison.methods)
    columns = min(4, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    with figure_of((10, 0.4 + rows * (0.75 + 0.27 * len(methods))), dark) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for panel in panels.flat[len(metrics) :]:
            panel.set_axis_off()
        for metric, panel in zip(metrics, panels.flat, strict=False):
            _draw_boxes(panel, [list(comparison.values(method, metric).values()) for method in methods])
            panel.set_title(f"{metric} {'↑' if comparison.metrics[metric] else '↓'}", loc="left", fontweight="bold")
        panels[0, 0].set_yticks(range(len(methods)), [short(method) for method in methods])
        panels[0, 0].set_ylim(len(methods) - 0.4, -0.6)
        return png_of(figure)


def _draw_boxes(panel: Axes, values: list[list[float]]) -> None:
    ink = panel.xaxis.label.get_color()
    for place, some in enumerate(values):
        colour = COLOURS[place % len(COLOURS)]
        # spread by their order, so that the same cases give the same picture
        offsets = 0.24 * np.sin(2.4 * np.arange(len(some)))
        panel.scatter(some, place + offsets, s=4, color=colour, alpha=0.45, linewidths=0, zorder=1)
        if some:
            line = {"color": colour, "linewidth": 1}
            panel.boxplot(
                [some],
                positions=[place],
                orientation="horizontal",
                widths=0.56,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": (*_rgb(colour), 0.18), "edgecolor": colour, "linewidth": 1},
                medianprops={"color": ink, "linewidth": 1.6},
                whiskerprops=line,
                capprops=line,
                manage_ticks=False,
            )
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", linewidth=0.5, alpha=0.25)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def montage(examples: Sequence[Example], methods: Sequence[str], dark: bool = False) -> bytes:
    """Sources and every method side by side; below each the region of :func:`zoom_region`, magnified.

    Args:
        examples: a pair of rows each.
        methods: names of what is fused, in the order of every example.
        dark: for a dark page.

    Returns:
        A PNG.

    Raises:
        ValueError: if there is no example, or one has another number of images.
    """
    if not examples or any((len(e.sources), len(e.fused)) != (2, len(methods)) for e in examples):
        raise ValueError(f"expected examples of two sources and {len(methods)} fused images each")
    names = ["Anatomy", "Overlay", *(short(method) for method in methods)]
    panel, left, gap = 1.5, 0.34, 0.05
    top = 0.16 + 0.16 * max(len(wrap(name, 17)) for name in names)
    heights = [panel * e.sources[0].shape[0] * e.aspect / e.sources[0].shape[1] for e in examples]
    ratios = [ratio for e, height in zip(examples, heights, strict=True) for ratio in (height, 0.75 * panel * e.aspect)]
    size = (left + len(names) * (panel + gap), top + sum(ratios) + gap * len(ratios))
    with figure_of(size, dark, layout=None) as figure:
        grid = figure.add_gridspec(
            len(ratios),
            len(names),
            height_ratios=ratios,
            left=left / size[0],
            right=1,
            bottom=0,
            top=1 - top / size[1],
            wspace=gap / panel,
            hspace=gap * len(ratios) / sum(ratios),
        )
        for number, example in enumerate(examples):
            pictures = [*example.sources, *example.fused]
            part = zoom_region([image for image in example.fused if image is not None])
            for column, picture in enumerate(pictures):
                whole, zoomed = (figure.add_subplot(grid[2 * number + row, column]) for row in (0, 1))
                if picture is None:
                    zoomed.set_axis_off()
                    whole.text(0.5, 0.5, "not measured", ha="center", va="center", transform=whole.transAxes)
                    whole.set(xticks=[], yticks=[])
                    whole.spines[:].set_visible(False)
                else:
                    _draw(whole, picture, example.aspect)
                    _outline(whole, part)
                    _draw(zoomed, picture[part], example.aspect)
                    zoomed.spines[:].set(visible=True, color=FRAME, linewidth=1)
                if number == 0:
                    whole.set_title("\n".join(wrap(names[column], 17)), fontsize=9, fontweight="bold", pad=5)
                if column == 0:
                    whole.set_ylabel(example.title, fontsize=8, labelpad=4)
        return png_of(figure)


def zoom_region(fused: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """The region, a third of the image's shorter side wide and three quarters as high, in which methods differ most.

    By the standard deviation over the methods, summed over the region; of a single one by the strength of its
    gradient. The first in order of rows where several are equal.

    Args:
        fused: images of one size, (H, W) or (H, W, 3) in [0, 1].

    Returns:
        Its rows and its columns.
    """
    from scipy.ndimage import gaussian_gradient_magnitude

    grey = np.stack([image.mean(-1) if image.ndim == 3 else image for image in fused]).astype(np.float64)
    weight = grey.std(0) if len(grey) > 1 else gaussian_gradient_magnitude(grey[0], 1.0)
    width = max(min(weight.shape) // 3, min(8, *weight.shape))
    height = max(width * 3 // 4, 1)
    sums = np.pad(weight.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    within = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    row, column = (int(place) for place in np.unravel_index(within.round(9).argmax(), within.shape))
    return slice(row, row + height), slice(column, column + width)


def _draw(axes: Axes, picture: np.ndarray, aspect: float) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)


def _outline(axes: Axes, part: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    (top, bottom), (left, right) = ((one.start, one.stop) for one in part)
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=FRAME, lw=0.9))


def short(name: str) -> str:
    """A name as long as a figure has room for."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


@contextmanager
def figure_of(
    size: tuple[float, float], dark: bool, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """A figure that owes nothing to the user's settings of matplotlib, nor changes them; one thread draws at a time."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, paper = ("#E6E3DC", "#16181C") if dark else ("#1B1D21", "#FFFFFF")
    style: Any = {f"{part}.color": ink for part in ("text", "xtick", "ytick", "grid")}
    style |= {"axes.edgecolor": ink, "axes.labelcolor": ink, "axes.titlecolor": ink, "axes.facecolor": "none"}
    style |= {"font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "text.parse_math": False}
    with _SETTINGS, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=size, facecolor=paper, layout=layout)
        FigureCanvasAgg(figure)
        yield figure


def png_of(figure: Figure) -> bytes:
    """The same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
