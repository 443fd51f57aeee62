"""Pictures to look at: fused images beside their sources, and how well two images lie on each other."""

from .checkerboard import write_checkerboard
from .montage import write_montage
from .viewer import Page, pages_in, view, viewer_html, write_viewer

__all__ = ["Page", "pages_in", "view", "viewer_html", "write_checkerboard", "write_montage", "write_viewer"]
