"""Reports: methods compared over the same cases, as tables, figures and a page.

Everything here takes numbers and arrays and gives contents; where they come from and go to is the caller's.
"""

from evaluation.report.comparison import Comparison, Failure, PairedTest, Score, Summary, holm
from evaluation.report.figures import Example, boxplots, montage, zoom_region
from evaluation.report.glossary import MEANINGS
from evaluation.report.lesion_comparison import (
    CurvePoint,
    KindSummary,
    LesionComparison,
    LesionScore,
    lesion_recoveries,
    lesion_responses,
    source_of,
)
from evaluation.report.lesion_figures import LesionExample, psychometric_curves, worst_lesions
from evaluation.report.lesion_tables import lesion_kinds_csv, lesion_tables, lesions_csv, psychometric_csv
from evaluation.report.page import Picture, report_html
from evaluation.report.subjects import Interval, bootstrap_interval, subject_means, wilcoxon_of_subjects
from evaluation.report.tables import cases_csv, summary_json, summary_markdown

__all__ = [
    "MEANINGS",
    "Comparison",
    "CurvePoint",
    "Example",
    "Failure",
    "Interval",
    "KindSummary",
    "LesionComparison",
    "LesionExample",
    "LesionScore",
    "PairedTest",
    "Picture",
    "Score",
    "Summary",
    "bootstrap_interval",
    "boxplots",
    "cases_csv",
    "holm",
    "lesion_kinds_csv",
    "lesion_recoveries",
    "lesion_responses",
    "lesion_tables",
    "lesions_csv",
    "montage",
    "psychometric_csv",
    "psychometric_curves",
    "report_html",
    "source_of",
    "subject_means",
    "summary_json",
    "summary_markdown",
    "wilcoxon_of_subjects",
    "worst_lesions",
    "zoom_region",
]
