"""Pictures to look at: fused images beside their sources, and how well two images lie on each other."""

from .checkerboard import write_checkerboard
from .montage import write_montage

__all__ = ["write_checkerboard", "write_montage"]
