"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from .critic import PretrainedCritic
from .describers import Describer
from .encoder import EncodedText, TextEncoder
from .findings import Finding, parse_findings, write_findings
from .generated import GeneratedText
from .given import GivenText
from .measured import MeasuredText
from .pictures import displayed

__all__ = [
    "Describer",
    "EncodedText",
    "Finding",
    "GeneratedText",
    "GivenText",
    "MeasuredText",
    "PretrainedCritic",
    "TextEncoder",
    "displayed",
    "parse_findings",
    "write_findings",
]
