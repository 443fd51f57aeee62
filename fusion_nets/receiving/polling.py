"""What an Orthanc has received since it was asked last, by its REST interface."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from fusion_nets.files import whole_file
from fusion_nets.quiet import silence

from .counters import Counters
from .node import SOURCES, Tls, needs_pacs
from .sending import LOGGERS, PATIENCE, session
from .spool import Refusal, Refused, Spool

__all__ = ["Orthanc"]

logger = logging.getLogger(__name__)

CHANGES = 100
"""That are asked for at once."""


class Orthanc:
    """An archive that is asked for what is new, and the place in its list of changes up to which all is in the spool.

    The place is written after what stands before it: a kill has an object asked for again, and none passed over.

    Args:
        address: of the REST interface; user and password are taken from ``~/.netrc``.
        spool: that is open.
        counters: of what is taken.
        from_start: begin with the oldest change, not with the next one; where it was asked before, it goes on.
        tls: certificate of this node.

    Raises:
        ValueError: for another address.
    """

    def __init__(
        self, address: str, spool: Spool, counters: Counters, from_start: bool = False, tls: Tls | None = None
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("--poll is no address; http://HOST:PORT of an Orthanc, without a password, is accepted")
        self.address = address.rstrip("/")
        self.spool = spool
        self.counters = counters
        self.from_start = from_start
        self.place = spool.folder / f"changes-{sha256(self.address.encode()).hexdigest()[:8]}.json"
        try:
            self.session = session(tls)
        except ModuleNotFoundError as error:
            raise needs_pacs(error) from error
        self._answered = True
        self._is_done = False

    def ask(self) -> bool:
        """Take what is new into the spool.

        Returns:
            Whether the archive answered, and has nothing more.
        """
        from requests import RequestException

        self._is_done = False
        try:
            with silence(LOGGERS):
                for last in self._taken():
                    self._reach(last)
            if not self._answered:
                logger.warning("the polled archive answers again")
            self._answered = True
        except (RequestException, KeyError, TypeError, ValueError) as error:
            self.counters.add("poll_errors_total")
            if self._answered:
                logger.warning("the polled archive does not answer as it should (%s)", type(error).__name__)
            self._answered = False
        return self._is_done

    def _taken(self) -> Iterator[int]:
        """The places up to which all is in the spool, one after the other."""
        since = self._since()
        if since is None:
            yield int(self._get("/changes?last").json()["Last"])
            self._is_done = True
            return
        while True:
            answer = self._get(f"/changes?since={since}&limit={CHANGES}").json()
            for change in answer["Changes"]:
                if change["ChangeType"] == "NewInstance" and not self._take(str(change["ID"])):
                    return
            since = int(answer["Last"])
            yield since
            if answer["Done"]:
                self._is_done = True
                return

    def _take(self, instance: str) -> bool:
        """Whether an object is in the spool, or has no place there; there may be no room at present."""
        there = f"/instances/{quote(instance, safe='')}"
        sop_class = self._get(f"{there}/metadata/SopClassUid", missing=True)
        if sop_class is not None and sop_class.text.strip() not in SOURCES:
            return True
        answer = self._get(f"{there}/file", missing=True, stream=True)
        if answer is None:  # deleted meanwhile
            return True
        try:
            content = bytearray()
            for chunk in answer.iter_content(2**20):
                content += chunk
                if len(content) > self.spool.most_object:
                    raise Refused(Refusal.TOO_LARGE, "larger than is accepted")
            result = self.spool.store(bytes(content))
        except Refused as error:
            result = error.refusal.name.lower()
            logger.warning("an object of the polled archive is refused: %s", error)
        finally:
            answer.close()
        self.counters.add("objects_total", f'result="{result}"')
        return result != Refusal.FULL.name.lower()

    def _get(self, path: str, missing: bool = False, stream: bool = False) -> Any:
        answer = self.session.get(f"{self.address}{path}", timeout=PATIENCE, stream=stream)
        if missing and answer.status_code == 404:
            answer.close()
            return None
        answer.raise_for_status()
        return answer

    def _since(self) -> int | None:
        try:
            return int(json.loads(self.place.read_text(encoding="utf-8"))["last"])
        except FileNotFoundError:
            return 0 if self.from_start else None

    def _reach(self, last: int) -> None:
        with whole_file(self.place, durable=True) as partial:
            partial.write_text(json.dumps({"last": last}), encoding="utf-8")
