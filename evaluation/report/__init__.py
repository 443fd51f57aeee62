"""Reports: methods compared over the same cases, as tables, figures and a page.

Everything here takes numbers and arrays and gives contents; where they come from and go to is the caller's.
"""

from evaluation.report.comparison import Comparison, Failure, PairedTest, Score, Summary, holm
from evaluation.report.figures import Example, boxplots, montage, zoom_region
from evaluation.report.glossary import MEANINGS
from evaluation.report.page import Picture, report_html
from evaluation.report.subjects import Interval, bootstrap_interval, subject_means, wilcoxon_of_subjects
from evaluation.report.tables import cases_csv, summary_json, summary_markdown

__all__ = [
    "Comparison",
    "Example",
    "Failure",
    "Interval",
    "MEANINGS",
    "PairedTest",
    "Picture",
    "Score",
    "Summary",
    "bootstrap_interval",
    "boxplots",
    "cases_csv",
    "holm",
    "montage",
    "report_html",
    "subject_means",
    "summary_json",
    "summary_markdown",
    "wilcoxon_of_subjects",
    "zoom_region",
]
