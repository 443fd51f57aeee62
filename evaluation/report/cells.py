"""Cells and tables of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from evaluation.report.glossary import MEANINGS

__all__ = ["MINUS", "NONE", "NumberedTables", "column_head", "number_told", "row_head", "text_cell", "value_cell"]

NONE = "\u2013"
"""Stands where there is no value."""
MINUS = "\u2212"
"""Stands before what is below 0."""


class NumberedTables:
    """The tables of a page, numbered as they come."""

    def __init__(self) -> None:
        self.count = 0

    def table(
        self, title: str, caption: str, columns: list[str], rows: Iterable[list[str]], kind: str = "scroll"
    ) -> str:
        """A table that can be sorted and scrolled; rows are lists of cells."""
        self.count += 1
        name = f"table-{self.count}"
        body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
        return (
            f'<div class="block"><div class="{kind}" role="region" aria-labelledby="{name}" tabindex="0">'
            f'<table class="sortable">\n<caption id="{name}"><span><b>Table {self.count}. {escape(title)}.</b> '
            f"{escape(caption)}</span></caption>\n<thead><tr>{''.join(columns)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            "</table></div></div>\n"
        )


def column_head(name: str, kind: str = "text", first: str = "ascending", better: str = "") -> str:
    """A head; `first` is how its first click sorts, `better` which values are."""
    kind = "number" if first == "descending" else kind
    arrow = {"higher": "↑", "lower": "↓", "": ""}[better]
    meaning = MEANINGS.get(name, ("",))[0] if better else ""
    told = f' <span aria-hidden="true">{arrow}</span><span class="hidden"> {better} is better</span>' if better else ""
    title = f' title="{escape(meaning)}"' if meaning else ""
    return f'<th scope="col" class="{kind}" data-first="{first}"{title}>{escape(name)}{told}</th>'


def row_head(text: str) -> str:
    """The first cell of a row."""
    return f'<th scope="row" class="text" title="{escape(text)}">{escape(text)}</th>'


def text_cell(text: str, kind: str = "text") -> str:
    """A cell of words."""
    return f'<td class="{kind}">{escape(text)}</td>'


def value_cell(value: float, shown: str, kind: str = "") -> str:
    """A cell that sorts by its value, whatever it shows."""
    sortable = repr(float(value)) if math.isfinite(value) else ""
    named = f' class="{kind}"' if kind else ""
    return f'<td data-value="{sortable}"{named}>{shown}</td>'


def number_told(value: float, decimals: int, sign: bool = False) -> str:
    """With a minus sign, and a dash for what has no value."""
    if not math.isfinite(value):
        return NONE
    # what rounds to 0 has no minus
    return f"{round(value, decimals) + 0.0:{'+' if sign else ''}.{decimals}f}".replace("-", MINUS)
