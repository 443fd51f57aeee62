"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from fusion_nets.moved import tell_moved

from .findings import Finding, parse_findings, write_findings
from .generated import GeneratedText
from .given import GivenText
from .pretrained_critic import PretrainedCritic
from .protocol import Describer
from .measured import MeasuredText
from .screen import displayed
from .text_encoder import EncodedText, TextEncoder
from .truths import WriteTruthd, truth_findings, write_truth

__all__ = [
    "Describer",
    "EncodedText",
    "Finding",
    "GeneratedText",
    "GivenText",
    "MeasuredText",
    "PretrainedCritic",
    "TextEncoder",
    "WriteTruthd",
    "displayed",
    "parse_findings",
    "truth_findings",
    "write_findings",
    "write_truth",
]

tell_moved(__name__)
