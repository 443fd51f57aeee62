"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from .describers import Describer
from .findings import Finding

__all__ = ["Describer", "Finding"]
