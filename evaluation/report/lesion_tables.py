"""What became of lesions as tables: CSV, and the part of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from evaluation.observers import source_names
from evaluation.report.cells import NONE, NumberedTables, column_head, number_told, row_head, text_cell, value_cell
from evaluation.report.lesion_comparison import KindSummary, LesionComparison, source_of
from evaluation.report.subjects import Interval
from evaluation.report.tables import csv_text

__all__ = ["lesion_kinds_csv", "lesion_tables", "lesions_csv", "lesions_html", "lesions_lead", "psychometric_csv"]


def lesion_tables(comparison: LesionComparison) -> dict[str, str]:
    """All tables as CSV, by the names of their files."""
    return {
        "lesions.csv": lesions_csv(comparison),
        "lesion_kinds.csv": lesion_kinds_csv(comparison),
        "psychometric.csv": psychometric_csv(comparison),
    }


def lesions_csv(comparison: LesionComparison) -> str:
    """A row for each lesion and method: where it lies, what it is, its recovery, and whether it is lost."""
    signs = _sign_columns(comparison)
    head = ["case", "subject", "pair", "method", "make", "kind", "source", *signs, "row"]
    rows = [
        [
            *(score.case, score.owner, score.group, score.method, score.make, score.kind, source_of(score.signs)),
            *(
                *_padded(score.signs, signs),
                score.lesion.row,
                score.lesion.column,
                score.lesion.radius,
                score.lesion.amplitude,
            ),
            *(score.lesion.form, score.recovery, score.lost),
        ]
        for score in comparison.scores
    ]
    return _csv([*head, "column", "radius", "contrast", "form", "recovery", "lost"], rows)


def lesion_kinds_csv(comparison: LesionComparison) -> str:
    """A row for each group, make, kind and method: the share lost, the median recovery, and the observer's areas."""
    signs = _sign_columns(comparison)
    head = ["pair", "make", "kind", "source", *signs, "method", "lesions", "subjects", "lost"]
    rows = [
        [
            *(of.group, of.make, of.kind, source_of(of.signs), *_padded(of.signs, signs)),
            *(of.method, of.lesions, of.subjects),
            *(of.lost, *of.interval, of.recovery, of.grey, of.colour, of.sources),
        ]
        for of in comparison.summaries
    ]
    areas = ["area_grey", "area_cielab", "area_side_by_side"]
    return _csv([*head, "lost_low", "lost_high", "recovery", *areas], rows)


def _sign_columns(comparison: LesionComparison) -> list[str]:
    most = max(len(signs) for signs in comparison.kinds.values())
    return [f"sign_{name.replace(' ', '_')}" for name in source_names(most)]


def _padded(signs: Sequence[int], columns: Sequence[str]) -> list[int | str]:
    return [*signs, *[""] * (len(columns) - len(signs))]


def psychometric_csv(comparison: LesionComparison) -> str:
    """A row for each point of the psychometric curves: the share kept against contrast, or against radius."""
    head = ["pair", "source", "sign", "method", "axis", "value", "lesions", "subjects", "kept", "low", "high"]
    rows = [
        [
            *(point.group, point.source, point.sign or "either", point.method, point.axis, point.value),
            *(point.lesions, point.subjects, point.kept, *point.interval),
        ]
        for point in comparison.curves
    ]
    return _csv(head, rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return csv_text([head, *([_exact(value) if isinstance(value, float) else value for value in row] for row in rows)])


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def lesions_html(comparison: LesionComparison, numbered: NumberedTables) -> str:
    """The tables of a page: lost shares, other makes, every kind with recovery and observer's areas.

    Args:
        comparison: what to show.
        numbered: the page's tables.
    """
    return _lost(comparison, numbered) + _makes(comparison, numbered) + _kinds(comparison, numbered)


def lesions_lead(comparison: LesionComparison) -> str:
    """The worst of each method, in a sentence of HTML."""
    told = []
    for method in comparison.methods:
        found = [comparison.worst_kind(method, group, comparison.makes[0]) for group in comparison.groups]
        worst = max((one for one in found if one), key=lambda summary: summary.lost, default=None)
        if worst is not None:
            where = _named(worst.kind) + (f", {worst.group}" if worst.group else "")
            told.append(f"{escape(method)} {_percent(worst.lost)}" + (f" ({escape(where)})" if worst.lost else ""))
    return f"<p>Lost of the worst kind of lesion in one source: {'; '.join(told)}.</p>" if told else ""


def _lost(comparison: LesionComparison, numbered: NumberedTables) -> str:
    found = {(of.group, of.kind, of.method): of for of in comparison.summaries if of.make == comparison.makes[0]}
    grouped = len(comparison.groups) > 1
    columns = [column_head("Lesion"), *([column_head("Pair")] if grouped else [])]
    columns += [column_head("Lesions", first="descending"), column_head("Subjects", first="descending")]
    columns += [column_head(method, "number") for method in comparison.methods]
    rows = []
    for group in comparison.groups:
        for kind in comparison.kinds:
            of_kind = [found.get((group, kind, method)) for method in comparison.methods]
            known = [of for of in of_kind if of]
            if known:
                counts = [max(of.lesions for of in known), max(of.subjects for of in known)]
                least = min(of.lost for of in known) if len(known) > 1 else math.nan
                rows.append(
                    [
                        *(row_head(_named(kind)), *([text_cell(group)] if grouped else [])),
                        *(value_cell(count, str(count)) for count in counts),
                        *(_share(of, least) for of in of_kind),
                    ]
                )
    caption = (
        f"Share of inserted lesions ({comparison.makes[0]}) whose contrast recovery is below 0.25, of opposite signs "
        "between \u22120.25 and 0.25; below it its 95 % interval by bootstrap over the subjects; the least in bold."
    )
    return numbered.table("Lesions lost, %", caption, columns, rows) + _tests(comparison, numbered)


def _named(kind: str) -> str:
    source, _, sign = kind.rpartition(" ")
    return f"{sign} in the {source}" if source == "anatomy" or source.startswith("overlay") else kind


def _share(of: KindSummary | None, least: float) -> str:
    if of is None:
        return value_cell(math.nan, NONE)
    shown = _percent(of.lost)
    shown = f"<strong>{shown}</strong>" if of.lost == least else shown
    return value_cell(of.lost, shown + _between(of.interval))


def _between(interval: Interval) -> str:
    if math.isnan(interval.low):
        return ""
    return f"<small>{100 * interval.low:.0f} to {100 * interval.high:.0f}</small>"


def _percent(share: float) -> str:
    return NONE if math.isnan(share) else f"{100 * share:.0f} %"


def _tests(comparison: LesionComparison, numbered: NumberedTables) -> str:
    tests = comparison.lost.tests
    if not tests:
        return ""
    found = {(test.method, test.metric): test for test in tests}
    baseline = comparison.lost.baseline
    rows = []
    for kind in comparison.kinds:
        cells = []
        for method in comparison.methods[1:]:
            test = found.get((method, kind))
            if test is None:
                cells.append(value_cell(math.nan, NONE))
                continue
            p = "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"
            certain = test.p_holm < 0.05 and test.difference
            which = ("better" if test.difference < 0 else "worse") if certain else ""
            shown = number_told(100 * test.difference, 0, sign=bool(test.difference))
            cells.append(value_cell(test.difference, f"{shown}<small>{escape(p)}</small>", which))
        rows.append([row_head(_named(kind)), *cells])
    columns = [column_head("Lesion"), *(column_head(method, "number") for method in comparison.methods[1:])]
    caption = (
        "Median of the subjects' mean paired differences in percent of lesions, all pairs together, and below it the p "
        f"of Wilcoxon's signed-rank test (two-sided) over the subjects, corrected by Holm for all {len(tests)} tests."
    )
    return numbered.table(f"Lesions lost, against {baseline}", caption, columns, rows)


def _makes(comparison: LesionComparison, numbered: NumberedTables) -> str:
    if len(comparison.makes) < 2:
        return ""
    grouped = len(comparison.groups) > 1
    rows = []
    for make in comparison.makes:
        for group in comparison.groups:
            worst = [comparison.worst_kind(method, group, make) for method in comparison.methods]
            shown = [
                value_cell(
                    of.lost, _percent(of.lost) + (f"<small>{escape(_named(of.kind))}</small>" if of.lost else "")
                )
                if of
                else value_cell(math.nan, NONE)
                for of in worst
            ]
            rows.append([row_head(make), *([text_cell(group)] if grouped else []), *shown])
    columns = [column_head("Make"), *([column_head("Pair")] if grouped else [])]
    columns += [column_head(method, "number") for method in comparison.methods]
    caption = "Share lost of the worst kind of lesion in one source, and below it which kind that is."
    return numbered.table("Other makes of lesions", caption, columns, rows)


def _kinds(comparison: LesionComparison, numbered: NumberedTables) -> str:
    grouped, made = len(comparison.groups) > 1, len(comparison.makes) > 1
    columns = [column_head("Lesion"), *([column_head("Pair")] if grouped else [])]
    columns += [*([column_head("Make")] if made else []), column_head("Method")]
    names = ["Lesions", "Recovery", "Area, grey", "Area, CIELAB", "Area, side by side"]
    columns += [column_head(name, first="descending") for name in names]
    rows = []
    for of in comparison.summaries:
        values = [value_cell(value, number_told(value, 3)) for value in (of.grey, of.colour, of.sources)]
        rows.append(
            [
                *(row_head(_named(of.kind)), *([text_cell(of.group)] if grouped else [])),
                *(*([text_cell(of.make)] if made else []), text_cell(of.method)),
                *(value_cell(of.lesions, str(of.lesions)), value_cell(of.recovery, number_told(of.recovery, 2))),
                *values,
            ]
        )
    caption = (
        "Recovery is the median, 1 keeps the contrast. Areas under the ROC curve are those of a channelised Hotelling "
        "observer that tells places with a lesion from the same without, trained on other subjects; side by side it "
        "sees both sources, which is the bar to reach."
    )
    return numbered.table("What can still be seen", caption, columns, rows, "scroll tall")
