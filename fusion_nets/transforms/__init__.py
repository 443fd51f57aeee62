"""Transforms that MONAI lacks for fusion: loading pairs, display range, colour."""

from .colour import HotColours, HotColoursd, MergeChroma, MergeChromad, SplitLuminance, SplitLuminanced, luminance
from .display import ScaleToDisplayRange, ScaleToDisplayRanged
from .loading import LoadStudyImage, LoadStudyImaged
from .saving import SaveFusedd

__all__ = [
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
