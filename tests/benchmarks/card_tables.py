"""The tables of a model card, in Markdown, of what was judged."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from evaluation.observers import Lesion
from evaluation.report import Comparison, Interval, KindSummary, LesionComparison, source_of
from fusion_nets.files import whole_file

KINDS = {
    "overlay bright": "the overlay, bright",
    "overlay dark": "the overlay, dark",
    "anatomy bright": "the MRI, bright",
    "anatomy dark": "the MRI, dark",
    "both bright": "both, bright",
    "anatomy dark, overlay bright": "both, dark in the MRI and bright in the overlay",
}
GOAL = 0.03  # by which an area in colour may lie below that of both sources side by side


def markdown(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column has names."""
    head = list(head)
    lines = [" | ".join(row).join(("| ", " |")) for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def lost_table(comparison: LesionComparison, pairs: LesionComparison) -> str:
    """Recovery, lost and area of every kind of the first make; areas by the folds of the reference judge."""
    make, groups = comparison.makes[0], comparison.groups
    found, areas = _of_make(comparison, make), _of_make(pairs, make)
    rows = []
    for kind, label in KINDS.items():
        cells = []
        for group in groups:
            of, seen = found[group, kind], areas[group, kind]
            cells += [f"{of.recovery:.2f}", _share(of.lost, of.interval), f"{seen.grey:.2f} ({seen.sources:.2f})"]
        rows.append([label, *cells])
    worst = [comparison.worst_kind(comparison.methods[0], group, make) for group in groups]
    rows.append(["**worst of one source**", *(cell for of in worst for cell in ("", f"**{_percent(of.lost)}**", ""))])
    head = [f"{group} {what}" for group in groups for what in ("recovery", "lost", "area (side by side)")]
    return markdown(["lesion in", *head], rows)


def colour_table(pairs: LesionComparison) -> str:
    """Areas in CIELAB of every kind, beside those of both sources; in bold what lies more than the goal below them."""
    found = _of_make(pairs, pairs.makes[0])

    def told(of: KindSummary) -> list[str]:
        less = of.colour - of.sources
        mark = "**" if less < -GOAL else ""
        return [f"{mark}{of.colour:.3f}{mark}", f"{of.sources:.3f}", f"{less:+.3f}"]

    rows = [
        [label, *(cell for group in pairs.groups for cell in told(found[group, kind]))] for kind, label in KINDS.items()
    ]
    head = [f"{group} {what}" for group in pairs.groups for what in ("area in colour", "side by side", "difference")]
    return markdown(["lesion in", *head], rows)


def makes_table(comparison: LesionComparison, pairs: LesionComparison) -> str:
    """Of every make what is lost of its worst kind in one source, and the mean area of those kinds."""
    rows = []
    for make in comparison.makes:
        areas, cells = _of_make(pairs, make), []
        for group in comparison.groups:
            of = comparison.worst_kind(comparison.methods[0], group, make)
            which = f"; {KINDS[of.kind]}" if of.lost else ""
            cells += [_share(of.lost, of.interval) + which, _mean_area(areas, group)]
        rows.append([make, *cells])
    head = [f"{group} {what}" for group in comparison.groups for what in ("worst lost", "area (side by side)")]
    return markdown(["make", *head], rows)


def curve_table(comparison: LesionComparison) -> str:
    """Share lost and area against contrast and against radius, of discs in one source, both signs together."""
    axes: list[tuple[str, tuple[str, ...], Callable[[Lesion], float]]] = [
        ("contrast {:.2f}", ("faint", "discs", "strong"), lambda lesion: lesion.amplitude),
        ("radius {:g}", ("small", "discs", "large"), lambda lesion: lesion.radius),
    ]
    rows, of_source = [], ("overlay", "anatomy")
    for label, makes, value in axes:
        scores = [score for score in comparison.scores if score.make in makes]
        for one in sorted({value(score.lesion) for score in scores}):
            cells = []
            at = [s._replace(make="", subject="") for s in scores if value(s.lesion) == one]
            areas = _of_make(LesionComparison(comparison.methods, at), "")
            for group in comparison.groups:
                for source in of_source:
                    of = [s for s in at if s.group == group and source_of(s.signs) == source and not math.isnan(s.lost)]
                    lost = sum(s.lost for s in of) / len(of) if of else math.nan
                    cells.append(f"{_percent(lost)}, {_mean_area(areas, group, source)}")
            rows.append([label.format(one), *cells])
    head = [
        f"{group}, {'the MRI' if source == 'anatomy' else 'the overlay'}"
        for group in comparison.groups
        for source in of_source
    ]
    return markdown(["lesions of", *head], rows)


def metrics_table(comparison: Comparison) -> str:
    """Mean of every metric by kind of pair and method, with its interval; a star where it is not the first method's.

    Tested by Wilcoxon's signed-rank test over the subjects of a kind, corrected by Holm.
    """
    rows = []
    for group in dict.fromkeys(score.group for score in comparison.scores):
        of_group = [score for score in comparison.scores if score.group == group]
        methods = [method for method in comparison.methods if any(score.method == method for score in of_group)]
        part = Comparison(methods, comparison.metrics, of_group)
        certain = {(test.method, test.metric) for test in part.tests if test.p_holm < 0.05}
        for method in methods:
            cells = []
            for metric in comparison.metrics:
                of = part.summary(method, metric)
                told = f"{of.mean:.4f}"
                bold = f"**{told}**" if method in part.best(metric) else told
                star = "\\*" if (method, metric) in certain else ""
                cells.append(f"{bold}{star} ({of.interval.low:.3f} to {of.interval.high:.3f})")
            counts = f"{len(part.cases)} pairs, {len(part.subjects)} subjects" if method == methods[0] else ""
            rows.append([f"{group}, {method}", counts, *cells])
    return markdown(["", "", *comparison.metrics], rows)


def put_into(card: Path, name: str, table: str) -> bool:
    """Replace what stands in a card between `<!-- table: NAME -->` and `<!-- end -->`; False where it has no such."""
    # not across another comment: of a table without its end nothing is replaced
    place = re.compile(rf"(<!-- table: {re.escape(name)} -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
    text, count = place.subn(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", card.read_text(encoding="utf-8"))
    if count:
        with whole_file(card) as partial:
            partial.write_text(text, encoding="utf-8")
    return bool(count)


def _of_make(comparison: LesionComparison, make: str) -> dict[tuple[str, str], KindSummary]:
    return {(of.group, of.kind): of for of in comparison.summaries if of.make == make}


def _mean_area(found: dict[tuple[str, str], KindSummary], group: str, source: str | None = None) -> str:
    """Of the kinds of one source, and the same side by side."""
    of = [one for (name, _), one in found.items() if name == group and source_of(one.signs) in _one(source)]
    if not of or any(math.isnan(one.grey) for one in of):  # too few lesions to train an observer on others
        return "-"
    return f"{sum(one.grey for one in of) / len(of):.2f} ({sum(one.sources for one in of) / len(of):.2f})"


def _one(source: str | None) -> tuple[str, ...]:
    return ("overlay", "anatomy") if source is None else (source,)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _share(share: float, interval: Interval) -> str:
    """With its interval, where there is one that says something."""
    if not share or math.isnan(interval.low):
        return _percent(share)
    return f"{_percent(share)} ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
