"""What a receiver is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .node import Tls, check_title
from .rules import Rule
from .sending import Destination

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a receiver does.

    Attributes:
        rules: which series are fused.
        destinations: where results go.
        quiet: seconds without a new object after which a study is looked at.
        title: AE title.
        address: host and port to listen at; None for no node.
        allowed: AE titles that may send.
        tls: certificate; None for connections in the clear.
        most_associations: at a time.
        most_a_second: objects that are taken of one address; None for as many as come.
        poll: address of an Orthanc that is asked for what is new; None for none.
        poll_interval: seconds between two questions.
        poll_from_start: ask for all that it holds, the first time.
        health: host and port of the page of counters; None for none.
        keep_days: after which a study without a pair that failed is removed.
        send_tries: times that sending is tried, when the archive may take it another time.
        send_wait: seconds until the second try; doubled from one to the next, up to ten minutes.
        device: where the networks run.
    """

    rules: Sequence[Rule]
    destinations: Sequence[Destination]
    quiet: float = 60
    title: str = "FUSION"
    address: tuple[str, int] | None = None
    allowed: Sequence[str] = ()
    tls: Tls | None = None
    most_associations: int = 8
    most_a_second: float | None = None
    poll: str | None = None
    poll_interval: float = 10
    poll_from_start: bool = False
    health: tuple[str, int] | None = None
    keep_days: float = 7
    send_tries: int = 6
    send_wait: float = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("quiet", "poll_interval", "most_associations", "keep_days", "send_tries", "send_wait"):
            value = getattr(self, name)
            if not (0 < value < float("inf") or (name == "quiet" and value == 0)):
                raise ValueError(f"{name} is {value}; a number above 0 is accepted")
        if self.most_a_second is not None and not 1 <= self.most_a_second < float("inf"):
            raise ValueError(f"most_a_second is {self.most_a_second}; a number from 1 is accepted")
        for where, titles in (("the AE title of the node", [self.title]), ("an AE title to allow", self.allowed)):
            for title in titles:
                check_title(title, where)
        if self.address is not None and not self.allowed:
            raise ValueError("no AE title is allowed to send; the names of those that may are accepted")
