"""What became of lesions as figures: psychometric curves, and the ten worst as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.report.cells import number_told
from evaluation.report.figures import COLOURS, FRAME, figure_of, png_of, short
from evaluation.report.lesion_comparison import LesionComparison, LesionScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LesionExample", "psychometric_curves", "worst_lesions"]

_PANELS = (("overlay", "contrast"), ("overlay", "radius"), ("anatomy", "contrast"), ("anatomy", "radius"))
_REACH = 32


class LesionExample(NamedTuple):
    """A lesion to look at.

    Attributes:
        score: what became of it.
        images: anatomy and overlay with the lesion, the fused image without and with it, (H, W) or (H, W, 3) in [0, 1].
    """

    score: LesionScore
    images: Sequence[np.ndarray]


def psychometric_curves(comparison: LesionComparison, dark: bool = False) -> bytes:
    """Shares of lesions kept, with 95 % intervals over subjects: against contrast and against size, by source.

    A row of panels for each group of pairs, a line for each method.

    Args:
        comparison: what to draw.
        dark: for a dark page.

    Returns:
        A PNG.
    """
    groups, methods = comparison.groups, list(comparison.methods)
    with figure_of((10, 0.7 + 1.95 * len(groups)), dark) as figure:
        panels = figure.subplots(len(groups), len(_PANELS), squeeze=False, sharey=True, sharex="col")
        for row, group in enumerate(groups):
            for column, (source, axis) in enumerate(_PANELS):
                panel = panels[row, column]
                for place, method in enumerate(methods):
                    _draw_curve(panel, comparison, (method, group, source, axis), place, len(methods))
                _dress(panel, axis, last=row == len(groups) - 1)
                if row == 0:
                    panel.set_title(f"Lesions in the {source}", loc="left", fontweight="bold")
            panels[row, 0].set_ylabel(f"{short(group) + chr(10) if group else ''}kept, %")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        if not handles:
            handles, labels = panels[0, 2].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=min(len(methods), 6), frameon=False)
        return png_of(figure)


def _draw_curve(
    panel: Axes, comparison: LesionComparison, what: tuple[str, str, str, str], place: int, count: int
) -> None:
    points = [p for p in comparison.curves if (p.method, p.group, p.source, p.axis) == what and not p.sign]
    if not points:
        return
    unit = 100.0 if what[3] == "contrast" else 1.0
    # side by side where they meet, as a share of the panel's width
    shift = (place - (count - 1) / 2) * (0.35 if what[3] == "contrast" else 0.14)
    x = np.array([unit * p.value for p in points]) + shift
    kept = np.array([100 * p.kept for p in points])
    ends = np.nan_to_num(np.array([[100 * end for end in p.interval] for p in points]), nan=0.0)
    known = np.array([not np.isnan(p.interval.low) for p in points])[:, None]
    ends = np.where(known, ends, kept[:, None])
    spread = np.abs(ends.T - kept)
    colour, marker = COLOURS[place % len(COLOURS)], "osD^vP*"[place % 7]
    panel.errorbar(
        *(x, kept, spread),
        label=short(what[0]),
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.3,
        elinewidth=0.8,
        zorder=3,
        clip_on=False,
    )


def _dress(panel: Axes, axis: str, last: bool) -> None:
    panel.set_ylim(0, 100)
    panel.set_yticks([0, 25, 50, 75, 100])
    panel.margins(x=0.12)
    panel.grid(axis="y", linewidth=0.5, alpha=0.25)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelbottom=last)
    if last:
        panel.set_xlabel("contrast, % of white" if axis == "contrast" else "radius, pixels")


def worst_lesions(examples: Sequence[LesionExample], dark: bool = False) -> bytes:
    """Lesions close by, two a row: anatomy and overlay with the lesion, the fused image without and with it.

    Args:
        examples: in their order, down the left half and then down the right.
        dark: for a dark page.

    Returns:
        A PNG.

    Raises:
        ValueError: if there is no example, or one has not four images.
    """
    if not examples or any(len(example.images) != 4 for example in examples):
        raise ValueError("expected examples of four images each: anatomy, overlay, and fused without and with")
    rows = (len(examples) + 1) // 2
    size, top = (10.0, 0.3 + 1.42 * rows), 0.3
    with figure_of(size, dark, layout=None) as figure:
        grid = figure.add_gridspec(
            rows,
            9,
            width_ratios=(1, 1, 1, 1, 0.16, 1, 1, 1, 1),
            left=0,
            right=1,
            bottom=0,
            top=1 - (top + 0.2) / size[1],
            wspace=0.04,
            hspace=0.2,
        )
        for number, example in enumerate(examples):
            row, half = number % rows, number // rows
            for column, picture in enumerate(example.images):
                panel = figure.add_subplot(grid[row, 5 * half + column])
                _draw_close(panel, picture, example.score, column in _shown_in(example.score))
                if row == 0:
                    name = ("Anatomy", "Overlay", "Fused without", "Fused with")[column]
                    panel.text(0.5, 1.2, name, ha="center", va="bottom", transform=panel.transAxes, weight="bold")
                if column == 0:
                    panel.text(0, 1.03, _told(number, example.score), va="bottom", transform=panel.transAxes, size=7)
        return png_of(figure)


def _shown_in(score: LesionScore) -> set[int]:
    return {index for index, sign in enumerate(score.signs) if sign} | {3}


def _told(number: int, score: LesionScore) -> str:
    return f"{number + 1}. {short(score.case)}: {score.kind}, r = {number_told(score.recovery, 2)}"


def _draw_close(panel: Axes, picture: np.ndarray, score: LesionScore, ringed: bool) -> None:
    from matplotlib.patches import Circle

    height, width = picture.shape[:2]
    reach = min(_REACH, height // 2, width // 2)
    top = int(np.clip(score.lesion.row - reach, 0, height - 2 * reach))
    left = int(np.clip(score.lesion.column - reach, 0, width - 2 * reach))
    panel.imshow(
        picture[top : top + 2 * reach, left : left + 2 * reach], cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    if ringed:
        middle = score.lesion.column - left, score.lesion.row - top
        panel.add_patch(Circle(middle, score.lesion.radius + 4, fill=False, edgecolor=FRAME, linewidth=0.9))
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
