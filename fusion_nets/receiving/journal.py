"""What became of every pair: one record each on disk, written anew at every step, so that a kill loses none."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from fusion_nets.files import sync, whole_file

from .rules import Facts, Rule
from .spool import objects_in

__all__ = ["FAILED", "FUSED", "FUSING", "PENDING", "SENT", "Journal", "Pair"]

logger = logging.getLogger(__name__)

PENDING, FUSING, FUSED, SENT, FAILED = "pending", "fusing", "fused", "sent", "failed"
"""States of a pair, in their order but for the last."""

_RECORD, _SENT, _RETRY = "pair.json", "sent.txt", "retry"


@dataclass(frozen=True)
class Pair:
    """A pair and its state.

    Attributes:
        id: of rule and series, 16 hexadecimal digits.
        rule: its name.
        study: folder of the study.
        anatomy: folder of the series.
        overlay: likewise.
        sources: digest of the objects of both, by which it is seen that some were added.
        state: one of the constants of this module.
        stage: "fusing" or "sending", where it failed.
        reason: why.
        fusings: how often fusing began and was not ended by an answer: the process was killed meanwhile.
        left: objects that an archive does not take, and need not.
    """

    id: str
    rule: str
    study: str
    anatomy: str
    overlay: str
    sources: str
    state: str = PENDING
    stage: str = ""
    reason: str = ""
    fusings: int = 0
    left: list[str] = field(default_factory=list)


class Journal:
    """The pairs of a spool.

    Args:
        folder: of the pairs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: dict[str, Pair] = {}
        for record in sorted(folder.glob(f"*/{_RECORD}")):
            pair = _read(record)
            if pair is not None:
                self.pairs[pair.id] = pair

    def add(self, rule: Rule, study: str, anatomy: Facts, overlay: Facts) -> Pair | None:
        """Note a pair that is to be fused; None where nothing of it changed since it was noted.

        What failed is fused anew when objects were added, and so is what was sent: with slices that came late it is
        another result.
        """
        names = anatomy.folder.name, overlay.folder.name
        identifier = _digest([rule.name, study, *names])
        sources = _digest([file.name for one in (anatomy, overlay) for file in objects_in(one.folder)])
        known = self.pairs.get(identifier)
        if known is not None and known.sources == sources:
            return None
        (self.folder / identifier / _SENT).unlink(missing_ok=True)
        return self.note(Pair(identifier, rule.name, study, *names, sources))

    def note(self, pair: Pair, **changes: object) -> Pair:
        """Have a pair's state on the disk."""
        changed = replace(pair, **changes)  # type: ignore[arg-type]
        with whole_file(self.folder / pair.id / _RECORD, durable=True) as partial:
            partial.write_text(json.dumps(asdict(changed), indent=1) + "\n", encoding="utf-8")
        self.pairs[pair.id] = changed
        return changed

    def next(self, *states: str) -> Iterator[Pair]:
        """The pairs in one of these states."""
        return iter([pair for pair in self.pairs.values() if pair.state in states])

    def counts(self) -> Counter[str]:
        """How many pairs there are in each state."""
        return Counter(dict.fromkeys((PENDING, FUSING, FUSED, SENT, FAILED), 0)) + Counter(
            pair.state for pair in list(self.pairs.values())
        )

    def output(self, pair: Pair) -> Path:
        """Where the results of a pair are."""
        return self.folder / pair.id / "out"

    def was_sent(self, pair: Pair, to: str) -> set[str]:
        """Names of the result's files that a destination has confirmed."""
        try:
            lines = (self.folder / pair.id / _SENT).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return set()
        return {name for place, _, name in (line.partition(" ") for line in lines) if place == to}

    def confirm(self, pair: Pair, to: str, names: list[str]) -> None:
        """Have on the disk that a destination has these files."""
        path = self.folder / pair.id / _SENT
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(f"{to} {name}\n" for name in names)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)

    def ask_again(self, wanted: list[str]) -> list[Pair]:
        """Have pairs that failed tried again, by the process that receives or the next one.

        Args:
            wanted: their IDs; empty for all that failed.

        Raises:
            ValueError: for an ID that is none of a pair that failed.
        """
        failed = {pair.id: pair for pair in self.next(FAILED)}
        for identifier in wanted:
            if identifier not in failed:
                known = f"{', '.join(failed)} are" if failed else "none is"
                raise ValueError(f"--retry: {identifier!r} is no pair that failed; {known} accepted")
        chosen = [failed[identifier] for identifier in wanted or failed]
        for pair in chosen:
            (self.folder / pair.id / _RETRY).touch()
        return chosen

    def take_asked(self) -> list[Pair]:
        """Pairs that are asked for again, which are pending from now on: from sending, where they were fused."""
        asked = []
        for pair in self.next(FAILED):
            mark = self.folder / pair.id / _RETRY
            if mark.exists():
                state = FUSED if pair.stage == "sending" else PENDING
                asked.append(self.note(pair, state=state, stage="", reason="", fusings=0))
                mark.unlink()
        return asked


def _read(record: Path) -> Pair | None:
    try:
        return Pair(**json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        logger.error("%s: no record of a pair (%s); it is left as it is", record, type(error).__name__)
        return None


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
