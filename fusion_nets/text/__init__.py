"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from .describers import Describer
from .findings import Finding, parse_findings, write_findings
from .measured import MeasuredText

__all__ = ["Describer", "Finding", "MeasuredText", "parse_findings", "write_findings"]
