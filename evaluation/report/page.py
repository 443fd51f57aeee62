"""A comparison as a page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from evaluation.report.cells import NONE, NumberedTables, column_head, number_told, row_head, text_cell, value_cell
from evaluation.report.comparison import Comparison, PairedTest
from evaluation.report.glossary import MEANINGS
from evaluation.report.lesion_comparison import LesionComparison
from evaluation.report.lesion_tables import lesions_html, lesions_lead

__all__ = ["Picture", "report_html"]


class Picture(NamedTuple):
    """A figure of the page.

    Attributes:
        light: PNG for a light page and for paper.
        dark: PNG for a dark page.
        title: what it shows, in a few words.
        caption: what one should know to read it.
        alternative: for whom cannot see it.
    """

    light: bytes
    dark: bytes
    title: str
    caption: str
    alternative: str


def report_html(
    comparison: Comparison,
    pictures: Sequence[Picture] = (),
    notes: Iterable[str] = (),
    lesions: LesionComparison | None = None,
    lesion_pictures: Sequence[Picture] = (),
) -> str:
    """The whole comparison as one page, which loads nothing: styles, script and pictures are in it.

    It is read in light and dark, printed, and used by keyboard and screen reader (WAI-ARIA authoring practices,
    sortable table); its content security policy allows what it holds by hash and nothing else.

    Args:
        comparison: what to show.
        pictures: figures, in their order, before the tables.
        notes: how it was measured, a paragraph each.
        lesions: what became of lesions in the same methods' images.
        lesion_pictures: figures of that, before its tables.

    Returns:
        HTML.
    """
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    title = f"{comparison.methods[0]}: fused images measured"
    if len(comparison.methods) > 1:
        title = f"{len(comparison.methods)} fusion methods compared"
    numbered = NumberedTables()
    tables = _Tables(comparison, numbered)
    body = "\n".join(
        [
            f'<header>\n<p class="kicker">Multimodal medical image fusion</p>\n<h1>{escape(title)}</h1>',
            f"{lesions_lead(lesions) if lesions else ''}{_lead(comparison)}",
            f"{_facts(comparison, lesions)}\n</header>\n<main>",
            tables.failures(),
            *(_figure(number, picture) for number, picture in enumerate(pictures, start=1)),
            _lesions(lesions, lesion_pictures, len(pictures), numbered) if lesions else "",
            tables.summaries(),
            tables.tests(),
            tables.cases(),
            _glossary(comparison),
            "</main>\n<footer>",
            *(f'<p class="soft">{escape(note)}</p>' for note in notes),
            "</footer>",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _lead(comparison: Comparison) -> str:
    """Who leads in how many metrics, in a sentence."""
    leads = dict.fromkeys(comparison.methods, 0)
    for metric in comparison.metrics:
        for method in comparison.best(metric):
            leads[method] += 1
    if not any(leads.values()):
        return ""
    ranked = sorted(leads.items(), key=lambda lead: -lead[1])
    told = ", ".join(f"{escape(method)} in {count}" for method, count in ranked if count)
    return f"<p>Best mean of {len(comparison.metrics)} metrics: {told}.</p>"


def _facts(comparison: Comparison, lesions: LesionComparison | None) -> str:
    facts: list[tuple[str, object]] = [("Pairs", len(comparison.cases)), ("Subjects", len(comparison.subjects))]
    facts += [("Methods", len(comparison.methods)), ("Metrics", len(comparison.metrics))]
    if len(comparison.methods) > 1:
        facts += [("Held against", comparison.baseline)]
    if lesions:
        facts += [("Lesions", lesions.count)]
    if comparison.failures:
        facts += [("Not measured", len(comparison.failures))]
    told = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{told}</dl>'


def _figure(number: int, picture: Picture) -> str:
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (picture.light, picture.dark))
    return (
        f'<figure>\n<div class="scroll" role="region" tabindex="0" aria-label="{escape(picture.title)}"><picture>'
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(picture.alternative)}"></picture></div>\n'
        f"<figcaption><b>Figure {number}. {escape(picture.title)}.</b> {escape(picture.caption)}</figcaption>\n"
        "</figure>"
    )


def _lesions(comparison: LesionComparison, pictures: Sequence[Picture], before: int, numbered: NumberedTables) -> str:
    figures = "\n".join(_figure(before + number, picture) for number, picture in enumerate(pictures, start=1))
    return f"<section>\n<h2>Lesions</h2>\n{figures}\n{lesions_html(comparison, numbered)}</section>"


class _Tables:
    """The tables of the metrics."""

    def __init__(self, comparison: Comparison, numbered: NumberedTables) -> None:
        self.comparison = comparison
        self.numbered = numbered
        self.decimals = {metric: _decimals(comparison, metric) for metric in comparison.metrics}

    def failures(self) -> str:
        failed = self.comparison.failures
        if not failed:
            return ""
        rows = (
            [row_head(case), text_cell(method or "all"), text_cell(reason, "text wrap")]
            for case, method, reason in failed
        )
        count = f"{len(failed)} image{'s' if len(failed) > 1 else ''} could not be measured"
        table = self.numbered.table(
            "What was passed over", "", [column_head("Case"), column_head("Method"), column_head("Reason")], rows
        )
        return f'<section class="notice">\n<h2>{count}</h2>\n{table}</section>'

    def summaries(self) -> str:
        tables = []
        for group in (None, *self.comparison.groups):
            counts = [column_head(name, first="descending") for name in ("n", "Subjects")]
            columns = [column_head("Method"), *counts, *self._metric_columns()]
            rows = [self._means(method, group) for method in self.comparison.methods]
            title = "All pairs" if group is None else group or "Others"
            caption = "Mean, and below it its 95 % interval by bootstrap over the subjects; the best mean in bold."
            tables.append(self.numbered.table(title, caption if group is None else "", columns, rows))
        warning = ""
        if not self.comparison.complete:
            warning = (
                "<p>Not every method has every pair: means are over the pairs each one has (n), and the paired tests "
                "over those that it shares with the method it is held against.</p>"
            )
        return f"<section>\n<h2>Summary</h2>\n{warning}{''.join(tables)}</section>"

    def _means(self, method: str, group: str | None) -> list[str]:
        cells = []
        summaries = {metric: self.comparison.summary(method, metric, group) for metric in self.comparison.metrics}
        for metric, (_, mean, _, _, interval) in summaries.items():
            shown = number_told(mean, self.decimals[metric])
            if method in self.comparison.best(metric, group):
                shown = f"<strong>{shown}</strong>"
            if not math.isnan(interval.low):
                shown += "<small>{} to<br>{}</small>".format(
                    *(number_told(end, self.decimals[metric]) for end in interval)
                )
            cells.append(value_cell(mean, shown))
        counts = max((summary.n, summary.subjects) for summary in summaries.values())
        return [row_head(method), *(value_cell(count, str(count)) for count in counts), *cells]

    def tests(self) -> str:
        tests = self.comparison.tests
        if not tests:
            return ""
        columns = [column_head("Method"), *self._metric_columns()]
        found = {(test.method, test.metric): test for test in tests}
        rows = [
            [row_head(method), *(self._test(found.get((method, metric))) for metric in self.comparison.metrics)]
            for method in self.comparison.methods[1:]
        ]
        baseline = self.comparison.baseline
        caption = (
            "Median of the subjects' mean paired differences, and below it the p of Wilcoxon's signed-rank test "
            f"(two-sided) over {self._counted(tests)}, corrected by Holm for all {len(tests)} tests. ▲ better and ▼ "
            f"worse than {baseline} with p < 0.05."
        )
        title = f"Against {baseline}"
        return f"<section>\n<h2>Paired differences</h2>\n{self.numbered.table(title, caption, columns, rows)}</section>"

    @staticmethod
    def _counted(tests: Sequence[PairedTest]) -> str:
        fewest, most = (pick(test.subjects for test in tests) for pick in (min, max))
        return f"{most} subjects" if fewest == most else f"{fewest} to {most} subjects"

    def _test(self, test: PairedTest | None) -> str:
        if test is None:
            return value_cell(math.nan, NONE)
        shown = number_told(test.difference, self.decimals[test.metric], sign=True)
        p = "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"
        kind = mark = ""
        if test.p_holm < 0.05 and test.difference:
            kind = "better" if (test.difference > 0) == self.comparison.metrics[test.metric] else "worse"
            mark = f'<span aria-hidden="true">{"▲" if kind == "better" else "▼"}</span> '
            mark += f'<span class="hidden">{kind}: </span>'
        return value_cell(test.difference, f"{shown}<small>{mark}{escape(p)}</small>", kind)

    def cases(self) -> str:
        comparison = self.comparison
        grouped, sliced = comparison.groups, any(score.slices > 1 for score in comparison.scores)
        owned = len(comparison.subjects) < len(comparison.cases)
        columns = [
            column_head("Case"),
            *([column_head("Subject")] if owned else []),
            *([column_head("Pair")] if grouped else []),
        ]
        columns += [column_head("Method")]
        columns += [*([column_head("Slices", first="descending")] if sliced else []), *self._metric_columns()]
        rows = []
        for score in comparison.scores:
            cells = [row_head(score.case), *([text_cell(comparison.subject_of[score.case])] if owned else [])]
            cells += [*([text_cell(score.group)] if grouped else []), text_cell(score.method)]
            cells += [value_cell(score.slices, str(score.slices))] if sliced else []
            for metric in comparison.metrics:
                value = score.values[metric]
                cells.append(value_cell(value, number_told(value, self.decimals[metric])))
            rows.append(cells)
        table = self.numbered.table("Every case and method", "", columns, rows, "scroll tall")
        return f"<section>\n<h2>Cases</h2>\n{table}</section>"

    def _metric_columns(self) -> list[str]:
        return [
            column_head(metric, "number", "descending" if higher else "ascending", "higher" if higher else "lower")
            for metric, higher in self.comparison.metrics.items()
        ]


def _decimals(comparison: Comparison, metric: str) -> int:
    """As many as tell methods apart: four below 10, fewer above."""
    means = [abs(comparison.summary(method, metric).mean) for method in comparison.methods]
    largest = max((mean for mean in means if math.isfinite(mean)), default=0.0)
    return 4 if largest < 10 else 2 if largest < 100 else 1 if largest < 1000 else 0


def _glossary(comparison: Comparison) -> str:
    rows = []
    for metric, higher in comparison.metrics.items():
        title, meaning = MEANINGS.get(metric, ("", ""))
        better = "higher" if higher else "lower"
        cells = [row_head(metric), text_cell(title), text_cell(better), text_cell(meaning, "text wrap")]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        '<section>\n<h2>Metrics</h2>\n<div class="scroll" role="region" tabindex="0" aria-label="Metrics"><table>\n'
        '<thead><tr><th scope="col" class="text">Name</th><th scope="col" class="text">In full</th>'
        '<th scope="col" class="text">Better</th><th scope="col" class="text">Tells</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n</section>"
    )
