"""Pictures to look at: fused images beside their sources, and how well two images lie on each other."""

from .checkerboard import write_checkerboard
from .marks import window_words
from .montage import write_montage
from .projection import write_projections
from .viewer import Page, pages_in, view, viewer_html, write_viewer

__all__ = [
    "Page",
    "pages_in",
    "view",
    "viewer_html",
    "window_words",
    "write_checkerboard",
    "write_montage",
    "write_projections",
    "write_viewer",
]
