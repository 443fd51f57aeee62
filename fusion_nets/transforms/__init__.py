"""Transforms that MONAI lacks for fusion: loading pairs, display range, colour."""

from .colour import MergeChroma, MergeChromad, SplitLuminance, SplitLuminanced, luminance
from .display import ScaleToDisplayRange, ScaleToDisplayRanged
from .loading import LoadStudyImage, LoadStudyImaged

__all__ = [
    "LoadStudyImage",
    "LoadStudyImaged",
    "MergeChroma",
    "MergeChromad",
    "ScaleToDisplayRange",
    "ScaleToDisplayRanged",
    "SplitLuminance",
    "SplitLuminanced",
    "luminance",
]
