"""Progress bars beside which a log can be read."""

from __future__ import annotations

from tqdm.contrib.logging import logging_redirect_tqdm

from fusion_nets.quiet import Shared

__all__ = ["LOG_ABOVE_BAR"]

LOG_ABOVE_BAR = Shared(logging_redirect_tqdm)
"""Lines of the log do not break a bar; while one is shown, in whichever thread."""
