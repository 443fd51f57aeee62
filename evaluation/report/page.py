"""A comparison as a page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from evaluation.report.comparison import Comparison, PairedTest
from evaluation.report.glossary import MEANINGS

__all__ = ["Picture", "report_html"]

_NONE = "\u2013"
_MINUS = "\u2212"


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


def report_html(comparison: Comparison, pictures: Sequence[Picture] = (), notes: Iterable[str] = ()) -> str:
    """The whole comparison as one page, which loads nothing: styles, script and pictures are in it.

    It is read in light and dark, printed, and used by keyboard and screen reader (WAI-ARIA authoring practices,
    sortable table); its content security policy allows what it holds by hash and nothing else.

    Args:
        comparison: what to show.
        pictures: figures, in their order, before the tables.
        notes: how it was measured, a paragraph each.

    Returns:
        HTML.
    """
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
    policy += "base-uri 'none'; form-action 'none'"
    title = f"{comparison.methods[0]}: fused images measured"
    if len(comparison.methods) > 1:
        title = f"{len(comparison.methods)} fusion methods compared"
    tables = _Tables(comparison)
    body = "\n".join(
        [
            f'<header>\n<p class="kicker">Multimodal medical image fusion</p>\n<h1>{escape(title)}</h1>',
            f"{_lead(comparison)}\n{_facts(comparison)}\n</header>\n<main>",
            tables.failures(),
            *(_figure(number, picture) for number, picture in enumerate(pictures, start=1)),
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


def _facts(comparison: Comparison) -> str:
    facts: list[tuple[str, object]] = [("Pairs", len(comparison.cases)), ("Subjects", len(comparison.subjects))]
    facts += [("Methods", len(comparison.methods)), ("Metrics", len(comparison.metrics))]
    if len(comparison.methods) > 1:
        facts += [("Held against", comparison.baseline)]
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


class _Tables:
    """The tables of a page, numbered as they come."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.count = 0
        self.decimals = {metric: _decimals(comparison, metric) for metric in comparison.metrics}

    def failures(self) -> str:
        failed = self.comparison.failures
        if not failed:
            return ""
        rows = ([_head(case), _text(method or "all"), _text(reason, "text wrap")] for case, method, reason in failed)
        count = f"{len(failed)} image{'s' if len(failed) > 1 else ''} could not be measured"
        table = self._table("What was passed over", "", [_column("Case"), _column("Method"), _column("Reason")], rows)
        return f'<section class="notice">\n<h2>{count}</h2>\n{table}</section>'

    def summaries(self) -> str:
        tables = []
        for group in (None, *self.comparison.groups):
            counts = [_column(name, first="descending") for name in ("n", "Subjects")]
            columns = [_column("Method"), *counts, *self._metric_columns()]
            rows = [self._means(method, group) for method in self.comparison.methods]
            title = "All pairs" if group is None else group or "Others"
            caption = "Mean, and below it its 95 % interval by bootstrap over the subjects; the best mean in bold."
            tables.append(self._table(title, caption if group is None else "", columns, rows))
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
            shown = _number(mean, self.decimals[metric])
            if method in self.comparison.best(metric, group):
                shown = f"<strong>{shown}</strong>"
            if not math.isnan(interval.low):
                shown += "<small>{} to<br>{}</small>".format(*(_number(end, self.decimals[metric]) for end in interval))
            cells.append(_cell(mean, shown))
        counts = max((summary.n, summary.subjects) for summary in summaries.values())
        return [_head(method), *(_cell(count, str(count)) for count in counts), *cells]

    def tests(self) -> str:
        tests = self.comparison.tests
        if not tests:
            return ""
        columns = [_column("Method"), *self._metric_columns()]
        found = {(test.method, test.metric): test for test in tests}
        rows = [
            [_head(method), *(self._test(found.get((method, metric))) for metric in self.comparison.metrics)]
            for method in self.comparison.methods[1:]
        ]
        baseline = self.comparison.baseline
        caption = (
            "Median of the subjects' mean paired differences, and below it the p of Wilcoxon's signed-rank test "
            f"(two-sided) over {self._counted(tests)}, corrected by Holm for all {len(tests)} tests. ▲ better and ▼ "
            f"worse than {baseline} with p < 0.05."
        )
        title = f"Against {baseline}"
        return f"<section>\n<h2>Paired differences</h2>\n{self._table(title, caption, columns, rows)}</section>"

    @staticmethod
    def _counted(tests: Sequence[PairedTest]) -> str:
        fewest, most = (pick(test.subjects for test in tests) for pick in (min, max))
        return f"{most} subjects" if fewest == most else f"{fewest} to {most} subjects"

    def _test(self, test: PairedTest | None) -> str:
        if test is None:
            return _cell(math.nan, _NONE)
        shown = _number(test.difference, self.decimals[test.metric], sign=True)
        p = "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"
        kind = mark = ""
        if test.p_holm < 0.05 and test.difference:
            kind = "better" if (test.difference > 0) == self.comparison.metrics[test.metric] else "worse"
            mark = f'<span aria-hidden="true">{"▲" if kind == "better" else "▼"}</span> '
            mark += f'<span class="hidden">{kind}: </span>'
        return _cell(test.difference, f"{shown}<small>{mark}{escape(p)}</small>", kind)

    def cases(self) -> str:
        comparison = self.comparison
        grouped, sliced = comparison.groups, any(score.slices > 1 for score in comparison.scores)
        owned = len(comparison.subjects) < len(comparison.cases)
        columns = [_column("Case"), *([_column("Subject")] if owned else []), *([_column("Pair")] if grouped else [])]
        columns += [_column("Method")]
        columns += [*([_column("Slices", first="descending")] if sliced else []), *self._metric_columns()]
        rows = []
        for score in comparison.scores:
            cells = [_head(score.case), *([_text(comparison.subject_of[score.case])] if owned else [])]
            cells += [*([_text(score.group)] if grouped else []), _text(score.method)]
            cells += [_cell(score.slices, str(score.slices))] if sliced else []
            for metric in comparison.metrics:
                value = score.values[metric]
                cells.append(_cell(value, _number(value, self.decimals[metric])))
            rows.append(cells)
        table = self._table("Every case and method", "", columns, rows, "scroll tall")
        return f"<section>\n<h2>Cases</h2>\n{table}</section>"

    def _metric_columns(self) -> list[str]:
        return [
            _column(metric, "number", "descending" if higher else "ascending", "higher" if higher else "lower")
            for metric, higher in self.comparison.metrics.items()
        ]

    def _table(
        self, title: str, caption: str, columns: list[str], rows: Iterable[list[str]], kind: str = "scroll"
    ) -> str:
        self.count += 1
        name = f"table-{self.count}"
        body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
        return (
            f'<div class="block"><div class="{kind}" role="region" aria-labelledby="{name}" tabindex="0">'
            f'<table class="sortable">\n<caption id="{name}"><span><b>Table {self.count}. {escape(title)}.</b> '
            f"{escape(caption)}</span></caption>\n<thead><tr>{''.join(columns)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
            "</table></div></div>\n"
        )


def _column(name: str, kind: str = "text", first: str = "ascending", better: str = "") -> str:
    """A head; `first` is how its first click sorts, `better` which values are."""
    kind = "number" if first == "descending" else kind
    arrow = {"higher": "↑", "lower": "↓", "": ""}[better]
    meaning = MEANINGS.get(name, ("",))[0] if better else ""
    told = f' <span aria-hidden="true">{arrow}</span><span class="hidden"> {better} is better</span>' if better else ""
    title = f' title="{escape(meaning)}"' if meaning else ""
    return f'<th scope="col" class="{kind}" data-first="{first}"{title}>{escape(name)}{told}</th>'


def _head(text: str) -> str:
    return f'<th scope="row" class="text" title="{escape(text)}">{escape(text)}</th>'


def _text(text: str, kind: str = "text") -> str:
    return f'<td class="{kind}">{escape(text)}</td>'


def _cell(value: float, shown: str, kind: str = "") -> str:
    sortable = repr(float(value)) if math.isfinite(value) else ""
    named = f' class="{kind}"' if kind else ""
    return f'<td data-value="{sortable}"{named}>{shown}</td>'


def _number(value: float, decimals: int, sign: bool = False) -> str:
    if not math.isfinite(value):
        return _NONE
    return f"{value:{'+' if sign else ''}.{decimals}f}".replace("-", _MINUS)


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
        cells = [_head(metric), _text(title), _text(better), _text(meaning, "text wrap")]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return (
        '<section>\n<h2>Metrics</h2>\n<div class="scroll" role="region" tabindex="0" aria-label="Metrics"><table>\n'
        '<thead><tr><th scope="col" class="text">Name</th><th scope="col" class="text">In full</th>'
        '<th scope="col" class="text">Better</th><th scope="col" class="text">Tells</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n</section>"
    )
