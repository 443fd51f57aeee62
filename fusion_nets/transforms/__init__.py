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
from .redescribing import RandRedescribed, TakeSourced
from .saving import SaveFusedd
from .text import Describe, Described

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
