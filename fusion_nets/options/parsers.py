"""A parser of arguments that tells what a wrong one may have meant."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from typing import Any, NoReturn

__all__ = ["CommandParser", "Once", "Parser"]


class Parser(argparse.ArgumentParser):
    """Takes no option's beginning for the option, and says what a misspelt command or value may have meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """End the program with usage and message."""
        wrong = re.search(r"invalid choice: '(.+?)' \(choose from (.*)\)", message, re.DOTALL)
        if wrong:
            from fusion_nets.names import perhaps

            message += perhaps(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(message)


class Once(argparse.Action):
    """Store, and refuse an option that is given again: one that may be elsewhere must not be taken in part."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Store."""
        if getattr(namespace, self.dest, None) != self.default:
            parser.error(f"argument {option_string}: is given twice; one is accepted here")
        setattr(namespace, self.dest, values)


class CommandParser(Parser):
    """Of a command: takes the global option behind the command's name, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self.set_defaults(parser=self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an option that there is not is told before one that is missing, for which it may stand."""
        words = itertools.takewhile(lambda word: word != "--", args or ())
        options = [word for word in words if word.startswith("--") and " " not in word]  # as argparse tells them
        unknown = [word for word in options if word.partition("=")[0] not in self._option_string_actions]
        if unknown:
            self.refuse(unknown)
        return super().parse_known_args(args, namespace)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """End the program because of arguments that there are not."""
        from fusion_nets.names import perhaps

        words = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        meant = [perhaps(word, self._option_string_actions) for word in words]
        self.error(f"unrecognized arguments: {' '.join(unknown)}{next(filter(None, meant), '')}")
