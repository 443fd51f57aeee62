"""The OFA architecture, that of BiomedGPT; importing it makes the auto classes of `transformers` take it."""

from fusion_nets.moved import tell_moved

from .auto_classes import register
from .configuration import OFAConfig
from .learning import LearningDescriber, learn_tokenizer
from .modeling import OFAForConditionalGeneration
from .processing import OFAImageProcessor, OFAProcessor
from .tokenization import OFATokenizer

__all__ = [
    "LearningDescriber",
    "OFAConfig",
    "OFAForConditionalGeneration",
    "OFAImageProcessor",
    "OFAProcessor",
    "OFATokenizer",
    "learn_tokenizer",
    "register",
]

register()

tell_moved(__name__)
