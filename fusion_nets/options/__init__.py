"""The options of each command of `fusion-nets`."""

from .of_commands import build_parser

__all__ = ["build_parser"]
