"""Transforms that MONAI lacks for fusion: loading pairs, display range, colour, words."""

from .colour import HotColours, HotColoursd, MergeChroma, MergeChromad, SplitLuminance, SplitLuminanced, luminance
from .display import ScaleToDisplayRange, ScaleToDisplayRanged
from .loading import LoadStudyImage, LoadStudyImaged
from .saving import SaveFusedd
from .text import Describe, Described

__all__ = [
    "Describe",
    "Described",
    "HotColours",
    "HotColoursd",
    "LoadStudyImage",
    "LoadStudyImaged",
    "MergeChroma",
    "MergeChromad",
    "SaveFusedd",
    "ScaleToDisplayRange",
    "ScaleToDisplayRanged",
    "SplitLuminance",
    "SplitLuminanced",
    "luminance",
]
