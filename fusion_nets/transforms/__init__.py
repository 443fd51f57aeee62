"""Transforms that MONAI lacks for fusion: loading pairs, display range, colour, words."""

from .colour import (
    MergeChroma,
    MergeChromad,
    PaletteChroma,
    PaletteChromad,
    SplitLuminance,
    SplitLuminanced,
    luminance,
    palette_colours,
)
from .common_grid import CommonGrid, CommonGridd
from .display import CT_WINDOWS, ScaleToDisplayRange, ScaleToDisplayRanged
from .encoding import EncodeText, EncodeTextd, RandForgetTextd, RandMirrord, swap_sides
from .loading import CheckSourcesd, LoadStudyImage, LoadStudyImaged
from .prepared import CheckLuminancesd, WhereGivend
from .recording import RecordChoicesd
from .saving import SaveFusedd
from .source_texts import Describe, Described
from .training_texts import RandRedescribed, TakeSourced

__all__ = [
    "CheckLuminancesd",
    "CheckSourcesd",
    "PaletteChroma",
    "PaletteChromad",
    "CT_WINDOWS",
    "CommonGrid",
    "CommonGridd",
    "EncodeText",
    "EncodeTextd",
    "Describe",
    "Described",
    "LoadStudyImage",
    "LoadStudyImaged",
    "MergeChroma",
    "MergeChromad",
    "RandForgetTextd",
    "RandMirrord",
    "RandRedescribed",
    "RecordChoicesd",
    "SaveFusedd",
    "ScaleToDisplayRange",
    "ScaleToDisplayRanged",
    "SplitLuminance",
    "SplitLuminanced",
    "TakeSourced",
    "WhereGivend",
    "luminance",
    "palette_colours",
    "swap_sides",
]
