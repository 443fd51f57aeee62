"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from .describers import Describer
from .findings import Finding
from .generated import GeneratedText
from .given import GivenText

__all__ = ["Describer", "Finding", "GeneratedText", "GivenText"]
