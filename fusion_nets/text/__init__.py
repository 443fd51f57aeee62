"""Images in words: describers, findings, and the encoder that makes vectors of text."""

from fusion_nets.moved import tell_moved

from .finding_encoder import FindingEncoder
from .findings import Finding, parse_findings, write_findings
from .generated import GeneratedText
from .given import GivenText
from .measured import MeasuredText
from .named_lesions import RandNameLesionsd
from .phrases import phrase_finding
from .pretrained_critic import PretrainedCritic
from .protocol import Describer
from .screen import displayed
from .text_encoder import EncodedText, TextEncoder
from .truths import RandTakeTruthd, WriteTruthd, truth_findings, write_truth

__all__ = [
    "Describer",
    "EncodedText",
    "Finding",
    "FindingEncoder",
    "GeneratedText",
    "GivenText",
    "MeasuredText",
    "PretrainedCritic",
    "RandNameLesionsd",
    "RandTakeTruthd",
    "TextEncoder",
    "WriteTruthd",
    "displayed",
    "parse_findings",
    "phrase_finding",
    "truth_findings",
    "write_findings",
    "write_truth",
]

tell_moved(__name__)
