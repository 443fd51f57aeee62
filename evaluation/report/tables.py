"""A comparison as tables: CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from evaluation.report.comparison import Comparison

__all__ = ["cases_csv", "csv_text", "summary_json", "summary_markdown"]

_ALL = "All pairs"


def cases_csv(comparison: Comparison) -> str:
    """A row for each case and method: case, subject, pair, method, slices, and every metric in full precision."""
    rows: list[list[Any]] = [["case", "subject", "pair", "method", "slices", *comparison.metrics]]
    for score in comparison.scores:
        values = (score.values[metric] for metric in comparison.metrics)
        told = ["" if math.isnan(value) else repr(float(value)) for value in values]
        subject = comparison.subject_of[score.case]
        rows.append([score.case, subject, score.group, score.method, score.slices, *told])
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    r"""Rows as CSV with lines that end in a line feed; a cell with a carriage return is quoted, too.

    Examples:
        >>> csv_text([["a\rb", 1], ["c", 2]])
        '"a\rb",1\nc,2\n'
    """
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(row)  # quotes what is in this, and no more
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def summary_json(comparison: Comparison) -> str:
    """Means, deviations, 95 % intervals over subjects, tests and failures; what has no value is null."""
    groups = {group: _means(comparison, group) for group in comparison.groups}
    content = {
        "baseline": comparison.baseline,
        "methods": list(comparison.methods),
        "cases": len(comparison.cases),
        "subjects": len(comparison.subjects),
        "metrics": {
            metric: {"better": "higher" if higher else "lower"} for metric, higher in comparison.metrics.items()
        },
        "all": _means(comparison, None),
        "groups": groups,
        "tests": [{key: _number(value) for key, value in test._asdict().items()} for test in comparison.tests],
        "failures": [failure._asdict() for failure in comparison.failures],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _means(comparison: Comparison, group: str | None) -> dict[str, Any]:
    def told(method: str, metric: str) -> dict[str, Any]:
        n, mean, deviation, subjects, interval = comparison.summary(method, metric, group)
        low, high = map(_number, interval)
        of_mean = {"mean": _number(mean), "sd": _number(deviation), "low": low, "high": high}
        return {"n": n, "subjects": subjects, **of_mean}

    return {method: {metric: told(method, metric) for metric in comparison.metrics} for method in comparison.methods}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_markdown(comparison: Comparison) -> str:
    """Means, deviations and intervals of every method over all pairs and in each group, the best in bold; the tests."""
    arrows = [f"{metric} {'↑' if higher else '↓'}" for metric, higher in comparison.metrics.items()]
    parts = ["# Comparison of fusion methods"]
    for group in (None, *comparison.groups):
        rows = [["", "n", "subjects", *arrows]]
        for method in comparison.methods:
            most = max((comparison.summary(method, metric, group) for metric in comparison.metrics), key=lambda s: s.n)
            cells = (_cell(comparison, method, metric, group) for metric in comparison.metrics)
            rows.append([_escaped(method), str(most.n), str(most.subjects), *cells])
        title = _ALL if group is None else _escaped(group or "Others")
        parts.append(f"## {title}\n\n{_table(rows)}")
    parts.append(
        "Mean ± standard deviation over the pairs, and the 95 % interval of the mean by bootstrap over the subjects; "
        "the best mean in bold; ↑ higher is better, ↓ lower."
    )
    if comparison.tests:
        rows = [
            [
                f"against {_escaped(comparison.baseline)}",
                "metric",
                "n",
                "subjects",
                "median difference",
                "p",
                "p (Holm)",
            ]
        ]
        for method, metric, n, subjects, difference, p, p_holm in comparison.tests:
            values = (f"{value:.2g}" for value in (p, p_holm))
            rows.append([_escaped(method), metric, str(n), str(subjects), f"{difference:+.4f}", *values])
        parts.append(f"## Paired differences\n\n{_table(rows)}")
        parts.append(
            "Two-sided Wilcoxon signed-rank test over the subjects of the pairs that both methods have, each subject "
            "by its mean difference; Holm's correction."
        )
    if comparison.failures:
        rows = [
            ["not measured", "method", "reason"],
            *([_escaped(text) for text in row] for row in comparison.failures),
        ]
        parts.append(f"## Not measured\n\n{_table(rows)}")
    return "\n\n".join(parts) + "\n"


def _cell(comparison: Comparison, method: str, metric: str, group: str | None) -> str:
    n, mean, deviation, _, (low, high) = comparison.summary(method, metric, group)
    if not n:
        return "\u2013"
    shown = f"**{mean:.4f}**" if method in comparison.best(metric, group) else f"{mean:.4f}"
    shown += "" if math.isnan(deviation) else f" ± {deviation:.4f}"
    return shown if math.isnan(low) else f"{shown} ({low:.4f} to {high:.4f})"


def _table(rows: list[list[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _escaped(text: str) -> str:
    """As it is shown in a cell, whatever is in it."""
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
